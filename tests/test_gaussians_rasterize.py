"""Line integrals of Gaussians against their definition in float64, for values and every gradient."""

import math

import pytest
import torch

from radgs.errors import GeometryError, RadgsError
from radgs.gaussians import RadiativeGaussians, rasterize
from radgs.geometry import rigid_motion

F64 = torch.float64
SIZE = (26, 30)


def _cameras():
    """Two views; the second has skew and unequal focal lengths."""
    k = torch.tensor(
        [[[300.0, 0, 14.2], [0, 300.0, 12.7], [0, 0, 1]], [[320.0, 25.0, 13.1], [0, 260.0, 14.5], [0, 0, 1]]],
        dtype=F64,
    )
    rotvecs = torch.tensor([[0.2, -0.1, 0.3], [-0.4, 1.4, 0.2]], dtype=F64)
    return k, rigid_motion(
        rotvecs, torch.tensor([[2.0, 3, 600], [-4, 1, 480]], dtype=F64), torch.zeros(2, 3, dtype=F64)
    )


def _tensors(count=30, seed=0, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    return [
        t.to(dtype)
        for t in (
            (torch.rand(count, 3, generator=g, dtype=F64) - 0.5) * 40,
            4 * torch.exp(0.6 * torch.randn(count, 3, generator=g, dtype=F64)),
            torch.randn(count, 4, generator=g, dtype=F64),
            0.05 * torch.rand(count, generator=g, dtype=F64),
        )
    ]


def _rotation(q):
    """From the formula of a quaternion turning a vector, v + 2 w (r x v) + 2 r x (r x v)."""
    q = q / q.norm(dim=-1, keepdim=True)
    w, r = q[..., :1, None], q[..., None, 1:]
    basis = torch.eye(3, dtype=q.dtype).expand(*q.shape[:-1], 3, 3)
    r = r.expand_as(basis)
    once = torch.linalg.cross(r, basis)
    return (basis + 2 * w * once + 2 * torch.linalg.cross(r, once)).mT


def _definition(means, scales, quaternions, densities, k, pose):
    """The integral over all x = source + t d of rho exp(-1/2 |S^-1/2 R' (x - p)|^2): Gaussian in t, closed form."""
    rotation, translation = pose[:, :3, :3], pose[:, :3, 3]
    v, u = torch.meshgrid(*(torch.arange(n, dtype=F64) for n in SIZE), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1)
    in_camera = torch.einsum("vij,hwj->vhwi", torch.linalg.inv(k), pixels)
    in_camera = in_camera / in_camera.norm(dim=-1, keepdim=True)
    d = torch.einsum("vji,vhwj->vhwi", rotation, in_camera)
    source = -torch.einsum("vji,vj->vi", rotation, translation)
    whitening = _rotation(quaternions).mT / scales[:, :, None]
    wd = torch.einsum("nij,vhwj->vhwni", whitening, d)
    wm = torch.einsum("nij,vnj->vni", whitening, means - source[:, None])[:, None, None]
    aa, ab, bb = (wd * wd).sum(-1), (wd * wm).sum(-1), (wm * wm).sum(-1)
    return (densities * (2 * math.pi / aa).sqrt() * torch.exp(-(bb - ab**2 / aa) / 2)).sum(-1)


def test_central_ray_of_one_round_gaussian_is_rho_sigma_root_two_pi():
    g = RadiativeGaussians(
        torch.tensor([[0.0, 0, 500]]), torch.full((1, 3), 5.0), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0.02])
    )
    k = torch.tensor([[[800.0, 0, 3], [0, 800.0, 2], [0, 0, 1]]])
    image = rasterize(g, k, torch.eye(4)[None], (5, 7))
    assert image.shape == (1, 5, 7)
    assert image[0, 2, 3].item() == pytest.approx(0.02 * 5 * math.sqrt(2 * math.pi), rel=1e-6)
    assert image.argmax().item() == 2 * 7 + 3


def test_a_gaussian_to_the_left_and_above_appears_left_and_above():
    g = RadiativeGaussians(
        torch.tensor([[-20.0, -10, 500]]), torch.full((1, 3), 3.0), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1)
    )
    k = torch.tensor([[[100.0, 0, 20], [0, 100.0, 20], [0, 0, 1]]])
    image = rasterize(g, k, torch.eye(4)[None], (41, 41))[0]
    assert divmod(image.argmax().item(), 41) == (18, 16)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-6), (torch.float32, 1e-5)], ids=["reference", "fast"])
def test_values_and_all_gradients_are_those_of_the_definition(fast, dtype, tolerance):
    backend = "reference" if dtype == F64 else fast.backend
    weights = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1), dtype=F64)
    results = []
    for ours in (True, False):
        where, kind = (fast.device, dtype) if ours else ("cpu", F64)
        inputs = [t.to(where, kind).requires_grad_() for t in _tensors()]
        motion = torch.zeros(6, dtype=F64, requires_grad=True)
        k, pose = _cameras()
        focal = torch.ones(2, 2, 3, dtype=F64, requires_grad=True)
        k = torch.cat([k[:, :2] * focal, k[:, 2:]], 1)
        pose = pose @ rigid_motion(motion[:3], motion[3:], torch.zeros(3, dtype=F64))
        if ours:
            image = rasterize(RadiativeGaussians(*inputs), k, pose, SIZE, cutoff=7.0, backend=backend)
        else:
            image = _definition(*inputs, k, pose)
        gradients = torch.autograd.grad((image * weights.to(where)).sum(), [*inputs, motion, focal])
        results.append([t.detach().cpu() for t in (image, *gradients)])
    for ours, truth in zip(*results):
        assert (ours.double() - truth).norm() < tolerance * truth.norm()


def test_cut_off_leaves_exactly_the_rays_further_than_it(fast):
    means, scales, quaternions, densities = (t[:1] for t in _tensors(dtype=torch.float32))
    k, pose = _cameras()
    g = RadiativeGaussians(*(t.to(fast.device) for t in (means, scales, quaternions, densities)))
    full = _definition(*(t.double() for t in (means, scales, quaternions, densities)), k, pose)
    image = rasterize(g, k, pose, SIZE, cutoff=1.5, backend=fast.backend).cpu().double()
    reference = rasterize(
        RadiativeGaussians(*(t.double() for t in (means, scales, quaternions, densities))),
        k, pose, SIZE, cutoff=1.5, backend="reference",
    )  # fmt: skip
    drawn = image > 0
    assert torch.equal(drawn, reference > 0)
    assert 0.02 < drawn.double().mean() < 0.7
    torch.testing.assert_close(image[drawn], full[drawn], rtol=1e-5, atol=0)


def _at_the_source(parts, scale):
    """The Gaussians much nearer to the source, where q is far from 1."""
    means, scales, quaternions, densities = parts
    return means * scale, scales * scale, quaternions, densities / scale


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("max_error", [1e-2, 1e-4, 1e-7])
def test_max_error_bounds_what_each_gaussian_may_lack_anywhere(max_error, scale, fast):
    parts = _at_the_source([t.to(torch.float32) for t in _tensors()], scale)
    k, pose = _cameras()
    for i in range(len(parts[0])):
        one = [t[i : i + 1] for t in parts]
        g = RadiativeGaussians(*(t.to(fast.device) for t in one))
        image = rasterize(g, k, pose, SIZE, max_error=max_error, backend=fast.backend).cpu().double()
        full = _definition(*(t.double() for t in one), k, pose)
        assert (image - full).abs().max() <= max_error + 1e-5 * full.max()


def test_max_error_leaves_out_gaussians_that_are_too_faint_and_draws_dense_ones_further():
    parts = [t.to(torch.float32) for t in _tensors(1)]
    k, pose = _cameras()
    faint, dense = (RadiativeGaussians(*parts[:3], torch.tensor([d], dtype=torch.float32)) for d in (1e-6, 1e3))
    assert not rasterize(faint, k, pose, SIZE, max_error=1e-4).any()
    drawn = [(rasterize(dense, k, pose, SIZE, **how) > 0).sum() for how in ({"cutoff": 4.0}, {"max_error": 1e-4})]
    assert drawn[1] > drawn[0]


def test_max_error_draws_the_same_on_every_backend(fast):
    parts = _tensors()
    k, pose = _cameras()
    single = RadiativeGaussians(*(t.to(fast.device, torch.float32) for t in parts))
    drawn = rasterize(single, k, pose, SIZE, max_error=1e-5, backend=fast.backend)
    slow = rasterize(RadiativeGaussians(*parts), k, pose, SIZE, max_error=1e-5, backend="reference")
    torch.testing.assert_close(drawn.cpu().double(), slow, rtol=2e-5, atol=1e-5)


def _parallel_definition(means, scales, quaternions, densities, k, pose):
    """Along the camera's z axis through every pixel's point."""
    v, u = torch.meshgrid(*(torch.arange(n, dtype=F64) for n in SIZE), indexing="ij")
    at = torch.einsum("vij,hwj->vhwi", torch.linalg.inv(k), torch.stack([u, v, torch.ones_like(u)], -1))
    at = torch.cat([at[..., :2], torch.zeros_like(at[..., :1])], -1)
    rotation = pose[:, :3, :3]
    origin = torch.einsum("vji,vhwj->vhwi", rotation, at - pose[:, None, None, :3, 3])
    whitening = _rotation(quaternions).mT / scales[:, :, None]
    wd = torch.einsum("nij,vj->vni", whitening, rotation[:, 2])[:, None, None]
    wm = torch.einsum("nij,vhwnj->vhwni", whitening, means - origin[..., None, :])
    aa, ab, bb = (wd * wd).sum(-1), (wd * wm).sum(-1), (wm * wm).sum(-1)
    return (densities * (2 * math.pi / aa).sqrt() * torch.exp(-(bb - ab**2 / aa) / 2)).sum(-1)


def test_parallel_beams_are_those_of_the_definition_with_all_gradients(every):
    dtype, tolerance = (F64, 1e-6) if every.backend == "reference" else (torch.float32, 1e-5)
    weights = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1), dtype=F64)
    results = []
    for ours in (True, False):
        where, kind = (every.device, dtype) if ours else ("cpu", F64)
        inputs = [t.to(where, kind).requires_grad_() for t in _tensors()]
        motion = torch.zeros(6, dtype=F64, requires_grad=True)
        k, pose = _cameras()
        k = torch.cat([k[:, :2] / torch.tensor([500.0, 500, 1], dtype=F64), k[:, 2:]], 1).requires_grad_()
        pose = pose @ rigid_motion(motion[:3], motion[3:], torch.zeros(3, dtype=F64))
        if ours:
            g = RadiativeGaussians(*inputs)
            image = rasterize(g, k, pose, SIZE, beam="parallel", cutoff=7.0, backend=every.backend)
        else:
            image = _parallel_definition(*inputs, k, pose)
        *gradients, to_k = torch.autograd.grad((image * weights.to(where)).sum(), [*inputs, motion, k])
        results.append([t.detach().cpu() for t in (image, *gradients, to_k[:, :2])])
    for ours, truth in zip(*results):
        assert (ours.double() - truth).norm() < tolerance * truth.norm()


def test_parallel_beams_draw_what_lies_behind_the_camera_and_keep_its_size(every):
    means = torch.tensor([[0.0, 0, -700]])
    images = []
    for shift in (0.0, 900.0):
        parts = means + torch.tensor([0, 0, shift]), torch.full((1, 3), 3.0), torch.ones(1, 4), torch.ones(1)
        g = RadiativeGaussians(*(part.to(every.device) for part in parts))
        k = torch.tensor([[[0.5, 0, 4], [0, 0.5, 4], [0, 0, 1]]])
        images.append(rasterize(g, k, torch.eye(4)[None], (9, 9), beam="parallel", backend=every.backend))
    assert images[0][0, 4, 4].item() == pytest.approx(3 * math.sqrt(2 * math.pi), rel=1e-5)
    assert torch.equal(*images)


def test_gradcheck_of_the_reference():
    k, pose = _cameras()
    inputs = [t.requires_grad_() for t in (*_tensors(3), k, pose)]

    def image(means, scales, quaternions, densities, k, pose):
        last = torch.tensor([0.0, 0, 1], dtype=F64).expand(2, 1, 3)
        k = torch.cat([torch.stack([k[:, 0], k[:, 1] * torch.tensor([0.0, 1, 1], dtype=F64)], 1), last], 1)
        g = RadiativeGaussians(means, scales, quaternions, densities)
        return rasterize(g, k, pose, (4, 5), cutoff=9.0, backend="reference")

    assert torch.autograd.gradcheck(image, inputs, eps=1e-6, atol=1e-5)


def test_a_batch_is_its_scenes_one_by_one(every):
    scenes = [_tensors(12, seed, torch.float32) for seed in range(3)]
    k, pose = _cameras()
    ks = torch.stack([k, k * torch.tensor([1.1, 1.1, 1.0])[:, None], k])
    poses = torch.stack([pose, pose, pose.flip(0)])
    batch = RadiativeGaussians(*(torch.stack(t).to(every.device) for t in zip(*scenes)))
    images = rasterize(batch, ks, poses, SIZE, backend=every.backend)
    assert images.shape == (3, 2, *SIZE)
    for i in range(3):
        assert torch.equal(images[i], rasterize(batch[i], ks[i], poses[i], SIZE, backend=every.backend))


@pytest.mark.parametrize("depth", [-300.0, 0.0, 11.9, -11.9])
def test_gaussians_behind_or_around_the_source_are_left_out_with_finite_zero_gradients(every, depth):
    means = torch.tensor([[1.0, 2, depth], [0, 0, 400]], device=every.device, requires_grad=True)
    others = (torch.full((2, 3), 3.0), torch.tensor([[1.0, 0, 0, 0]] * 2), torch.full((2,), 0.1))
    g = RadiativeGaussians(means, *(part.to(every.device) for part in others))
    k = torch.tensor([[[100.0, 0, 4], [0, 100.0, 4], [0, 0, 1]]])
    pose = torch.eye(4)[None].requires_grad_()
    image = rasterize(g, k, pose, (9, 9), backend=every.backend)
    alone = RadiativeGaussians(*(t[1:] for t in (g.means, g.scales, g.quaternions, g.densities)))
    assert torch.equal(image, rasterize(alone, k, pose, (9, 9), backend=every.backend))
    image.sum().backward()
    assert torch.equal(means.grad[0], torch.zeros(3, device=every.device))
    assert means.grad.isfinite().all()
    assert pose.grad.isfinite().all()


def test_just_beyond_the_source_a_gaussian_is_drawn(every):
    parts = torch.tensor([[0.0, 0, 12.1]]), torch.full((1, 3), 3.0), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1)
    g = RadiativeGaussians(*(part.to(every.device) for part in parts))
    k = torch.tensor([[[100.0, 0, 4], [0, 100.0, 4], [0, 0, 1]]])
    assert rasterize(g, k, torch.eye(4)[None], (9, 9), backend=every.backend).min() > 1


def test_one_thread_and_two_give_the_same_bits():
    import numba

    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            inputs = [t.requires_grad_() for t in _tensors(300, dtype=torch.float32)]
            image = rasterize(RadiativeGaussians(*inputs), *_cameras(), (64, 64))
            gradients = torch.autograd.grad(image.square().sum(), inputs)
            results.append([image.detach(), *gradients])
    finally:
        numba.set_num_threads(before)
    for a, b in zip(*results):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"K": torch.eye(3)[None]}, GeometryError, "K"),
        ({"K": torch.zeros(2, 3, 3)}, GeometryError, "focal"),
        ({"camera_from_frame": torch.full((2, 4, 4), float("nan"))}, GeometryError, "NaN"),
        ({"camera_from_frame": 2 * torch.eye(4).repeat(2, 1, 1)}, GeometryError, "rigid"),
        ({"camera_from_frame": torch.eye(4).repeat(2, 1, 1) + torch.eye(4)[[1, 2, 3, 0]]}, GeometryError, "rigid"),
        ({"camera_from_frame": torch.eye(4)[[1, 0, 2, 3]].repeat(2, 1, 1)}, GeometryError, "mirror"),
        ({"camera_from_frame": torch.eye(4)}, GeometryError, "batch"),
        ({"K": torch.eye(3).repeat(2, 1, 1) * float("inf")}, GeometryError, "K holds NaN"),
        ({"size": (0, 3)}, GeometryError, "pixel"),
        ({"size": (3.5, 3)}, GeometryError, "pixel"),
        ({"size": 3}, GeometryError, "pixel"),
        ({"cutoff": 0.0}, RadgsError, "cutoff"),
        ({"cutoff": 50.0}, RadgsError, "cutoff"),
        ({"max_error": 0.0}, RadgsError, "max_error"),
        ({"beam": "fan"}, RadgsError, "beam"),
        ({"backend": "abacus"}, RadgsError, "backend"),
        ({"backend": "cuda"}, RadgsError, "GPU"),
        ({"gaussians": RadiativeGaussians(*_tensors())}, RadgsError, "float32"),
    ],
)
def test_impossible_input_is_refused_in_a_sentence(change, error, words):
    k, pose = _cameras()
    arguments = {
        "gaussians": RadiativeGaussians(*_tensors(dtype=torch.float32)),
        "K": k,
        "camera_from_frame": pose,
        "size": SIZE,
    }
    with pytest.raises(error, match=words):
        rasterize(**(arguments | change))


@pytest.mark.parametrize(
    ("index", "value", "words"), [(0, float("nan"), "means"), (1, 0.0, "scales"), (1, -1.0, "scales"), (2, 0.0, "quat")]
)
def test_impossible_gaussians_are_refused_in_a_sentence(index, value, words):
    tensors = _tensors(dtype=torch.float32)
    tensors[index][3] = value
    with pytest.raises(RadgsError, match=words):
        rasterize(RadiativeGaussians(*tensors), *_cameras(), SIZE)
