"""Gaussians to coefficients: the adjoint by hand against automatic differentiation, in float64."""

import numpy as np
import pytest
import torch

from radgs.gaussians.rasterize import pack_cameras
from radgs.geometry import rigid_motion
from radgs.kernels import rasterize_gaussians
from radgs.kernels.numba import operations
from radgs.kernels.numba.project import CHUNK
from radgs.kernels.reference import project_reference

F64 = torch.float64
SCENES, VIEWS, SIZE = 2, 3, (26, 30)


def _scenes(count, cone=True):
    """Gaussians of all shapes around the isocentre, some behind the source or around it, some left out."""
    g = torch.Generator().manual_seed(0)
    kind = {"generator": g, "dtype": F64}
    means = (torch.rand(SCENES, count, 3, **kind) - 0.5) * 60
    means[:, ::7, 2] -= 900
    cutoffs = 4.5 + torch.rand(SCENES, count, **kind)
    cutoffs[:, 3::9] = 0
    gaussians = [
        means,
        4 * torch.exp(0.6 * torch.randn(SCENES, count, 3, **kind)),
        torch.randn(SCENES, count, 4, **kind),
        0.05 * torch.rand(SCENES, count, **kind),
    ]
    return gaussians, _cameras(g, cone), cutoffs


def _cameras(generator, cone):
    """Views with skew and unequal focal lengths, in pixels or, of parallel beams, in pixels per mm."""
    kind = {"generator": generator, "dtype": F64}
    k = torch.zeros(SCENES, VIEWS, 3, 3, dtype=F64)
    k[..., 0, 0], k[..., 1, 1] = (250 + 100 * torch.rand(2, SCENES, VIEWS, **kind)).unbind()
    k[..., 0, 1] = 20 * torch.randn(SCENES, VIEWS, **kind)
    k = k if cone else k / 500
    k[..., 0, 2], k[..., 1, 2], k[..., 2, 2] = 14.0, 12.0, 1.0
    shift = torch.tensor([2.0, -3, 500], dtype=F64).expand(SCENES, VIEWS, 3)
    pose = rigid_motion(0.3 * torch.randn(SCENES, VIEWS, 3, **kind), shift, torch.zeros(3, dtype=F64))
    return pack_cameras(k, torch.linalg.inv(k), pose)


def _close(ours, truth, tolerance):
    assert truth.norm() > 0
    return (ours.double() - truth).norm() <= tolerance * truth.norm()


@pytest.mark.parametrize("cone", [True, False], ids=["cone", "parallel"])
@pytest.mark.parametrize("count", [5, CHUNK + 1, 3 * CHUNK])
def test_adjoint_by_hand_is_that_of_automatic_differentiation_in_float64(count, cone):
    gaussians, cameras, cutoffs = _scenes(count, cone)
    leaves = [t.requires_grad_() for t in (*gaussians, cameras)]
    expected, expected_ends = project_reference(leaves[:4], leaves[4], cutoffs, cone)
    coefficients, ends, _ = operations.project(gaussians, cameras, cutoffs, SIZE, cone)
    drawn = expected_ends > 0
    assert torch.equal(ends, expected_ends)
    assert 0 < drawn.double().mean() < 1
    assert _close(coefficients[drawn], expected[drawn].detach(), 1e-12)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    # Coefficients of all sizes: each has its say.
    weights = weights / expected.detach().abs().amax((0, 1, 2)).clamp_min(1e-300) * drawn[..., None]
    truths = torch.autograd.grad((expected * weights).sum(), leaves)
    for ours, truth in zip(
        operations.project_adjoint(gaussians, cameras, ends, cone, weights, True), truths, strict=True
    ):
        assert _close(ours, truth, 1e-10)


@pytest.mark.parametrize("column", range(11))
def test_each_coefficient_alone_has_its_own_gradient(column):
    gaussians, cameras, cutoffs = _scenes(8)
    leaves = [t.requires_grad_() for t in (*gaussians, cameras)]
    expected, ends = project_reference(leaves[:4], leaves[4], cutoffs, cone=True)
    weights = torch.zeros_like(expected)
    weights[..., column] = torch.where(ends > 0, torch.arange(1.0, 9.0, dtype=F64), 0)
    truths = torch.autograd.grad((expected * weights).sum(), leaves)
    for ours, truth in zip(
        operations.project_adjoint(gaussians, cameras, ends, True, weights, True), truths, strict=True
    ):
        assert (ours - truth).norm() <= 1e-10 * truth.norm()


@pytest.mark.parametrize("count", [1, 33, 300])
@pytest.mark.parametrize("cone", [True, False], ids=["cone", "parallel"])
def test_images_and_gradients_of_many_scenes_and_views_at_once(count, cone, fast):
    gaussians, cameras, cutoffs = _scenes(count, cone)
    gaussians[0] = gaussians[0].float().double()
    cutoffs = cutoffs.float()
    weights = torch.randn(SCENES, VIEWS, *SIZE, generator=torch.Generator().manual_seed(1), dtype=F64)
    results = []
    for backend, device, dtype in ((*fast, torch.float32), (*fast, torch.float32), ("reference", "cpu", F64)):
        leaves = [t.detach().float().to(device, dtype).requires_grad_() for t in gaussians]
        where = cameras.detach().to(device).requires_grad_()
        image = rasterize_gaussians(leaves, where, cutoffs.to(device, dtype), SIZE, cone, backend)
        gradients = torch.autograd.grad((image * weights.to(device)).sum(), [*leaves, where])
        results.append([t.detach().cpu() for t in (image, *gradients)])
    for first, second, truth in zip(*results, strict=True):
        assert torch.equal(first, second)
        assert (first.double() - truth).norm() <= 5e-5 * truth.norm() + 1e-9


def test_cameras_get_no_gradient_that_was_not_asked_for_and_gaussians_the_same(fast):
    gaussians, cameras, cutoffs = _scenes(40)
    results = []
    for wanted in (True, False):
        leaves = [t.detach().to(fast.device, torch.float32).requires_grad_() for t in gaussians]
        where = cameras.to(fast.device).requires_grad_(wanted)
        image = rasterize_gaussians(leaves, where, cutoffs.float().to(fast.device), SIZE, True, fast.backend)
        results.append(torch.autograd.grad(image.sum(), leaves))
        where.requires_grad_(False)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_gaussians_too_thin_for_floats_are_left_out_with_zero_gradients(every):
    gaussians, cameras, cutoffs = ([t.float() for t in x] if isinstance(x, list) else x for x in _scenes(6))
    gaussians[1][:, 2] = 1e-25
    cutoffs = torch.full_like(cutoffs, 4.0).float()
    leaves = [t.to(every.device).requires_grad_() for t in gaussians]
    image = rasterize_gaussians(leaves, cameras.to(every.device), cutoffs.to(every.device), SIZE, True, every.backend)
    gradients = torch.autograd.grad(image.sum(), leaves)
    assert image.isfinite().all()
    assert image.any()
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert not gradient[:, 2].any()


def test_no_gaussians_and_no_scenes_make_empty_images_and_gradients(fast):
    for scenes, count in ((0, 4), (2, 0)):
        shapes = ((3,), (3,), (4,), ())
        leaves = [torch.ones(scenes, count, *shape, device=fast.device, requires_grad=True) for shape in shapes]
        cameras = torch.ones(scenes, VIEWS, 24, dtype=F64, device=fast.device, requires_grad=True)
        cutoffs = torch.full((scenes, count), 4.0, device=fast.device)
        image = rasterize_gaussians(leaves, cameras, cutoffs, SIZE, True, fast.backend)
        assert image.shape == (scenes, VIEWS, *SIZE)
        assert not image.any()
        for gradient, leaf in zip(torch.autograd.grad(image.sum(), [*leaves, cameras]), [*leaves, cameras]):
            assert gradient.shape == leaf.shape
            assert not gradient.any()


def test_sums_over_gaussians_for_cameras_have_one_order_whatever_the_threads():
    import numba

    gaussians, cameras, cutoffs = _scenes(5 * CHUNK)
    weights = torch.ones(SCENES, VIEWS, 5 * CHUNK, 11, dtype=F64)
    before, results = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            _, ends, _ = operations.project(gaussians, cameras, cutoffs, SIZE, True)
            results.append(operations.project_adjoint(gaussians, cameras, ends, True, weights, True))
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
