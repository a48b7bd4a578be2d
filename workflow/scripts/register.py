from pathlib import Path

from radgs.cli import by_level, run_rule
from radgs.registration import register_shot

folders = [Path(weights).parent for weights in snakemake.input.recm]


def models(config):
    """One folder for all levels, or one for each."""
    return by_level(config, folders) if config.training.networks == "level" else folders[0]


run_rule(
    snakemake,
    lambda config: register_shot(
        snakemake.input.ct,
        snakemake.input.vertebrae,
        snakemake.input.audit,
        by_level(config, snakemake.input.excess),
        by_level(config, snakemake.input.mask),
        by_level(config, snakemake.input.anchors),
        snakemake.input.xrays,
        snakemake.input.cameras,
        snakemake.input.levels,
        models(config),
        Path(snakemake.output.registrations).parent,
        config,
        ct_about=snakemake.input.ct_about,
    ),
)
