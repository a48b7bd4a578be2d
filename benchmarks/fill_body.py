"""A CT that holds bone only, filled with a made-up body, so that it can be a patient of the benchmarks.

    python benchmarks/fill_body.py BONE.nii.gz OUT.nii.gz

The shared CT of s0328 has everything below 200 HU set to 0. Here the body is what lies within 45 mm of bone (rounded),
made of muscle with fat under the skin and in lumps, and some gas in front of the spine; outside is air. Only bone is
real: what is reported of such a patient says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radgs.images import Volume, read_volume, write_volume

SEED = 328
_AIR, _MUSCLE, _FAT, _GAS = -1000.0, 50.0, -100.0, -850.0
_BONE = 100.0  # HU from which what is given is kept
_AROUND_MM, _SKIN_MM = 45.0, 12.0
_LUMP_MM, _GRAIN_MM, _NOISE = 9.0, 2.0, 12.0
_GAS_SHARE, _FAT_SHARE = 0.03, 0.3
_COARSE = 4  # voxels, where distances are measured


def body_around(bone: Volume) -> NDArray[np.float32]:
    """HU ``[D, H, W]`` of a body about the bone, LPS axes."""
    rng = np.random.default_rng(SEED)
    spacing, solid = bone.spacing[::-1], bone.array > _BONE
    few = solid[::_COARSE, ::_COARSE, ::_COARSE]
    outline = np.stack([_hull(one) for one in few])
    padded = np.pad(outline, 20)
    inside = ndimage.distance_transform_edt(padded, sampling=spacing * _COARSE)
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing * _COARSE)
    depth = (inside - outside)[20:-20, 20:-20, 20:-20] + _AROUND_MM
    zoom = np.array(solid.shape) / depth.shape
    depth = ndimage.zoom(depth, zoom, order=1)[: solid.shape[0], : solid.shape[1], : solid.shape[2]]

    def field(size_mm: float) -> NDArray[np.float32]:
        noise = ndimage.gaussian_filter(rng.standard_normal(solid.shape).astype(np.float32), size_mm / spacing)
        return noise / noise.std()

    lumps = field(_LUMP_MM)
    tissue = np.where(lumps > np.quantile(lumps, 1 - _FAT_SHARE), _FAT, _MUSCLE)
    tissue = np.where(depth < _SKIN_MM, _FAT, tissue)
    front = _in_front(bone, solid)
    bowel = field(_LUMP_MM)
    tissue = np.where(front & (depth > 2 * _SKIN_MM) & (bowel > np.quantile(bowel, 1 - _GAS_SHARE)), _GAS, tissue)
    tissue = ndimage.gaussian_filter(tissue.astype(np.float32), 1.0 / spacing) + _NOISE * field(_GRAIN_MM)
    hu = np.where(depth > 0, tissue, _AIR)
    edge = np.clip(ndimage.gaussian_filter(solid.astype(np.float32), 0.5) * 2, 0, 1)
    return np.where(solid, bone.array, np.maximum(hu, edge * _BONE + (1 - edge) * hu)).astype(np.float32)


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from skimage.morphology import convex_hull_image

    return convex_hull_image(mask) if mask.sum() > 3 else mask


def _in_front(bone: Volume, solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels a centimetre and more in front of the middle of their slice's bone."""
    back = bone.points(np.stack([np.zeros(solid.shape[1]), np.arange(solid.shape[1]), np.zeros(solid.shape[1])], 1))[
        :, 1
    ]
    weight = solid.sum(axis=2)
    middle = (weight * back).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)
    return np.broadcast_to((back < middle[:, None] - 10)[:, :, None], solid.shape)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bone", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    given = read_volume(arguments.bone)
    write_volume(arguments.out, given.with_array(body_around(given)))
