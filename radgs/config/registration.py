"""From the networks' poses to results: refinement, verdict, evaluation, report."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from radgs.config.section import Section


class RefinementSettings(Section):
    """Refinement on the X-rays."""

    pixel_mm: float = Field(0.9, gt=0, le=10, description="binned pixel size at the depth of the spine")
    neighbours: int = Field(1, ge=0, description="levels drawn beyond those that are registered")
    step_mm: PositiveFloat = 1.2
    one_body_stages: list[tuple[PositiveFloat, PositiveInt]] = Field(
        [(3.0, 12), (1.5, 8)], description="blur in binned pixels, most steps"
    )
    articulated_stages: list[tuple[PositiveFloat, PositiveInt]] = Field([(1.5, 10), (0.8, 12)], min_length=1)
    convincing_similarity: float = Field(
        0.55, ge=-1, le=1, description="of every view, else other starts are tried; names one level off seldom reach it"
    )
    confirmed_similarity: float = Field(
        0.2, ge=-1, le=1, description="of every view: a level convinces that has no more than this and is confirmed"
    )
    confirmed_mm: float = Field(0.3, ge=0, description="between a level's results from independent starts")
    confirmed_views_mm: float = Field(1.5, ge=0, description="between what single views would make of its pose")
    confirmed_spread_mm: float = Field(0.28, ge=0, description="root mean square error that its covariance expects")
    certain_names: float = Field(
        2.0, ge=1, description="times the information that names one level off hold is certain"
    )
    clear_names: float = Field(
        0.05, ge=0, description="by so much the spine's picture has to fit better in its place than a level up or down"
    )
    prior_weight: float = Field(0.02, ge=0, description="of the priors against the correlations")
    prior_deg: PositiveFloat = 4.0
    prior_mm: PositiveFloat = 2.5
    camera_prior_deg: float = Field(
        0.0,
        ge=0,
        le=2,
        description="each camera's calibration, standard deviation an axis; both 0: it is taken as right",
    )
    camera_prior_mm: float = Field(0.0, ge=0, le=5, description="the same of its shift, at the middle of the spine")

    @property
    def corrects_cameras(self) -> bool:
        """Whether small motions of the cameras are found with the poses."""
        return self.camera_prior_deg > 0 or self.camera_prior_mm > 0

    @model_validator(mode="after")
    def _cameras_have_a_prior(self) -> Self:
        if self.corrects_cameras and not self.prior_weight:
            raise ValueError("cameras cannot be corrected without a prior: prior_weight is 0")
        return self


class JudgementSettings(Section):
    """Which probability of mTRE < 2 mm is enough."""

    accept_probability: float = Field(0.985, gt=0, lt=1)
    reject_probability: float = Field(0.3, gt=0, lt=1)
    max_disagreement_mm: PositiveFloat = Field(1.5, description="between results of independent starts")
    max_contradiction_mm: PositiveFloat = Field(
        1.5, description="between the views, as when the patient moved from one image to the next"
    )
    min_similarity: float = Field(0.2, ge=-1, le=1, description="gradient correlation of the least agreeing view")
    min_visible: float = Field(0.6, ge=0, le=1, description="fraction of the vertebra that each image measured")

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
