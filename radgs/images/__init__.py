"""What was measured, and the file formats: CT volumes, label maps, X-rays."""

from radgs.images.attenuation import attenuation_of_bone, attenuation_of_water, hu_to_mu
from radgs.images.ct_dicom import read_ct_dicom
from radgs.images.dicom import is_dicom
from radgs.images.files import atomic_path, read_json, read_transforms, write_json, write_transforms
from radgs.images.prepare import ct_doubts, prepare_ct, prepare_xrays, read_ct, read_view_geometry, read_xray
from radgs.images.spatial_registration import (
    Frames,
    check_subject,
    read_frame_uid,
    world_frame,
    write_spatial_registration,
)
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
from radgs.images.xray_dicom import Exposure, read_xray_dicom

__all__ = [
    "Exposure",
    "Frames",
    "Volume",
    "Xray",
    "atomic_path",
    "attenuation_of_bone",
    "attenuation_of_water",
    "check_subject",
    "ct_doubts",
    "hu_to_mu",
    "is_dicom",
    "prepare_ct",
    "prepare_xrays",
    "read_cameras",
    "read_counts",
    "read_ct",
    "read_ct_dicom",
    "read_frame_uid",
    "read_json",
    "read_transforms",
    "read_view_geometry",
    "read_view_specs",
    "read_volume",
    "read_xray",
    "read_xray_dicom",
    "read_xrays",
    "resample_like",
    "to_line_integrals",
    "world_frame",
    "write_json",
    "write_spatial_registration",
    "write_transforms",
    "write_volume",
    "write_xrays",
]
