from pathlib import Path

from radgs.anatomy import detect_trained
from radgs.cli import run_rule

run_rule(
    snakemake,
    lambda config: detect_trained(
        snakemake.input.xrays,
        snakemake.input.cameras,
        snakemake.input.ct,
        snakemake.input.vertebrae,
        Path(snakemake.input.weights).parent,
        snakemake.output.levels,
        config,
    ),
)
