import os

# Only PyTorch computes here: a pool that spins while it waits takes nobody's cores. To be said before any import.
os.environ["OMP_WAIT_POLICY"] = "ACTIVE"

from pathlib import Path

from radgs.cli import run_rule
from radgs.training import train_detector

run_rule(
    snakemake,
    lambda config: train_detector(snakemake.input.radiographs, Path(snakemake.output.weights).parent, config),
)
