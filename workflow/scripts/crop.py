from radgs.anatomy import crop_vertebra
from radgs.cli import run_rule


def crop_all(config):
    targets = zip(snakemake.params.levels, snakemake.output.excess, snakemake.output.mask, strict=True)
    for level, excess, mask in targets:
        crop_vertebra(snakemake.input.ct, snakemake.input.vertebrae, level, excess, mask, config)


run_rule(snakemake, crop_all)
