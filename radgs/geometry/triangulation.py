"""From pixels in several views to points in the world, and the patient's axes as the views show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radgs.errors import GeometryError
from radgs.geometry.camera import Camera

_SMALLEST_ANGLE = np.deg2rad(10)
_PARALLEL = (
    "the views look along the same direction: the depth of a point cannot be known; they should be more than "
    f"{np.rad2deg(_SMALLEST_ANGLE):.0f} degrees apart"
)


@dataclass(frozen=True)
class Triangulation:
    """A point seen in several views.

    Attributes:
        point: ``[3]`` world, mm; the point nearest to all rays in the least-squares sense.
        residual_mm: root mean square distance of the rays from the point times two; for two views the
            distance between the two rays (the epipolar residual).
    """

    point: NDArray[np.float64]
    residual_mm: float


def triangulate(cameras: Sequence[Camera], pixels: ArrayLike) -> Triangulation:
    """The world point nearest to the rays through one pixel of each view.

    Args:
        cameras: two or more.
        pixels: ``[V, 2]`` (u, v).

    Raises:
        GeometryError: fewer than two views, or rays that are nearly parallel.
    """
    uv = np.asarray(pixels, dtype=np.float64)
    if len(cameras) < 2 or uv.shape != (len(cameras), 2):
        raise GeometryError(f"triangulation needs one pixel in each of two or more views, got {uv.shape}")
    sources, normals = [], []
    for camera, pixel in zip(cameras, uv, strict=True):
        direction = _directions(camera, pixel)[0]
        sources.append(camera.source)
        normals.append(np.eye(3) - np.outer(direction, direction))
    system = np.sum(normals, axis=0)
    if np.linalg.eigvalsh(system)[0] < 1 - np.cos(_SMALLEST_ANGLE):
        raise GeometryError(_PARALLEL)
    point = np.linalg.solve(system, np.sum([n @ s for n, s in zip(normals, sources, strict=True)], axis=0))
    distances = [np.linalg.norm(n @ (point - s)) for n, s in zip(normals, sources, strict=True)]
    return Triangulation(point, float(2 * np.sqrt(np.mean(np.square(distances)))))


def triangulate_pairs(
    first: Camera, second: Camera, first_uv: ArrayLike, second_uv: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As :func:`triangulate`, of every pixel of one view with every pixel of another.

    Args:
        first: a view.
        second: another.
        first_uv: ``[n, 2]``.
        second_uv: ``[m, 2]``.

    Returns:
        points ``[n, m, 3]`` and residuals ``[n, m]``, mm.

    Raises:
        GeometryError: rays that are nearly parallel.
    """
    a, b = _directions(first, first_uv)[:, None], _directions(second, second_uv)[None]
    between = first.source - second.source
    cosine, along_a, along_b = (a * b).sum(axis=-1), a @ between, b @ between
    if (1 - np.abs(cosine) < 1 - np.cos(_SMALLEST_ANGLE)).any():
        raise GeometryError(_PARALLEL)
    sine2 = 1 - cosine**2
    on_a = first.source + ((cosine * along_b - along_a) / sine2)[..., None] * a
    on_b = second.source + ((along_b - cosine * along_a) / sine2)[..., None] * b
    return (on_a + on_b) / 2, np.linalg.norm(on_a - on_b, axis=-1)


def _directions(camera: Camera, uv: ArrayLike) -> NDArray[np.float64]:
    """Unit vectors, world, from the source through pixels ``[n, 2]``."""
    pixels = np.asarray(uv, dtype=np.float64).reshape(-1, 2)
    in_camera = np.linalg.solve(camera.K, np.column_stack([pixels, np.ones(len(pixels))]).T)
    along: NDArray[np.float64] = (camera.camera_from_world.rotation.T @ in_camera).T
    return along / np.linalg.norm(along, axis=-1, keepdims=True)


def frontal_view(cameras: Mapping[str, Camera]) -> str:
    """The name of the view along the antero-posterior axis.

    Raises:
        GeometryError: no view is named AP or PA.
    """
    name = next((name for name in ("AP", "PA") if name in cameras), None)
    if name is None:
        raise GeometryError(f"one view must be named AP or PA to tell front from back, got {sorted(cameras)}")
    return name


def frontal_and_lateral(cameras: Mapping[str, Camera]) -> tuple[str, str]:
    """The names of the frontal view (AP or PA) and of the one most across it.

    Raises:
        GeometryError: no view is named AP or PA, or there is no other one.
    """
    frontal = frontal_view(cameras)
    axis = cameras[frontal].camera_from_world.rotation[2]
    others = {n: abs(float(c.camera_from_world.rotation[2] @ axis)) for n, c in cameras.items() if n != frontal}
    if not others:
        raise GeometryError(f"two views are needed, {frontal} is the only one")
    return frontal, min(others, key=lambda name: others[name])


def patient_axes(cameras: Mapping[str, Camera]) -> NDArray[np.float64]:
    """The patient's nominal left, posterior and superior directions, as the named views imply them.

    The world frame of a tracker says nothing about the patient. Images shown head-up do: superior is against
    v in every view, and a frontal view (``AP``: source in front, ``PA``: source behind) looks along the
    antero-posterior axis. A lateral view sharpens the estimate whichever side its source is on. So results
    do not depend on the choice of the world frame.

    Returns:
        ``[3, 3]`` world_from_patient rotation; columns are left, posterior, superior (LPS) in the world.

    Raises:
        GeometryError: no view is named AP or PA.
    """
    frontal = frontal_view(cameras)
    rotation = cameras[frontal].camera_from_world.rotation
    superior = -rotation[1]
    posterior = rotation[2] if frontal == "AP" else -rotation[2]
    frames = [np.stack([np.cross(posterior, superior), posterior, superior], axis=1)]
    for name, camera in cameras.items():
        z, up = camera.camera_from_world.rotation[2], -camera.camera_from_world.rotation[1]
        along_left = float(z @ frames[0][:, 0])
        if name != frontal and abs(along_left) > 0.7:
            left = z * np.sign(along_left)
            frames.append(np.stack([left, np.cross(up, left), up], axis=1))
    u, _, vt = np.linalg.svd(np.mean(frames, axis=0))
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
