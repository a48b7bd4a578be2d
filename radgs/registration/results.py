"""The files of a registration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from radgs.anatomy import VertebraCrop
from radgs.gaussians import write_ply
from radgs.images import (
    Frames,
    Volume,
    atomic_path,
    resample_like,
    write_json,
    write_spatial_registration,
    write_transforms,
    write_volume,
)
from radgs.registration.attention import write_attention
from radgs.registration.initialize import Estimate
from radgs.registration.register import Registration

_POINTS = 300


def _world_volume(array: NDArray[np.float32], found: Estimate) -> Volume:
    """A volume on the estimate's grid, placed in the world."""
    frame = np.diag([*[found.grid.spacing_mm] * 3, 1.0])
    frame[:3, 3] = found.grid.origin
    return Volume(array, found.world_from_crop.matrix @ frame)


def write_registration(
    folder: Path,
    result: Registration,
    crop: VertebraCrop,
    frames: Frames | None = None,
    subject: Mapping[str, str] | None = None,
) -> None:
    """Write one level's files (DESIGN section 4) into ``folder``.

    Args:
        folder: of the level.
        result: its pose and verdict.
        crop: of the CT.
        frames: the frames of reference that a DICOM Spatial Registration object links; absent: none is written. None is
            written of a rejected pose either: such a file may be loaded without its verdict being read.
        subject: see :func:`radgs.images.write_spatial_registration`.
    """
    found, ct_from_world = result.estimate, result.refined.inverse()
    steps = {"detected": found.detected, "regm": found.regm, "refined": result.refined}
    write_transforms(
        folder / "world_from_ct.json",
        {result.level: result.refined},
        steps={name: pose.matrix.tolist() for name, pose in steps.items()},
        **({"camera_corrections": camera_corrections(result, crop)} if result.cameras else {}),
        seconds=result.seconds,
    )
    itk = sitk.AffineTransform(3)
    itk.SetMatrix(ct_from_world.rotation.ravel().tolist())
    itk.SetTranslation(ct_from_world.translation.tolist())
    with atomic_path(folder / "ct_from_world.tfm") as part:
        sitk.WriteTransform(itk, str(part))
    write_ply(folder / "gaussians.ply", found.gaussians.moved(found.world_from_crop.tensor().float()))
    for kind, volume in found.reconstructions.items():
        write_volume(folder / f"reconstruction_{kind}.nii.gz", _world_volume(volume.numpy(), found))
    grid = _world_volume(next(iter(found.reconstructions.values())).numpy(), found)
    registered = resample_like(crop.excess, grid, volume_from_grid=ct_from_world.matrix)
    write_volume(folder / "registered_ct.nii.gz", registered)
    write_attention(folder / "attention.h5", found.attention)
    write_json(folder / "verdict.json", result.verdict.to_json() | {"covariance": _covariance(result, crop)})
    if frames and result.verdict.verdict != "rejected":
        said = f"{result.level}: {result.verdict.verdict}, P(error < 2 mm) {result.verdict.probability:.3f}"
        write_spatial_registration(
            folder / "spatial_registration.dcm", result.refined, frames, result.level, said, subject
        )


def camera_corrections(result: Registration, crop: VertebraCrop) -> dict[str, Any]:
    """By view, how much the world turned, and moved the vertebra's middle, before the camera."""
    middle = result.refined.apply(crop.points(_POINTS).mean(axis=0))
    return {
        view: {"turn_deg": np.degrees(move.angle()), "shift_mm": float(np.linalg.norm(move.apply(middle) - middle))}
        for view, move in result.cameras.items()
    }


def _covariance(result: Registration, crop: VertebraCrop) -> dict[str, Any] | None:
    if result.covariance is None:
        return None
    points = result.refined.apply(crop.points(_POINTS))
    return result.covariance.to_json() | {"rms_mm": result.covariance.rms_mm(points)}
