from radgs.cli import run_rule
from radgs.images import prepare_xrays

images = dict(zip(snakemake.params.views, snakemake.input.images, strict=True))
geometry = dict(zip(snakemake.params.views, snakemake.input.geometry, strict=True))
run_rule(
    snakemake,
    lambda config: prepare_xrays(images, geometry, snakemake.output.xrays, snakemake.output.cameras),
)
