from radgs.cli import run_rule
from radgs.simulation import simulate_pairs

run_rule(
    snakemake,
    lambda config: simulate_pairs(
        snakemake.input.ct,
        snakemake.input.vertebrae,
        snakemake.params.levels,
        snakemake.output.pairs,
        config,
        snakemake.wildcards.patient,
    ),
)
