"""What other packages get to see: one vertebra's surroundings in the CT, and the part of each X-ray around it.

Both serve them best of what their way allows: a cube of the CT holds neighbours and ribs; a lone vertebra does worse.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radgs.geometry import Camera
from radgs.images import Volume, Xray
from trials.place import Place

WINDOW_MM, PIXEL_MM = 84.0, 1.3  # at the depth of the vertebra
PIXELS = round(WINDOW_MM / PIXEL_MM)
_CUBE_MM, _VOXEL_MM = 130.0, 1.4


def cube(place: Place, level: str) -> Volume:
    """HU around a vertebra, cut from the patient's CT (the hospital's copy, axes parallel to LPS), binned in plane."""
    hu, centre = place.hospital.body.hu, place.hospital.body.centres[level]
    first, last = (
        np.round((centre + sign * _CUBE_MM / 2 - hu.lps_from_index[:3, 3]) / hu.spacing).astype(int) for sign in (-1, 1)
    )
    first, last = np.maximum(first, 0), np.minimum(last, np.array(hu.array.shape[::-1]))
    frame = hu.lps_from_index.copy()
    frame[:3, 3] = hu.points(first)
    part = Volume(hu.array[first[2] : last[2], first[1] : last[1], first[0] : last[0]], frame)
    return part.binned_in_plane(max(round(_VOXEL_MM / float(hu.spacing[0])), 1))


def sampled(xray: Xray, points: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """The X-ray where these points (world, mm, ``[..., 3]``) are seen, blurred to the window's pixel size at ``at``."""
    depth = float(xray.camera.camera_from_world.apply(at)[2])
    blur = 0.4 * PIXEL_MM * float(xray.camera.K[0, 0]) / depth
    uv = xray.camera.project(points)
    image = ndimage.gaussian_filter(np.nan_to_num(xray.line_integrals), blur)
    return ndimage.map_coordinates(image, [uv[..., 1], uv[..., 0]], order=1, mode="nearest").astype(np.float32)


def window(camera: Camera, centre: NDArray[np.float64]) -> Camera:
    """The camera of the window around a point (world, mm), at its own pixel size."""
    depth = float(camera.camera_from_world.apply(centre)[2])
    step = PIXEL_MM * float(camera.K[0, 0]) / depth
    u, v = camera.project(centre) - step * (PIXELS - 1) / 2
    return camera.window(float(u), float(v), PIXELS, PIXELS, step)
