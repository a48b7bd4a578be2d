from pathlib import Path

from radgs.cli import run_rule
from radgs.simulation import make_demo_shots

folder = Path(snakemake.output[0]).parents[1]
run_rule(
    snakemake,
    lambda config: make_demo_shots(
        snakemake.input.ct, snakemake.input.labels, folder, folder / "truth", snakemake.params.shots, config
    ),
)
