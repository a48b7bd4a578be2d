"""Training: losses, the loop that can be stopped and resumed, and the stages."""

from radgs.training.data import TrainingData, read_patient, read_shards, views_of
from radgs.training.detector import train_detector
from radgs.training.loop import Outcome, TrainingError, train_stage
from radgs.training.losses import (
    anchor_distance,
    chamfer,
    dissimilarity,
    geodesic,
    l1,
    ncc3d,
    point_errors,
    reconstruction_loss,
    registration_loss,
    total_variation,
)
from radgs.training.real import RealShot, real_pairs
from radgs.training.recm_stage import anchors_of
from radgs.training.stages import pass_on, train_joint, train_recm, train_regm

__all__ = [
    "Outcome",
    "RealShot",
    "TrainingData",
    "TrainingError",
    "anchor_distance",
    "anchors_of",
    "chamfer",
    "dissimilarity",
    "geodesic",
    "l1",
    "ncc3d",
    "pass_on",
    "point_errors",
    "read_patient",
    "read_shards",
    "real_pairs",
    "reconstruction_loss",
    "registration_loss",
    "total_variation",
    "train_detector",
    "train_joint",
    "train_recm",
    "train_regm",
    "train_stage",
    "views_of",
]
