from radgs.cli import run_rule
from radgs.simulation import simulate_radiographs

run_rule(
    snakemake,
    lambda config: simulate_radiographs(
        snakemake.input.ct,
        snakemake.input.vertebrae,
        snakemake.input.audit,
        snakemake.output.radiographs,
        config,
    ),
)
