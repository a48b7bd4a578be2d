from pathlib import Path

from radgs.cli import run_rule
from radgs.report import write_ablation

about = snakemake.params.about
models = Path(snakemake.input.cards[0]).parents[2]
run_rule(
    snakemake,
    lambda config: write_ablation(
        dict(zip(about, snakemake.input.measured, strict=True)),
        about,
        models,
        snakemake.output.table,
        snakemake.output.figure,
    ),
)
