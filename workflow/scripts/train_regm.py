from pathlib import Path

from radgs.cli import by_level, run_rule
from radgs.training import train_regm

run_rule(
    snakemake,
    lambda config: train_regm(
        snakemake.input.pairs,
        by_level(config, snakemake.input.excess),
        by_level(config, snakemake.input.anchors),
        Path(snakemake.input.recm).parent,
        snakemake.input.initial,
        Path(snakemake.output.weights).parent,
        config,
    ),
)
