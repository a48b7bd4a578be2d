"""The splatting kernels beside vectorised PyTorch, Warp and the prototype."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from measure import Row, ratios, side_by_side
from peers import torch_splatting
from scenes import COUNT, CUTOFF, HALF_MM, IMAGE, VOXELS, cameras, coefficients, leaves, scene
from torch import Tensor

from radgs.gaussians import Grid, RadiativeGaussians, rasterize, voxelize
from radgs.gaussians.voxelize import voxel_coefficients
from radgs.kernels import rasterize_coefficients, voxelize_coefficients

Runs = dict[str, Any]


def rasterize_rows(repetitions: int, prototype: Path | None) -> list[Row]:
    """The kernel alone, on the same coefficients: ours, vectorised PyTorch, the prototype."""
    gaussians, (k, pose) = scene(COUNT), cameras(IMAGE)
    splats, ends = coefficients(gaussians, k, pose)
    size, weights = (IMAGE, IMAGE), torch.randn(2, IMAGE, IMAGE)
    ours = rasterize_coefficients(splats, ends, size)
    theirs = torch_splatting.rasterize(splats, size, CUTOFF)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5), "PyTorch draws other images: nothing to compare"
    runs: dict[str, Any] = {
        "ours": lambda: rasterize_coefficients(splats, ends, size),
        "torch": lambda: torch_splatting.rasterize(splats, size, CUTOFF),
    }
    back: dict[str, Any] = {}
    for name, run in tuple(runs.items()):
        leaf = splats.clone().requires_grad_()
        drawn = (
            rasterize_coefficients(leaf, ends, size)
            if run is runs["ours"]
            else torch_splatting.rasterize(leaf, size, CUTOFF)
        )
        back[name] = lambda drawn=drawn, leaf=leaf: torch.autograd.grad(drawn, leaf, weights, retain_graph=True)
    if prototype:
        runs["prototype"], back["prototype"] = _prototype_rasterize(prototype, splats, weights)
    forward, backward = side_by_side(runs, repetitions), side_by_side(back, repetitions)
    what = f"rasterize 2 x {IMAGE}^2, N = {COUNT:,}"
    return [
        Row.of(f"{what}: forward, PyTorch / ours", ratios(forward, "torch", "ours"), "x", ">= 15"),
        Row.of(f"{what}: backward, PyTorch / ours", ratios(backward, "torch", "ours"), "x", ">= 12"),
        *_against_prototype(what, forward, backward),
        Row.of(f"{what}: forward", forward["ours"], "ms"),
        Row.of(f"{what}: backward", backward["ours"], "ms"),
    ]


def _against_prototype(what: str, forward: dict[str, list[float]], backward: dict[str, list[float]]) -> list[Row]:
    rows = []
    for name, times in (("forward", forward), ("backward", backward)):
        title, goal = f"{what}: {name}, ours / prototype", "<= 1.15"
        if "prototype" in times:
            rows.append(Row.of(title, ratios(times, "ours", "prototype"), "x", goal))
        else:
            rows.append(Row.missing(title, "x", goal, "no prototype was given"))
    return rows


def _module(folder: Path, name: str) -> Any:
    sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def _prototype_rasterize(folder: Path, coefficients: Tensor, weights: Tensor) -> tuple[Any, Any]:
    forward, backward = _module(folder, "nb_slice").fwd, _module(folder, "nb_slice2").bwd
    p = coefficients.numpy()
    t2 = CUTOFF**2
    mx, mc, my = p[..., 3] - t2 * p[..., 8], p[..., 4] - t2 * p[..., 9], p[..., 5] - t2 * p[..., 10]
    det = mx * my - mc * mc
    x, y = t2 * (my * p[..., 6] - mc * p[..., 7]) / det, t2 * (mx * p[..., 7] - mc * p[..., 6]) / det
    reach = t2 * (1 + p[..., 6] * x + p[..., 7] * y) / det
    half = torch.from_numpy(reach * my).sqrt(), torch.from_numpy(reach * mx).sqrt()
    u, v = torch.from_numpy(p[..., 0] + x), torch.from_numpy(p[..., 1] + y)
    boxes = torch.stack([(u - half[0]).ceil(), (u + half[0]).floor(), (v - half[1]).ceil(), (v + half[1]).floor()], -1)
    bb = boxes.numpy()
    image = torch.zeros(weights.shape).numpy()
    out, g = torch.zeros(coefficients.shape).numpy(), weights.numpy()

    def draw() -> None:
        image[:] = 0
        forward(p, bb, image, CUTOFF)

    return draw, lambda: backward(p, bb, g, out, CUTOFF)


def voxelize_rows(repetitions: int, prototype: Path | None) -> list[Row]:
    """The volume kernel beside the prototype's."""
    gaussians, grid = scene(COUNT), Grid.centred(2 * HALF_MM, VOXELS)
    inputs = leaves(gaussians)
    weights = torch.randn(VOXELS, VOXELS, VOXELS)
    drawn = voxelize(RadiativeGaussians(*inputs), grid)
    forward: dict[str, Any] = {"ours": lambda: voxelize(gaussians, grid)}
    backward: dict[str, Any] = {"ours": lambda: torch.autograd.grad(drawn, inputs, weights, retain_graph=True)}
    if prototype:
        forward, backward = _prototype_voxelize(prototype, gaussians, grid, weights)
    times, back = side_by_side(forward, repetitions), side_by_side(backward, repetitions)
    what = f"voxelize {VOXELS}^3, N = {COUNT:,}"
    return [
        *_against_prototype(what, times, back),
        Row.of(f"{what}: forward", times["ours"], "ms"),
        Row.of(f"{what}: backward", back["ours"], "ms"),
    ]


def _prototype_voxelize(folder: Path, gaussians: RadiativeGaussians, grid: Grid, weights: Tensor) -> tuple[Any, Any]:
    """Kernel against kernel: both get the same 10 coefficients."""
    theirs = _module(folder, "nb_slice2")
    coefficients = voxel_coefficients(gaussians, grid).clone().requires_grad_()
    ends = torch.full(coefficients.shape[:2], CUTOFF)
    drawn = voxelize_coefficients(coefficients, ends, grid.shape)
    p, g = coefficients[0].detach().numpy(), weights.numpy()
    volume, out = torch.zeros(grid.shape).numpy(), torch.zeros(p.shape).numpy()

    def draw() -> None:
        volume[:] = 0
        theirs.vfwd(p, volume, CUTOFF)

    return (
        {"ours": lambda: voxelize_coefficients(coefficients.detach(), ends, grid.shape), "prototype": draw},
        {
            "ours": lambda: torch.autograd.grad(drawn, coefficients, weights[None], retain_graph=True),
            "prototype": lambda: theirs.vbwd(p, g, out, CUTOFF),
        },
    )


def step_rows(repetitions: int) -> list[Row]:
    """Forward and backward to all parameters and the pose of each view."""
    gaussians, (k, pose) = scene(COUNT), cameras(IMAGE)
    inputs, size, weights = leaves(gaussians), (IMAGE, IMAGE), torch.randn(2, IMAGE, IMAGE)

    def ours() -> None:
        moving = pose.clone().requires_grad_()
        image = rasterize(RadiativeGaussians(*inputs), k, moving, size)
        torch.autograd.grad(image, [*inputs, moving], weights)

    def in_torch() -> None:
        moving = pose.clone().requires_grad_()
        splats, _ = coefficients(RadiativeGaussians(*inputs), k, moving)
        image = torch_splatting.rasterize(splats, size, CUTOFF)
        torch.autograd.grad(image, [*inputs, moving], weights)

    runs: dict[str, Any] = {"ours": ours, "torch": in_torch}
    if importlib.util.find_spec("warp"):
        from peers import warp_splatting

        warp = warp_splatting.Step(inputs, k, pose, IMAGE, CUTOFF)
        assert warp_splatting.agrees(warp, rasterize(gaussians, k, pose, size)), "Warp draws other images"
        runs["warp"] = lambda: warp(weights)
    times = side_by_side(runs, repetitions)
    what = f"full step with pose, 2 x {IMAGE}^2, N = {COUNT:,}"
    rows = [Row.of(f"{what}: PyTorch / ours", ratios(times, "torch", "ours"), "x", ">= 8")]
    if "warp" in times:
        rows.insert(0, Row.of(f"{what}: Warp / ours", ratios(times, "warp", "ours"), "x", ">= 8"))
    else:
        rows.insert(0, Row.missing(f"{what}: Warp / ours", "x", ">= 8", "warp-lang is not installed"))
    return [*rows, Row.of(what, times["ours"], "ms")]
