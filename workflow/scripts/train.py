from pathlib import Path

from radgs.cli import by_level, run_rule
from radgs.training import read_patient, read_shards, train_joint, train_recm, train_regm

files, folder = snakemake.input, Path(snakemake.output.card).parent
initial = Path(files.initial).parent if files.get("initial") else None
kind = snakemake.wildcards.stage.split("/")[0]


def read(config):
    if kind in ("p1", "p2"):
        return read_shards(files.shards, of_population=kind == "p1")
    crops, anchors = by_level(config, files.excess), by_level(config, files.anchors)
    return read_patient(files.pairs, crops, anchors, config.network.volume_voxels, level=snakemake.params.level)


def train(config):
    data = read(config)
    settings = {"p1": config.population, "p2": config.real}.get(kind, config).training
    if snakemake.rule == "train_recm":
        train_recm(data, initial, folder, config, settings)
    elif snakemake.rule == "train_regm":
        train_regm(data, Path(files.recm).parent, initial, folder, config, settings)
    else:
        train_joint(data, Path(files.recm).parent, Path(files.regm).parent, folder, config, settings)


run_rule(snakemake, train)
