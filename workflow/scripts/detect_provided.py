from radgs.anatomy import detect_provided
from radgs.cli import run_rule
from radgs.errors import ConfigError


def detect(config):
    if len(snakemake.input.boxes) != 1:
        raise ConfigError(
            f"{config.xrays}: patient {snakemake.wildcards.patient}, shot {snakemake.wildcards.shot}: the views "
            f"must name one file of boxes, they name {len(snakemake.input.boxes)}"
        )
    detect_provided(
        snakemake.input.cameras,
        snakemake.input.boxes[0],
        snakemake.params.images,
        snakemake.output.levels,
        config,
    )


run_rule(snakemake, detect)
