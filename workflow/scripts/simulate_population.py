from radgs.cli import run_rule
from radgs.simulation import simulate_population

row = snakemake.params.subject
run_rule(
    snakemake,
    lambda config: simulate_population(
        row["ct"] or None,
        row["labels"],
        row["levels"].split(),
        row["leave_out"].split(),
        snakemake.wildcards.subject,
        int(snakemake.wildcards.variant),
        snakemake.output.shard,
        config,
    ),
)
