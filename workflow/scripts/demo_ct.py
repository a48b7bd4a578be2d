from radgs.cli import run_rule
from radgs.simulation import fetch_demo_ct

run_rule(
    snakemake,
    lambda config: fetch_demo_ct(snakemake.output.ct, snakemake.output.labels, snakemake.params.cache),
)
