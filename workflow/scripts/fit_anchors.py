from radgs.anatomy import fit_anchors
from radgs.cli import run_rule

run_rule(snakemake, lambda config: fit_anchors(snakemake.input.excess, snakemake.output.anchors, config))
