"""Instruments: what stands out against the CT's prediction, and nothing else."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from radgs.config import CArmSettings
from radgs.registration import View
from radgs.registration.foreign import find_foreign
from radgs.simulation import CArm


def blur(image, sigma):
    return torch.from_numpy(gaussian_filter(image.numpy(), sigma, mode="nearest", truncate=3.0))


@pytest.fixture
def scene():
    """A view of 112 x 112 pixels of 2 mm: tissue, a column of bone, noise, another scale and level than the CT's."""
    camera = CArm(CArmSettings(detector_px=112, pixel_mm=3.1)).camera("AP", 0.0, 0.0)
    generator = torch.Generator().manual_seed(0)
    size = (camera.height, camera.width)
    soft = 3 + blur(torch.rand(size, generator=generator), 6.0) * 8
    bones = torch.zeros(size)
    bones[10:100, 45:65] = 0.3 + blur(torch.rand(90, 20, generator=generator), 1.0) * 0.4
    bones = blur(bones, 1.5)
    noise = 0.03 * torch.randn(size, generator=generator)
    image = 0.9 * bones + 0.8 * soft + 0.5 + noise
    return View(image, torch.ones(size, dtype=torch.bool), camera, 2.0), bones, soft


def everywhere(view):
    return torch.ones_like(view.measured)


def with_image(view, image, measured=None):
    return View(image, view.measured if measured is None else measured, view.camera, view.pixel_mm)


def test_what_the_ct_explains_is_not_foreign(scene):
    view, bones, soft = scene
    assert not find_foreign(view, bones, soft, everywhere(view)).any()


def test_bones_and_tissue_a_little_out_of_place_are_not_foreign(scene):
    """Else a pose that is off would hide what should pull it back."""
    view, bones, soft = scene
    found = find_foreign(view, bones.roll((1, 1), (0, 1)), soft.roll(3, 1), everywhere(view))
    assert found[5:-5, 20:-20].float().mean() < 0.01  # where rolling has not brought the other border in


def test_a_screw_s_head_is_found_with_a_margin(scene):
    view, bones, soft = scene
    v, u = torch.meshgrid(*(torch.arange(n) for n in view.image.shape), indexing="ij")
    head = (v - 50) ** 2 + (u - 58) ** 2 <= 3**2  # 12 mm wide
    found = find_foreign(with_image(view, view.image + 1.2 * head), bones, soft, everywhere(view))
    assert found[head].all()
    assert found.sum() < 3.5 * head.sum()
    assert not found[:40].any()
    assert not found[60:].any()


def test_it_looks_where_it_is_told_and_at_what_was_measured(scene):
    view, bones, soft = scene
    image = view.image.clone()
    image[50:54, 50:54] += 1.2
    near = everywhere(view)
    near[:, :70] = False
    assert not find_foreign(with_image(view, image), bones, soft, near).any()
    none = torch.zeros_like(view.measured)
    assert not find_foreign(with_image(view, image, none), bones, soft, everywhere(view)).any()
