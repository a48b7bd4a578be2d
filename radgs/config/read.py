"""All settings together; reading and checking them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from radgs.config.anatomy import AnchorSettings, CropSettings, DetectionSettings, SegmentationSettings
from radgs.config.registration import EvaluationSettings, JudgementSettings, RefinementSettings, ReportSettings
from radgs.config.section import Level, Section, merged
from radgs.config.simulation import DemoSettings, PopulationSettings, SimulationSettings
from radgs.config.training import (
    AblationSettings,
    MachineSettings,
    NetworkSettings,
    PatientStageSettings,
    RealSettings,
)
from radgs.errors import ConfigError


class Config(Section):
    """All settings of a run."""

    patients: Path = Path("config/patients.tsv")
    xrays: Path = Path("config/xrays.tsv")
    results: Path = Path("results")
    seed: int = Field(20261121, ge=0, lt=2**63)
    levels: list[Level] = Field(["T10", "T11", "T12", "L1"], min_length=1)
    crop: CropSettings = CropSettings()
    demo: DemoSettings = DemoSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    detection: DetectionSettings = DetectionSettings()
    network: NetworkSettings = NetworkSettings()
    anchors: AnchorSettings = AnchorSettings()
    simulation: SimulationSettings = SimulationSettings()
    population: PopulationSettings = PopulationSettings()
    pretrained: Path | None = Field(None, description="models folder of a P1 trained before; none: random weights")
    real: RealSettings = RealSettings()
    training: PatientStageSettings = PatientStageSettings()
    ablation: AblationSettings = AblationSettings()
    machine: MachineSettings = MachineSettings()
    refinement: RefinementSettings = RefinementSettings()
    judgement: JudgementSettings = JudgementSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    report: ReportSettings = ReportSettings()

    @field_validator("levels", mode="before")
    @classmethod
    def _levels_are_a_list(cls, value: object) -> object:
        if isinstance(value, str):
            names = ", ".join(value.replace(",", " ").split())
            raise ValueError(f"a list, as in levels: [{names}]; got the text {value!r}")
        return value

    @model_validator(mode="after")
    def _each_level_once(self) -> Self:
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("levels: each level once")
        return self

    def with_levels(self, levels: Sequence[str]) -> Config:
        """The same settings with other levels: those of one patient.

        Raises:
            ConfigError: a name is no vertebra or stands twice.
        """
        return self.changed({"levels": list(levels)})

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """The same settings with others on top, part by part.

        Raises:
            ConfigError: the result is no config.
        """
        return load_config(merged(self.model_dump(mode="json", exclude_unset=True), changes))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A file of settings, unchecked.

    Raises:
        ConfigError: it is missing or not YAML, or not names with values.
    """
    try:
        found = yaml.safe_load(Path(path).read_text()) or {}
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: holds no settings (names with values)")
    return found


def load_config(source: str | Path | Mapping[str, Any]) -> Config:
    """Read and check a config file, or check a mapping that Snakemake has read.

    Raises:
        ConfigError: the file is missing or not YAML, or a setting is unknown or out of range; all are named.
    """
    where = "config"
    if not isinstance(source, Mapping):
        where, source = str(source), read_yaml(source)
    try:
        return Config.model_validate(source)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_problem(one) for one in error.errors())}") from None


def _problem(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown setting {place!r}{_meant(error['loc'])}"
    return ": ".join(filter(None, [place, error["msg"].removeprefix("Value error, ")]))


def _meant(place: Sequence[str | int]) -> str:
    """The setting of the same section whose name is nearest, if one is near."""
    section: Any = Config
    for name in place[:-1]:
        section = section.model_fields[name].annotation
    near = difflib.get_close_matches(str(place[-1]), section.model_fields, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def export_schema(path: str | Path) -> None:
    """Write the JSON schema that Snakemake and editors use."""
    Path(path).write_text(json.dumps(Config.model_json_schema(), indent=2) + "\n")
