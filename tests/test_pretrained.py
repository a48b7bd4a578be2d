"""The weights that ship: whole, small, of the default network, and without anything of the demo's levels."""

from pathlib import Path

import pytest

from radgs.config import Config, load_config
from radgs.images import read_json
from radgs.models import load_recm, load_regm

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "resources" / "p1"
CONFIG = load_config(ROOT / "config/config.yaml")


def learned_from(card):
    """By subject, what any training in the weights' history has seen and left out."""
    found = {}
    for data in [card["data"], *card["started_from"]]:
        for subject, levels in data["levels_of"].items():
            seen, left_out = found.setdefault(subject, (set(), set()))
            seen |= set(levels["levels"].split())
            left_out |= set(levels["leave_out"].split())
    return found


def test_the_demos_vertebrae_were_not_learned_from():
    found = learned_from(read_json(FOLDER / "card.json"))
    seen, left_out = found["lidc"]
    assert seen
    assert not seen & set(CONFIG.levels)
    assert left_out >= set(CONFIG.levels)


def test_they_fit_the_default_network_and_are_what_the_demo_starts_from():
    assert ROOT / CONFIG.pretrained == FOLDER
    for network in (load_recm(FOLDER), load_regm(FOLDER)):
        assert network.settings == Config().network
        assert network.crop_mm == Config().crop.size_mm


def test_they_are_small_and_say_where_they_come_from():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 25e6
    card = read_json(FOLDER / "card.json")
    assert card["metrics"]["mtre_median_mm"] < card["metrics"]["start_mtre_median_mm"]
    told = (FOLDER / "README.md").read_text()
    for subject in learned_from(card):
        assert subject in told
    assert "CC BY" in told


@pytest.mark.parametrize("name", ["recm", "regm"])
def test_they_are_safetensors_only(name):
    assert (FOLDER / f"{name}.safetensors").is_file()
    assert {path.suffix for path in FOLDER.iterdir()} == {".safetensors", ".json", ".md"}
