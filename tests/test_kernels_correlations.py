"""Correlations near all parts at once against the same taken one image at a time."""

import numpy as np
import pytest
import torch

from radgs.errors import ImageError, RadgsError
from radgs.kernels import correlations
from radgs.kernels.correlation_reference import correlation, outlier_weights

SIZE = (40, 50)
WINDOWS = [(2, 30, 5, 33), (12, 40, 10, 40), (0, 12, 38, 50)]  # the first two overlap, the last touches neither


def smooth(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(np.prod(shape))))


@pytest.fixture
def scene():
    """Three parts' gradient images, an X-ray that shows them beside nuisances, noise and edges of its own."""
    drawn = [smooth(7, 2, y1 - y0, x1 - x0) for y0, y1, x0, x1 in WINDOWS]
    nuisances = smooth(3, 2, *SIZE)
    seen = whole(drawn)[:, 0].sum(dim=0) + 0.7 * nuisances[0] + 0.5 * smooth(2, *SIZE) + 0.3
    seen[:, [6, 20]] += 9
    pixels = [torch.argwhere(torch.ones(y1 - y0, x1 - x0)) + torch.tensor([y0, x0]) for y0, y1, x0, x1 in WINDOWS]
    return drawn, torch.cat([seen[None], nuisances]), pixels


def whole(drawn):
    """Images as large as the X-ray, ``[P, 7, 2, H, W]``."""
    out = torch.zeros(len(drawn), 7, 2, *SIZE)
    for image, one, (y0, y1, x0, x1) in zip(out, drawn, WINDOWS, strict=True):
        image[..., y0:y1, x0:x1] = one
    return out


def test_they_are_those_of_the_definition(scene):
    drawn, seen, pixels = scene
    found = correlations(drawn, WINDOWS, seen, pixels)
    images = whole(drawn)
    for part, at in enumerate(pixels):
        row, column = at.T
        for axis in range(2):
            still, nuisances = seen[0, axis, row, column], seen[1:, axis, row, column]
            moving, jacobian = images[:, 0, axis, row, column].sum(0), images[:, 1:, axis, row, column].flatten(0, 1)
            weights = outlier_weights(moving, still, nuisances)
            assert weights.min() < 0.2 * weights.max()
            expected = correlation(moving, jacobian, still, nuisances, weights)
            assert float(found.value[part, axis]) == pytest.approx(expected.value, abs=1e-5)
            assert torch.allclose(found.gradient[part, axis], expected.gradient, atol=2e-5)
            assert torch.allclose(
                found.hessian[part, axis], expected.hessian, atol=1e-5 * float(expected.hessian.max())
            )
            own = slice(6 * part, 6 * part + 6)
            assert torch.allclose(found.jacobian[part][axis], expected.jacobian[own], atol=2e-5)
            assert torch.allclose(found.residual[part][axis], expected.residual, atol=2e-5)


def test_parts_that_show_nowhere_near_have_no_say_and_those_compared_nowhere_add_nothing(scene):
    drawn, seen, (first, _, last) = scene
    nowhere = torch.zeros(0, 2, dtype=torch.long)
    found = correlations(drawn, WINDOWS, seen, [first, nowhere, last])
    assert not found.gradient[0, :, 12:].any()
    assert found.gradient[0, :, 6:12].all()
    assert not found.value[1].any()
    assert not found.hessian[1].any()
    assert not found.hessian[2, :, :12].any()
    assert found.jacobian[1].shape == (2, 6, 0)


def test_without_nuisances_an_image_agrees_with_itself(scene):
    drawn, _, pixels = scene
    found = correlations(drawn, WINDOWS, 3 * whole(drawn)[:, 0].sum(dim=0)[None] + 2, pixels)
    assert found.value.numpy() == pytest.approx(1, abs=1e-5)
    assert found.gradient.numpy() == pytest.approx(0, abs=1e-4)


def test_what_does_not_fit_is_refused_in_a_sentence(scene):
    drawn, seen, pixels = scene
    with pytest.raises(ImageError, match=r"is not \[7, 2, h, w\] of its window"):
        correlations(drawn, [*WINDOWS[:2], (0, 11, 38, 50)], seen, pixels)
    with pytest.raises(ImageError, match="beyond the 40 x 50 pixels"):
        correlations(drawn, WINDOWS, seen, [*pixels[:2], torch.tensor([[40, 3]])])
    with pytest.raises(RadgsError, match="float32"):
        correlations(drawn, WINDOWS, seen.double(), pixels)
