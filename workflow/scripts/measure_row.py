from pathlib import Path

from radgs.cli import by_level, run_rule
from radgs.evaluation import COMPARED_VOXELS, write_measured
from radgs.training import read_patient

files = snakemake.input


def measure(config):
    crops, anchors = by_level(config, files.excess), by_level(config, files.anchors)
    write_measured(
        Path(files.card).parent, read_patient(files.pairs, crops, anchors, COMPARED_VOXELS), snakemake.output.csv
    )


run_rule(snakemake, measure)
