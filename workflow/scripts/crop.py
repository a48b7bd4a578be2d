from radgs.anatomy import crop_vertebrae
from radgs.cli import run_rule

run_rule(
    snakemake,
    lambda config: crop_vertebrae(
        snakemake.input.ct,
        snakemake.input.vertebrae,
        {snakemake.wildcards.level: (snakemake.output.excess, snakemake.output.mask)},
        config,
    ),
)
