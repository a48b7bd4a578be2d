"""Where vertebrae are: crops, who labels the CT, who finds the levels in the X-rays."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from radgs.config.section import Section
from radgs.config.training import TrainingSettings


class CropSettings(Section):
    """The cube around a vertebra."""

    size_mm: float = Field(112.0, ge=60, le=300)
    voxels: PositiveInt = 128


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


class YoloSettings(Section):
    """A level detector of the package ultralytics (extra ``detect``, AGPL-3.0), trained on simulated X-rays."""

    image_px: PositiveInt = Field(160, multiple_of=32, description="side of the picture that it sees")
    width: float = Field(0.25, ge=0.05, le=1, description="channels; 1: as many as ultralytics' largest networks")
    shots: PositiveInt = Field(400, description="simulated, each with two views")
    training: TrainingSettings = TrainingSettings(epochs=22, batch=16, learning_rate=3e-3, weight_decay=5e-4)
    certain_margin: PositiveFloat = Field(0.5, description="log-odds a level against its best other name")
    certain_shift: PositiveFloat = Field(0.5, description="log-odds against the best other naming of the whole spine")
    certain_lead: PositiveFloat = Field(
        0.2, description="correlation, summed over two views, by which names fit better than those one level off"
    )
    certain_fit: PositiveFloat = Field(
        0.6, description="correlation, summed over two views, from each level to the one that fits best"
    )


class DetectionSettings(Section):
    """Who finds the levels in the X-rays."""

    backend: Literal["provided", "yolo"] = "provided"
    max_residual_mm: PositiveFloat = 20.0
    yolo: YoloSettings = YoloSettings()


class AnchorSettings(Section):
    """Gaussians fitted to the patient's CT."""

    steps: PositiveInt = 150
