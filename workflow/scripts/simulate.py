from radgs.cli import run_rule
from radgs.simulation import simulate_pairs

run_rule(
    snakemake,
    lambda config: simulate_pairs(
        snakemake.input.ct,
        snakemake.input.vertebrae,
        config.levels,
        snakemake.output.pairs,
        config,
        snakemake.params.get("patient") or snakemake.wildcards.patient,
    ),
)
