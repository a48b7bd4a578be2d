"""A patient's CT, bent: each vertebra moves as a rigid body, and everything between them follows smoothly.

Unlike the training's simulator, which adds separate projections of a CT taken apart, this one makes a new CT: at every
point of the bent body the rigid motions of all vertebrae are averaged, the nearer ones counting more; inside a vertebra
its own motion holds alone. Ribs and soft tissue go along, no tissue is invented, and vertebrae stay rigid.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from radgs.anatomy import LEVELS
from radgs.geometry import RigidTransform
from radgs.images import Volume

_FIELD_MM = 5.0  # of the grid on which the smooth motion is computed
_RIGID_MM = 3.0  # beyond its surface, a vertebra still holds its surroundings
_AIR_HU = -1000.0
_BODY_HU = -300.0  # denser is patient or table
_PATH = 2.5  # how fast a vertebra's say falls with distance: its power


class Body:
    """A patient without the CT scanner's table, continued beyond the CT's lowest slice.

    Args:
        ct: HU, axes parallel to LPS.
        labels: VerSe numbers on its grid.
        middle: ``[3]`` LPS mm; tissue further than ``reach_mm`` along z is left out.
        reach_mm: of the bent body, from ``middle``, along z.
        voxel_mm: of the bent body.
    """

    def __init__(
        self, ct: Volume, labels: Volume, middle: NDArray[np.float64], reach_mm: float = 190.0, voxel_mm: float = 1.0
    ) -> None:
        hu = without_table(ct)
        self.hu = _continued(ct.with_array(hu), middle[2], reach_mm)
        self.middle, self.reach_mm, self.voxel_mm = middle, reach_mm, voxel_mm
        self.masks, self.centres = {}, {}
        for level, number in LEVELS.items():
            mask = labels.array == number
            if level == "S" or not mask.any():
                continue
            part = _cut(ct, mask)
            self.masks[level] = part
            points = part.points(np.argwhere(part.array)[:, ::-1])
            self.centres[level] = (points.min(axis=0) + points.max(axis=0)) / 2
        self._distances = {level: _distance(mask) for level, mask in self.masks.items()}
        self._hu_image = self.hu.to_sitk()

    def bent(self, bent_from_ct: Mapping[str, RigidTransform]) -> Volume:
        """HU of the body with each vertebra at ``bent_from_ct``, on a grid parallel to LPS."""
        low, high = self.hu.corners.min(axis=0), self.hu.corners.max(axis=0)
        low[2], high[2] = max(low[2], self.middle[2] - self.reach_mm), min(high[2], self.middle[2] + self.reach_mm)
        size = np.floor((high - low) / self.voxel_mm).astype(int)
        field = sitk.DisplacementFieldTransform(self._field(low, high, bent_from_ct))
        resample = sitk.ResampleImageFilter()
        resample.SetNumberOfThreads(1)
        resample.SetSize(size.tolist())
        resample.SetOutputSpacing([self.voxel_mm] * 3)
        resample.SetOutputOrigin(low.tolist())
        resample.SetTransform(field)
        resample.SetDefaultPixelValue(_AIR_HU)
        resample.SetOutputPixelType(sitk.sitkFloat32)
        out = Volume.axis_parallel(sitk.GetArrayFromImage(resample.Execute(self._hu_image)), self.voxel_mm, low)
        done = np.zeros(out.array.shape, dtype=bool)
        for level, motion in bent_from_ct.items():
            self._place(out, done, level, motion)
        return out

    def _field(self, low: NDArray, high: NDArray, bent_from_ct: Mapping[str, RigidTransform]) -> sitk.Image:
        """From each point of the bent body to its point in the CT, less itself."""
        counts = np.ceil((high - low) / _FIELD_MM).astype(int) + 2
        axes = [low[i] + _FIELD_MM * np.arange(counts[i]) for i in range(3)]
        z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        points = np.stack([x, y, z], axis=-1)
        total, weights = np.zeros_like(points), np.zeros(points.shape[:3])
        for level, motion in bent_from_ct.items():
            there = motion.inverse().apply(points)
            far = np.maximum(_sample(self._distances[level], there) - _RIGID_MM, 0.0) + 0.5
            weight = far**-_PATH
            total += weight[..., None] * there
            weights += weight
        image = sitk.GetImageFromArray(total / weights[..., None] - points, isVector=True)
        image.SetSpacing([_FIELD_MM] * 3)
        image.SetOrigin(low.tolist())
        return image

    def _place(self, out: Volume, done: NDArray[np.bool_], level: str, motion: RigidTransform) -> None:
        """Write a vertebra over the smoothly bent body; where two would overlap, the denser one shows."""
        mask = self.masks[level]
        corners = (motion.apply(mask.corners) - out.lps_from_index[:3, 3]) / self.voxel_mm
        first = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
        last = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, np.array(out.array.shape[::-1]))
        if (last <= first).any():
            return
        box = tuple(slice(a, b) for a, b in zip(first[::-1], last[::-1], strict=True))
        index = np.stack(np.mgrid[box][::-1], axis=-1)
        there = motion.inverse().apply(out.points(index))
        inside = _sample(mask.with_array(mask.array.astype(np.float32)), there, outside=0.0) > 0.5
        hu = _sample(self.hu, there, outside=_AIR_HU)
        here, taken = out.array[box], done[box]
        here[inside] = np.where(taken, np.maximum(here, hu), hu)[inside]
        taken |= inside


def without_table(ct: Volume) -> NDArray[np.float32]:
    """HU with everything but the patient set to air: the largest body, slice by slice, its holes filled."""
    hu = ct.array.astype(np.float32)
    dense = ndimage.binary_opening(hu > _BODY_HU, iterations=2)
    found, _ = ndimage.label(dense)
    patient = found == np.bincount(found.ravel())[1:].argmax() + 1
    patient = np.stack([ndimage.binary_fill_holes(one) for one in patient])
    patient = ndimage.binary_dilation(patient, iterations=3)
    return np.where(patient, hu, _AIR_HU)


def _continued(ct: Volume, middle_z: float, reach_mm: float) -> Volume:
    """The CT with its slices mirrored at its ends, as far as ``reach_mm`` from the middle: patients go on there."""
    step, start = float(ct.spacing[2]), float(ct.lps_from_index[2, 3])
    end = start + step * (ct.array.shape[0] - 1)
    below = max(int(np.ceil((start - (middle_z - reach_mm)) / step)), 0)
    above = max(int(np.ceil((middle_z + reach_mm - end) / step)), 0)
    frame = ct.lps_from_index.copy()
    frame[:3, 3] = ct.points([0, 0, -below])
    return Volume(np.pad(ct.array, ((below, above), (0, 0), (0, 0)), mode="symmetric"), frame)


def _cut(ct: Volume, mask: NDArray[np.bool_]) -> Volume:
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in ndimage.find_objects(mask.astype(np.uint8))[0])
    frame = ct.lps_from_index.copy()
    frame[:3, 3] = ct.points([s.start for s in reversed(box)])
    return Volume(mask[box].copy(), frame)


def _distance(mask: Volume) -> Volume:
    """Distance to a vertebra, mm, on a coarse grid that holds it; see :func:`_sample` for points beyond."""
    low, high = mask.corners.min(axis=0) - 60, mask.corners.max(axis=0) + 60
    counts = np.ceil((high - low) / 3.0).astype(int)
    grid = Volume.axis_parallel(np.zeros(counts[::-1], dtype=np.float32), 3.0, low)
    points = grid.points(np.stack(np.mgrid[tuple(slice(n) for n in counts[::-1])][::-1], axis=-1))
    inside = _sample(mask.with_array(mask.array.astype(np.float32)), points, outside=0.0) > 0.3
    return grid.with_array(ndimage.distance_transform_edt(~inside, sampling=3.0).astype(np.float32))


def _sample(volume: Volume, points: NDArray[np.float64], outside: float | None = None) -> NDArray[np.float32]:
    """Linear interpolation; beyond the volume ``outside``, else the distance to the volume is added."""
    index = (points - volume.lps_from_index[:3, 3]) / np.diagonal(volume.lps_from_index)[:3]
    places = np.moveaxis(index, -1, 0)[::-1]
    if outside is not None:
        return ndimage.map_coordinates(volume.array, places, order=1, mode="constant", cval=outside)
    inner = np.clip(index, 0, np.array(volume.array.shape[::-1]) - 1)
    beyond = np.linalg.norm((index - inner) * volume.spacing, axis=-1)
    return ndimage.map_coordinates(volume.array, np.moveaxis(inner, -1, 0)[::-1], order=1) + beyond
