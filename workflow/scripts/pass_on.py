from pathlib import Path

from radgs.cli import run_rule
from radgs.training import pass_on

initial = Path(snakemake.input[0]).parent if snakemake.input else None
run_rule(
    snakemake,
    lambda config: pass_on(
        initial, Path(snakemake.output[0]).parent, config, snakemake.params.stage, snakemake.params.reason
    ),
)
