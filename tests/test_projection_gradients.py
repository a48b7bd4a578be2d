"""Gradients of projections against finite differences, the reference, and the definition of an adjoint."""

import pytest
import torch

from radgs.errors import GeometryError
from radgs.geometry import rigid_motion
from radgs.projection import project

METHODS = ["trilinear", "siddon"]
SHAPE, SIZE = (22, 26, 24), (30, 34)
INDEX_FROM_CT = torch.linalg.inv(
    torch.tensor([[1.6, 0.5, 0, -22], [-0.5, 1.6, 0.2, -14], [0, -0.2, 2.0, -24], [0, 0, 0, 1]], dtype=torch.float64)
)
K = torch.tensor(
    [[[400.0, 2, 16.2], [0, 410.0, 14.7], [0, 0, 1]], [[380.0, 0, 15.5], [0, 380.0, 15.1], [0, 0, 1]]],
    dtype=torch.float64,
)


def _smooth_volume(dtype=torch.float32):
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in SHAPE), indexing="ij")
    blob = torch.exp(-6 * ((x - 0.2) ** 2 + 2 * (y + 0.1) ** 2 + (z - 0.1) ** 2 + 0.8 * x * y))
    return (0.02 * blob + 0.01 * torch.exp(-20 * ((x + 0.5) ** 2 + (y - 0.4) ** 2 + (z + 0.4) ** 2))).to(dtype)


def _poses(parameters):
    """Two views moved by the same six numbers."""
    start = rigid_motion(
        torch.tensor([[0.31, 0.22, -0.53], [1.13, -0.71, 0.37]], dtype=torch.float64),
        torch.tensor([[1.0, 2.0, 500.0], [-2.0, 1.0, 520.0]], dtype=torch.float64),
        torch.zeros(2, 3, dtype=torch.float64),
    )
    return start @ rigid_motion(parameters[:3], parameters[3:], torch.zeros(3, dtype=torch.float64))


def _weights():
    return torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1)).cumsum(-1) / 8


def test_pose_gradient_is_that_of_finite_differences():
    # The field is piecewise trilinear and exactly integrated only in the limit, so compare on fine steps.
    volume = _smooth_volume(torch.float64)

    def loss(parameters, **how):
        image = project(how.pop("v"), INDEX_FROM_CT, K, _poses(parameters), SIZE, step_mm=0.1, **how)
        return (image.double() * _weights()).sum()

    parameters = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    (fast,) = torch.autograd.grad(loss(parameters, v=volume.float()), parameters)
    step = 1e-3
    for i in range(6):
        move = torch.zeros(6, dtype=torch.float64)
        move[i] = step
        with torch.no_grad():
            ends = [loss(sign * move, v=volume, backend="reference") for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        largest = fast[i - i % 3 : i - i % 3 + 3].abs().max().item()
        assert fast[i].item() == pytest.approx(slope.item(), rel=0.01, abs=0.005 * largest)


def test_siddon_pose_gradient_is_that_of_finite_differences_of_the_reference():
    volume = _smooth_volume(torch.float64)
    weights = _weights().double()

    def loss(parameters):
        image = project(volume, INDEX_FROM_CT, K, _poses(parameters), SIZE, method="siddon", backend="reference")
        return (image * weights).sum()

    parameters = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    image = project(volume.float(), INDEX_FROM_CT, K, _poses(parameters), SIZE, method="siddon")
    (fast,) = torch.autograd.grad((image.double() * weights).sum(), parameters)
    for i in range(6):
        move = torch.zeros(6, dtype=torch.float64)
        move[i] = 1e-6
        with torch.no_grad():
            slope = (loss(move) - loss(-move)) / 2e-6
        assert fast[i].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-3 * fast.abs().max().item())


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck_of_the_reference(method):
    volume = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    index_from_ct = torch.diag(torch.tensor([0.11, 0.09, 0.1, 1], dtype=torch.float64))
    index_from_ct[:3, 3] = torch.tensor([2.0, 1.5, 1.0])
    motion = torch.zeros(6, dtype=torch.float64)
    if method == "siddon":
        # The trilinear samples move with the pose: its derivatives are those of the integral, not of the sum.
        motion.requires_grad_()

    def image(volume, motion):
        poses = _poses(motion)
        return project(volume, index_from_ct, K, poses, SIZE, method=method, step_mm=3.0, backend="reference")[
            :, ::7, ::8
        ]

    assert image(volume, motion).max() > 1
    assert torch.autograd.gradcheck(image, (volume, motion), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_fast_kernels_agree_with_the_reference_in_values_and_all_gradients(method, fast):
    results = []
    for (backend, device), dtype in ((fast, torch.float32), (("reference", "cpu"), torch.float64)):
        inputs = [
            _smooth_volume(dtype).to(device).requires_grad_(),
            K.clone().to(device).requires_grad_(),
            _poses(torch.zeros(6, dtype=torch.float64)).to(device).requires_grad_(),
        ]
        image = project(inputs[0], INDEX_FROM_CT, *inputs[1:], SIZE, method=method, backend=backend)
        gradients = torch.autograd.grad((image * _weights().to(image)).sum(), inputs)
        results.append([t.detach().cpu() for t in (image, *gradients)])
    for fast, slow in zip(*results):
        assert (fast.double() - slow.double()).norm() < 1e-4 * slow.double().norm()


@pytest.mark.parametrize("method", METHODS)
def test_volume_gradient_is_the_adjoint_of_the_projection(method, fast):
    generator = torch.Generator().manual_seed(2)
    poses = _poses(torch.zeros(6, dtype=torch.float64))
    volume = torch.randn(SHAPE, generator=generator).to(fast.device).requires_grad_()
    other = torch.randn(SHAPE, generator=generator).to(fast.device)
    weights = torch.randn(2, *SIZE, generator=generator).to(fast.device)
    image = project(volume, INDEX_FROM_CT, K, poses, SIZE, method=method, backend=fast.backend)
    (adjoint,) = torch.autograd.grad((image * weights).sum(), volume)
    forward = project(other, INDEX_FROM_CT, K, poses, SIZE, method=method, backend=fast.backend)
    left, right = (forward.double() * weights).sum(), (adjoint.double() * other).sum()
    scale = forward.double().norm() * weights.norm()
    assert abs(left - right) < 1e-5 * scale
    assert abs(left) > 1e-4 * scale


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_volumes_is_its_volumes_one_by_one(method, fast):
    volumes = torch.stack([_smooth_volume(), 2 * _smooth_volume().flip(0)]).to(fast.device).requires_grad_()
    moves = (torch.zeros(6, dtype=torch.float64), torch.full((6,), 0.1, dtype=torch.float64))
    poses, ks = (
        torch.stack([_poses(m) for m in moves]),
        torch.stack([K, 1.1 * K + torch.diag(torch.tensor([0, 0, -0.1]))]),
    )
    how = {"method": method, "backend": fast.backend}
    images = project(volumes, INDEX_FROM_CT, ks, poses, SIZE, **how)
    assert images.shape == (2, 2, *SIZE)
    (gradient,) = torch.autograd.grad(images.square().sum(), volumes)
    for i in range(2):
        alone = volumes[i].detach().requires_grad_()
        image = project(alone, INDEX_FROM_CT, ks[i], poses[i], SIZE, **how)
        assert torch.equal(image, images[i])
        assert torch.equal(torch.autograd.grad(image.square().sum(), alone)[0], gradient[i])
    with pytest.raises(GeometryError, match="batch of 2"):
        project(volumes, INDEX_FROM_CT, ks[:1], poses, SIZE)
