from radgs.cli import run_rule
from radgs.report import write_report


def named(cards):
    """Stage and card: results/models/p3/demo/recm/card.json is p3/demo/recm."""
    return [(card.split("/models/", 1)[1].rsplit("/", 1)[0], card) for card in cards]


run_rule(
    snakemake,
    lambda config: write_report(
        config.results,
        snakemake.params.shots,
        snakemake.params.notes,
        snakemake.input.csv,
        snakemake.input.summary,
        snakemake.output.html,
        config.report,
        {patient: named(cards) for patient, cards in snakemake.params.stages.items()},
    ),
)
