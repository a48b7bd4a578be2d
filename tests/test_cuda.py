"""CUDA kernels: NVRTC compiles them without a GPU; on a GPU they are compared with their definitions in float64."""

from __future__ import annotations

import re
import sys

import pytest
import torch

from radgs.errors import RadgsError
from radgs.gaussians.rasterize import pack_cameras
from radgs.kernels import (
    depth_integrals,
    dispatch,
    rasterize_coefficients,
    rasterize_gaussians,
    voxelize_coefficients,
)

SOURCES = ["cameras", "project", "rasterize", "siddon", "trilinear", "voxelize"]
# More would leave a multiprocessor too few threads to hide the latency of memory. The projection is float64 and short.
MOST_REGISTERS = {"cameras": 64, "project": 255, "rasterize": 64, "voxelize": 64, "trilinear": 96, "siddon": 96}
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_every_source_is_tested():
    launch = pytest.importorskip("radgs.kernels.cuda.launch", exc_type=ImportError)
    assert launch.source_names() == SOURCES


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_compile_without_spilling_registers(source, architecture):
    launch = pytest.importorskip("radgs.kernels.cuda.launch", exc_type=ImportError)
    code, log = launch.compile_source(source, architecture)
    assert bytes(code.code[:4]) == b"\x7fELF"
    kernels = re.findall(r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+).*?Used (\d+) registers", log, re.S)
    written = re.findall(r"__global__ .*?\)\s+(\w+)\(", launch.source_path(source).read_text(), re.S)
    assert sorted(name for name, *_ in kernels) == sorted(written)
    for name, stores, loads, registers in kernels:
        assert (stores, loads) == ("0", "0"), name
        assert int(registers) <= MOST_REGISTERS[source], name


def test_a_source_that_does_not_compile_is_refused_in_a_sentence():
    launch = pytest.importorskip("radgs.kernels.cuda.launch", exc_type=ImportError)
    with pytest.raises(RadgsError, match="sm_1"):
        launch.compile_source("rasterize", "sm_1")


def test_nothing_of_cuda_is_imported_before_it_is_asked_for():
    import subprocess

    code = "import sys, radgs.gaussians, radgs.projection; sys.exit('radgs.kernels.cuda' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


class _OnGpu:
    """Stands for a tensor on a GPU: the dispatcher asks for nothing else."""

    device = torch.device("cuda")
    dtype = torch.float32


def test_tensors_on_a_gpu_go_to_cuda_where_it_is_installed_and_else_to_pytorch(monkeypatch):
    monkeypatch.setattr(dispatch, "_has_cuda_core", lambda: True)
    assert dispatch.resolve_backend("auto", _OnGpu()) == "cuda"
    assert dispatch.resolve_backend("cuda", _OnGpu()) == "cuda"
    assert dispatch.resolve_backend("auto", _OnGpu(), torch.zeros(1)) == "reference"
    monkeypatch.setattr(dispatch, "_has_cuda_core", lambda: False)
    assert dispatch.resolve_backend("auto", _OnGpu()) == "reference"
    with pytest.raises(RadgsError, match="cuda-core"):
        dispatch.resolve_backend("cuda", _OnGpu())


def _splats(count, generator):
    """Tilted ellipses of all sizes about a 40 x 50 image, a little perspective; cut-offs of 1 to 4, one in ten 0."""
    c = torch.zeros(2, count, 11)
    c[..., :2] = torch.rand(2, count, 2, generator=generator) * 60 - 5
    c[..., 2] = torch.rand(2, count, generator=generator)
    root = torch.randn(2, count, 2, 2, generator=generator) * 0.4
    g = root @ root.mT + 0.01 * torch.eye(2)
    c[..., 3], c[..., 4], c[..., 5] = g[..., 0, 0], g[..., 0, 1], g[..., 1, 1]
    c[..., 6:8] = 1e-4 * torch.randn(2, count, 2, generator=generator)
    c[..., 8:11] = 1e-7 * torch.tensor([2.0, 0.5, 1.0])
    return c, _cutoffs(count, generator)


def _cutoffs(count, generator):
    drawn = torch.rand(2, count, generator=generator) > 0.1
    return drawn * (1 + 3 * torch.rand(2, count, generator=generator))


def _balls(count, generator):
    c = torch.zeros(2, count, 10)
    c[..., :3] = torch.rand(2, count, 3, generator=generator) * 24 - 3
    c[..., 3] = torch.rand(2, count, generator=generator)
    root = torch.randn(2, count, 3, 3, generator=generator) * 0.4
    s = root @ root.mT + 0.02 * torch.eye(3)
    for column, (i, j) in enumerate([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]):
        c[..., 4 + column] = s[..., i, j]
    return c, _cutoffs(count, generator)


def _image(coefficients, cutoffs, backend, size=(40, 50)):
    return rasterize_coefficients(coefficients, cutoffs.to(coefficients), size, backend)


def _volume(coefficients, cutoffs, backend, shape=(13, 18, 21)):
    return voxelize_coefficients(coefficients, cutoffs.to(coefficients), shape, backend)


@pytest.mark.parametrize("count", [1, 31, 255, 256, 257, 700])
@pytest.mark.parametrize(("draw", "columns"), [(_image, 11), (_volume, 10)], ids=["image", "volume"])
def test_any_number_of_gaussians_is_drawn_as_defined_and_twice_the_same(draw, columns, count, fast):
    generator = torch.Generator().manual_seed(count)
    c, cutoffs = _splats(count, generator) if columns == 11 else _balls(count, generator)
    _drawn_as_defined_and_twice_the_same(draw, c, cutoffs, fast)


def _drawn_as_defined_and_twice_the_same(draw, c, cutoffs, fast):
    """Values and gradients, against the definition in float64; bits against a second run."""
    results = []
    for backend, device, dtype in (
        (*fast, torch.float32),
        (*fast, torch.float32),
        ("reference", "cpu", torch.float64),
    ):
        moved = c.to(device, dtype).requires_grad_()
        drawn = draw(moved, cutoffs, backend)
        weights = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0)).to(drawn)
        (gradient,) = torch.autograd.grad((drawn * weights).sum(), moved)
        results.append([t.detach().cpu() for t in (drawn, *gradient.unbind(-1))])
    for first, second, truth in zip(*results):
        assert torch.equal(first, second)
        assert (first.double() - truth).norm() <= 2e-5 * truth.norm() + 1e-9


def _image_of_many_tiles(coefficients, cutoffs, backend):
    return _image(coefficients, cutoffs, backend, (150, 170))


def _volume_of_many_bricks(coefficients, cutoffs, backend):
    return _volume(coefficients, cutoffs, backend, (30, 34, 37))


def test_gaussians_of_all_sizes_up_to_many_images_are_drawn_as_defined(fast):
    generator = torch.Generator().manual_seed(1)
    c, cutoffs = _splats(48, generator)
    c[..., :2] = torch.rand(2, 48, 2, generator=generator) * 250 - 40
    c[..., 3:6] *= torch.logspace(-5, 0, 48)[:, None]
    c[..., 6:] *= torch.logspace(-2, 0, 48)[:, None]  # the largest reach far, where q would not be positive
    _drawn_as_defined_and_twice_the_same(_image_of_many_tiles, c, cutoffs, fast)
    c, cutoffs = _balls(24, generator)
    c[..., :3] *= 1.5
    c[..., 4:] *= torch.logspace(-4, 0, 24)[:, None]
    _drawn_as_defined_and_twice_the_same(_volume_of_many_bricks, c, cutoffs, fast)


@pytest.mark.parametrize(("draw", "columns"), [(_image, 11), (_volume, 10)], ids=["image", "volume"])
def test_seventy_thousand_gaussians_are_all_drawn_and_get_their_gradients(draw, columns, fast):
    size, count, some = ((7, 9) if columns == 11 else (3, 5, 6)), 70_000, slice(333, None, 700)
    generator = torch.Generator().manual_seed(2)
    c, cutoffs = _splats(count, generator) if columns == 11 else _balls(count, generator)
    moved = c.to(fast.device).requires_grad_()
    drawn = draw(moved, cutoffs, fast.backend, size)
    with torch.no_grad():
        truth = draw(c.double(), cutoffs, "reference", size)
    assert (drawn.detach().cpu().double() - truth).norm() <= 2e-5 * truth.norm()
    weights = torch.randn(drawn.shape, generator=generator)
    (gradient,) = torch.autograd.grad((drawn * weights.to(drawn)).sum(), moved)
    leaf = c[:, some].double().requires_grad_()
    (expected,) = torch.autograd.grad((draw(leaf, cutoffs[:, some], "reference", size) * weights).sum(), leaf)
    for ours, true in zip(gradient[:, some].cpu().double().unbind(-1), expected.unbind(-1)):
        assert (ours - true).norm() <= 2e-5 * true.norm() + 1e-9


def test_no_pixel_of_a_tilted_needle_is_lost_between_tiles(fast):
    generator = torch.Generator().manual_seed(3)
    count, size = 60, (150, 170)
    angle = torch.rand(count, generator=generator) * torch.pi
    along = torch.stack([angle.cos(), angle.sin()], -1)
    lengths, width = 10 * torch.logspace(0, 1.3, count), 0.6
    g = torch.eye(2) / width**2 + (lengths**-2 - width**-2)[:, None, None] * along[:, :, None] * along[:, None]
    c = torch.zeros(count, 1, 11)  # an image each
    c[:, 0, :2] = torch.rand(count, 2, generator=generator) * 150
    c[:, 0, 2], c[:, 0, 3], c[:, 0, 4], c[:, 0, 5] = 1.0, g[:, 0, 0], g[:, 0, 1], g[:, 1, 1]
    four = torch.full((count, 1), 4.0)
    drawn = _image(c.to(fast.device), four, fast.backend, size).cpu()
    truth = _image(c.double(), four, "reference", size)
    # Of n, a difference of large numbers, float32 keeps few digits; a lost tile would lose more than that.
    assert (drawn - truth).abs().max() < 0.02
    assert truth.amax((1, 2)).min() > 0.1


def test_an_image_of_a_batch_has_the_bits_of_the_image_alone(fast):
    generator = torch.Generator().manual_seed(4)
    c, cutoffs = (t.to(fast.device) for t in _splats(77, generator))
    c[..., 3:6] *= torch.logspace(-4, 0, 77, device=fast.device)[:, None]
    results = []
    for part in (slice(0, 2), slice(0, 1), slice(1, 2)):
        leaf = c[part].clone().requires_grad_()
        image = _image_of_many_tiles(leaf, cutoffs[part], fast.backend)
        results.append([image.detach(), *torch.autograd.grad(image.square().sum(), leaf)])
    for both, first, second in zip(*results):
        assert torch.equal(both, torch.cat([first, second]))


def test_no_gaussians_and_none_visible_draw_nothing(fast):
    for count in (0, 300):
        c, cutoffs = _splats(count, torch.Generator().manual_seed(0))
        c = c.to(fast.device).requires_grad_()
        image = _image(c, torch.zeros_like(cutoffs), fast.backend)
        assert not image.any()
        image.sum().backward()
        assert not c.grad.any()
    empty = torch.zeros(2, 0, 10, device=fast.device, requires_grad=True)
    volume = _volume(empty, torch.zeros(2, 0), fast.backend)
    assert volume.shape == (2, 13, 18, 21)
    assert not volume.any()
    volume.sum().backward()
    assert empty.grad.shape == empty.shape


@pytest.mark.gpu
@ON_GPU
def test_kernels_run_on_the_current_stream():
    c, cutoffs = (t.cuda() for t in _splats(300, torch.Generator().manual_seed(0)))
    expected = _image(c, cutoffs, "cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # a kernel on any other stream would come before the copy
        late = torch.zeros_like(c).copy_(c)
        image = _image(late, cutoffs, "cuda")
    stream.synchronize()
    assert torch.equal(image, expected)


def _camera():
    k = torch.tensor([[50.0, 0, 8], [0, 50.0, 8], [0, 0, 1]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[2, 3] = 100
    return k, pose


def _rasterizing(device):
    shapes = ((3,), (3,), (4,), ())
    leaves = [torch.rand(2, 100, *shape, device=device).requires_grad_() for shape in shapes]
    k, pose = _camera()
    cameras = pack_cameras(k, torch.linalg.inv(k), pose).expand(2, 3, 24).to(device).requires_grad_()
    cutoffs = torch.full((2, 100), 4.0, device=device)
    leaves.append(cameras)
    return leaves, lambda: rasterize_gaussians(leaves[:4], cameras, cutoffs, (16, 16), cone=True, backend="auto")


def _voxelizing(device):
    c, cutoffs = (t.to(device) for t in _balls(100, torch.Generator().manual_seed(0)))
    return [c.requires_grad_()], lambda: _volume(c, cutoffs, "auto")


def _projecting(device):
    k, pose = _camera()
    sources = (torch.tensor([[4.5, 4.5, -90.0]], dtype=torch.float64)).to(device)
    directions = (pose[:3, :3] @ torch.linalg.inv(k))[None].to(device)
    leaves = [
        torch.rand(9, 10, 11, device=device).requires_grad_(),
        *(t.requires_grad_() for t in (sources, directions)),
    ]
    mm = torch.ones(1, 16, 16, dtype=torch.float64, device=device)
    return leaves, lambda: sum(depth_integrals(*leaves, mm, method, 1.0) for method in ("trilinear", "siddon"))


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize("what", [_rasterizing, _voxelizing, _projecting])
def test_nothing_between_parameters_and_gradients_waits_for_the_gpu(what):
    leaves, draw = what("cuda")

    def step():
        return torch.autograd.grad(draw().sum(), leaves)

    step()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(g.isfinite().all() and g.any() for g in gradients)
