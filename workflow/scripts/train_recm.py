from pathlib import Path

from radgs.cli import by_level, run_rule
from radgs.training import train_recm

run_rule(
    snakemake,
    lambda config: train_recm(
        snakemake.input.pairs,
        by_level(config, snakemake.input.excess),
        by_level(config, snakemake.input.anchors),
        snakemake.input.initial,
        Path(snakemake.output.weights).parent,
        config,
    ),
)
