"""Line integrals of shapes whose chords are known, under oblique grids and off-axis rays."""

import math

import pytest
import torch

from radgs.errors import GeometryError, ImageError, RadgsError
from radgs.geometry import rigid_motion
from radgs.projection import project

METHODS = ["trilinear", "siddon"]


def _pose(rotvec, translation):
    f64 = torch.float64
    return rigid_motion(
        torch.tensor(rotvec, dtype=f64), torch.tensor(translation, dtype=f64), torch.zeros(3, dtype=f64)
    )


def _oblique_index_from_ct(shape, spacing, rotvec=(0.4, -0.3, 0.8)):
    """A turned, anisotropic grid whose middle lies at (5, -7, 11) mm."""
    ct_from_index = torch.eye(4, dtype=torch.float64)
    ct_from_index[:3, :3] = _pose(rotvec, (0, 0, 0))[:3, :3] * torch.tensor(spacing, dtype=torch.float64)
    middle = (torch.tensor(shape[::-1], dtype=torch.float64) - 1) / 2
    ct_from_index[:3, 3] = torch.tensor([5.0, -7, 11], dtype=torch.float64) - ct_from_index[:3, :3] @ middle
    return torch.linalg.inv(ct_from_index)


def _points(index_from_ct, shape):
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    ct_from_index = torch.linalg.inv(index_from_ct)
    return torch.stack([x, y, z], -1) @ ct_from_index[:3, :3].T + ct_from_index[:3, 3]


CAMERA = _pose((0.3, 1.2, -0.2), (20.0, -15.0, 700.0))[None]
K = torch.tensor([[[600.0, 4.0, 20.3], [0, 640.0, 33.1], [0, 0, 1]]], dtype=torch.float64)
SIZE = (48, 56)


def _rays():
    """Source and unit directions of all pixels in CT coordinates, straight from the camera's definition."""
    rotation, translation = CAMERA[0, :3, :3], CAMERA[0, :3, 3]
    v, u = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SIZE), indexing="ij")
    d = torch.stack([u, v, torch.ones_like(u)], -1) @ torch.linalg.inv(K[0]).T @ rotation
    return -rotation.T @ translation, d / d.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("method", METHODS)
def test_one_voxel_seen_head_on_integrates_to_its_value_times_its_thickness(method, every):
    volume = torch.zeros(5, 5, 5, device=every.device)
    volume[2, 2, 2] = 0.5
    index_from_ct = torch.diag(torch.tensor([1 / 2.0, 1 / 3.0, 1 / 4.0, 1.0], dtype=torch.float64))
    index_from_ct[:3, 3] = 2
    pose = _pose((0, 0, 0), (0, 0, 500.0))[None]
    k = torch.tensor([[[1000.0, 0, 1], [0, 1000.0, 1], [0, 0, 1]]], dtype=torch.float64)
    # A ray through a voxel's centre: trilinear weights form a triangle of half-width 4 mm, area as the 4 mm box.
    image = project(volume, index_from_ct, k, pose, (3, 3), method=method, step_mm=0.05, backend=every.backend)
    assert image[0, 1, 1].item() == pytest.approx(0.5 * 4.0, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_sphere_gives_its_chords(method):
    shape, spacing, radius, mu = (60, 76, 68), (1.1, 0.9, 1.3), 28.0, 0.02
    index_from_ct = _oblique_index_from_ct(shape, spacing)
    centre = torch.tensor([4.0, -9.0, 12.0], dtype=torch.float64)
    distance = (_points(index_from_ct, shape) - centre).norm(dim=-1)
    volume = (mu * (radius - distance + 0.5).clamp(0, 1)).float()
    image = project(volume, index_from_ct, K, CAMERA, SIZE, method=method, step_mm=0.4)[0].double()
    source, d = _rays()
    miss2 = (centre - source).square().sum() - (d @ (centre - source)).square()
    chord = 2 * mu * (radius**2 - miss2).clamp_min(0).sqrt()
    assert (chord > 0).float().mean() > 0.3
    assert (chord == 0).float().mean() > 0.05
    inside = miss2 < (0.9 * radius) ** 2
    assert (image - chord)[inside].abs().max() < 0.02 * chord.max()
    assert (image - chord).mean().abs() < 2e-3 * chord.max()
    assert image[miss2 > (radius + 2.5) ** 2].abs().max() == 0


def test_siddon_gives_the_chords_of_an_oblique_box_exactly():
    shape, spacing = (20, 31, 17), (2.0, 1.5, 3.0)
    index_from_ct = _oblique_index_from_ct(shape, spacing)
    source, d = _rays()
    origin = index_from_ct[:3, :3] @ source + index_from_ct[:3, 3]
    slope = d @ index_from_ct[:3, :3].T
    low, high = -0.5, torch.tensor(shape[::-1], dtype=torch.float64) - 0.5
    a, b = (low - origin) / slope, (high - origin) / slope
    chord = (torch.maximum(a, b).amin(-1) - torch.minimum(a, b).amax(-1)).clamp_min(0)
    image = project(torch.full(shape, 0.03), index_from_ct, K, CAMERA, SIZE, method="siddon")[0]
    assert 0.1 < (chord > 0).float().mean() < 1
    torch.testing.assert_close(image.double(), 0.03 * chord, rtol=1e-5, atol=1e-5)


def test_trilinear_integrates_a_linear_ramp_between_two_depths():
    # The interpolated field is mu = x on 0 <= x <= 9 and falls from 9 to 0 at x = 10: along x the area is 45.
    x = torch.arange(10.0).expand(9, 9, 10).contiguous()
    index_from_ct = torch.eye(4, dtype=torch.float64)
    index_from_ct[1:3, 3] = 4.0
    pose = _pose((0, -math.pi / 2, 0), (0, 0, 400.0))[None]
    k = torch.tensor([[[500.0, 0, 0], [0, 500.0, 0], [0, 0, 1]]], dtype=torch.float64)
    assert project(x, index_from_ct, k, pose, (1, 1), step_mm=0.01).item() == pytest.approx(45.0, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_source_inside_the_volume_sees_only_what_is_before_it(method):
    volume = torch.full((41, 41, 41), 0.01)
    index_from_ct = torch.eye(4, dtype=torch.float64)
    index_from_ct[:3, 3] = 20.0
    pose = _pose((0, 0, 0), (0, 0, 0.0))[None]  # the source at the centre
    k = torch.tensor([[[100.0, 0, 0], [0, 100.0, 0], [0, 0, 1]]], dtype=torch.float64)
    expected = 0.01 * 20.5
    image = project(volume, index_from_ct, k, pose, (1, 1), method=method, step_mm=0.01)
    assert image.item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_one_thread_and_two_give_the_same_bits(method):
    import numba

    shape = (24, 30, 28)
    volume = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            v, pose = volume.clone().requires_grad_(), CAMERA.clone().requires_grad_()
            image = project(v, _oblique_index_from_ct(shape, (2.0, 2.0, 2.0)), K, pose, SIZE, method=method)
            image.square().sum().backward()
            results.append((image.detach(), v.grad, pose.grad))
    finally:
        numba.set_num_threads(before)
    for a, b in zip(*results):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"volume": torch.zeros(4, 4)}, ImageError, "D, H, W"),
        ({"volume": torch.zeros(4, 4, 4, dtype=torch.int16)}, ImageError, "floating point"),
        ({"volume": torch.zeros(4, 4, 4, dtype=torch.float64)}, RadgsError, "float32"),
        ({"index_from_ct": torch.zeros(4, 4)}, GeometryError, "singular"),
        ({"index_from_ct": torch.eye(3)}, GeometryError, "4x4"),
        ({"index_from_ct": torch.eye(4) * float("inf")}, GeometryError, "index_from_ct holds NaN"),
        ({"index_from_ct": torch.eye(4) + 0.1 * torch.eye(4)[[1, 2, 3, 0]]}, GeometryError, "last row"),
        ({"K": K[0]}, GeometryError, "each view"),
        ({"K": torch.zeros(1, 3, 3)}, GeometryError, "K must be"),
        ({"K": K * torch.tensor([0.0, 1, 1])}, GeometryError, "focal"),
        ({"K": K * float("nan")}, GeometryError, "K holds NaN"),
        ({"K": K.to(torch.complex128)}, GeometryError, "real"),
        ({"camera_from_ct": CAMERA * float("nan")}, GeometryError, "NaN"),
        ({"camera_from_ct": torch.zeros(1, 4, 4)}, GeometryError, "rigid"),
        ({"camera_from_ct": CAMERA * torch.tensor([-1.0, 1, 1, 1])}, GeometryError, "rigid"),
        ({"camera_from_ct": CAMERA.repeat(2, 1, 1)}, GeometryError, "each view"),
        ({"size": (0, 4)}, GeometryError, "pixel"),
        ({"size": (4.5, 4)}, GeometryError, "pixel"),
        ({"size": 4}, GeometryError, "pixel"),
        ({"method": "cubic"}, RadgsError, "method"),
        ({"step_mm": 0.0}, RadgsError, "positive"),
        ({"step_mm": float("inf")}, RadgsError, "finite"),
        ({"volume": torch.zeros(2, 4, 4, 4)}, GeometryError, "batch of 2"),
        ({"volume": torch.zeros(0, 4, 4, 4)}, GeometryError, "batch of 0"),
        ({"backend": "cuda"}, RadgsError, "GPU"),
        ({"backend": "abacus"}, RadgsError, "backend"),
    ],
)
def test_impossible_input_is_refused_in_a_sentence(change, error, words):
    arguments = {
        "volume": torch.zeros(4, 4, 4),
        "index_from_ct": torch.eye(4),
        "K": K,
        "camera_from_ct": CAMERA,
        "size": (3, 3),
    }
    with pytest.raises(error, match=words):
        project(**(arguments | change))
