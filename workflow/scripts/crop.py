from radgs.anatomy import crop_vertebra
from radgs.cli import run_rule

run_rule(
    snakemake,
    lambda config: crop_vertebra(
        snakemake.input.ct,
        snakemake.input.vertebrae,
        snakemake.wildcards.level,
        snakemake.output.excess,
        snakemake.output.mask,
        config,
    ),
)
