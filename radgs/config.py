"""Every setting, once. The workflow validates ``config/config.yaml`` with these models, the library takes them.

Units are in the names: ``_mm``, ``_deg`` (degrees occur only here, in the CLI and in reports), ``_px``.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from radgs.errors import ConfigError

_LEVEL = r"^(C[1-7]|T([1-9]|1[0-3])|L[1-6])$"


def _vertebra(name: str) -> str:
    if not re.match(_LEVEL, name):
        raise ValueError(f"{name!r} is no vertebra (C1-C7, T1-T13, L1-L6)")
    return name


Level = Annotated[str, AfterValidator(_vertebra), WithJsonSchema({"type": "string", "pattern": _LEVEL})]


class Section(BaseModel):
    """A part of the config: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CropSettings(Section):
    """The cube around a vertebra."""

    size_mm: float = Field(112.0, ge=60, le=300)
    voxels: PositiveInt = 128


class CArmSettings(Section):
    """A C-arm with a flat detector; isocentre at the world's origin."""

    source_to_detector_mm: PositiveFloat = 1124.0
    source_to_isocentre_mm: float = Field(700.0, ge=200)
    detector_px: PositiveInt = 976
    pixel_mm: PositiveFloat = 0.388
    max_turn_deg: float = Field(15.0, ge=0, le=45)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.source_to_isocentre_mm >= self.source_to_detector_mm:
            raise ValueError("source_to_isocentre_mm must be less than source_to_detector_mm")
        return self


class SpineMotionSettings(Section):
    """How the spine lies under the C-arm, relative to the CT; each uniform within plus or minus."""

    rotation_deg: float = Field(20.0, ge=0)
    translation_mm: float = Field(50.0, ge=0, le=150)
    neighbour_rotation_deg: float = Field(6.0, ge=0)
    neighbour_translation_mm: float = Field(3.0, ge=0)


class PhysicsSettings(Section):
    """From line integrals to counts."""

    photons: PositiveFloat = 30000.0
    spectrum_kev: list[Annotated[float, Field(ge=10, le=200)]] = [50.0, 70.0, 90.0]
    spectrum_weights: list[PositiveFloat] = [0.3, 0.45, 0.25]
    scatter_fraction: float = Field(0.3, ge=0)
    scatter_blur_px: PositiveFloat = 80.0
    detector_blur_px: float = Field(0.8, ge=0)

    @model_validator(mode="after")
    def _weight_an_energy(self) -> Self:
        if len(self.spectrum_kev) != len(self.spectrum_weights):
            raise ValueError("spectrum_weights needs one weight an energy of spectrum_kev")
        return self


class DemoSettings(Section):
    """The demo patient: a real CT, simulated X-rays."""

    shots: PositiveInt = 5
    seed: int = Field(20261122, ge=0, lt=2**63)
    box_jitter_mm: float = Field(5.0, ge=0)
    carm: CArmSettings = CArmSettings()
    motion: SpineMotionSettings = SpineMotionSettings()
    physics: PhysicsSettings = PhysicsSettings()


class TotalSegmentatorSettings(Section):
    """TotalSegmentator (extra ``segment``); nothing is downloaded, the weights must lie in ``weights``."""

    task: Literal["total", "vertebrae_pp"] = Field("total", description="vertebrae_pp labels the vertebral bodies only")
    fast: bool = Field(False, description="3 mm instead of 1.5 mm; task total only")
    weights: Path | None = Field(None, description="the folder that holds Dataset292_... and others")
    device: str = Field("cpu", pattern="^(cpu|mps|gpu(:[0-9]+)?)$")

    @model_validator(mode="after")
    def _fast_is_for_total(self) -> TotalSegmentatorSettings:
        if self.fast and self.task != "total":
            raise ValueError("fast exists for the task total only")
        return self


class SegmentationSettings(Section):
    """Who labels the vertebrae."""

    backend: Literal["provided", "totalsegmentator"] = "provided"
    numbering: Literal["verse", "totalsegmentator", "ctspine1k"] = Field("verse", description="of provided labels")
    totalsegmentator: TotalSegmentatorSettings = TotalSegmentatorSettings()


class NetworkSettings(Section):
    """RecM and RegM."""

    encoder: Literal["resnet18", "resnet50", "densenet121", "vit"] = Field(
        "resnet18", description="of RecM in 2D, of RegM in 3D"
    )
    width: PositiveInt = Field(16, description="channels of RecM's first stage; 64: the encoder's published size")
    regm_width: PositiveInt = Field(8, description="channels of RegM's first stage")
    image_px: PositiveInt = 64
    volume_voxels: PositiveInt = 32
    gaussians: PositiveInt = 2048
    attention_maps: PositiveInt = 32
    head: Literal["anchored", "global"] = Field("anchored", description="global: that of the publication")
    anchors: Literal["grid", "population", "patient"] = Field("patient", description="of what RegM is given")


class AnchorSettings(Section):
    """Gaussians fitted to the patient's CT."""

    steps: PositiveInt = 150


class SimulationSettings(Section):
    """Training pairs."""

    pairs: PositiveInt = 3000
    centre_jitter_mm: float = Field(6.0, ge=0)
    carm: CArmSettings = CArmSettings()
    motion: SpineMotionSettings = SpineMotionSettings()
    physics: PhysicsSettings = PhysicsSettings()


class TrainingSettings(Section):
    """One optimisation: which weights, how long."""

    epochs: PositiveFloat = 10.0
    batch: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3
    weight_decay: float = Field(1e-4, ge=0)
    validation_fraction: float = Field(0.05, gt=0, lt=1)
    pairs: PositiveInt | None = Field(None, description="use the last so many pairs; each stage holds out the end")
    max_seconds: PositiveFloat | None = None
    patience: PositiveInt | None = Field(None, description="stop after so many epochs without a better held-out score")


class MachineSettings(Section):
    """Where training runs; nothing of what is trained."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = Field(1, description="of each node; a batch is shared out among all of them")
    nodes: PositiveInt = Field(1, description="beyond one, Slurm or torchrun must start the processes")
    strategy: str = Field("auto", description="of Lightning Fabric")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the encoders while they are trained")
    tensorboard: bool = Field(True, description="logs for TensorBoard beside log.csv")


class YoloSettings(Section):
    """A level detector of the package ultralytics (extra ``detect``, AGPL-3.0), trained on simulated X-rays."""

    image_px: PositiveInt = Field(160, multiple_of=32, description="side of the picture that it sees")
    width: float = Field(0.25, ge=0.05, le=1, description="channels; 1: as many as ultralytics' largest networks")
    shots: PositiveInt = Field(400, description="simulated, each with two views")
    training: TrainingSettings = TrainingSettings(epochs=22, batch=16, learning_rate=3e-3, weight_decay=5e-4)
    certain_margin: PositiveFloat = Field(2.0, description="log-odds a level against its best other name")
    certain_shift: PositiveFloat = Field(1.5, description="log-odds against the best other naming of the whole spine")


class DetectionSettings(Section):
    """Who finds the levels in the X-rays."""

    backend: Literal["provided", "yolo"] = "provided"
    max_residual_mm: PositiveFloat = 20.0
    yolo: YoloSettings = YoloSettings()


# What differs from LossSettings' defaults in the loss of the publication and in that of its authors' released code.
_LOSS_PRESETS: dict[str, dict[str, float]] = {
    "default": {},
    "paper": {"anchor": 0.0, "volume": 0.0, "density": 0.0},
    "code": {"anchor": 0.0, "volume": 0.0, "density": 0.0, "chamfer": 0.5, "views": 50},
}


class LossSettings(Section):
    """Weights of the terms.

    ssim, tv and geodesic are RadGS-Reg's; anchor, volume and density are this project's: their reach is longer.
    """

    preset: Literal["default", "paper", "code"] = Field(
        "default", description="what those below are that are not given: ours, the publication's, its released code's"
    )
    ssim: float = Field(0.2, ge=0)
    tv: float = Field(0.05, ge=0)
    geodesic: float = Field(0.02, ge=0)
    anchor: float = Field(1.0, ge=0)
    volume: float = Field(5.0, ge=0)
    density: float = Field(0.2, ge=0)
    chamfer: float = Field(0.0, ge=0, description="of the Gaussians' centres to those fitted to the CT")
    views: int = Field(2, ge=2, description="that supervise a reconstruction; beyond two drawn from the CT crop")

    @model_validator(mode="before")
    @classmethod
    def _take_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("preset"), str):
            return given
        return {**_LOSS_PRESETS.get(given["preset"], {}), **given}


class StageSettings(Section):
    """RecM, then RegM, then both together."""

    recm: TrainingSettings = TrainingSettings(epochs=8)
    regm: TrainingSettings = TrainingSettings(epochs=3, batch=16, pairs=900)
    joint: TrainingSettings = TrainingSettings(epochs=1, batch=16, pairs=1200, learning_rate=1e-4)
    losses: LossSettings = LossSettings()


class VariationSettings(Section):
    """How a patient of the population is changed into others."""

    growth: float = Field(
        0.08, ge=0, le=0.3, description="standard deviation of the logarithm of size; half as much an axis"
    )
    warp_mm: float = Field(2.5, ge=0, le=10, description="root mean square an axis of the velocities")
    warp_length_mm: PositiveFloat = Field(25.0, description="over which they are smooth")
    mineral: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.4)
    texture: float = Field(0.1, ge=0, le=1)
    mirror: bool = True


class PopulationSettings(Section):
    """Stage P1: which patients, and how many others are made of each."""

    sheet: Path | None = Field(None, description="columns subject, ct, labels, levels, leave_out; none: no P1")
    variants: PositiveInt = 40
    pairs: PositiveInt = Field(300, description="of each variant")
    levels: PositiveInt = Field(4, description="neighbouring levels that one simulated spine is seen at")
    anchor_steps: PositiveInt = 60
    variation: VariationSettings = VariationSettings()
    training: StageSettings = StageSettings(
        recm=TrainingSettings(epochs=10),
        regm=TrainingSettings(epochs=3, batch=16, pairs=3000),
        joint=TrainingSettings(epochs=1, batch=16, pairs=3000, learning_rate=1e-4),
    )


class RefinementSettings(Section):
    """Refinement on the X-rays."""

    pixel_mm: float = Field(0.9, gt=0, le=10, description="binned pixel size at the depth of the spine")
    neighbours: int = Field(1, ge=0, description="levels drawn beyond those that are registered")
    step_mm: PositiveFloat = 1.2
    one_body_stages: list[tuple[PositiveFloat, PositiveInt]] = Field(
        [(3.0, 12), (1.5, 8)], description="blur in binned pixels, most steps"
    )
    articulated_stages: list[tuple[PositiveFloat, PositiveInt]] = Field([(1.5, 10), (0.8, 12)], min_length=1)
    prior_weight: float = Field(0.02, ge=0)
    prior_deg: PositiveFloat = 4.0
    prior_mm: PositiveFloat = 2.5


class JudgementSettings(Section):
    """Which probability of mTRE < 2 mm is enough."""

    accept_probability: float = Field(0.97, gt=0, lt=1)
    reject_probability: float = Field(0.3, gt=0, lt=1)
    max_disagreement_mm: PositiveFloat = Field(1.5, description="between results of independent starts")
    min_similarity: float = Field(0.4, ge=-1, le=1, description="gradient correlation of the least agreeing view")
    min_visible: float = Field(0.6, ge=0, le=1, description="fraction of the vertebra inside each image")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.reject_probability >= self.accept_probability:
            raise ValueError("reject_probability must be below accept_probability")
        return self


class EvaluationSettings(Section):
    """The protocol's fixed points."""

    points: PositiveInt = 1000


class ReportSettings(Section):
    """What the report shows."""

    attention_maps: bool = Field(True, description="where RecM looked in each X-ray, as pictures")


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
    training: StageSettings = StageSettings()
    machine: MachineSettings = MachineSettings()
    refinement: RefinementSettings = RefinementSettings()
    judgement: JudgementSettings = JudgementSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    report: ReportSettings = ReportSettings()

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
        return load_config(self.model_dump(mode="json") | {"levels": list(levels)})


def load_config(source: str | Path | Mapping[str, Any]) -> Config:
    """Read and check a config file, or check a mapping that Snakemake has read.

    Raises:
        ConfigError: the file is missing or not YAML, or a setting is unknown or out of range; all are named.
    """
    where = "config"
    if not isinstance(source, Mapping):
        where = str(source)
        try:
            source = yaml.safe_load(Path(source).read_text()) or {}
        except FileNotFoundError:
            raise ConfigError(f"{where}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: cannot be read ({error})") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None
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
