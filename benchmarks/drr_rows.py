"""Line integrals through voxels beside the published renderers."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from measure import Row, ratios, side_by_side
from peers import drr
from scenes import SOURCE_MM, cameras, phantom, vertebra

from radgs.projection import project


def drr_rows(repetitions: int) -> list[Row]:
    """One view of 256^3 voxels of 1 mm at steps of 1 mm, beside the published renderers."""
    n = 256
    volume, size = phantom(n), (n, n)
    index_from_ct = torch.eye(4, dtype=torch.float64)
    index_from_ct[:3, 3] = (n - 1) / 2
    k, pose = (x[:1] for x in cameras(n))

    def gradient(draw: Any) -> Any:
        def run() -> None:
            moving = pose.clone().requires_grad_()
            torch.autograd.grad(draw(moving).sum(), moving)

        return run

    ways = {
        "ours": lambda p: project(volume, index_from_ct, k, p, size),
        "ours siddon": lambda p: project(volume, index_from_ct, k, p, size, method="siddon"),
    }
    for name, package in (("nanodrr", "nanodrr"), ("diffdrr", "diffdrr")):
        if importlib.util.find_spec(package):
            peer = drr.nanodrr if name == "nanodrr" else drr.diffdrr_siddon
            more = (n + 2,) if name == "nanodrr" else ()
            ways[name] = peer(volume, index_from_ct, k, pose, n, *more)
            ours = ways["ours" if name == "nanodrr" else "ours siddon"](pose)
            error = float((ways[name](pose) - ours).norm() / ours.norm())
            assert error < 0.01, f"{name} draws another image ({error:.1%} off): nothing to compare"
    few = max(3, repetitions // 3)
    forward = side_by_side({name: lambda draw=draw: draw(pose) for name, draw in ways.items()}, few, 1)
    whole = side_by_side({name: gradient(draw) for name, draw in ways.items() if name != "diffdrr"}, few, 1)
    rows = []
    for title, times, peer, ours, goal in (
        ("forward, nanodrr / ours", forward, "nanodrr", "ours", ">= 12"),
        ("with pose gradient, nanodrr / ours", whole, "nanodrr", "ours", ">= 25"),
        ("forward, DiffDRR Siddon / our Siddon", forward, "diffdrr", "ours siddon", ">= 30"),
    ):
        name = f"DRR {n}^3 to {n}^2: {title}"
        if peer in times:
            rows.append(Row.of(name, ratios(times, peer, ours), "x", goal))
        else:
            rows.append(Row.missing(name, "x", goal, f"{peer} is not installed"))
    rows += [
        Row.of(f"DRR {n}^3 to {n}^2: forward", forward["ours"], "ms"),
        Row.of(f"DRR {n}^3 to {n}^2: with pose gradient", whole["ours"], "ms"),
    ]
    return [*rows, _crop_row(repetitions)]


def _crop_row(repetitions: int) -> Row:
    n, size = 128, 160
    volume = vertebra(n)
    index_from_ct = torch.diag(torch.tensor([n / 112, n / 112, n / 112, 1.0], dtype=torch.float64))
    index_from_ct[:3, 3] = (n - 1) / 2
    f = size / 112 * SOURCE_MM / 1.1
    k = torch.tensor([[[f, 0, (size - 1) / 2], [0, f, (size - 1) / 2], [0, 0, 1]]], dtype=torch.float64)
    pose = cameras(size)[1][:1]

    def run() -> None:
        moving = pose.clone().requires_grad_()
        torch.autograd.grad(project(volume, index_from_ct, k, moving, (size, size)).sum(), moving)

    times = side_by_side({"ours": run}, 3 * repetitions)
    return Row.of("DRR of a vertebra crop, 128^3 to 160^2, with pose gradient", times["ours"], "ms", "<= 6")
