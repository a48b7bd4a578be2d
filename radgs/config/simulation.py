"""How X-rays are simulated: C-arm, motion of the spine, physics; and what is made of a population."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from radgs.config.section import Section
from radgs.config.training import StageSettings, TrainingSettings


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


class SimulationSettings(Section):
    """Training pairs."""

    pairs: PositiveInt = 12000
    centre_jitter_mm: float = Field(6.0, ge=0)
    reach_mm: float = Field(
        110.0,
        ge=0,
        le=500,
        description="tissue is drawn so far from a vertebra; a CT that ends before is mirrored there",
    )
    reach_share: float = Field(0.5, ge=0, le=1, description="of the scenes that are; the others end with the CT")
    carm: CArmSettings = CArmSettings()
    motion: SpineMotionSettings = SpineMotionSettings()
    physics: PhysicsSettings = PhysicsSettings()


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
