"""Pictures: the outline of a vertebra on its X-rays, its reconstruction beside the CT, errors step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume, Xray, atomic_path
from radgs.registration import ViewAttention

mpl.use("Agg")

_BEFORE = {"colors": "#ffb000", "linestyles": "dashed", "linewidths": 1.2}
_AFTER = {"colors": "#00e5ff", "linestyles": "solid", "linewidths": 1.4}
_HEAT = "inferno"
_STEPS = {
    "unregistered_mtre_mm": "unregistered",
    "start_mtre_mm": "start",
    "regm_mtre_mm": "after RecM and RegM",
    "mtre_mm": "after refinement",
}


def silhouette(camera: Camera, points: NDArray[np.float64], world_from_ct: RigidTransform) -> NDArray[np.bool_]:
    """Which pixels ``[H, W]`` a cloud of voxel centres ``[n, 3]`` (ct, mm) covers when it is projected."""
    uv = camera.project(world_from_ct.apply(points))
    uv = np.rint(uv[np.isfinite(uv).all(axis=1)]).astype(int)
    inside = ((uv >= 0) & (uv < [camera.width, camera.height])).all(axis=1)
    image = np.zeros((camera.height, camera.width), dtype=bool)
    image[uv[inside, 1], uv[inside, 0]] = True
    return ndimage.binary_fill_holes(ndimage.binary_closing(image, iterations=4))


def _local_contrast(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what is smooth over some 40 pixels, so that bone shows beside dense soft tissue."""
    filled = np.where(np.isfinite(image), image, np.nanmedian(image))
    return ndimage.gaussian_filter(filled, 2.0) - ndimage.gaussian_filter(filled, 40.0)


def _save(figure: Figure, target: str | Path, dpi: int = 110) -> None:
    with atomic_path(target) as part:
        figure.savefig(part, format="png", dpi=dpi, bbox_inches="tight")


def draw_overlay(
    xrays: Mapping[str, Xray],
    mask: Volume,
    before: RigidTransform,
    after: RigidTransform,
    title: str,
    target: str | Path,
) -> None:
    """Every X-ray around the vertebra, with its outline at the start and at the refined pose; PNG.

    Args:
        xrays: the views.
        mask: of the vertebra, in the CT.
        before: world_from_ct of the start, dashed.
        after: world_from_ct of the result, solid.
        title: stands above.
        target: the file to write.
    """
    points = mask.points(np.argwhere(mask.array)[:, ::-1])
    figure = Figure(figsize=(5.2 * len(xrays), 5.4))
    for axis, (name, xray) in zip(figure.subplots(1, len(xrays), squeeze=False)[0], xrays.items(), strict=True):
        outlines = [silhouette(xray.camera, points, pose) for pose in (before, after)]
        rows, columns = np.nonzero(outlines[0] | outlines[1])
        if len(rows):
            v0, v1 = max(rows.min() - 60, 0), rows.max() + 60
            u0, u1 = max(columns.min() - 60, 0), columns.max() + 60
        else:
            v0, v1, u0, u1 = 0, xray.camera.height, 0, xray.camera.width
        shown = _local_contrast(xray.line_integrals)[v0:v1, u0:u1]
        low, high = np.nanpercentile(shown, [2, 98])
        axis.imshow(shown, cmap="gray", vmin=low, vmax=high)
        for outline, style in zip(outlines, (_BEFORE, _AFTER), strict=True):
            axis.contour(outline[v0:v1, u0:u1].astype(float), levels=[0.5], **style)
        axis.set_title(f"{name}   dashed: start, solid: refined", fontsize=9)
        axis.set_axis_off()
    figure.suptitle(title)
    _save(figure, target)


def draw_slices(volumes: Mapping[str, Volume], target: str | Path) -> None:
    """Middle slices (axial, coronal, sagittal) of volumes on one grid, a row each; PNG."""
    figure = Figure(figsize=(8, 2.7 * len(volumes)))
    top = max(float(np.percentile(v.array.astype(np.float32), 99.7)) for v in volumes.values()) or 1.0
    for axes, (name, volume) in zip(figure.subplots(len(volumes), 3, squeeze=False), volumes.items(), strict=True):
        array, (d, h, w) = volume.array, volume.array.shape
        spacing = float(volume.spacing[0])
        planes = {"axial": array[d // 2], "coronal": array[::-1, h // 2], "sagittal": array[::-1, :, w // 2]}
        for axis, (plane, image) in zip(axes, planes.items(), strict=True):
            extent = (0.0, image.shape[1] * spacing, image.shape[0] * spacing, 0.0)
            shown = axis.imshow(image, cmap="gray", vmin=0, vmax=top, extent=extent)
            axis.set_title(f"{name}, {plane}", fontsize=8)
            axis.set_xlabel("mm", fontsize=7)
            axis.tick_params(labelsize=6)
        figure.colorbar(shown, ax=axes[-1], label="excess, 1/mm")
    figure.tight_layout()
    _save(figure, target)


def draw_steps(registrations: pd.DataFrame, target: str | Path) -> None:
    """mTRE of each registration after each step, log scale, with the 1 and 2 mm limits; PNG."""
    columns = [c for c in _STEPS if c in registrations]
    values = registrations[columns].to_numpy(dtype=float)
    figure = Figure(figsize=(6.5, 4))
    axis = figure.subplots()
    axis.plot(np.arange(len(columns)), values.T, color="0.6", linewidth=0.8, marker=".", markersize=4)
    if len(values):
        axis.plot(
            np.arange(len(columns)), np.nanmedian(values, axis=0), color="k", linewidth=2, marker="o", label="median"
        )
    for limit in (1.0, 2.0):
        axis.axhline(limit, color="k", linestyle=":", linewidth=0.8)
    axis.set_yscale("log")
    axis.set_xticks(np.arange(len(columns)), [_STEPS[c] for c in columns])
    axis.set_ylabel("mTRE, mm")
    axis.legend()
    _save(figure, target)


def draw_attention(views: Mapping[str, ViewAttention], title: str, target: str | Path) -> None:
    """A row a view: the mean of RecM's attention maps over the X-ray window, then every map by itself; PNG.

    Args:
        views: by name.
        title: stands above.
        target: the file to write.
    """
    figure = Figure(figsize=(12, 4.2 * len(views)))
    figure.subplots_adjust(left=0.05, right=0.97, top=0.92, bottom=0.05, wspace=0.08, hspace=0.2)
    top = max(float(np.percentile(view.maps, 99.5)) for view in views.values())
    rows = figure.subplots(len(views), 2, squeeze=False, width_ratios=[1, 2.1])
    for (mean, each), (name, view) in zip(rows, views.items(), strict=True):
        columns = math.ceil(math.sqrt(2 * len(view.maps)))
        tiles = [_framed(_over(view.window, one, top)) for one in view.maps]
        tiles += [np.ones_like(tiles[0])] * (-len(tiles) % columns)
        mosaic = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
        average, size = view.maps.mean(axis=0), view.size_mm
        mean.imshow(_over(view.window, average, float(average.max())), extent=(0, size, size, 0))
        mean.set_title(f"{name}: mean of {len(view.maps)} maps, at most {average.max():.1f}", fontsize=9)
        mean.set_xlabel("mm at the vertebra", fontsize=8)
        mean.set_ylabel("mm", fontsize=8)
        each.imshow(mosaic)
        each.set_title(f"{name}: every map", fontsize=9)
        each.set_axis_off()
    scale = ScalarMappable(Normalize(0, top), _HEAT)
    figure.colorbar(scale, ax=rows[:, 1].tolist(), label="attention (1: as if the map were even)", shrink=0.7, pad=0.02)
    figure.suptitle(title)
    _save(figure, target, dpi=80)


def _framed(tile: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.pad(tile, ((0, 1), (0, 1), (0, 0)), constant_values=1)


def _over(window: NDArray[np.float32], weights: NDArray[np.float32], top: float) -> NDArray[np.float64]:
    """Weights in colour over a window in grey, ``[H, W, 3]``: the more weight, the less of the window shows."""
    low, high = np.percentile(window, [2, 98])
    grey = np.clip((window - low) / max(high - low, 1e-6), 0, 1)[..., None]
    fine = ndimage.zoom(weights, np.divide(window.shape, weights.shape), order=1, mode="nearest", grid_mode=True)
    share = np.clip(fine / top, 0, 1)
    return (1 - share[..., None]) * grey * 0.8 + share[..., None] * mpl.colormaps[_HEAT](share)[..., :3]
