"""RecM: where it starts, what it may know, how it is stored."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from radgs.anatomy import VertebraViews
from radgs.config import NetworkSettings
from radgs.errors import RadgsError
from radgs.gaussians import Grid, RadiativeGaussians, voxelize
from radgs.models import CounterfactualAttention, RecM, grid_anchors, load_recm, warp, write_weights
from radgs.models.anchors import changed, describe
from radgs.models.recm import normalised, projected

SMALL = NetworkSettings(width=4, image_px=32, volume_voxels=16, gaussians=64, attention_maps=4)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two pools of threads that wait for each other on a busy machine cost far more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def camera_views(batch: int = 2, pixels: int = 32, views: int = 2) -> VertebraViews:
    focal = 700 * pixels / 112
    K = torch.tensor([[focal, 0, (pixels - 1) / 2], [0, focal, (pixels - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    ap = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 700], [0, 0, 0, 1]], dtype=torch.float64)
    la = torch.tensor([[0.0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 700], [0, 0, 0, 1]], dtype=torch.float64)
    poses = torch.stack([ap, la, ap][:views])
    generator = torch.Generator().manual_seed(0)
    return VertebraViews(
        torch.rand(batch, views, pixels, pixels, generator=generator),
        K.expand(batch, views, 3, 3),
        poses.expand(batch, views, 4, 4),
        torch.tensor([20, 17])[:batch],
    )


def patient_anchors(seed: int, batch: int = 2, count: int = 50) -> RadiativeGaussians:
    g = torch.Generator().manual_seed(seed)
    return RadiativeGaussians(
        torch.randn(batch, count, 3, generator=g) * 15,
        torch.rand(batch, count, 3, generator=g) + 1,
        torch.randn(batch, count, 4, generator=g),
        torch.rand(batch, count, generator=g) * 0.03,
    )


def blank(batch: int = 2) -> RadiativeGaussians:
    one = grid_anchors(SMALL)
    return RadiativeGaussians(
        *(t.expand(batch, *t.shape) for t in (one.means, one.scales, one.quaternions, one.densities))
    )


def wild(seed: int = 0) -> RecM:
    """A RecM whose heads are not zero."""
    torch.manual_seed(seed)
    recm = RecM(SMALL)
    for last in (recm.motion_head[-1], recm.grid_out, recm.fitted_out):
        torch.nn.init.normal_(last.weight, std=0.1)
    return recm.eval()


def test_the_grid_fills_the_place_of_a_vertebra_evenly_and_is_the_same_for_everyone():
    anchors = grid_anchors(SMALL.model_copy(update={"gaussians": 2000}), 112.0)
    assert anchors.count == pytest.approx(2000, rel=0.03)
    torch.testing.assert_close(anchors.means.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    assert anchors.densities.unique().numel() == 1
    spacing = anchors.means[:, 0].unique().diff()
    torch.testing.assert_close(spacing, spacing[:1].expand_as(spacing))
    reach = anchors.means.abs().amax(0)
    for axis, most in enumerate((52, 48, 34)):
        assert most - float(spacing[0]) <= float(reach[axis]) <= most


def test_the_grid_stays_inside_a_small_crop():
    assert grid_anchors(SMALL, 40.0).means.abs().max() <= 20


def test_a_grid_of_equal_anchors_has_their_density_within():
    """The taught density of an anchor is that of its own cell."""
    anchors = grid_anchors(SMALL.model_copy(update={"gaussians": 2000}), 112.0)
    cells = Grid.centred(4 * float(anchors.means[:, 0].unique().diff()[0]), 32)
    assert float(voxelize(anchors, cells).mean()) == pytest.approx(float(anchors.densities[0]), rel=0.02)


def test_a_fresh_recm_leaves_anchors_where_they_are():
    recm = RecM(SMALL).eval()
    for anchors in (blank(), patient_anchors(1)):
        made = recm(camera_views(), anchors)
        torch.testing.assert_close(made.crop_from_vertebra, torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
        for branch in (made.factual, made.effect):
            torch.testing.assert_close(branch.means, anchors.means)
            torch.testing.assert_close(branch.scales, anchors.scales)
            torch.testing.assert_close(branch.densities, anchors.densities, atol=2e-6, rtol=1e-4)


def test_the_motion_and_the_xray_only_reconstruction_do_not_depend_on_any_ct():
    recm, views = wild(), camera_views()
    first = recm(views, patient_anchors(1))
    before = recm(views, blank())
    second = recm(views, patient_anchors(2))
    after = recm(views, blank())
    assert not torch.equal(first.factual.means, second.factual.means)
    assert torch.equal(first.crop_from_vertebra, second.crop_from_vertebra)
    assert torch.equal(before.crop_from_vertebra, second.crop_from_vertebra)
    for name in ("means", "scales", "quaternions", "densities"):
        assert torch.equal(getattr(before.factual, name), getattr(after.factual, name))
    assert not torch.allclose(before.crop_from_vertebra[0], before.crop_from_vertebra[1])


def test_the_reconstruction_depends_on_the_images_and_on_each_camera():
    recm, views = wild(), camera_views()
    base = recm(views, blank())
    other_image = VertebraViews(views.images.flip(-1), views.K, views.camera_from_crop, views.level)
    pose = views.camera_from_crop.clone()
    pose[:, 1, 0, 3] += 20
    for changed_views in (other_image, VertebraViews(views.images, views.K, pose, views.level)):
        made = recm(changed_views, blank())
        assert not torch.allclose(made.crop_from_vertebra, base.crop_from_vertebra)
        assert not torch.allclose(made.factual.densities, base.factual.densities)


def test_attention_that_sees_nothing_has_no_effect():
    recm = wild()
    for attention in recm.attentions:
        torch.nn.init.zeros_(attention.logits.weight)
        torch.nn.init.zeros_(attention.logits.bias)
    anchors = patient_anchors(3)
    made = recm(camera_views(), anchors)
    torch.testing.assert_close(made.effect.means, anchors.means, atol=1e-4, rtol=0)
    assert (made.factual.means - anchors.means).abs().max() > 0.1


def test_counterfactual_attention_is_uniform_noise_in_training_and_ones_at_test_time():
    attention = CounterfactualAttention(3, 8)
    maps = attention.maps(torch.randn(4, 3, 16, 16))
    torch.testing.assert_close(maps.mean((-2, -1)), torch.ones(4, 8))
    drawn = attention.train().counterfactual(maps)
    assert drawn.min() >= 0
    assert drawn.max() <= 2
    assert float(drawn.mean()) == pytest.approx(1, abs=0.03)
    assert float(drawn.std()) == pytest.approx(2 / 12**0.5, abs=0.03)
    assert torch.equal(attention.eval().counterfactual(maps), torch.ones_like(maps))


def test_pooling_under_a_map_of_one_pixel_gives_its_features_and_place():
    attention = CounterfactualAttention(2, 1)
    features = torch.arange(2 * 5 * 5.0).view(1, 2, 5, 5)
    maps = torch.zeros(1, 1, 5, 5)
    maps[0, 0, 1, 4] = 25
    expected = torch.tensor([[9.0, 34.0, 1.0, -0.5]])  # features, then u and v in -1...1
    torch.testing.assert_close(attention.pool(features, maps), expected)


def test_points_project_to_where_the_camera_says():
    views = camera_views(1)
    points = torch.tensor([[[0.0, 0.0, 0.0], [56.0, 0.0, 0.0], [0.0, 0.0, 56.0]]])
    uv = projected(points, torch.eye(4, dtype=torch.float64)[None], views)[0]
    # The window shows 112 mm: a point 56 mm from the centre lies on the outer edge of the border pixels.
    torch.testing.assert_close(uv[0], torch.tensor([[0.0, 0], [1, 0], [0, -1]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(uv[1, 0], torch.tensor([0.0, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(uv[1, 2], torch.tensor([0.0, -1]), atol=1e-6, rtol=0)


def test_brightness_and_contrast_of_a_window_do_not_matter():
    images = camera_views().images
    torch.testing.assert_close(normalised(images * 3 + 7), normalised(images), atol=2e-2, rtol=0)


def test_changes_are_bounded_and_densities_can_vanish():
    anchors = patient_anchors(4)
    made = changed(anchors, torch.full((2, 50, 11), -30.0))
    assert (made.means - anchors.means).abs().max() <= 4.0 + 1e-5
    assert made.densities.max() < 1e-8
    assert (made.scales > 0.4 * anchors.scales).all()


def test_the_kind_of_anchors_is_read_off_the_anchors():
    assert (describe(blank())[..., -1] == 1).all()
    assert (describe(patient_anchors(1))[..., -1] == 0).all()


def test_recm_takes_two_views():
    with pytest.raises(RadgsError, match="2 views"):
        RecM(SMALL)(camera_views(views=3), blank())


def test_weights_survive_the_disk_and_damage_is_named(tmp_path):
    recm = wild()
    write_weights(tmp_path / "recm.safetensors", recm)
    card = {"network": SMALL.model_dump(mode="json"), "crop_mm": 112.0}
    (tmp_path / "card.json").write_text(json.dumps(card))
    again = load_recm(tmp_path)
    assert not again.training
    views = camera_views()
    assert torch.equal(again(views, blank()).factual.means, recm(views, blank()).factual.means)

    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "recm.safetensors")
    with pytest.raises(RadgsError, match="not the weights"):
        load_recm(tmp_path)
    (tmp_path / "recm.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RadgsError, match=r"recm\.safetensors"):
        load_recm(tmp_path)
    (tmp_path / "recm.safetensors").unlink()
    with pytest.raises(RadgsError, match="no such file"):
        load_recm(tmp_path)
    (tmp_path / "card.json").write_text('{"network": {"encoder": "other"}, "crop_mm": 1}')
    with pytest.raises(RadgsError, match=r"card\.json"):
        load_recm(tmp_path)


def test_gradients_of_image_and_volume_reach_every_weight():
    recm, views = wild().train(), camera_views()
    for anchors in (recm.blank(views.level), patient_anchors(1)):
        made = recm(views, anchors)
        volume = warp(torch.rand(2, 8, 8, 8), made.crop_from_vertebra.float(), 112.0)
        loss = volume.sum() + made.effect.means.sum() + made.effect.densities.sum() + made.factual.scales.sum()
        (loss + made.factual.quaternions.square().sum()).backward()
    missing = [n for n, p in recm.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []
