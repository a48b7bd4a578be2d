"""Augmentation: images, cameras and truth stay true to each other."""

from __future__ import annotations

import pytest
import torch

from radgs.gaussians import RadiativeGaussians, rasterize
from radgs.training.augment import changed_looks, moved_windows

PIXELS = 48


def batch_of_gaussians() -> tuple[RadiativeGaussians, dict[str, torch.Tensor]]:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    b = 3
    gaussians = RadiativeGaussians(
        torch.randn(b, 6, 3) * 9,
        torch.rand(b, 6, 3) * 3 + 5,
        torch.randn(b, 6, 4),
        torch.rand(b, 6) * 0.02 + 0.01,
    )
    focal = 700 * PIXELS / 112
    K = torch.tensor([[focal, 0, 20.0], [0, focal, 26.0], [0, 0, 1]], dtype=torch.float64).expand(b, 2, 3, 3)
    ap = torch.tensor([[1.0, 0, 0, 3], [0, 0, -1, -2], [0, 1, 0, 700], [0, 0, 0, 1]], dtype=torch.float64)
    la = torch.tensor([[0.0, 1, 0, 1], [0, 0, -1, 4], [-1, 0, 0, 650], [0, 0, 0, 1]], dtype=torch.float64)
    pose = torch.stack([ap, la]).expand(b, 2, 4, 4)
    truth = torch.eye(4, dtype=torch.float64).repeat(b, 1, 1)
    truth[:, :3, 3] = torch.randn(b, 3, dtype=torch.float64) * 2
    images = rasterize(gaussians.moved(truth), K, pose, (PIXELS, PIXELS), backend="reference")
    return gaussians, {
        "images": images,
        "targets": images,
        "K": K,
        "camera_from_crop": pose,
        "crop_from_vertebra": truth,
        "level": torch.full((b,), 20),
    }


def test_moved_windows_show_what_the_moved_cameras_see():
    gaussians, batch = batch_of_gaussians()
    moved = moved_windows(batch)
    drawn = rasterize(
        gaussians.moved(moved["crop_from_vertebra"]),
        moved["K"],
        moved["camera_from_crop"],
        (PIXELS, PIXELS),
        backend="reference",
    )
    peak = float(drawn.max())
    inner = (..., slice(5, -5), slice(5, -5))
    assert (moved["targets"] - drawn)[inner].abs().max() < 0.02 * peak
    assert (moved["targets"] - batch["targets"])[inner].abs().max() > 0.05 * peak


def test_the_window_moves_with_the_projected_centre():
    _, batch = batch_of_gaussians()
    moved = moved_windows(batch)

    def origin(b: dict[str, torch.Tensor]) -> torch.Tensor:
        p = (b["K"] @ b["camera_from_crop"][..., :3, 3:])[..., 0]
        return p[..., :2] / p[..., 2:]

    torch.testing.assert_close(origin(moved), origin(batch), atol=1e-9, rtol=0)
    assert (moved["crop_from_vertebra"] - batch["crop_from_vertebra"])[:, :3, 3].abs().max() > 0.5


def test_looks_change_and_stay_finite_and_what_is_where_stays():
    _, batch = batch_of_gaussians()
    torch.manual_seed(0)
    looks = changed_looks(batch["images"])
    assert looks.isfinite().all()
    flat = torch.stack([looks.flatten(), batch["images"].flatten()])
    assert 0.3 < float(torch.corrcoef(flat)[0, 1]) < 0.999


def test_a_flat_image_stays_finite():
    assert changed_looks(torch.zeros(1, 2, 16, 16)).isfinite().all()


@pytest.mark.parametrize("seed", [1, 2])
def test_augmentation_is_made_from_the_seed(seed):
    _, batch = batch_of_gaussians()
    torch.manual_seed(seed)
    first = changed_looks(batch["images"])
    other = changed_looks(batch["images"])
    torch.manual_seed(seed)
    assert torch.equal(first, changed_looks(batch["images"]))
    assert not torch.equal(first, other)
