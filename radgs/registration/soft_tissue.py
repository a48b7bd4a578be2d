"""Everything between the vertebrae, bent along with them: where edges that are no vertebra's will show.

Ribs, diaphragm and skin follow the spine roughly. What they do beyond that is found in the X-rays themselves, see
:mod:`radgs.registration.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from radgs.anatomy import SpineTissue, cranio_caudal
from radgs.anatomy.beyond import repeated
from radgs.geometry import RigidTransform
from radgs.images import Volume
from radgs.projection import project_layers
from radgs.registration.consensus import consensus
from radgs.registration.view import View

_VOXEL_MM, _STEP_MM = 3.0, 3.0
_BEYOND_MM = 120.0  # the last slices are repeated: a CT's end is no edge of the patient
_ARM_MM = 20.0  # half the width of a vertebral body
_STRAIGHT = 1e-4  # radians or mm: not bent at all
_LAYER_MM = 100.0  # thickness, about
_TISSUE_MU = 0.004  # denser is not air
_SPARSE = 4  # voxels
_LEAST_MM = 0.01  # two vertebrae are apart, even where poses are wild
_BODY_MU = 0.013  # denser is patient or couch


class SoftTissue:
    """A CT without its vertebrae, ready to be bent and drawn.

    Args:
        soft: 1/mm.
        centres: by level, middle of the vertebra, ``[3]`` LPS mm.
    """

    def __init__(self, soft: Volume, centres: Mapping[str, NDArray[np.float64]]) -> None:
        self.rest = _upright(soft)
        self._values = torch.from_numpy(np.asarray(self.rest.array, np.float32))
        self._index_from_ct = torch.from_numpy(self.rest.index_from_lps)
        self._outline = _dense_points(self.rest)
        self.levels = cranio_caudal(centres)
        self.centres = np.stack([centres[level] for level in self.levels])

    @classmethod
    def of(cls, tissue: SpineTissue) -> SoftTissue:
        """What is left of a CT taken apart when its vertebrae are taken out."""
        return cls(tissue.soft, {level: excess.corners.mean(axis=0) for level, excess in tissue.excess.items()})

    def draw_layers(
        self, world_from_ct: Mapping[str, RigidTransform], view: View, wanted: Bool[Tensor, "H W"] | None = None
    ) -> Float[Tensor, "B H W"]:
        """Line integrals in layers along the view's axis, which overlap linearly and add up to the whole; no gradient.

        The tissue at the height of a vertebra moves with it; in between, motions are mixed.

        Args:
            world_from_ct: by level.
            view: the camera.
            wanted: other pixels are 0.
        """
        poses = [world_from_ct[level] for level in reversed(self.levels)]
        places = np.stack([p.apply(c) for p, c in zip(poses, self.centres[::-1], strict=True)])
        if max(float(np.abs(pose.matrix - poses[0].matrix).max()) for pose in poses) < _STRAIGHT:
            poses, places = poses[:1], places[:1]
        axis = places[-1] - places[0]
        axis = axis / max(float(np.linalg.norm(axis)), 1.0)
        heights = np.maximum.accumulate((places - view.camera.source) @ axis) + _LEAST_MM * np.arange(len(places))
        arms = _ARM_MM * np.concatenate([np.eye(3), -np.eye(3)])
        points = {level: centre + arms for level, centre in zip(self.levels, self.centres, strict=True)}
        body, _ = consensus({level: world_from_ct[level] for level in self.levels}, points)
        depths = (view.camera.camera_from_world @ body).apply(self._outline)[:, 2]
        near = float(depths.min())
        ends = near, max(float(depths.max()), near + _STEP_MM)
        return project_layers(
            self._values,
            self._index_from_ct,
            torch.from_numpy(view.camera.K.copy()),
            torch.stack([(view.camera.camera_from_world @ pose).tensor() for pose in poses]),
            torch.from_numpy(view.camera.camera_from_world.matrix[:3, :3] @ axis),
            torch.from_numpy(heights),
            (view.camera.height, view.camera.width),
            ends=ends,
            layers=max(round((ends[1] - ends[0]) / _LAYER_MM), 1) + 1,
            step_mm=_STEP_MM,
            wanted=wanted,
        )


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


def _dense_points(rest: Volume) -> NDArray[np.float64]:
    """Points of what is not air, ``[n, 3]`` LPS mm, few but enough to tell how far it reaches."""
    sparse = np.argwhere(np.greater(rest.array[::_SPARSE, ::_SPARSE, ::_SPARSE], _TISSUE_MU))
    return rest.points((sparse if len(sparse) else np.array([[0, 0, 0], [1, 1, 1]]))[:, ::-1] * _SPARSE)


def _patient(mu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest body and what it encloses, slice by slice: the CT's couch stays behind in the CT."""
    dense = ndimage.binary_opening(mu > _BODY_MU, iterations=2)
    found, _ = ndimage.label(dense)
    sizes = np.bincount(found.ravel())[1:]
    if not sizes.size:
        return np.ones(mu.shape, dtype=bool)
    body = ndimage.binary_dilation(found == sizes.argmax() + 1, iterations=3)
    return np.stack([ndimage.binary_fill_holes(one) for one in body])
