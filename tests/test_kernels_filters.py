"""Derivatives of blurred images against SciPy and against ramps."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from radgs.errors import ImageError, RadgsError
from radgs.kernels import gradients

SIGMAS = [0.0, 0.2, 0.5, 1.0, 1.5, 4.0]


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def one_after_the_other(image, sigma):
    """Blur, then Sobel's operator, of an image whose edges go on for ever, in float64."""
    reach = max(int(3 * sigma), 1)
    endless = np.pad(image.double().numpy(), 2 * reach + 2, mode="edge")
    if sigma:
        endless = ndimage.gaussian_filter(endless, sigma, radius=reach)
    along_v, along_u = (ndimage.sobel(endless, axis) / 8 for axis in (0, 1))
    inner = slice(2 * reach + 2, -2 * reach - 2)
    return np.stack([along_u[inner, inner], along_v[inner, inner]])


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("size", [(31, 44), (5, 3), (1, 7), (6, 1)])
def test_they_are_scipy_s_blur_and_sobel_up_to_the_border(size, sigma):
    images = noise(3, *size)
    found = gradients(images, sigma)
    assert found.shape == (3, 2, *size)
    for image, ours in zip(images, found, strict=True):
        assert ours.numpy() == pytest.approx(one_after_the_other(image, sigma), abs=3e-7)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_ramp_has_its_slope_and_half_of_it_at_a_border_where_it_ends(sigma):
    """Half of what an antisymmetric filter sees at the first pixel is the repeated edge."""
    v, u = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    along_u, along_v = gradients((3 * u - 2 * v)[None], sigma)[0]
    reach = int(3 * sigma) + 2
    inner = (slice(reach, -reach), slice(reach, -reach))
    assert along_u[inner].numpy() == pytest.approx(3, abs=2e-4)
    assert along_v[inner].numpy() == pytest.approx(-2, abs=2e-4)
    for column in (0, -1):
        assert along_u[:, column].numpy() == pytest.approx(1.5, abs=2e-4)
    for row in (0, -1):
        assert along_v[row].numpy() == pytest.approx(-1, abs=2e-4)


def test_no_images_have_no_gradients():
    assert gradients(torch.zeros(0, 4, 5), 1.0).shape == (0, 2, 4, 5)
    assert gradients(torch.zeros(2, 0, 5)).shape == (2, 2, 0, 5)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_how_images_lie_in_memory_does_not_matter_and_they_stay_as_they_were(sigma):
    wide = noise(12, 30, 26)
    before, part = wide.clone(), wide[::3].transpose(1, 2)[:, 2:, ::2]
    assert not part.is_contiguous()
    assert torch.equal(gradients(part, sigma), gradients(part.contiguous(), sigma))
    assert torch.equal(wide, before)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (torch.zeros(4, 5), ImageError, r"\[n, H, W\], got \(4, 5\)"),
        (torch.zeros(1, 1, 4, 5), ImageError, r"\[n, H, W\]"),
        (torch.zeros(1, 4, 5, dtype=torch.float64), RadgsError, "float32, got torch.float64"),
        (torch.zeros(1, 4, 5, device="meta"), RadgsError, "CPU"),
    ],
)
def test_other_shapes_types_and_devices_are_refused_in_a_sentence(images, error, words):
    with pytest.raises(error, match=words):
        gradients(images)


def test_one_thread_and_two_give_the_same_bits():
    import numba

    images, results, before = noise(7, 33, 41), [], numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            results.append(gradients(images, 1.5))
    finally:
        numba.set_num_threads(before)
    assert torch.equal(*results)
