"""The global head and the anchors of a population: what they change, what they may know, and CAL in both heads."""

from __future__ import annotations

import json

import pytest
import torch

from radgs.config import Config, NetworkSettings
from radgs.errors import AnatomyError, RadgsError
from radgs.gaussians import Grid, RadiativeGaussians, voxelize
from radgs.models import RecM, load_recm, write_weights
from radgs.models.anchors import changed
from radgs.training.data import Vertebrae, mean_anchors
from tests.test_models_recm import SMALL, camera_views, patient_anchors

COUNT = 50
GLOBAL = SMALL.model_copy(update={"head": "global", "gaussians": COUNT})
ANCHORED = SMALL.model_copy(update={"gaussians": COUNT})


def wild(settings: NetworkSettings) -> RecM:
    """A RecM whose heads are not zero."""
    torch.manual_seed(0)
    recm = RecM(settings)
    head = recm.global_head or recm
    for last in (recm.motion_head[-1], head.grid_out, head.fitted_out):
        if last is not None:
            torch.nn.init.normal_(last.weight, std=0.1)
    return recm.eval()


@pytest.fixture(params=[ANCHORED, GLOBAL], ids=["anchored", "global"])
def settings(request) -> NetworkSettings:
    return request.param


def test_a_fresh_global_head_leaves_anchors_where_they_are():
    recm, level = RecM(GLOBAL).eval(), torch.tensor([20, 17])
    for anchors in (recm.blank(level), patient_anchors(1)):
        made = recm(camera_views(), anchors)
        for branch in (made.factual, made.effect):
            torch.testing.assert_close(branch.means, anchors.means)
            torch.testing.assert_close(branch.densities, anchors.densities, atol=2e-6, rtol=1e-4)


def test_the_effect_is_the_difference_of_both_branches_in_raw_space(settings):
    recm, anchors, views = wild(settings), patient_anchors(1), camera_views()
    seen = recm.observe(views)
    made = recm.reconstruct(seen, views, anchors)
    head = recm._head(seen, views, anchors)
    raw = head(seen.attention, seen.context)
    difference = raw - head(seen.counterfactual_attention, seen.counterfactual_context)
    assert (difference - raw).abs().max() > 0.1
    if settings.head == "global":
        expected = changed(anchors, difference, recm.crop_mm / 2)
        torch.testing.assert_close(made.factual.means, changed(anchors, raw, recm.crop_mm / 2).means)
    else:
        expected = changed(anchors, difference).moved(seen.effect_motion)
    for name in ("means", "scales", "quaternions", "densities"):
        torch.testing.assert_close(getattr(made.effect, name), getattr(expected, name))


def test_attention_that_sees_nothing_has_no_effect(settings):
    recm, anchors = wild(settings), patient_anchors(3)
    for attention in recm.attentions:
        torch.nn.init.zeros_(attention.logits.weight)
        torch.nn.init.zeros_(attention.logits.bias)
    made = recm(camera_views(), anchors)
    torch.testing.assert_close(made.effect.means, anchors.means, atol=1e-4, rtol=0)
    assert (made.factual.means - anchors.means).abs().max() > 0.1


def test_the_global_head_places_gaussians_anywhere_in_the_crop_whatever_the_motion():
    recm, anchors, views = wild(GLOBAL), patient_anchors(1), camera_views()
    for last in (recm.global_head.fitted_out, recm.motion_head[-1]):
        torch.nn.init.constant_(last.bias, 100.0)
    made = recm(views, anchors)
    torch.testing.assert_close(made.factual.means, anchors.means + 56.0, atol=1e-2, rtol=0)
    assert (made.crop_from_vertebra[:, :3, 3] - 1000).abs().max() < 100  # 100 units of 10 mm and what the weights add


def test_one_raw_unit_of_offset_is_ten_mm_near_the_anchor():
    recm, anchors = RecM(GLOBAL).eval(), patient_anchors(1)
    bias = recm.global_head.fitted_out.bias.detach().view(COUNT, 11)
    bias[7, 1] = 0.01
    made = recm(camera_views(), anchors).factual
    moved = (made.means - anchors.means)[0]
    assert float(moved[7, 1]) == pytest.approx(0.1, rel=1e-3)
    assert float(moved.abs().sum()) == pytest.approx(0.1, rel=1e-2)


def test_gradients_reach_every_weight_of_the_global_head():
    recm, views, level = wild(GLOBAL).train(), camera_views(), torch.tensor([20, 17])
    loss = torch.zeros(())
    for anchors in (recm.blank(level), patient_anchors(1)):
        made = recm(views, anchors)
        loss = loss + made.effect.means.square().mean() + made.factual.densities.sum() + made.factual.scales.sum()
        loss = loss + made.crop_from_vertebra.float().square().mean()
    loss.backward()
    assert [n for n, p in recm.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_another_number_of_anchors_than_the_head_was_made_for_is_refused():
    with pytest.raises(RadgsError, match="makes 50 Gaussians, got 49"):
        RecM(GLOBAL)(camera_views(), patient_anchors(1, count=49))


def test_the_global_reconstruction_is_that_of_the_images():
    recm, views = wild(GLOBAL), camera_views()
    volumes = voxelize(recm(views, recm.blank(views.level)).factual, Grid.centred(112.0, 8))
    other = views.__class__(views.images.flip(-1), views.K, views.camera_from_crop, views.level)
    assert not torch.allclose(volumes, voxelize(recm(other, recm.blank(views.level)).factual, Grid.centred(112.0, 8)))


def test_what_is_known_of_a_level_changes_its_grid_and_nothing_else():
    recm, views = wild(ANCHORED), camera_views()
    fitted, level = patient_anchors(1), views.level
    before = [recm(views, anchors) for anchors in (recm.blank(level), fitted)]
    with torch.no_grad():
        recm.shapes.raw.weight[level[0], -1] = 0.1  # the last anchor's density
    after = [recm(views, anchors) for anchors in (recm.blank(level), fitted)]
    for branch in ("factual", "effect"):
        grid, same = (getattr(made[0], branch).densities for made in (after, before))
        assert float((grid - same)[0, -1]) > 0.005
        assert torch.equal(grid[0, :-1], same[0, :-1])
        assert torch.equal(grid[1], same[1])
        assert torch.equal(getattr(after[1], branch).densities, getattr(before[1], branch).densities)


def test_weights_from_before_there_were_shapes_know_none():
    old = {name: w for name, w in wild(ANCHORED).state_dict().items() if not name.startswith("shapes.")}
    recm = RecM(ANCHORED)
    torch.nn.init.ones_(recm.shapes.raw.weight)
    recm.load_state_dict(old)
    assert not recm.shapes.raw.weight.any()
    torch.testing.assert_close(recm.grid_out.weight, old["grid_out.weight"])


def test_a_grid_learns_the_shape_of_a_level_in_a_hundred_steps():
    recm, grid = RecM(SMALL.model_copy(update={"gaussians": 500})).eval(), Grid.centred(112.0, 16)
    views, blob = (
        camera_views(batch=1),
        RadiativeGaussians(
            torch.tensor([[[8.0, -5, 3], [-12, 6, 0]]]),
            torch.tensor([[[12.0, 9, 9], [7, 10, 7]]]),
            torch.tensor([1.0, 0, 0, 0]).expand(1, 2, 4),
            torch.tensor([[0.02, 0.01]]),
        ),
    )
    target, optimizer = voxelize(blob, grid), torch.optim.Adam(recm.shapes.parameters(), lr=1e-3)

    def error() -> torch.Tensor:
        return (voxelize(recm(views, recm.blank(views.level)).factual, grid) - target).abs().mean()

    first = float(error().detach())
    for _ in range(100):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert float(error().detach()) < 0.2 * first


def some_gaussians(x: float, count: int = COUNT) -> RadiativeGaussians:
    g = torch.Generator().manual_seed(int(abs(x)))
    return RadiativeGaussians(
        torch.randn(count, 3, generator=g) + torch.tensor([x, 0, 0]),
        torch.full((count, 3), 4.0),
        torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        torch.rand(count, generator=g) * 0.01 + 0.001,
    )


def test_a_level_that_the_population_lacks_has_the_anchors_of_the_nearest():
    recm = RecM(ANCHORED.model_copy(update={"anchors": "population"}))
    recm.population.fill({"T10": some_gaussians(10.0), "L3": some_gaussians(-10.0)})
    means = recm.blank(torch.tensor([17, 22, 18, 20, 21, 1])).means[..., 0].mean(1)  # T10 L3 T11 L1 L2 C1
    assert means.sign().tolist() == [1, -1, 1, -1, -1, 1]


@pytest.mark.parametrize("head", ["anchored", "global"])
def test_population_anchors_travel_with_the_weights_and_are_xray_only(tmp_path, head):
    settings = ANCHORED.model_copy(update={"anchors": "population", "head": head})
    recm = wild(settings)
    with pytest.raises(RadgsError, match="no population here"):
        recm.blank(torch.tensor([20]))
    recm.population.fill({"L1": some_gaussians(5.0)})
    write_weights(tmp_path / "recm.safetensors", recm)
    card = {"network": settings.model_dump(mode="json"), "crop_mm": 112.0}
    (tmp_path / "card.json").write_text(json.dumps(card))
    again, views = load_recm(tmp_path), camera_views()
    made = again(views, again.blank(views.level))
    assert torch.equal(made.factual.means, recm(views, recm.blank(views.level)).factual.means)
    assert again.blank(views.level).count == COUNT


def test_population_anchors_that_do_not_fit_or_are_missing_are_named():
    recm = RecM(ANCHORED.model_copy(update={"anchors": "population"}))
    with pytest.raises(AnatomyError, match=r"gaussians \(50\).*L1"):
        recm.population.fill({"L1": some_gaussians(1.0, count=9)})


def table(places: list[float], levels: list[int]) -> Vertebrae:
    """Vertebrae that are one bright ball each, at that x."""
    balls = [RadiativeGaussians(*(t[None] for t in ball)) for ball in map(parts, places)]
    nothing = {"points": torch.zeros(len(levels), 1, 3), "means": torch.zeros(len(levels), 1, 3)}
    nothing |= {"scales": torch.ones(len(levels), 1, 3), "quaternions": torch.ones(len(levels), 1, 4)}
    volumes = torch.cat([voxelize(ball, Grid.centred(112.0, 16)) for ball in balls])
    return Vertebrae(
        {"level": torch.tensor(levels), "volumes": volumes, "densities": torch.ones(len(levels), 1), **nothing}
    )


def parts(x: float) -> tuple[torch.Tensor, ...]:
    quaternion = torch.tensor([[1.0, 0, 0, 0]])
    return torch.tensor([[x, 0.0, 0.0]]), torch.full((1, 3), 14.0), quaternion, torch.tensor([0.02])


def test_population_anchors_are_fitted_to_the_mean_volume_of_their_level():
    config = Config.model_validate({"network": {"gaussians": 80}, "anchors": {"steps": 60}})
    vertebrae = table([-25.0, 25.0, 0.0], [20, 20, 17])
    found = mean_anchors(vertebrae, config)
    assert set(found) == {"L1", "T10"}
    drawn = voxelize(found["L1"], Grid.centred(112.0, 16))
    expected = (vertebrae.volumes[0] + vertebrae.volumes[1]) / 2
    assert (drawn - expected).abs().mean() < 0.1 * expected.mean()
    assert (drawn - vertebrae.volumes[2]).abs().mean() > 0.5 * expected.mean()
