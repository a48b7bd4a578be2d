"""How fast and how exact the kernels are, beside what else can be installed.

    python benchmarks/kernels.py --json docs/kernels.json [--quick] [--device cuda] [--prototype FOLDER]

Peers come with the extra ``bench``; rows of peers that are not installed say so and count as neither met nor missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import torch
from drr_rows import drr_rows
from measure import Row, print_row, side_by_side, write_rows
from peers import torch_splatting
from scenes import COUNT, CUTOFF, HALF_MM, IMAGE, VOXELS, cameras, coefficients, leaves, scene, vertebra
from splatting_rows import rasterize_rows, step_rows, voxelize_rows
from torch import Tensor

from radgs.gaussians import Grid, RadiativeGaussians, fit_to_volume, rasterize, voxelize
from radgs.kernels import rasterize_coefficients
from radgs.projection import project


def exactness_rows() -> list[Row]:
    """Float32 kernels against the float64 twin at the same cut-off, and what the cut-off itself leaves out."""
    gaussians, (k, pose) = scene(600), cameras(96)
    weights = torch.randn(2, 96, 96, dtype=torch.float64)
    found = []
    for dtype, how in ((torch.float32, {}), (torch.float64, {"backend": "reference"})):
        inputs = [x.to(dtype).detach().requires_grad_() for x in leaves(gaussians)]
        moving = pose.clone().requires_grad_()
        image = rasterize(RadiativeGaussians(*inputs), k, moving, (96, 96), **how)
        gradients = torch.autograd.grad((image * weights).sum(), [*inputs, moving])
        found.append([image.detach().double(), *(g.double() for g in gradients)])
    ours, truth = found
    image = float((ours[0] - truth[0]).abs().max() / truth[0].abs().max())
    gradient = max(float((a - b).norm() / b.norm()) for a, b in zip(ours[1:], truth[1:], strict=True))
    exact = RadiativeGaussians(*(x.double().detach() for x in leaves(gaussians)))
    whole = rasterize(exact, k, pose, (96, 96), cutoff=10.0, backend="reference")
    cut = float((truth[0] - whole).abs().max() / whole.max())
    return [
        Row.of("image error against float64 at the same cut-off, of the maximum", [image], "", "<= 1e-5"),
        Row.of("gradient error against float64, worst of all inputs", [gradient], "", "<= 2e-4"),
        Row.of("what the default cut-off leaves out, of the maximum", [cut], "", note="max_error bounds this"),
        Row.of("a second process draws with compiled kernels after its imports", [_second_process()], "s", "<= 0.5"),
        Row.of("one thread and two differ in so many numbers", [_differing_bits()], "", "<= 0"),
    ]


def _second_process() -> float:
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import scenes, torch
from radgs.gaussians import rasterize
start = time.perf_counter()
rasterize(scenes.scene(10), *scenes.cameras(32), (32, 32))
print(time.perf_counter() - start)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def _differing_bits() -> float:
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        inputs = leaves(scene(2000))
        k, pose = cameras(IMAGE)
        g = RadiativeGaussians(*inputs)
        image, volume = rasterize(g, k, pose, (IMAGE, IMAGE)), voxelize(g, Grid.centred(2 * HALF_MM, 64))
        results.append([image, volume, *torch.autograd.grad(image.square().sum() + volume.square().sum(), inputs)])
    return float(sum((a != b).sum() for a, b in zip(*results, strict=True)))


def scaling_rows(repetitions: int) -> list[Row]:
    """Time a (Gaussian, pixel) pair at 1,000, 10,000 and 100,000 Gaussians, and the memory of a step."""
    k, pose = cameras(IMAGE)
    cost = {}
    for count in (1_000, 10_000, 100_000):
        gaussians, size = scene(count), (IMAGE, IMAGE)
        splats, ends = coefficients(gaussians, k, pose)
        leaf = splats.clone().requires_grad_()
        pairs = torch_splatting.count_pairs(splats, size, CUTOFF)

        def run(leaf: Tensor = leaf, ends: Tensor = ends, size: tuple[int, int] = size) -> None:
            rasterize_coefficients(leaf, ends, size).sum().backward()

        cost[count] = [t / pairs for t in side_by_side({"ours": run}, repetitions)["ours"]]
    base = cost[1_000]
    worst = max((cost[n] for n in (10_000, 100_000)), key=lambda c: sorted(c)[len(c) // 2])
    memory = {n: _step_memory(n) for n in (COUNT, 10 * COUNT)} if Path("/proc/self/clear_refs").exists() else {}
    return [
        Row.of(
            "time a (Gaussian, pixel) pair, N up to 100,000 against N = 1,000",
            [a / b for a, b in zip(worst, base, strict=True)], "x", "<= 1.05",
        ),
        *_memory_rows(memory),
    ]  # fmt: skip


def _memory_rows(memory: dict[int, float]) -> list[Row]:
    names = ("memory of a full step, N = 10,000", "memory of a full step, N = 100,000 against N = 10,000")
    if not memory:
        why = "needs Linux"
        return [Row.missing(names[0], "GB", "<= 0.6", why), Row.missing(names[1], "x", "<= 11", why)]
    small, large = memory.values()
    return [Row.of(names[0], [small], "GB", "<= 0.6"), Row.of(names[1], [large / small], "x", "<= 11")]


def _step_memory(count: int) -> float:
    """By how much a process grows at most while it does a step, GB; the kernels are loaded before."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import scenes, torch
from radgs.gaussians import RadiativeGaussians, rasterize
def memory(field):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(field)) / 1e6
def step(inputs):
    k, pose = scenes.cameras(256)
    pose.requires_grad_()
    torch.autograd.grad(rasterize(RadiativeGaussians(*inputs), k, pose, (256, 256)).sum(), [*inputs, pose])
step(scenes.leaves(scenes.scene(1)))
inputs = scenes.leaves(scenes.scene({count}))
open("/proc/self/clear_refs", "w").write("5")  # forget the peak
before = memory("VmRSS")
step(inputs)
print(memory("VmHWM") - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def fit_rows(quick: bool, crop: Path | None) -> list[Row]:
    """Gaussians straight from a volume: how well, how soon."""
    if crop:
        from radgs.images import read_volume

        volume, what = torch.from_numpy(read_volume(crop).array.astype("float32")), "a CT's vertebra"
    else:
        volume, what = vertebra(VOXELS), "a vertebra-like phantom"
    grid = Grid.centred(112.0, volume.shape[0])
    began = time.perf_counter()
    fitted = fit_to_volume(volume, grid, 1000 if quick else COUNT)
    seconds = time.perf_counter() - began
    error = (voxelize(fitted, grid) - volume).square().mean()
    psnr = float(10 * torch.log10(volume.max() ** 2 / error))
    name = f"fit_to_volume, {what}, {volume.shape[0]}^3, {fitted.count:,} Gaussians"
    return [Row.of(f"{name}: PSNR", [psnr], "dB", ">= 35"), Row.of(f"{name}: time", [seconds], "s", "<= 60")]


def gpu_rows(repetitions: int, device: str) -> list[Row]:
    """What only a GPU can do; missing rows without one."""
    goals = (
        ("GPU: rasterize 976^2, N = 50,000, forward", "<= 0.6"),
        ("GPU: rasterize 976^2, N = 50,000, backward", "<= 1.0"),
        ("GPU: DRR 976^2 of 512 x 512 x 400, with pose gradient", "<= 2"),
    )
    if device != "cuda":
        return [Row.missing(name, "ms", goal, "not run: no GPU") for name, goal in goals]
    gaussians, (k, pose) = scene(50_000, "cuda"), (x[:1] for x in cameras(976))
    splats, ends = coefficients(gaussians, k.cuda(), pose.cuda())
    leaf, size = splats.requires_grad_(), (976, 976)
    drawn, weights = rasterize_coefficients(leaf, ends, size), torch.randn(1, 976, 976, device="cuda")
    volume = torch.rand(400, 512, 512, device="cuda") * 0.02
    index_from_ct = torch.eye(4, dtype=torch.float64)
    index_from_ct[:3, 3] = torch.tensor([255.5, 255.5, 199.5])

    def drr() -> None:
        moving = pose.clone().cuda().requires_grad_()
        torch.autograd.grad(project(volume, index_from_ct, k, moving, size).sum(), moving)

    times = side_by_side(
        {
            "forward": lambda: rasterize_coefficients(leaf.detach(), ends, size),
            "backward": lambda: torch.autograd.grad(drawn, leaf, weights, retain_graph=True),
            "drr": drr,
        },
        repetitions,
    )
    return [Row.of(name, t, "ms", goal) for (name, goal), t in zip(goals, times.values(), strict=True)]


def series(repetitions: int) -> dict[str, list[dict[str, float]]]:
    """Milliseconds against the number of Gaussians, the image's and the volume's size, for plots."""
    out: dict[str, list[dict[str, float]]] = {"gaussians": [], "image": [], "volume": []}
    few = max(3, repetitions // 3)

    def both(count: int, draw: Any) -> dict[str, float]:
        inputs = leaves(scene(count))
        drawn = draw(RadiativeGaussians(*inputs))
        weights = torch.randn(drawn.shape)
        times = side_by_side(
            {
                "forward": lambda: draw(RadiativeGaussians(*[x.detach() for x in inputs])),
                "backward": lambda: torch.autograd.grad(drawn, inputs, weights, retain_graph=True),
            },
            few,
        )
        return {name: sorted(t)[len(t) // 2] for name, t in times.items()}

    for count in (1_000, 3_000, 10_000, 30_000, 100_000):
        out["gaussians"].append({"x": count, **both(count, lambda g: rasterize(g, *cameras(256), (256, 256)))})
    for size in (64, 128, 256, 512, 976):
        out["image"].append({"x": size, **both(COUNT, lambda g, n=size: rasterize(g, *cameras(n), (n, n)))})
    for voxels in (32, 64, 128, 192):
        grid = Grid.centred(2 * HALF_MM, voxels)
        out["volume"].append({"x": voxels, **both(COUNT, lambda g, grid=grid: voxelize(g, grid))})
    return out


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, a smaller fit, no series")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--prototype", type=Path, help="folder of the prototype kernels, to compare with")
    parser.add_argument("--crop", type=Path, help="NIfTI cube of a vertebra for the fit; default: a phantom")
    chosen = parser.parse_args()
    n = 5 if chosen.quick else 15
    sections: list[Callable[[], list[Row]]] = [
        lambda: rasterize_rows(n, chosen.prototype),
        lambda: voxelize_rows(n, chosen.prototype),
        lambda: step_rows(n),
        lambda: drr_rows(n),
        exactness_rows,
        lambda: scaling_rows(n),
        lambda: fit_rows(chosen.quick, chosen.crop),
        lambda: gpu_rows(n, chosen.device),
    ]
    rows: list[Row] = []
    for section in sections:
        for row in section():
            print_row(row)
            rows.append(row)
    write_rows(chosen.json, rows, series={} if chosen.quick else series(n))


if __name__ == "__main__":
    main()
