from radgs.anatomy import fit_anchors
from radgs.cli import run_rule


def fit_all(config):
    for excess, ply in zip(snakemake.input.excess, snakemake.output.anchors, strict=True):
        fit_anchors(excess, ply, config)


run_rule(snakemake, fit_all)
