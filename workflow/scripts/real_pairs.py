from pathlib import Path

from radgs.cli import by_level, run_rule
from radgs.training import RealShot, real_pairs

files = snakemake.input
shots = [RealShot(*map(Path, one)) for one in zip(files.xrays, files.cameras, files.located, files.truth, strict=True)]
run_rule(
    snakemake,
    lambda config: real_pairs(
        shots,
        by_level(config, files.excess),
        by_level(config, files.mask),
        by_level(config, files.anchors),
        snakemake.output.shard,
        config,
        snakemake.wildcards.patient,
    ),
)
