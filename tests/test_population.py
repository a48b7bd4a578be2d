"""A population: patients changed into others stay whole, and its shards say where everything is."""

import json

import numpy as np
import pytest
import torch

from radgs.config import Config, VariationSettings, load_config
from radgs.errors import AnatomyError, ConfigError, ImageError
from radgs.gaussians import RadiativeGaussians, rasterize
from radgs.images import write_volume
from radgs.models import load_recm
from radgs.sheets import read_population_sheet
from radgs.simulation import ShardedPairs, simulate_population
from radgs.simulation.variation import displacement, filled, varied, without
from radgs.training import read_shards, train_recm
from tests.phantoms import LEVEL_NUMBERS, block_spine

STILL = VariationSettings(growth=0, warp_mm=0, mineral=(1.0, 1.0), texture=0, mirror=False)
SMALL = {
    "levels": ["L1"],
    "crop": {"voxels": 32},
    "network": {"width": 4, "image_px": 32, "volume_voxels": 16, "gaussians": 400, "attention_maps": 4},
    "simulation": {"carm": {"detector_px": 240, "pixel_mm": 1.6}},
    "population": {
        "pairs": 6,
        "levels": 2,
        "anchor_steps": 20,
        "training": {"recm": {"epochs": 1, "batch": 4, "validation_fraction": 0.2}},
    },
}


def rng(seed=0):
    return np.random.default_rng(seed)


def changed(**update):
    return STILL.model_copy(update=update)


def test_no_variation_changes_nothing():
    ct, labels = block_spine()
    other, names = varied(ct, labels, rng(), STILL)
    np.testing.assert_allclose(other.array, ct.array, atol=0.1)
    np.testing.assert_array_equal(names.array, labels.array)
    np.testing.assert_allclose(other.lps_from_index, ct.lps_from_index)


def test_a_mirrored_patient_is_the_same_from_right_to_left():
    ct, labels = block_spine()
    settings = changed(mirror=True)
    made = [varied(ct, labels, rng(seed), settings) for seed in range(8)]
    kept = [np.array_equal(names.array, labels.array) for _, names in made]
    assert set(kept) == {True, False}
    hu, names = made[kept.index(False)]
    np.testing.assert_allclose(hu.array, ct.array[:, :, ::-1], atol=0.1)
    np.testing.assert_array_equal(names.array, labels.array[:, :, ::-1])


@pytest.mark.parametrize("seed", range(3))
def test_the_displacement_can_be_undone_and_has_the_size_asked_for(seed):
    settings = VariationSettings(warp_mm=4.0, warp_length_mm=20.0)
    shift = displacement((60, 50, 40), np.array([3.0, 3, 3]), rng(seed), settings).double().numpy()
    step = np.array([120.0, 150, 180]) / shift.shape[:0:-1]  # x, y, z
    gradient = np.stack([np.stack(np.gradient(one)[::-1]) / step.reshape(3, 1, 1, 1) for one in shift])
    jacobian = np.eye(3) + np.moveaxis(gradient, (0, 1), (-2, -1))
    assert np.linalg.det(jacobian).min() > 0.05
    assert 1.0 < np.sqrt((shift**2).mean()) < 6.0


def test_ct_and_labels_are_bent_together_and_not_nowhere():
    ct, labels = block_spine()
    ct = ct.with_array(np.where(labels.array > 0, 1000, 0).astype(np.float32))
    hu, names = varied(ct, labels, rng(1), changed(warp_mm=3.0))
    bone, labelled = hu.array > 500, names.array > 0
    assert 2 * (bone & labelled).sum() / (bone.sum() + labelled.sum()) > 0.93
    assert 2 * (labels.array > 0)[labelled].sum() / (labelled.sum() + (labels.array > 0).sum()) < 0.95
    assert set(np.unique(names.array)) == {0, 19, 20, 21}


def test_growth_is_in_the_grid_and_mineral_in_the_bone_only():
    ct, labels = block_spine()
    hu, _ = varied(ct, labels, rng(2), changed(growth=0.1))
    assert np.abs(hu.spacing / ct.spacing - 1).max() > 0.01
    hu, _ = varied(ct, labels, rng(2), changed(mineral=(1.5, 1.5)))
    bone = labels.array > 0
    np.testing.assert_allclose(hu.array[bone], 60 + 1.5 * (ct.array[bone] - 60), rtol=1e-3)
    np.testing.assert_allclose(hu.array[~bone], ct.array[~bone], atol=0.1)


def test_a_label_map_is_filled_with_cortex_around_trabecular_bone():
    _, labels = block_spine()
    hu = filled(labels, rng()).array
    body = hu[22:30, 12:22, 14:28]
    assert body[0].mean() > 600 > 300 > body[3:5, 4:6, 5:9].mean() > 100
    assert hu[0, 0, 0] == -1000
    assert abs(hu[24, 34, 22] - 45) < 40


def test_a_level_that_is_left_out_leaves_no_bone_behind():
    ct, labels = block_spine()
    hu, names = without(ct, labels, ["L1"])
    assert set(np.unique(names.array)) == {0, 19, 21}
    assert hu.array[labels.array == 20].max() <= 45
    others = np.isin(labels.array, [19, 21])
    np.testing.assert_array_equal(hu.array[others], ct.array[others])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("population")
    ct, labels = block_spine()
    write_volume(folder / "ct.nii.gz", ct)
    write_volume(folder / "labels.nii.gz", labels)
    config = load_config(SMALL)
    files = folder / "ct.nii.gz", folder / "labels.nii.gz"
    simulate_population(*files, [], ["L2"], "a", 0, folder / "a-0.h5", config)
    simulate_population(None, files[1], ["L1"], [], "b", 0, folder / "b-0.h5", config)
    return [folder / "a-0.h5", folder / "b-0.h5"]


def test_each_pair_finds_its_vertebra_across_shards(shards):
    pairs = ShardedPairs(shards)
    assert len(pairs) == 12
    level, row = pairs.fields["level"][:], pairs.fields["vertebra"][:]
    assert torch.equal(pairs.vertebrae["level"][row], level)
    assert set(level[:6].tolist()) == {19, 20}
    assert set(level[6:].tolist()) == {20}
    assert pairs.levels_of == {"a": {"levels": "T12 L1", "leave_out": "L2"}, "b": {"levels": "L1", "leave_out": ""}}
    mixed = torch.tensor([7, 2, 11])
    both = torch.cat([ShardedPairs([one]).fields["images"][:] for one in shards])
    assert torch.equal(pairs.fields["images"][mixed], both[mixed])
    assert torch.equal(pairs.fields["images"][4:8], both[4:8])


def test_the_fitted_gaussians_at_the_true_pose_draw_the_target(shards):
    pairs = ShardedPairs(shards)
    row = pairs.fields["vertebra"][:]
    names = ("means", "scales", "quaternions", "densities")
    there = RadiativeGaussians(*(pairs.vertebrae[name][row] for name in names))
    placed = there.moved(pairs.fields["crop_from_vertebra"][:])
    drawn = rasterize(placed, pairs.fields["K"][:], pairs.fields["camera_from_crop"][:], (32, 32))
    target = pairs.fields["targets"][:]
    for one, other in zip(drawn.flatten(0, 1), target.flatten(0, 1), strict=True):
        assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.9


def test_shards_repeat_with_the_seed_and_differ_between_variants(shards, tmp_path):
    files = shards[0].parent / "ct.nii.gz", shards[0].parent / "labels.nii.gz"
    for variant in (0, 1):
        simulate_population(*files, [], ["L2"], "a", variant, tmp_path / f"{variant}.h5", load_config(SMALL))
    first, again, other = (ShardedPairs([path]) for path in (shards[0], tmp_path / "0.h5", tmp_path / "1.h5"))
    assert torch.equal(first.fields["images"][:], again.fields["images"][:])
    assert torch.equal(first.vertebrae["volumes"], again.vertebrae["volumes"])
    assert not torch.allclose(first.vertebrae["volumes"], other.vertebrae["volumes"])


def test_a_stage_learns_from_shards_and_its_card_says_from_whom(shards, tmp_path):
    config = load_config(SMALL)
    train_recm(read_shards(shards), None, tmp_path, config, config.population.training)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["data"]["levels_of"]["a"] == {"levels": "T12 L1", "leave_out": "L2"}
    assert card["data"]["pairs"] == 12
    load_recm(tmp_path)


def test_what_is_no_population_is_refused(shards, tmp_path):
    with pytest.raises(ImageError, match="at least one"):
        ShardedPairs([])
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(ImageError, match=r"text\.h5"):
        ShardedPairs([shards[0], tmp_path / "text.h5"])
    folder = shards[0].parent
    with pytest.raises(AnatomyError, match="L5"):
        simulate_population(None, folder / "labels.nii.gz", ["L5"], [], "a", 0, tmp_path / "x.h5", load_config(SMALL))
    assert not (tmp_path / "x.h5").exists()
    assert set(LEVEL_NUMBERS.values()) == {19, 20, 21}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subject\tct\n", "labels"),
        ("subject\tlabels\na/b\tl.nii\n", "a/b"),
        ("subject\tlabels\na\tl.nii\na\tl.nii\n", "twice"),
        ("subject\tlabels\tlevels\na\tl.nii\tQ7\n", "Q7"),
        ("subject\tlabels\n", "no subject"),
    ],
)
def test_a_population_sheet_that_cannot_be_used_is_one_line(tmp_path, text, said):
    (tmp_path / "p.tsv").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_population_sheet(Config.model_validate({"population": {"sheet": tmp_path / "p.tsv"}}))
