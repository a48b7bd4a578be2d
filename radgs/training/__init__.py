"""Training: losses, the loop that can be stopped and resumed, and the stages."""

from radgs.training.data import TrainingData, read_patient, read_shards
from radgs.training.detector import train_detector
from radgs.training.loop import Outcome, TrainingError, train_stage
from radgs.training.losses import (
    anchor_distance,
    chamfer,
    dissimilarity,
    geodesic,
    l1,
    ncc3d,
    reconstruction_loss,
    registration_loss,
    total_variation,
)
from radgs.training.stages import pass_on, train_joint, train_recm, train_regm

__all__ = [
    "Outcome",
    "TrainingData",
    "TrainingError",
    "anchor_distance",
    "chamfer",
    "dissimilarity",
    "geodesic",
    "l1",
    "ncc3d",
    "pass_on",
    "read_patient",
    "read_shards",
    "reconstruction_loss",
    "registration_loss",
    "total_variation",
    "train_detector",
    "train_joint",
    "train_recm",
    "train_regm",
    "train_stage",
]
