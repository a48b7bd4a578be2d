"""What was measured, and the file formats: CT volumes, label maps, X-rays."""

from radgs.images.attenuation import attenuation_of_bone, attenuation_of_water, hu_to_mu
from radgs.images.files import atomic_path, read_json, read_transforms, write_json, write_transforms
from radgs.images.prepare import prepare_ct, prepare_xrays, read_ct
from radgs.images.volume import Volume, read_volume, resample_like, write_volume
from radgs.images.xray import (
    Xray,
    read_cameras,
    read_counts,
    read_view_specs,
    read_xrays,
    to_line_integrals,
    write_xrays,
)

__all__ = [
    "Volume",
    "Xray",
    "atomic_path",
    "attenuation_of_bone",
    "attenuation_of_water",
    "hu_to_mu",
    "prepare_ct",
    "prepare_xrays",
    "read_cameras",
    "read_counts",
    "read_ct",
    "read_json",
    "read_transforms",
    "read_view_specs",
    "read_volume",
    "read_xrays",
    "resample_like",
    "to_line_integrals",
    "write_json",
    "write_transforms",
    "write_volume",
    "write_xrays",
]
