"""Volumes on a regular grid, in LPS millimetres. NIfTI's RAS ends at this door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from radgs.errors import ImageError
from radgs.images.files import atomic_path
from radgs.images.nifti import is_nifti, read_nifti, write_nifti

_ORTHOGONAL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Volume:
    """Values on a grid that may be oblique, flipped and anisotropic.

    Attributes:
        array: ``[D, H, W]`` (z, y, x).
        lps_from_index: ``[4, 4]`` float64; maps an index (x, y, z) to a point in LPS mm. Index (0, 0, 0) is
            the centre of the first voxel.
    """

    array: NDArray[np.generic]
    lps_from_index: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or np.shape(self.lps_from_index) != (4, 4):
            raise ImageError(f"a volume has three axes and a 4x4 affine, got {self.array.shape}")

    @classmethod
    def axis_parallel(
        cls, array: NDArray[np.generic], spacing_mm: float | Sequence[float], origin: ArrayLike
    ) -> Volume:
        """A volume whose axes are those of LPS; ``origin`` is the centre of voxel (0, 0, 0), mm."""
        affine = np.diag([*np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), 3), 1.0])
        affine[:3, 3] = origin
        return cls(array, affine)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size along the index axes x, y, z, mm."""
        return np.asarray(np.linalg.norm(self.lps_from_index[:3, :3], axis=0), dtype=np.float64)

    @property
    def index_from_lps(self) -> NDArray[np.float64]:
        """``[4, 4]``: LPS mm to index (x, y, z)."""
        return np.asarray(np.linalg.inv(self.lps_from_index), dtype=np.float64)

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """``[8, 3]`` LPS mm: centres of the corner voxels."""
        d, h, w = self.array.shape
        index = np.stack(np.meshgrid([0, w - 1], [0, h - 1], [0, d - 1], indexing="ij"), -1).reshape(-1, 3)
        return self.points(index)

    def points(self, index: ArrayLike) -> NDArray[np.float64]:
        """Indices ``[..., 3]`` (x, y, z) to LPS mm."""
        return np.asarray(index, dtype=np.float64) @ self.lps_from_index[:3, :3].T + self.lps_from_index[:3, 3]

    def with_array(self, array: NDArray[np.generic]) -> Volume:
        """Other values on the same grid."""
        if array.shape != self.array.shape:
            raise ImageError(f"the grid has shape {self.array.shape}, the new values {array.shape}")
        return replace(self, array=array)

    def binned_in_plane(self, factor: int) -> Volume:
        """Means over ``factor x factor`` voxels along x and y (what does not fill a block is cut)."""
        d, h, w = self.array.shape
        h2, w2 = h // factor, w // factor
        blocks = self.array[:, : h2 * factor, : w2 * factor].reshape(d, h2, factor, w2, factor)
        step = np.diag([factor, factor, 1.0, 1.0])
        step[:2, 3] = (factor - 1) / 2
        return Volume(np.ascontiguousarray(blocks.mean(axis=(2, 4))), self.lps_from_index @ step)

    def same_grid(self, other: Volume, tolerance_mm: float = 0.01) -> bool:
        """Whether voxel centres coincide."""
        if self.array.shape != other.array.shape:
            return False
        return bool(np.abs(self.corners - other.corners).max() <= tolerance_mm)

    def to_sitk(self) -> sitk.Image:
        """As a SimpleITK image (a copy)."""
        array = self.array.astype(np.uint8) if self.array.dtype == np.bool_ else self.array
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetSpacing(self.spacing.tolist())
        image.SetOrigin(self.lps_from_index[:3, 3].tolist())
        image.SetDirection((self.lps_from_index[:3, :3] / self.spacing).ravel().tolist())
        return image

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """From a three-dimensional SimpleITK image."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
        return cls(sitk.GetArrayFromImage(image), affine)


def read_volume(path: str | Path) -> Volume:
    """Read a CT or label map (NIfTI, NRRD, MetaImage).

    Raises:
        ImageError: the file is missing, truncated, not three-dimensional, sheared, has no extent or holds NaN.
    """
    path = Path(path)
    volume = _read_nifti_volume(path) if is_nifti(path) else _read_itk_volume(path)
    spacing, size = volume.spacing, volume.array.shape[::-1]
    if min(size) < 2 or not (np.isfinite(volume.lps_from_index).all() and spacing.min() > 0):
        raise ImageError(f"{path}: size {size} and spacing {spacing.tolist()} mm make no volume")
    axes = volume.lps_from_index[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > _ORTHOGONAL_TOLERANCE:
        raise ImageError(f"{path}: its axes are not at right angles (gantry tilt?); resample it to a regular grid")
    if np.issubdtype(volume.array.dtype, np.floating) and not np.isfinite(volume.array).all():
        raise ImageError(f"{path}: holds NaN or infinite values; replace them before use")
    return volume


def _read_nifti_volume(path: Path) -> Volume:
    array, lps_from_index = read_nifti(path)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ImageError(f"{path}: one number a voxel is needed, this file holds {array.dtype}")
    if array.ndim != 3:
        raise ImageError(f"{path}: a single three-dimensional image is needed, got size {array.shape[::-1]}")
    return Volume(array, lps_from_index)


def _read_itk_volume(path: Path) -> Volume:
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise ImageError(f"{path}: cannot be read, is it complete? ({reason})") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ImageError(f"{path}: a single three-dimensional image is needed, got size {image.GetSize()}")
    return Volume.from_sitk(image)


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write NIfTI (or what the file name says) atomically."""
    if is_nifti(path):
        write_nifti(path, volume.array, volume.lps_from_index)
        return
    with atomic_path(path) as part:
        sitk.WriteImage(volume.to_sitk(), str(part), useCompression=True, compressionLevel=1)


def resample_like(
    volume: Volume,
    grid: Volume,
    *,
    nearest: bool = False,
    outside: float = 0.0,
    volume_from_grid: NDArray[np.float64] | None = None,
) -> Volume:
    """The values of ``volume`` at the voxel centres of ``grid``.

    Args:
        volume: what to sample.
        grid: where; its own values are not used.
        nearest: nearest neighbour (label maps) instead of linear.
        outside: the value beyond the volume.
        volume_from_grid: ``[4, 4]`` rigid, maps points of the grid's frame to the volume's; identity if absent.
    """
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(grid.to_sitk())
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resampler.SetDefaultPixelValue(outside)
    if volume_from_grid is not None:
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(volume_from_grid[:3, :3].ravel().tolist())
        transform.SetTranslation(volume_from_grid[:3, 3].tolist())
        resampler.SetTransform(transform)
    return Volume.from_sitk(resampler.Execute(volume.to_sitk()))
