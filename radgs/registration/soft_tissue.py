"""Everything between the vertebrae, bent along with them: where edges that are no vertebra's will show.

Ribs, diaphragm and skin follow the spine roughly. What they do beyond that is found in the X-rays themselves, see
:mod:`radgs.registration.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from radgs.anatomy import cranio_caudal
from radgs.anatomy.beyond import repeated
from radgs.geometry import RigidTransform
from radgs.images import Volume
from radgs.projection import project
from radgs.registration.consensus import consensus
from radgs.registration.view import View

_VOXEL_MM, _STEP_MM = 3.0, 2.0
_FIELD_MM = 10.0  # grid of the smooth motion
_BEYOND_MM = 120.0  # the last slices are repeated: a CT's end is no edge of the patient
_ARM_MM = 20.0  # half the width of a vertebral body: where the motions of levels are averaged
_STRAIGHT = 1e-4  # radians or mm: not bent at all
_LAYER_MM = 100.0  # thickness, about
_TISSUE_MU = 0.004  # denser is not air
_BODY_MU = 0.013  # denser is patient or couch


class SoftTissue:
    """A CT without its vertebrae, ready to be bent and drawn.

    Args:
        soft: 1/mm.
        centres: by level, middle of the vertebra, ``[3]`` LPS mm.
    """

    def __init__(self, soft: Volume, centres: Mapping[str, NDArray[np.float64]]) -> None:
        self.rest = _upright(soft)
        self.levels = cranio_caudal(centres)
        self.centres = np.stack([centres[level] for level in self.levels])

    def bent(self, world_from_ct: Mapping[str, RigidTransform]) -> tuple[Volume, RigidTransform]:
        """The tissue with each slab of it moved as the vertebra at its height; in between, motions are mixed.

        Args:
            world_from_ct: by level.

        Returns:
            1/mm, in a frame of the body, and world_from_body.
        """
        arms = _ARM_MM * np.concatenate([np.eye(3), -np.eye(3)])
        points = {level: centre + arms for level, centre in zip(self.levels, self.centres, strict=True)}
        world_from_body, _ = consensus({level: world_from_ct[level] for level in self.levels}, points)
        ct_from_body = [world_from_ct[level].inverse() @ world_from_body for level in self.levels]
        if max(float(np.abs(m.matrix - np.eye(4)).max()) for m in ct_from_body) < _STRAIGHT:
            return self.rest, world_from_body
        field = self._field(ct_from_body)
        resample = sitk.ResampleImageFilter()
        resample.SetReferenceImage(self.rest.to_sitk())
        resample.SetTransform(sitk.DisplacementFieldTransform(field))
        resample.SetOutputPixelType(sitk.sitkFloat32)
        return self.rest.with_array(sitk.GetArrayFromImage(resample.Execute(self.rest.to_sitk()))), world_from_body

    def draw(self, world_from_body: RigidTransform, view: View) -> Float[Tensor, "H W"]:
        """Line integrals of the tissue, not bent; no gradient."""
        pose = (view.camera.camera_from_world @ world_from_body).tensor()[None]
        k, size = torch.from_numpy(view.camera.K.copy())[None], (view.camera.height, view.camera.width)
        part, index_from_body = _cut(self.rest, np.asarray(self.rest.array, np.float32))
        with torch.no_grad():
            return project(part, index_from_body, k, pose, size, step_mm=_STEP_MM)[0]

    def _field(self, ct_from_body: list[RigidTransform]) -> sitk.Image:
        """From each point of the body to its point in the CT, less itself."""
        low, high = self.rest.corners.min(axis=0) - _FIELD_MM, self.rest.corners.max(axis=0) + _FIELD_MM
        axes = [np.arange(a, b + _FIELD_MM, _FIELD_MM) for a, b in zip(low, high, strict=True)]
        z, y, x = np.meshgrid(*reversed(axes), indexing="ij")
        points = np.stack([x, y, z], axis=-1)
        places = np.stack([m.inverse().apply(c) for m, c in zip(ct_from_body, self.centres, strict=True)])
        axis = places[0] - places[-1] if len(places) > 1 else np.array([0.0, 0.0, 1.0])
        at = np.interp(-(points @ axis), -(places @ axis), np.arange(len(places), dtype=float))
        total = np.zeros_like(points)
        for k, motion in enumerate(ct_from_body):
            share = np.clip(1 - np.abs(at - k), 0, None)
            total += share[..., None] * motion.apply(points)
        image = sitk.GetImageFromArray(total - points, isVector=True)
        image.SetSpacing([_FIELD_MM] * 3)
        image.SetOrigin(low.tolist())
        return image


def _upright(soft: Volume) -> Volume:
    """The patient alone, on a coarser grid parallel to LPS, with the last slices repeated beyond the ends."""
    image = soft.to_sitk()
    image = sitk.BinShrink(image, [max(int(_VOXEL_MM / s), 1) for s in image.GetSpacing()])
    low, high = soft.corners.min(axis=0), soft.corners.max(axis=0)
    resample = sitk.ResampleImageFilter()
    resample.SetSize(np.ceil((high - low) / _VOXEL_MM).astype(int).tolist())
    resample.SetOutputSpacing([_VOXEL_MM] * 3)
    resample.SetOutputOrigin((low + _VOXEL_MM / 2).tolist())
    resample.SetOutputPixelType(sitk.sitkFloat32)
    resample.SetUseNearestNeighborExtrapolator(True)
    array: NDArray[np.float32] = sitk.GetArrayFromImage(resample.Execute(image))
    patient = np.where(_patient(array), array, 0).astype(np.float32)
    return repeated(Volume.axis_parallel(patient, _VOXEL_MM, low + _VOXEL_MM / 2), _BEYOND_MM)


def _patient(mu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest body and what it encloses, slice by slice: the CT's couch stays behind in the CT."""
    dense = ndimage.binary_opening(mu > _BODY_MU, iterations=2)
    found, _ = ndimage.label(dense)
    sizes = np.bincount(found.ravel())[1:]
    if not sizes.size:
        return np.ones(mu.shape, dtype=bool)
    body = ndimage.binary_dilation(found == sizes.argmax() + 1, iterations=3)
    return np.stack([ndimage.binary_fill_holes(one) for one in body])


def draw_layers(tissue: Volume, world_from_body: RigidTransform, view: View) -> Float[Tensor, "B H W"]:
    """Line integrals of the tissue in layers along the view's axis; layers overlap linearly and add up to the whole."""
    camera_from_body = view.camera.camera_from_world @ world_from_body
    depth = _affine_depth(tissue, camera_from_body)
    dense = depth[np.greater(tissue.array, _TISSUE_MU)]
    ends = (float(dense.min()), float(dense.max())) if dense.size else (0.0, 1.0)
    count = max(round((ends[1] - ends[0]) / _LAYER_MM), 1) + 1
    at = np.clip((depth - ends[0]) / (ends[1] - ends[0]) * (count - 1), 0, count - 1)
    k = torch.from_numpy(view.camera.K.copy())[None]
    size = (view.camera.height, view.camera.width)
    layers = []
    for layer in range(count):
        values = tissue.array * np.clip(1 - np.abs(at - layer), 0, None)
        part, index_from_body = _cut(tissue, values.astype(np.float32))
        pose = camera_from_body.tensor()[None]
        with torch.no_grad():
            layers.append(project(part, index_from_body, k, pose, size, step_mm=_STEP_MM)[0])
    return torch.stack(layers)


def _affine_depth(volume: Volume, camera_from_body: RigidTransform) -> NDArray[np.float32]:
    """Depth of every voxel, ``[D, H, W]`` mm."""
    row = camera_from_body.matrix[2] @ volume.lps_from_index
    d, h, w = (np.arange(n) for n in volume.array.shape)
    return (row[0] * w + row[1] * h[:, None] + row[2] * d[:, None, None] + row[3]).astype(np.float32)


def _cut(volume: Volume, values: NDArray[np.float32]) -> tuple[Float[Tensor, "d h w"], Float64[Tensor, "4 4"]]:
    """The box of what is not empty, one voxel wider so that it fades as it does in the volume, and its frame."""
    index_from_body = volume.index_from_lps.copy()
    spans = [np.flatnonzero(values.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not all(len(span) for span in spans):
        return torch.zeros(2, 2, 2), torch.from_numpy(index_from_body)
    first = [max(int(span[0]) - 1, 0) for span in spans]
    box = tuple(slice(a, int(span[-1]) + 2) for a, span in zip(first, spans, strict=True))
    index_from_body[:3, 3] -= np.array(first[::-1])
    return torch.from_numpy(np.ascontiguousarray(values[box])), torch.from_numpy(index_from_body)
