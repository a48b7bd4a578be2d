from pathlib import Path

from radgs.cli import run_rule
from radgs.report import write_report


def stages(config):
    """By patient, name and card of each stage: models/p3/demo/recm/card.json is of p3/demo/recm."""
    models = config.results / "models"
    return {
        patient: [(str(Path(card).parent.relative_to(models)), card) for card in cards]
        for patient, cards in snakemake.params.stages.items()
    }


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
        stages(config),
    ),
)
