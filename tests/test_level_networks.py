"""P3 with networks for each level: each level is estimated by its own, and the rules train and read them so."""

import json

import numpy as np
import pytest
import torch

from radgs.anatomy import VertebraCrop
from radgs.config import CArmSettings, load_config
from radgs.errors import AnatomyError
from radgs.images import Xray
from radgs.models import RecM, RegM
from radgs.registration import estimate
from radgs.simulation import CArm
from radgs.training import read_patient
from tests.test_attention_files import CONFIG, patient
from tests.test_training_stages import patient as files  # noqa: F401
from tests.test_workflow import inputs_by_rule, project  # noqa: F401


def networks(seed):
    torch.manual_seed(seed)
    recm, regm = RecM(CONFIG.network).eval(), RegM(CONFIG.network).eval()
    torch.nn.init.normal_(recm.motion_head[-1].weight, std=0.05)
    return recm, regm


def test_each_level_is_estimated_by_its_own_networks():
    arm, rng = CArm(CArmSettings(detector_px=244, pixel_mm=1.552)), np.random.default_rng(3)
    xrays = {n: Xray(n, rng.random((244, 244), dtype=np.float32) + 2, arm.camera(n, 0.1, 0.05)) for n in arm.views}
    centres = {"T12": np.array([3.0, -5, 30]), "L1": np.array([3.0, -5, -5])}
    crop, anchors = patient(1)
    crops = {level: VertebraCrop(level, crop.excess, crop.mask) for level in centres}
    own = {"T12": networks(1), "L1": networks(2)}

    def found(recm, regm):
        return estimate(xrays, centres, crops, dict.fromkeys(centres, anchors), recm, regm, CONFIG)

    mixed = found(*({level: pair[k] for level, pair in own.items()} for k in (0, 1)))
    for level, other in (("T12", "L1"), ("L1", "T12")):
        np.testing.assert_allclose(mixed[level].regm.matrix, found(*own[level])[level].regm.matrix, atol=1e-4)
        assert not np.allclose(mixed[level].regm.matrix, found(*own[other])[level].regm.matrix, atol=1e-2)


def test_a_network_of_one_level_learns_from_its_pairs_alone(files):  # noqa: F811
    pairs, crops, anchors = files
    whole, one = read_patient(pairs, crops, anchors, 16), read_patient(pairs, crops, anchors, 16, level="L1")
    mine = whole.fields["level"] == 20
    assert set(one.fields["level"].tolist()) == {20}
    assert torch.equal(one.fields["images"], whole.fields["images"][mine])
    assert one.facts["level"] == "L1"
    assert one.facts["pairs"] == int(mine.sum())
    assert torch.equal(one.vertebrae.volumes[0], whole.vertebrae.volumes[whole.vertebrae.level == 20][0])
    with pytest.raises(AnatomyError, match="no pair of L3"):
        read_patient(pairs, {"L3": crops["L1"]}, {"L3": anchors["L1"]}, 16, level="L3")


def test_the_rules_train_and_register_with_networks_for_each_level(project):  # noqa: F811
    config = ["--config", f"training={json.dumps({'networks': 'level'})}"]
    assert load_config({"training": {"networks": "level"}}).training.recm == load_config({}).training.recm
    read = inputs_by_rule(project, *config)
    models = "results/models/p3/tiny"
    assert {path for rule, path in read if rule == "register" and "/models/" in path} == {
        f"{models}/{level}/joint/{name}.safetensors" for level in ("T12", "L1") for name in ("recm", "regm")
    }
    assert {path for rule, path in read if rule == "train_joint"} >= {
        f"{models}/{k}/recm/recm.safetensors" for k in ("T12", "L1")
    }
    assert f"{models}/T12/recm/card.json" in {path for rule, path in read if rule == "report"}
