"""Losses against values known by hand."""

from __future__ import annotations

import math

import pytest
import torch

from radgs.config import LossSettings
from radgs.geometry import rigid_motion
from radgs.training import (
    anchor_distance,
    chamfer,
    dissimilarity,
    geodesic,
    l1,
    ncc3d,
    reconstruction_loss,
    registration_loss,
    total_variation,
)
from radgs.training.losses import ATTENUATION_RANGE, EMPTY, INTEGRAL_RANGE, balanced_l1, density_distance, total

WEIGHTS = LossSettings()


def turned(z_angle: float, translation: tuple[float, float, float] = (0, 0, 0)) -> torch.Tensor:
    vector = torch.tensor([[0.0, 0.0, z_angle]], dtype=torch.float64)
    return rigid_motion(vector, torch.tensor([translation], dtype=torch.float64), torch.zeros(3, dtype=torch.float64))


def test_l1_is_the_mean_absolute_difference():
    assert float(l1(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 7.0]))) == pytest.approx(2)


def test_total_variation_of_a_ramp_is_the_sum_of_its_slopes():
    z, y, x = torch.meshgrid(*(torch.arange(5.0),) * 3, indexing="ij")
    assert float(total_variation((2 * x - 3 * y + 0.5 * z)[None])) == pytest.approx(5.5)


def test_ncc3d_is_0_for_the_same_shape_1_for_unrelated_2_for_opposite():
    z, _, x = torch.meshgrid(*(torch.arange(4.0),) * 3, indexing="ij")
    assert float(ncc3d(x[None], 2 * x[None] + 3)) == pytest.approx(0, abs=1e-6)
    assert float(ncc3d(x[None], z[None])) == pytest.approx(1, abs=1e-6)
    assert float(ncc3d(x[None], -x[None])) == pytest.approx(2, abs=1e-6)


def test_ncc3d_of_empty_volumes_has_a_finite_gradient():
    empty = torch.zeros(1, 4, 4, 4, requires_grad=True)
    ncc3d(empty, torch.zeros(1, 4, 4, 4)).backward()
    assert empty.grad is not None
    assert empty.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 12, 12, 12)])
def test_dissimilarity_of_constants_is_the_closed_form(shape):
    a, b, span = 0.2, 0.3, 0.5
    c1 = (0.01 * span) ** 2
    expected = 1 - (2 * a * b + c1) / (a * a + b * b + c1)
    found = dissimilarity(torch.full(shape, a), torch.full(shape, b), span)
    assert float(found) == pytest.approx(expected, rel=5e-3)  # MONAI adds a little to the variances


def test_geodesic_is_the_angle_between_rotations():
    assert float(geodesic(turned(0.1), turned(0.4, (5, 5, 5)))) == pytest.approx(0.3)


def test_anchor_distance_of_a_shift_and_of_a_half_turn():
    points = torch.tensor([[[3.0, 4.0, 9.0], [0.0, 10.0, -2.0]]])
    assert float(anchor_distance(turned(0, (2, 3, 6)), turned(0), points)) == pytest.approx(7)
    assert float(anchor_distance(turned(math.pi), turned(0), points)) == pytest.approx((10 + 20) / 2)


def test_the_gradient_of_the_anchor_distance_reaches_any_distance():
    points = torch.zeros(1, 1, 3)
    for far in (2.0, 200.0):
        move = torch.tensor([[far, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        zero = torch.zeros(1, 3, dtype=torch.float64)
        anchor_distance(rigid_motion(zero, move, zero), turned(0), points).backward()
        assert move.grad is not None
        assert float(move.grad[0, 0]) == pytest.approx(1)


def test_chamfer_adds_the_mean_distances_to_the_nearest_both_ways():
    a = torch.tensor([[[0.0, 0, 0], [10, 0, 0]]])
    b = torch.tensor([[[3.0, 4.0, 0]]])
    assert float(chamfer(a, b)) == pytest.approx((5 + math.hypot(7, 4)) / 2 + 5, rel=1e-5)
    assert float(chamfer(a, a.flip(1))) == pytest.approx(0, abs=1e-3)


def test_the_gradient_of_chamfer_is_a_unit_pull_to_the_nearest_at_any_number_of_points():
    g = torch.Generator().manual_seed(0)
    a = (torch.rand(1, 5000, 3, generator=g) * 100).requires_grad_()
    b = torch.rand(1, 700, 3, generator=g) * 100
    chamfer(a, b).backward()
    assert a.grad is not None
    distances, nearest = torch.cdist(a.detach().double(), b.double()).min(-1)
    one_way = (a.detach() - b[0, nearest[0]]) / distances.float()[..., None] / 5000
    others = torch.cdist(b.double(), a.detach().double()).argmin(-1)[0]
    alone = torch.ones(5000, dtype=torch.bool)
    alone[others] = False  # those are pulled from both sides
    assert alone.sum() > 4000
    torch.testing.assert_close(a.grad[0, alone], one_way[0, alone], atol=1e-7, rtol=1e-3)


def test_presets_are_the_publications_and_its_codes_and_what_is_given_stands():
    def losses(**given):
        return LossSettings.model_validate(given)

    paper, code = losses(preset="paper"), losses(preset="code")
    assert (paper.ssim, paper.tv, paper.geodesic, paper.views) == (0.2, 0.05, 0.02, 2)
    assert (paper.anchor, paper.volume, paper.density, paper.chamfer) == (0, 0, 0, 0)
    assert (code.chamfer, code.views, code.anchor) == (0.5, 50, 0)
    assert losses(preset="default") == losses() == WEIGHTS
    assert losses(preset="code", views=8).views == 8
    assert losses(**code.model_dump()) == code


def test_terms_of_weight_0_are_left_out():
    volume, pose = torch.rand(1, 12, 12, 12), turned(0.2)
    points = torch.zeros(1, 1, 3)
    terms = registration_loss(volume, volume, pose, pose, points, LossSettings.model_validate({"preset": "paper"}))
    assert set(terms) == {"ncc", "ssim", "geodesic"}


def test_balanced_l1_counts_one_voxel_of_bone_as_much_as_all_the_rest():
    target = torch.zeros(1, 4, 4, 4)
    target[0, 1, 2, 3] = 0.02
    assert float(balanced_l1(torch.zeros_like(target), target)) == pytest.approx(0.02 / 2)
    assert float(balanced_l1(target + 0.001, target)) == pytest.approx(0.001)
    wrong_outside = target.clone()
    wrong_outside[0, 0, 0, 0] = 0.063
    assert float(balanced_l1(wrong_outside, target)) == pytest.approx(0.063 / 63 / 2)


def test_density_distance_is_a_difference_of_raw_densities_and_forgives_what_is_emptier_than_empty():
    target = torch.tensor([[0.01, 0.0, 0.0]])
    assert float(density_distance(torch.tensor([[0.01, 0.0, EMPTY / 10]]), target)) == pytest.approx(0, abs=1e-5)
    # softplus(x) = 1 at x = log(e - 1), softplus(x) = 2 at x = log(e^2 - 1)
    half_of_both = (math.log(math.e**2 - 1) - math.log(math.e - 1)) / 2
    assert float(density_distance(torch.tensor([[0.02, 0.0, 0.0]]), target)) == pytest.approx(half_of_both, rel=1e-4)
    assert float(density_distance(torch.tensor([[0.01, EMPTY * 2, 0.0]]), target)) == pytest.approx(
        math.log(2) / 4, rel=0.02
    )


def test_density_distance_pulls_almost_empty_anchors_as_hard_as_others():
    pulls = []
    for start in (-20.0, -2.0):
        raw = torch.tensor([[start]], requires_grad=True)
        density_distance(0.01 * torch.nn.functional.softplus(raw), torch.tensor([[0.01]])).backward()
        pulls.append(float(raw.grad))
    assert pulls == pytest.approx([-0.5, -0.5], rel=1e-3)


def test_reconstruction_loss_weighs_each_term_of_each_branch():
    target_image, target_volume = torch.zeros(1, 2, 16, 16), torch.zeros(1, 8, 8, 8)
    ramp = torch.arange(8.0).expand(1, 8, 8, 8) * 0.003
    exact = {"images": target_image, "volumes": target_volume}
    terms = reconstruction_loss(
        {"effect": target_image + 0.25, "factual": exact["images"]},
        {"effect": ramp, "factual": exact["volumes"]},
        target_image,
        target_volume,
        WEIGHTS,
    )
    assert float(terms["effect.image"]) == pytest.approx(0.25 / INTEGRAL_RANGE)
    assert float(terms["effect.tv"]) == pytest.approx(0.05 * 0.003 / ATTENUATION_RANGE)
    assert float(terms["effect.volume"]) == pytest.approx(5.0 * 0.0105 / 2 / ATTENUATION_RANGE)
    c1 = (0.01 * INTEGRAL_RANGE) ** 2
    assert float(terms["effect.ssim"]) == pytest.approx(0.2 * (1 - c1 / (0.25**2 + c1)), abs=1e-4)
    for name in ("image", "ssim", "tv", "volume"):
        assert float(terms[f"factual.{name}"]) == pytest.approx(0, abs=1e-5)


def test_registration_loss_vanishes_at_the_truth_and_names_what_is_wrong():
    volume = torch.rand(1, 12, 12, 12, generator=torch.Generator().manual_seed(1)) * 0.03
    points = torch.tensor([[[10.0, 0.0, 0.0], [-10.0, 0.0, 0.0]]])
    truth = turned(0.2, (1, 2, 3))
    exact = registration_loss(volume, volume, truth, truth, points, WEIGHTS)
    assert float(total(exact)) == pytest.approx(0, abs=1e-4)
    off = registration_loss(volume, volume, turned(0.5, (1, 2, 3)), truth, points, WEIGHTS)
    assert float(off["geodesic"]) == pytest.approx(0.02 * 0.3, rel=1e-5)
    assert float(off["anchor"]) == pytest.approx(2 * 10 * math.sin(0.15) / 10, rel=1e-4)
