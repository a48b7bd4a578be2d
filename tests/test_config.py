"""Settings: defaults, refusals that name everything at once, and the schema that editors use."""

import json

import pytest
from pydantic import ValidationError

from radgs.config import Config, export_schema, load_config
from radgs.errors import ConfigError


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("")
    assert load_config(tmp_path / "c.yaml") == Config()
    assert load_config({}) == Config()


def test_the_defaults_are_those_of_the_design():
    config = load_config({})
    assert (config.crop.size_mm, config.crop.voxels) == (112, 128)
    assert (config.demo.carm.source_to_detector_mm, config.demo.carm.detector_px) == (1124, 976)
    assert config.demo.shots >= 5
    assert config.evaluation.points == 1000
    assert config.levels == ["T10", "T11", "T12", "L1"]


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    (tmp_path / "c.yaml").write_text("demo:\n  shots: 7\n")
    config = load_config(tmp_path / "c.yaml")
    assert config.demo.shots == 7
    assert config.demo.carm == Config().demo.carm


@pytest.mark.parametrize(
    "place", [("training",), ("population", "training"), ("real", "training"), ("detection", "yolo", "training")]
)
def test_a_part_that_is_given_in_part_keeps_the_rest_of_what_stood_there(place):
    def at(config):
        for name in place:
            config = getattr(config, name)
        return config

    was = at(Config())
    last = "regm" if hasattr(was, "regm") else None
    given = {"epochs": 0.5} if last is None else {last: {"epochs": 0.5}}
    for name in reversed(place):
        given = {name: given}
    now = at(load_config(given))
    expected = was.model_dump()
    (expected[last] if last else expected)["epochs"] = 0.5
    assert now.model_dump() == expected


def test_changes_of_a_config_leave_the_rest_and_a_preset_still_says_what_is_not_given():
    config = load_config({"seed": 5, "training": {"recm": {"epochs": 2}, "losses": {"tv": 0.3}}})
    other = config.changed({"training": {"losses": {"preset": "paper"}, "joint": {"epochs": 0}}})
    assert (other.seed, other.training.recm.epochs, other.training.joint.epochs) == (5, 2, 0)
    assert (other.training.losses.tv, other.training.losses.anchor) == (0.3, 0)
    assert other.training.joint.batch == config.training.joint.batch


def test_one_fold_is_refused():
    with pytest.raises(ConfigError, match=r"real\.folds: one fold would train on the patients that it is for"):
        load_config({"real": {"folds": 1}})


def test_all_problems_are_named_in_one_line(tmp_path):
    (tmp_path / "c.yaml").write_text("crop: {size_mm: -1, colour: red}\ndemo: {shots: many}\ntypo: 1\n")
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "c.yaml")
    message = str(error.value)
    assert "\n" not in message
    for part in ("c.yaml", "crop.size_mm", "crop.colour", "demo.shots", "typo"):
        assert part in message


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"crop": {"voxels": 0}}, "crop.voxels"),
        ({"demo": {"carm": {"max_turn_deg": 90}}}, "demo.carm.max_turn_deg"),
        ({"judgement": {"accept_probability": 1.5}}, "judgement.accept_probability"),
        ({"training": {"recm": {"learning_rate": 0}}}, "training.recm.learning_rate"),
        ({"network": {"anchors": "both"}}, "network.anchors"),
        ({"levels": "L1"}, "levels"),
        ({"levels": ["T12", "L7"]}, "levels.1"),
        ({"levels": ["T12", "T12"]}, "each level once"),
        ({"levels": []}, "levels"),
        ({"judgement": {"reject_probability": 0.99}}, "judgement.*below accept"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(settings, where):
    with pytest.raises(ConfigError, match=where):
        load_config(settings)


@pytest.mark.parametrize(("content", "message"), [("a: [1", "YAML"), ("a:\n\t- b", "YAML"), ("- 1\n- 2\n", "c.yaml")])
def test_a_file_that_is_no_config_is_one_line(tmp_path, content, message):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": ["T12", "L9"]}, "levels.1: 'L9' is no vertebra (C1-C7, T1-T13, L1-L6)"),
        (
            {"levels": ["T12,L1"]},
            "levels.0: 'T12,L1' is no vertebra (C1-C7, T1-T13, L1-L6); several are separated by spaces",
        ),
        ({"levels": "T12, L1"}, "levels: a list, as in levels: [T12, L1]; got the text 'T12, L1'"),
        ({"level": ["T12"]}, "unknown setting 'level' (did you mean levels?)"),
        ({"crop": {"voxel": 3}}, "unknown setting 'crop.voxel' (did you mean voxels?)"),
        ({"zzz": 1}, "unknown setting 'zzz'"),
    ],
)
def test_a_refusal_says_what_would_be_right(settings, message):
    with pytest.raises(ConfigError) as error:
        load_config(settings)
    assert str(error.value) == f"config: {message}"


def test_settings_do_not_change_after_reading():
    with pytest.raises(ValidationError, match="frozen"):
        load_config({}).demo.shots = 3


def test_the_schema_knows_every_section_and_forbids_others(tmp_path):
    export_schema(tmp_path / "schema.json")
    schema = json.loads((tmp_path / "schema.json").read_text())
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["additionalProperties"] is False
    assert load_config(json.loads(Config().model_dump_json())) == Config()
