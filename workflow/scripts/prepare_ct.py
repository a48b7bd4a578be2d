from radgs.cli import run_rule
from radgs.images import prepare_ct

run_rule(
    snakemake,
    lambda config: prepare_ct(snakemake.input.ct, snakemake.output.ct, snakemake.output.about),
)
