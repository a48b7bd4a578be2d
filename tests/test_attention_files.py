"""Attention maps on disk, and that swapping the patient's CT changes nothing that is called X-ray-only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from radgs.anatomy import VertebraCrop
from radgs.config import CArmSettings, Config
from radgs.errors import ImageError
from radgs.gaussians import RadiativeGaussians
from radgs.images import Volume, Xray
from radgs.models import RecM, RegM
from radgs.registration import ViewAttention, estimate, read_attention
from radgs.registration.attention import write_attention
from radgs.simulation import CArm

CONFIG = Config.model_validate(
    {"network": {"width": 4, "image_px": 32, "volume_voxels": 16, "gaussians": 50, "attention_maps": 4}}
)


def test_attention_survives_the_disk_and_other_files_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    view = ViewAttention(rng.random((16, 16), dtype=np.float32), rng.random((3, 4, 4), dtype=np.float32), 112.0)
    write_attention(tmp_path / "attention.h5", {"AP": view})
    again = read_attention(tmp_path / "attention.h5")
    np.testing.assert_array_equal(again["AP"].maps, view.maps)
    np.testing.assert_array_equal(again["AP"].window, view.window)
    assert again["AP"].size_mm == 112
    (tmp_path / "other.h5").write_bytes(b"nonsense")
    with pytest.raises(ImageError, match=r"other\.h5: not a file of attention maps"):
        read_attention(tmp_path / "other.h5")


def patient(seed: int) -> tuple[VertebraCrop, RadiativeGaussians]:
    """A crop of noise in which no two patients agree, and Gaussians as different."""
    rng, g = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    mask = np.zeros((32, 32, 32), np.uint8)
    mask[8:24, 8:24, 8:24] = 1
    excess = (rng.random(mask.shape, dtype=np.float32) * 0.03 * mask).astype(np.float32)
    crop = VertebraCrop(
        "L1", Volume.axis_parallel(excess, 3.5, [-54, -54, -54]), Volume.axis_parallel(mask, 3.5, [-54, -54, -54])
    )
    anchors = RadiativeGaussians(
        torch.randn(50, 3, generator=g) * 15,
        torch.rand(50, 3, generator=g) * 3 + 1,
        torch.randn(50, 4, generator=g),
        torch.rand(50, generator=g) * 0.03,
    )
    return crop, anchors


@pytest.mark.parametrize("head", ["anchored", "global"])
def test_swapping_the_ct_changes_the_assisted_volume_and_not_the_xray_only_one(head):
    config = CONFIG.model_copy(update={"network": CONFIG.network.model_copy(update={"head": head})})
    torch.manual_seed(0)
    recm, regm = RecM(config.network).eval(), RegM(config.network).eval()
    last = recm.global_head or recm
    for layer in (recm.motion_head[-1], last.grid_out, last.fitted_out, regm.head[-1]):
        torch.nn.init.normal_(layer.weight, std=0.05)
    arm, rng = CArm(CArmSettings(detector_px=244, pixel_mm=1.552)), np.random.default_rng(3)
    xrays = {
        name: Xray(name, rng.random((244, 244), dtype=np.float32) + 2, arm.camera(name, 0.1, 0.05))
        for name in arm.views
    }
    found = []
    for seed in (1, 2):
        crop, anchors = patient(seed)
        found.append(
            estimate(xrays, {"L1": np.array([3.0, -5, 8])}, {"L1": crop}, {"L1": anchors}, recm, regm, config)["L1"]
        )
    own, swapped = (one.reconstructions for one in found)
    assert own["xray_only"].max() > 0
    assert torch.equal(own["xray_only"], swapped["xray_only"])
    assert not torch.allclose(own["ct_assisted"], swapped["ct_assisted"])
    assert not np.allclose(found[0].regm.matrix, found[1].regm.matrix)
    assert set(found[0].attention) == {"AP", "LA"}
    assert found[0].attention["LA"].maps.shape == (4, 8, 8)
    np.testing.assert_allclose(found[0].attention["AP"].maps.mean((1, 2)), 1, rtol=1e-5)
