from pathlib import Path

from radgs.cli import run_rule
from radgs.training import train_detector

run_rule(
    snakemake,
    lambda config: train_detector(snakemake.input.radiographs, Path(snakemake.output.weights).parent, config),
)
