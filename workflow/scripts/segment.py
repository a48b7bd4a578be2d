from radgs.anatomy import segment
from radgs.cli import run_rule

run_rule(
    snakemake,
    lambda config: segment(
        snakemake.input.ct,
        snakemake.input.labels,
        snakemake.output.vertebrae,
        snakemake.output.audit,
        config,
    ),
)
