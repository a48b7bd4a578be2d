"""Gaussians on a grid: mass, definition, gradients, motion."""

import math

import numpy as np
import pytest
import torch

from radgs.errors import GeometryError, RadgsError
from radgs.gaussians import Grid, RadiativeGaussians, rasterize, voxelize
from radgs.geometry import rigid_motion
from radgs.projection import project

F64 = torch.float64
GRID = Grid((14, 18, 16), 3.0, (-21.0, -25.0, -18.0))


def _tensors(count=20, seed=0, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    return [
        t.to(dtype)
        for t in (
            (torch.rand(count, 3, generator=g, dtype=F64) - 0.5) * 40,
            5 * torch.exp(0.5 * torch.randn(count, 3, generator=g, dtype=F64)),
            torch.randn(count, 4, generator=g, dtype=F64),
            0.05 * torch.rand(count, generator=g, dtype=F64),
        )
    ]


def _definition(means, scales, quaternions, densities):
    """rho exp(-1/2 d' S^-1 d) with S = R diag(s^2) R' inverted as a matrix."""
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(-1)
    zero = torch.zeros_like(w)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    rotation = torch.eye(3, dtype=F64) + 2 * w[:, None, None] * cross + 2 * cross @ cross
    inverse = torch.linalg.inv(rotation @ torch.diag_embed(scales**2) @ rotation.mT)
    axes = [GRID.origin[a] + GRID.spacing_mm * torch.arange(GRID.shape[2 - a], dtype=F64) for a in range(3)]
    zz, yy, xx = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    d = torch.stack([xx, yy, zz], -1)[..., None, :] - means
    return (densities * torch.exp(-torch.einsum("...ni,nij,...nj->...n", d, inverse, d) / 2)).sum(-1)


def test_voxel_sum_times_voxel_volume_is_the_analytic_mass():
    g = RadiativeGaussians(
        torch.tensor([[1.3, -2.1, 0.7]]),
        torch.tensor([[3.0, 5.0, 8.0]]),
        torch.tensor([[0.8, 0.3, -0.4, 0.33]]),
        torch.tensor([0.02]),
    )
    grid = Grid.centred(120.0, 80)
    mass = voxelize(g, grid, cutoff=6.0).double().sum().item() * grid.spacing_mm**3
    assert mass == pytest.approx(0.02 * (2 * math.pi) ** 1.5 * 3 * 5 * 8, rel=1e-5)


def test_a_centred_grid_is_symmetric_about_the_origin_and_spans_its_size():
    grid = Grid.centred(112.0, 128)
    assert grid.spacing_mm == 0.875
    assert grid.origin == (-55.5625,) * 3
    assert grid.origin[0] + 127 * grid.spacing_mm == 55.5625


def test_x_is_the_last_axis_and_z_the_first():
    g = RadiativeGaussians(
        torch.tensor([[9.0, -13.0, 3.0]]), torch.full((1, 3), 2.0), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1)
    )
    peak = np.unravel_index(voxelize(g, GRID).argmax().item(), GRID.shape)
    assert tuple(peak) == (7, 4, 10)  # (3 + 18) / 3, (-13 + 25) / 3, (9 + 21) / 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-6), (torch.float32, 1e-5)], ids=["reference", "fast"])
def test_values_and_all_gradients_are_those_of_the_definition(fast, dtype, tolerance):
    backend = "reference" if dtype == F64 else fast.backend
    weights = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    results = []
    for ours in (True, False):
        where, kind = (fast.device, dtype) if ours else ("cpu", F64)
        inputs = [t.to(where, kind).requires_grad_() for t in _tensors()]
        volume = (
            voxelize(RadiativeGaussians(*inputs), GRID, cutoff=7.0, backend=backend) if ours else _definition(*inputs)
        )
        gradients = torch.autograd.grad((volume * weights.to(where)).sum(), inputs)
        results.append([t.detach().cpu() for t in (volume, *gradients)])
    for ours, truth in zip(*results):
        assert (ours.double() - truth).norm() < tolerance * truth.norm()


def test_cut_off_keeps_exactly_the_voxels_within_it(fast):
    tensors = [t[:1] for t in _tensors(seed=4)]
    single = RadiativeGaussians(*(t.to(fast.device, torch.float32) for t in tensors))
    full = _definition(*tensors)
    volume = voxelize(single, GRID, cutoff=2.0, backend=fast.backend).cpu().double()
    within = full > tensors[3] * math.exp(-2.0)
    assert torch.equal(volume > 0, within)
    assert within.sum() > 20
    torch.testing.assert_close(volume[within], full[within], rtol=1e-5, atol=0)


def test_max_error_bounds_what_each_gaussian_may_lack_anywhere(fast):
    parts = [t.detach().float() for t in _tensors()]
    for i in range(len(parts[0])):
        one = [t[i : i + 1] for t in parts]
        g = RadiativeGaussians(*(t.to(fast.device) for t in one))
        full = _definition(*(t.double() for t in one))
        for max_error in (float(g.densities) / 3, 1e-6):
            drawn = voxelize(g, GRID, max_error=max_error, backend=fast.backend)
            assert (drawn.cpu().double() - full).abs().max() <= max_error + 1e-5 * float(g.densities)
        assert not voxelize(g, GRID, max_error=2 * float(g.densities), backend=fast.backend).any()


def test_gradcheck_of_the_reference():
    grid = Grid((3, 2, 4), 6.0, (-9.0, -3.0, -6.0))
    inputs = [t.requires_grad_() for t in _tensors(3)]
    assert torch.autograd.gradcheck(
        lambda *t: voxelize(RadiativeGaussians(*t), grid, cutoff=9.0, backend="reference"), inputs
    )


def test_a_batch_is_its_scenes_one_by_one_and_threads_change_no_bit():
    import numba

    scenes = [_tensors(12, seed, torch.float32) for seed in range(3)]
    stacked = [torch.stack(t).requires_grad_() for t in zip(*scenes)]
    batch = RadiativeGaussians(*stacked)
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            volumes = voxelize(batch, GRID)
            results.append([volumes.detach(), *torch.autograd.grad(volumes.square().sum(), stacked)])
    finally:
        numba.set_num_threads(before)
    for a, b in zip(*results):
        assert torch.equal(a, b)
    for i in range(3):
        assert torch.equal(results[0][0][i], voxelize(batch[i], GRID))


def test_drawing_the_voxels_gives_what_drawing_the_gaussians_gives():
    g = RadiativeGaussians(*_tensors(dtype=torch.float32))
    grid = Grid.centred(160.0, 107)
    index_from_frame = torch.eye(4, dtype=F64) / grid.spacing_mm
    index_from_frame[3, 3] = 1
    index_from_frame[:3, 3] = -torch.tensor(grid.origin, dtype=F64) / grid.spacing_mm
    k = torch.tensor([[[300.0, 0, 20], [0, 310.0, 22], [0, 0, 1]]], dtype=F64)
    pose = rigid_motion(
        torch.tensor([[0.3, -0.8, 0.2]], dtype=F64),
        torch.tensor([[3.0, 5, 600]], dtype=F64),
        torch.zeros(1, 3, dtype=F64),
    )
    drawn = rasterize(g, k, pose, (44, 40), cutoff=6.0)
    voxels = project(voxelize(g, grid, cutoff=6.0), index_from_frame, k, pose, (44, 40), step_mm=0.5)
    assert (drawn - voxels).norm() < 0.01 * drawn.norm()


def test_moving_the_gaussians_is_moving_the_frame_and_carries_gradients():
    g = RadiativeGaussians(*_tensors())
    motion = torch.tensor([0.4, -0.7, 0.5, 3.0, -4.0, 2.0], dtype=F64, requires_grad=True)
    a_from_b = rigid_motion(motion[:3], motion[3:], torch.zeros(3, dtype=F64))
    k = torch.tensor([[[300.0, 0, 20], [0, 310.0, 22], [0, 0, 1]]], dtype=F64)
    pose = torch.eye(4, dtype=F64)[None].clone()
    pose[0, 2, 3] = 500.0
    moved = rasterize(g.moved(a_from_b), k, pose, (30, 30), cutoff=8.0, backend="reference")
    turned = rasterize(g, k, pose @ a_from_b, (30, 30), cutoff=8.0, backend="reference")
    torch.testing.assert_close(moved, turned, rtol=1e-7, atol=1e-10)
    weights = torch.randn(moved.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    (first,) = torch.autograd.grad((moved * weights).sum(), motion, retain_graph=True)
    (second,) = torch.autograd.grad((turned * weights).sum(), motion)
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-9)


def test_moving_a_batch_moves_each_scene_by_its_own_motion():
    batch = RadiativeGaussians(*(torch.stack([t, t]) for t in _tensors(5, dtype=torch.float32)))
    motions = rigid_motion(
        torch.tensor([[0.0, 0, 0], [0.1, 0.2, 0.3]]), torch.tensor([[1.0, 2, 3], [0, 0, 0]]), torch.zeros(2, 3)
    )
    moved = batch.moved(motions)
    torch.testing.assert_close(moved.means[0], batch.means[0] + torch.tensor([1.0, 2, 3]))
    torch.testing.assert_close(moved[1].means, batch[1].moved(motions[1]).means)
    assert moved.means.dtype == torch.float32


def test_impossible_input_is_refused_in_a_sentence():
    means, scales, quaternions, densities = _tensors(dtype=torch.float32)
    with pytest.raises(RadgsError, match="scales must have shape"):
        RadiativeGaussians(means, scales[:3], quaternions, densities)
    with pytest.raises(RadgsError, match="float64"):
        RadiativeGaussians(means, scales.double(), quaternions, densities)
    with pytest.raises(RadgsError, match="floating point"):
        RadiativeGaussians(means.long(), scales, quaternions, densities)
    g = RadiativeGaussians(means, scales, quaternions, densities)
    with pytest.raises(RadgsError, match="no batch"):
        g[0]
    with pytest.raises(GeometryError, match="rigid"):
        g.moved(2 * torch.eye(4))
    with pytest.raises(GeometryError, match="rigid"):
        g.moved(torch.diag(torch.tensor([1.0, 1, -1, 1])))
    with pytest.raises(GeometryError, match="motion"):
        g.moved(torch.eye(4).repeat(2, 1, 1))
    for shape, spacing, origin in (
        ((4, 4, 4), 0.0, (0, 0, 0)),
        ((4.5, 4, 4), 1.0, (0, 0, 0)),
        ((4, 4), 1.0, (0, 0, 0)),
        ((4, 4, 4), 1.0, (0, 0)),
        ((4, 4, 4), 1.0, (0, 0, math.nan)),
    ):
        with pytest.raises(GeometryError, match="spacing"):
            Grid(shape, spacing, origin)
    with pytest.raises(GeometryError, match="at least one voxel"):
        Grid.centred(10.0, 0)
    with pytest.raises(RadgsError, match="cutoff"):
        voxelize(g, GRID, cutoff=-1.0)
    for backend, words in (("cuda", "GPU"), ("abacus", "backend")):
        with pytest.raises(RadgsError, match=words):
            voxelize(g, GRID, backend=backend)


@pytest.mark.parametrize(
    ("index", "value", "words"),
    [(0, math.nan, "means"), (1, 0.0, "scales"), (1, math.inf, "scales"), (2, 0.0, "quat"), (3, math.nan, "densities")],
)
def test_impossible_gaussians_are_refused_in_a_sentence(index, value, words):
    tensors = _tensors(dtype=torch.float32)
    tensors[index][3] = value
    with pytest.raises(RadgsError, match=words):
        voxelize(RadiativeGaussians(*tensors), GRID)


@pytest.mark.parametrize("batch", [(), (0,), (2,)])
def test_no_gaussians_fill_no_voxel(batch):
    g = RadiativeGaussians(*(torch.ones(*batch, 0, *shape) for shape in ((3,), (3,), (4,), ())))
    volume = voxelize(g, GRID)
    assert volume.shape == (*batch, *GRID.shape)
    assert not volume.any()


@pytest.mark.parametrize("thin", [1e-12, 1e-25])
def test_gaussians_thinner_than_floats_can_hold_are_left_out_with_gradients_of_zero(every, thin):
    tensors = _tensors(dtype=torch.float32)
    tensors[1][3, 1] = thin
    leaves = [t.to(every.device).requires_grad_() for t in tensors]
    volume = voxelize(RadiativeGaussians(*leaves), GRID, backend=every.backend)
    gradients = torch.autograd.grad(volume.square().sum(), leaves)
    others = RadiativeGaussians(*(torch.cat([t[:3], t[4:]]) for t in leaves))
    torch.testing.assert_close(volume, voxelize(others, GRID, backend=every.backend))
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.any()
        assert not gradient[3].any()
