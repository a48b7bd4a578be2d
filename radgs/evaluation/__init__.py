"""Metrics, protocol, statistics: how good poses and reconstructions are. Only this package may open truth."""

from radgs.evaluation.poses import (
    CaptureRange,
    capture_range,
    success_rate,
    summarize,
    target_points,
    target_registration_error,
    wilson_interval,
)
from radgs.evaluation.protocol import EvaluatedShot, evaluate_registrations, summary_of
from radgs.evaluation.volumes import VolumeMetrics, average_metrics, compare_volumes

__all__ = [
    "CaptureRange",
    "EvaluatedShot",
    "VolumeMetrics",
    "average_metrics",
    "capture_range",
    "compare_volumes",
    "evaluate_registrations",
    "success_rate",
    "summarize",
    "summary_of",
    "target_points",
    "target_registration_error",
    "wilson_interval",
]
