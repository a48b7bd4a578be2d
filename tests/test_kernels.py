"""Kernels: the exponential, the dispatcher, extreme footprints, and a fast start of a second process."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import njit

from radgs.errors import RadgsError
from radgs.kernels import depth_integrals, rasterize_coefficients, resolve_backend, voxelize_coefficients
from radgs.kernels.numba.exponential import LARGEST, exp_half

FOUR = torch.full((1, 1), 4.0)


@njit
def _exponentials(n, out):
    for i in range(n.size):
        out[i] = exp_half(n[i])


def test_exponential_keeps_six_digits_over_its_whole_range():
    n = np.linspace(0, LARGEST, 100_001, dtype=np.float32)
    out = np.empty_like(n)
    _exponentials(n, out)
    truth = np.exp(-n.astype(np.float64) / 2)
    # Rounding -n/2 to float32 alone costs n/2 times half a unit in the last place.
    assert np.all(np.abs(out / truth - 1) < 5e-7 + n * 6e-8)


def test_backend_is_chosen_by_device_and_refused_in_a_sentence():
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    elsewhere = torch.zeros(1, device="meta")
    assert resolve_backend("auto", single) == "numba"
    assert resolve_backend("auto", elsewhere) == "reference"
    assert resolve_backend("reference", double) == "reference"
    for backend, tensor, words in (
        ("auto", double, "float32"),
        ("numba", elsewhere, "CPU"),
        ("warp", single, "warp"),
        ("cuda", single, "GPU"),
    ):
        with pytest.raises(RadgsError, match=words):
            resolve_backend(backend, tensor)


def _round_splat(u, v, sigma):
    """One distant round Gaussian: nearly parallel rays, so g and Q are nothing."""
    g = 1 / sigma**2
    return torch.tensor([[[u, v, 1.0, g, 0, g, 0, 0, 0, 0, 0]]])


@pytest.mark.parametrize(("u", "v"), [(-0.5, 3.0), (9.5, 3.0), (4.0, -1.0), (4.0, 8.0), (1e9, 1e9), (-1e9, 0)])
def test_footprints_over_the_border_draw_only_what_lies_inside(u, v, fast):
    splat = _round_splat(u, v, 1.0).to(fast.device)
    image = rasterize_coefficients(splat, FOUR.to(fast.device), (7, 9), fast.backend).cpu()
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    square = (x - u) ** 2 + (y - v) ** 2
    truth = torch.where(square <= 16, torch.exp(-square / 2), 0)
    torch.testing.assert_close(image[0], truth, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("sigma", [1e-3, 1e4])
def test_tiny_and_huge_footprints_are_drawn(sigma, fast):
    splat = _round_splat(3.0, 2.0, sigma).to(fast.device)
    image = rasterize_coefficients(splat, FOUR.to(fast.device), (5, 6), fast.backend).cpu()
    expected = torch.zeros(5, 6) if sigma < 1 else torch.ones(5, 6)
    expected[2, 3] = 1
    torch.testing.assert_close(image[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("centre", [(-1.0, 2.0, 2.0), (4.0, 9.0, 3.0), (1e8, 1e8, 1e8), (2.0, 2.0, -3.0)])
def test_voxels_over_the_border_hold_only_what_lies_inside(centre, fast):
    coefficients = torch.tensor([[[*centre, 1.0, 1, 0, 0, 1, 0, 1]]], device=fast.device)
    volume = voxelize_coefficients(coefficients, FOUR.to(fast.device), (5, 6, 7), fast.backend)[0].cpu()
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (5, 6, 7)), indexing="ij")
    square = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
    truth = torch.where(square <= 16, torch.exp(-square / 2), 0)
    torch.testing.assert_close(volume, truth, rtol=1e-5, atol=1e-7)


def test_a_ray_within_a_single_slice_reads_nothing_beyond_it(fast):
    beyond = torch.full((2, 5, 6), float("nan"), device=fast.device)
    beyond[0] = 1.0
    kind = {"dtype": torch.float64, "device": fast.device}
    source = torch.tensor([[-100.0, 2.2, 0.0]], **kind)
    along_x = torch.tensor([[[0.0, 0, 1], [0, 0, 0], [0, 0, 0]]], **kind)
    image = depth_integrals(beyond[:1], source, along_x, torch.ones(1, 1, 1, **kind), "trilinear", 0.5, fast.backend)
    # Six voxels of 1 and half a voxel's fall to zero on each side.
    assert image.item() == pytest.approx(6.0, rel=1e-5)


def test_a_second_process_starts_from_compiled_kernels():
    code = """
import torch, time
from radgs.gaussians import Grid, RadiativeGaussians, rasterize, voxelize
from radgs.projection import project
start = time.perf_counter()
eye = torch.eye(4, dtype=torch.float64)
pose = eye[None].clone()
pose[0, 2, 3] = 300
pose.requires_grad_()
k = torch.tensor([[[100.0, 0, 4], [0, 100.0, 4], [0, 0, 1]]])
g = RadiativeGaussians(torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1, 4), torch.ones(1, requires_grad=True))
volume = voxelize(g, Grid.centred(8.0, 8))
for method in ("trilinear", "siddon"):
    project(volume, eye, k, pose, (8, 8), method=method).sum().backward(retain_graph=True)
rasterize(g, k, pose, (8, 8)).sum().backward()
print(time.perf_counter() - start)
"""
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert float(run.stdout) < 3.0  # compiling takes more than ten


def test_two_python_threads_may_draw_at_once_on_the_threading_layer_that_allows_one():
    code = """
import threading, torch
from radgs.gaussians import Grid, RadiativeGaussians, voxelize
import numba
g = RadiativeGaussians(torch.randn(3000, 3) * 20, torch.full((3000, 3), 3.0), torch.ones(3000, 4), torch.ones(3000))
expected, wrong = voxelize(g, Grid.centred(112.0, 64)), []
assert numba.threading_layer() == "workqueue"
def draw():
    for _ in range(20):
        if not torch.equal(voxelize(g, Grid.centred(112.0, 64)), expected):
            wrong.append(1)
threads = [threading.Thread(target=draw) for _ in range(3)]
[t.start() for t in threads], [t.join() for t in threads]
print("wrong", len(wrong))
"""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert run.stdout.split() == ["wrong", "0"], run.stderr[-500:]
