"""How far to trust a pose: from evidence to the probability that mTRE < 2 mm, and a verdict with reasons.

The weights of the logistic model were fitted by ``benchmarks/calibrate_verdict.py`` on simulated shots that are neither
training pairs nor the demo's shots; they ship in ``resources/verdict.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from radgs.anatomy.audit import Status
from radgs.config import JudgementSettings
from radgs.errors import ConfigError
from radgs.images import read_json
from radgs.registration.evidence import Evidence

MODEL = Path(__file__).parents[2] / "resources" / "verdict.json"


@dataclass(frozen=True)
class Verdict:
    """``accepted``, ``review`` or ``rejected``, with the probability that mTRE < 2 mm and why.

    ``labels`` is the status of the vertebra's label in the audit: ``ok``, ``suspect`` or ``cut``.
    """

    verdict: Literal["accepted", "review", "rejected"]
    probability: float
    reasons: list[str]
    evidence: dict[str, float]
    labels: Status = "ok"

    def to_json(self) -> dict[str, Any]:
        """As it is written to ``verdict.json``."""
        return asdict(self)

    @classmethod
    def not_registered(cls, reason: str, labels: Status = "ok") -> Verdict:
        """A level that has no pose."""
        return cls("rejected", 0.0, [reason], {}, labels)


def read_model(path: Path = MODEL) -> dict[str, Any]:
    """The logistic model.

    Raises:
        ConfigError: the file is missing.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: the verdict's model is missing; run benchmarks/calibrate_verdict.py")
    return read_json(path)


def probability(evidence: Evidence, model: dict[str, Any]) -> float:
    """Probability that mTRE < 2 mm, from a logistic model ``{"bias", "weights", "mean", "scale"}``."""
    logit = float(model["bias"])
    for name, value in evidence.features().items():
        logit += model["weights"][name] * (value - model["mean"][name]) / model["scale"][name]
    return 1 / (1 + math.exp(-max(min(logit, 50.0), -50.0)))


def judge(
    evidence: Evidence,
    settings: JudgementSettings,
    model: dict[str, Any],
    label_doubts: Sequence[str] = (),
    name_doubts: Sequence[str] = (),
) -> Verdict:
    """Turn evidence into a verdict.

    A result is never accepted when a gate is closed, whatever its probability: starts that disagree, views that
    contradict each other, a view that does not fit, a vertebra that is largely outside an image, one whose label is
    suspect, or one whose name in the X-rays is not certain.

    Args:
        evidence: of the pose.
        settings: thresholds.
        model: of :func:`read_model`.
        label_doubts: why the audit calls the vertebra's label suspect.
        name_doubts: why it may be another vertebra that the X-rays show.
    """
    p = probability(evidence, model)
    gates = []
    if evidence.disagreement_mm > settings.max_disagreement_mm:
        most = settings.max_disagreement_mm
        gates.append(f"independent starts end {evidence.disagreement_mm:.1f} mm apart, more than {most:g} mm")
    if evidence.contradiction_mm > settings.max_contradiction_mm:
        gates.append(
            f"the views contradict each other by {evidence.contradiction_mm:.1f} mm, more than "
            f"{settings.max_contradiction_mm:g} mm: perhaps the patient moved between them, or a calibration is off"
        )
    if evidence.worst_similarity < settings.min_similarity:
        gates.append(f"the least agreeing view has a gradient correlation of {evidence.worst_similarity:.2f} only")
    if evidence.visible < settings.min_visible:
        gates.append(f"one of the images shows only {100 * evidence.visible:.0f} % of the vertebra")
    gates += [f"label: {doubt}" for doubt in label_doubts] + [f"name: {doubt}" for doubt in name_doubts]
    chance = f"probability of an error below 2 mm: {p:.3f}"
    if p < settings.accept_probability:
        chance += f", {settings.accept_probability:g} is needed"
    verdict: Literal["accepted", "review", "rejected"] = "review"
    if p < settings.reject_probability:
        verdict = "rejected"
    elif p >= settings.accept_probability and not gates:
        verdict = "accepted"
    return Verdict(verdict, p, [chance, *gates], asdict(evidence), "suspect" if label_doubts else "ok")
