"""What is trained, on what, and how long."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from radgs.config.section import Section


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


class TrainingSettings(Section):
    """One optimisation: which weights, how long."""

    epochs: float = Field(10.0, ge=0, description="0: the weights are measured and passed on")
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
    counterfactual: bool = Field(True, description="teach what attention makes different; else the factual branch only")
    views: int = Field(2, ge=2, description="that supervise a reconstruction; beyond two drawn from the CT crop")
    pose_first: float = Field(
        0.85, ge=0, lt=1, description="share of RecM's steps, the first, that teach its motion alone; needs anchor"
    )

    @model_validator(mode="before")
    @classmethod
    def _take_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("preset"), str):
            return given
        return {**_LOSS_PRESETS.get(given["preset"], {}), **given}


class StageSettings(Section):
    """RecM, then RegM, then both together."""

    recm: TrainingSettings = TrainingSettings(epochs=3)
    regm: TrainingSettings = TrainingSettings(epochs=3, batch=16, pairs=900)
    joint: TrainingSettings = TrainingSettings(epochs=1, batch=16, pairs=1200, learning_rate=1e-4)
    losses: LossSettings = LossSettings()


class PatientStageSettings(StageSettings):
    """Stage P3."""

    networks: Literal["patient", "level"] = Field(
        "patient", description="one pair of networks for all levels of the patient, or one for each level"
    )


class RealSettings(Section):
    """Stage P2: X-rays of patients whose true poses are known (``truth`` in the sheet of X-rays)."""

    folds: int = Field(
        0, ge=0, description="0: no P2; else each patient gets networks that learned from the patients of other folds"
    )
    training: StageSettings = StageSettings(
        recm=TrainingSettings(epochs=30, batch=8, learning_rate=2e-4),
        regm=TrainingSettings(epochs=10, batch=8, pairs=None, learning_rate=2e-4),
        joint=TrainingSettings(epochs=10, batch=8, pairs=None, learning_rate=1e-4),
    )

    @field_validator("folds")
    @classmethod
    def _two_or_none(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("one fold would train on the patients that it is for; give 2 or more, or 0 for no P2")
        return folds


class AblationSettings(Section):
    """The table of ``snakemake ablation``: a file of settings in ``rows`` is a row."""

    rows: Path = Path("config/ablation")
    patient: str | None = Field(None, description="whose CT is learned from; none: the first of the sheet")
    scale: PositiveFloat = Field(1.0, description="times the epochs of every row")
    pairs: PositiveInt = Field(100, description="simulated anew, to be measured on")
