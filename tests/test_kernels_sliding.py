"""Correlations by shift against sums written out, and where shifts in space go in the views."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from radgs.errors import RadgsError
from radgs.kernels import SlidPictures, along_axes, slide

RIM, LEAST = 2, 0.3
CORNERS = [(50, 60), (-30, 20), (90, 97), (150, 150)]  # inside, beyond the border, on what was not measured, outside


def scene():
    """Four pictures of noise with a hole in what is shown, and an image measured on its left half."""
    rng = np.random.default_rng(0)
    shown = np.zeros((4, 40, 50), bool)
    shown[:, 8:-10, 6:31], shown[:, 18:24, 12:20] = True, False
    measured = np.ones((1, 160, 160), np.float32)
    measured[:, :, 110:] = 0
    image = rng.normal(size=(1, 2, 160, 160)).astype(np.float32) * measured[:, None]
    values = rng.normal(size=(4, 2, 40, 50)).astype(np.float32)
    return values, shown, image, measured


def pictures(values, shown, radius):
    radii = torch.tensor([radius, radius - 2, radius, radius])
    none = torch.zeros(4, dtype=torch.int64)
    return SlidPictures(torch.from_numpy(values), torch.from_numpy(shown), none, torch.tensor(CORNERS), radii)


def written_out(values, shown, image, measured, corner, radius, side):
    """In float64, one shift at a time."""
    weight = ndimage.binary_dilation(shown, iterations=RIM)
    template = values.astype(float) * weight
    strength = (template**2).sum(axis=0)
    beyond = 250
    image, measured = (np.pad(a, [(0, 0)] * (a.ndim - 2) + [(beyond, beyond)] * 2) for a in (image, measured))
    out = np.zeros((side, side))
    for v in range(-radius, radius + 1):
        for u in range(-radius, radius + 1):
            y, x = corner[0] + v + beyond, corner[1] + u + beyond
            here = (slice(y, y + shown.shape[0]), slice(x, x + shown.shape[1]))
            under = image[(slice(None), *here)].astype(float)
            if (measured[here] * strength).sum() > LEAST * strength.sum():
                energy = (weight * (under**2).sum(axis=0)).sum() * strength.sum()
                out[side // 2 + v, side // 2 + u] = (under * template).sum() / np.sqrt(energy)
    return out


@pytest.mark.parametrize("radius", [2, 5])
def test_they_are_the_sums_written_out_and_0_where_too_little_was_measured(radius):
    values, shown, image, measured = scene()
    arrays = torch.from_numpy(image), torch.from_numpy(measured)
    found = slide(pictures(values, shown, radius), *arrays, rim=RIM, least=LEAST).numpy()
    side = 2 * radius + 1
    assert found.shape == (4, side, side)
    for n, own in enumerate([radius, radius - 2, radius, radius]):
        wanted = written_out(values[n], shown[n], image[0], measured[0], CORNERS[n], own, side)
        assert found[n] == pytest.approx(wanted, abs=1e-6)
    assert (found[2] == 0).any()
    assert (found[3] == 0).all()
    assert np.abs(found[0]).min() > 0


def test_a_picture_cut_out_of_an_image_correlates_fully_where_it_came_from():
    values, shown, image, measured = scene()
    values[0] = image[0, :, 53:93, 59:109]  # 3 rows below and a column before its corner
    arrays = torch.from_numpy(image), torch.from_numpy(measured)
    found = slide(pictures(values, shown, 4), *arrays, rim=RIM, least=LEAST)[0].numpy()
    assert np.unravel_index(found.argmax(), found.shape) == (4 + 3, 4 - 1)
    assert found.max() == pytest.approx(1, abs=1e-5)


def test_other_types_are_refused():
    values, shown, image, measured = scene()
    with pytest.raises(RadgsError, match="float32"):
        slide(pictures(values.astype(float), shown, 2), *map(torch.from_numpy, (image, measured)), rim=1, least=0.3)


def test_shifts_in_space_are_looked_up_where_they_go_and_summed_over_views():
    """A plane in each view is again a plane; a shift that leaves the picture adds nothing."""
    v, u = np.mgrid[-4:5, -4:5].astype(np.float32)
    slid = torch.from_numpy(np.stack([1 + 2 * v - u, 3 * u, np.ones_like(u)]))
    steps = np.array([[[0.5, 0, 0.1], [0, 1.2, 0]], [[0, 0, 0.7], [1.1, 0, 0]], [[9.0, 0, 0], [0, 9, 0]]])
    values = np.array([-1.5, 0, 1.5])
    found = along_axes(slid, torch.tensor([0, 0, 1]), torch.from_numpy(steps), torch.from_numpy(values), 2).numpy()
    x, y, z = np.meshgrid(values, values, values, indexing="ij")
    assert found[0] == pytest.approx(1 + 2 * (0.5 * x + 0.1 * z) - 1.2 * y + 3 * 1.1 * x, abs=1e-5)
    assert found[1] == pytest.approx(((x == 0) & (y == 0)).astype(float), abs=1e-6)
