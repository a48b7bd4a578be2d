"""Warping and RegM: which way volumes move, and where RegM starts."""

from __future__ import annotations

import math

import pytest
import torch

from radgs.config import LossSettings, NetworkSettings
from radgs.gaussians import Grid, RadiativeGaussians, voxelize
from radgs.geometry import rigid_motion
from radgs.models import RegM, warp
from radgs.training.losses import registration_loss, total

SIZE_MM = 112.0
VOXELS = 28


def motion(rotvec: tuple[float, ...], translation: tuple[float, ...]) -> torch.Tensor:
    vectors = [torch.tensor([v], dtype=torch.float64) for v in (rotvec, translation)]
    return rigid_motion(*vectors, torch.zeros(3, dtype=torch.float64))


def blobs() -> RadiativeGaussians:
    """Three unequal Gaussians: no symmetry, wide enough for trilinear interpolation."""
    means = torch.tensor([[[14.0, -9.0, 5.0], [-12.0, 3.0, -16.0], [2.0, 18.0, 11.0]]])
    scales = torch.tensor([[[9.0, 10, 11], [11.0, 9, 10], [10.0, 12, 9]]])
    quaternions = torch.tensor([1.0, 0, 0, 0]).expand(1, 3, 4)
    return RadiativeGaussians(means, scales, quaternions, torch.tensor([[0.03, 0.02, 0.01]]))


def drawn(gaussians: RadiativeGaussians) -> torch.Tensor:
    return voxelize(gaussians, Grid.centred(SIZE_MM, VOXELS), cutoff=6.0, backend="reference")


def test_the_identity_leaves_a_volume_as_it_is():
    volume = torch.rand(2, 9, 9, 9)
    torch.testing.assert_close(warp(volume, torch.eye(4).expand(2, 4, 4), SIZE_MM), volume, atol=1e-5, rtol=0)


def test_a_shift_of_whole_voxels_moves_x_along_the_last_axis_and_z_along_the_first():
    volume = torch.zeros(1, 8, 8, 8)
    volume[0, 2, 3, 4] = 1
    voxel = SIZE_MM / 8
    moved = warp(volume, motion((0, 0, 0), (2 * voxel, voxel, -voxel)), SIZE_MM)
    expected = torch.zeros(1, 8, 8, 8)
    expected[0, 1, 4, 6] = 1
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("rotvec", "translation"),
    [((0.0, 0.0, 0.0), (2.0, 0.0, 0.0)), ((0.0, 0.0, 0.0), (0.0, -3.0, 5.0)), ((0.3, -0.2, 0.25), (4.0, -2.0, 1.0))],
)
def test_warping_a_volume_of_gaussians_is_moving_the_gaussians(rotvec, translation):
    crop_from_vertebra = motion(rotvec, translation)
    expected = drawn(blobs().moved(crop_from_vertebra))
    found = warp(drawn(blobs()), crop_from_vertebra, SIZE_MM)
    assert (found - expected).abs().max() < 0.06 * expected.max()
    other_way = warp(drawn(blobs()), torch.linalg.inv(crop_from_vertebra), SIZE_MM)
    half_a_voxel = warp(drawn(blobs()), motion((0, 0, 0), (2.0, 2.0, 2.0)) @ crop_from_vertebra, SIZE_MM)
    for wrong in (other_way, half_a_voxel):
        assert (wrong - expected).abs().max() > 0.12 * expected.max()


def test_a_fresh_regm_corrects_nothing():
    regm = RegM(NetworkSettings(volume_voxels=16)).eval()
    start = torch.cat([motion((0.1, 0.2, 0.3), (4, 5, 6)), motion((0, -0.2, 0), (0, 1, 0))])
    volumes = torch.rand(2, 2, 16, 16, 16)
    torch.testing.assert_close(regm(volumes[0], volumes[1], start), start, atol=1e-12, rtol=0)


def test_regm_turns_about_the_vertebra_and_is_composed_after_the_start():
    regm = RegM(NetworkSettings(volume_voxels=16)).eval()
    last = regm.head[-1]
    assert isinstance(last, torch.nn.Linear)
    last.bias.data = torch.tensor([0, 0, math.pi / 2, 0.3, 0, 0])
    start = motion((0, 0, 0), (10, 0, 0))
    found = regm(torch.rand(1, 16, 16, 16), torch.rand(1, 16, 16, 16), start)[0]
    point = torch.tensor([1.0, 0, 0, 1], dtype=torch.float64)  # 1 mm in front of the vertebra's centre, at x = 10 mm
    torch.testing.assert_close(found @ point, torch.tensor([13.0, 1, 0, 1], dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_registration_loss_is_least_at_the_true_motion():
    truth = motion((0.2, 0.1, -0.15), (3, -2, 4))
    ct, reconstruction = drawn(blobs()), drawn(blobs().moved(truth))
    points = blobs().means

    def loss(estimate: torch.Tensor) -> float:
        warped = warp(ct, estimate, SIZE_MM)
        return float(total(registration_loss(warped, reconstruction, estimate, truth, points, LossSettings())))

    assert loss(truth) < 0.02
    assert loss(motion((0, 0, 0), (1, 0, 0)) @ truth) > 0.05
    assert loss(torch.eye(4, dtype=torch.float64)[None]) > 0.3
