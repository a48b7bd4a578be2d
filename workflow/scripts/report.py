from radgs.cli import run_rule
from radgs.report import write_report

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
    ),
)
