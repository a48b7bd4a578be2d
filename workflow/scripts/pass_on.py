from radgs.cli import run_rule
from radgs.training import pass_on

initial = snakemake.input[0] if snakemake.input else None
run_rule(
    snakemake,
    lambda config: pass_on(initial, snakemake.output[0], config, snakemake.params.stage, snakemake.params.reason),
)
