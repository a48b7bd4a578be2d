from pathlib import Path

from radgs.cli import by_level, run_rule
from radgs.training import train_joint

run_rule(
    snakemake,
    lambda config: train_joint(
        snakemake.input.pairs,
        by_level(config, snakemake.input.excess),
        by_level(config, snakemake.input.anchors),
        Path(snakemake.input.recm).parent,
        Path(snakemake.input.regm).parent,
        Path(snakemake.output.card).parent,
        config,
    ),
)
