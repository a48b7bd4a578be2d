"""Metrics, protocol, statistics: how good poses and reconstructions are. Only this package may open truth."""

from radgs.evaluation.networks import COMPARED_VOXELS, measure_networks, write_measured
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
from radgs.evaluation.starts import Start, publication_starts, standardised_starts
from radgs.evaluation.tables import Pose, evaluate_poses, read_poses, summary_of_method
from radgs.evaluation.volumes import VolumeMetrics, average_metrics, compare_volumes

__all__ = [
    "COMPARED_VOXELS",
    "CaptureRange",
    "EvaluatedShot",
    "Pose",
    "Start",
    "VolumeMetrics",
    "average_metrics",
    "capture_range",
    "compare_volumes",
    "evaluate_poses",
    "evaluate_registrations",
    "measure_networks",
    "publication_starts",
    "read_poses",
    "standardised_starts",
    "success_rate",
    "summarize",
    "summary_of",
    "summary_of_method",
    "target_points",
    "target_registration_error",
    "wilson_interval",
    "write_measured",
]
