"""Extra supervising views: where their cameras stand, and that what they show is the vertebra at its true pose."""

from __future__ import annotations

import math

import pytest
import torch

from radgs.anatomy import level_name
from radgs.config import Config
from radgs.gaussians import Grid, rasterize, voxelize
from radgs.models import RecM, load_recm
from radgs.training import read_shards, train_recm
from radgs.training.data import Vertebrae, mean_anchors, read_patient, views_of
from radgs.training.recm_stage import RecMStage, picture_terms
from radgs.training.supervision import drawn_targets, extra_views
from tests.test_models_recm import camera_views
from tests.test_population import shards  # noqa: F401
from tests.test_training_stages import CONFIG, SIZE_MM, patient, poses, vertebra  # noqa: F401


def first(count: int, files) -> tuple[Vertebrae, dict[str, torch.Tensor]]:
    """The vertebrae and the first pairs of the made-up patient."""
    data = read_patient(*files, 16)
    return data.vertebrae, {name: values[:count] for name, values in data.fields.items()}


def test_extra_cameras_keep_the_distance_and_the_centre_and_go_all_the_way_round():
    views = camera_views()
    torch.manual_seed(0)
    K, cameras = extra_views(views.K, views.camera_from_crop, 200)
    assert torch.equal(K, views.K[:, :1].expand(2, 200, 3, 3))
    torch.testing.assert_close(cameras[..., :3, 3], views.camera_from_crop[:, :1, :3, 3].expand(2, 200, 3))
    rotations = cameras[..., :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand(2, 200, 3, 3))
    sources = (-rotations.mT @ cameras[..., :3, 3:])[..., 0]
    round_about = torch.atan2(sources[0, :, 1], sources[0, :, 0])
    assert round_about.max() > 3
    assert round_about.min() < -3
    elevation = torch.asin(sources[0, :, 2] / 700).abs()
    assert math.radians(13) < elevation.max() <= math.radians(15) + 1e-9


def test_targets_of_extra_views_are_the_vertebra_at_its_true_pose():
    one = vertebra(20)
    volume = voxelize(one, Grid.centred(SIZE_MM, 64))[None].expand(2, 64, 64, 64)
    views, truth = camera_views(), poses(2, 4)
    torch.manual_seed(1)
    K, cameras = extra_views(views.K, views.camera_from_crop, 3)
    drawn = drawn_targets(volume.contiguous(), truth, K, cameras, (32, 32), SIZE_MM)
    both = one.__class__(*(t.expand(2, *t.shape) for t in (one.means, one.scales, one.quaternions, one.densities)))
    exact = rasterize(both.moved(truth), K, cameras, (32, 32))
    assert exact.max() > 0.2
    assert float((drawn - exact).abs().max()) < 0.03 * float(exact.max())


@pytest.mark.parametrize("head", ["anchored", "global"])
@pytest.mark.parametrize("preset", ["paper", "code"])
def test_presets_teach_what_they_say(patient, preset, head):  # noqa: F811
    losses = CONFIG.training.losses.model_validate({"preset": preset} | ({"views": 5} if preset == "code" else {}))
    vertebrae, batch = first(3, patient)
    torch.manual_seed(0)
    recm = RecM(CONFIG.network.model_copy(update={"head": head, "gaussians": 23}))
    stage = RecMStage(recm, vertebrae, losses)
    terms = stage(batch)
    kinds = ["image", "ssim", "tv"] + (["chamfer"] if preset == "code" else [])
    assert set(terms) == {f"{branch}.{kind}" for branch in ("effect", "factual") for kind in kinds}
    sum(terms.values()).backward()
    taught = recm.motion_head[-1].bias.grad
    if head == "global":  # no motion in the publication: RegM finds the pose
        assert taught is None
        assert stage.score == "volume_error"
    else:
        assert taught.abs().max() > 0


def test_extra_views_enter_the_image_terms(patient):  # noqa: F811
    vertebrae, batch = first(2, patient)
    recm = RecM(CONFIG.network).eval()
    found = {}
    for views in (2, 8):
        weights = CONFIG.training.losses.model_copy(update={"views": views})
        seen = recm.observe(views_of(batch))
        terms = picture_terms(recm, seen, batch, vertebrae, weights, "patient")
        found[views] = float(terms["factual.image"])
    # a fresh RecM draws the fitted Gaussians at the true pose: right in every view, but for the coarse volume
    assert found[2] < 0.01
    assert 0 < found[8] < 0.1


@pytest.mark.slow
def test_a_global_head_learns_a_few_reconstructions_by_heart_from_pictures_alone(patient):  # noqa: F811
    vertebrae, batch = first(4, patient)
    torch.manual_seed(0)
    recm = RecM(CONFIG.network.model_copy(update={"head": "global", "gaussians": 120, "anchors": "grid"}))
    stage = RecMStage(recm, vertebrae, CONFIG.training.losses.model_validate({"preset": "code", "views": 4}))
    optimizer = torch.optim.AdamW(recm.parameters(), lr=3e-3)

    def error() -> float:
        with torch.no_grad():
            return float(stage.validate(batch)["volume_error"].mean())

    start = error()
    for _ in range(25):
        optimizer.zero_grad()
        terms = picture_terms(recm, recm.observe(views_of(batch)), batch, vertebrae, stage.weights, "blank")
        sum(terms.values()).backward()
        optimizer.step()
    recm.eval()
    assert error() < 0.6 * start


def test_a_population_fills_its_anchors_into_the_weights(shards, tmp_path):  # noqa: F811
    network = {"width": 4, "image_px": 32, "volume_voxels": 16, "gaussians": 64, "attention_maps": 4}
    stage = {"recm": {"epochs": 1, "batch": 4}}
    config = Config.model_validate(
        {"network": network | {"anchors": "population"}, "anchors": {"steps": 5}, "population": {"training": stage}}
    )
    data = read_shards(shards)
    train_recm(data, None, tmp_path, config, config.population.training)
    recm, level = load_recm(tmp_path), data.vertebrae.level[:1]
    assert torch.equal(recm.blank(level).means[0], mean_anchors(data.vertebrae, config)[level_name(int(level))].means)
