"""From a patient's X-rays to the pose of each vertebra, and how far to trust it."""

from radgs.registration.attention import ViewAttention, read_attention
from radgs.registration.consensus import consensus
from radgs.registration.covariance import PoseCovariance
from radgs.registration.initialize import Estimate, estimate
from radgs.registration.judge import Evidence, Verdict, judge
from radgs.registration.refine import Refined, refine
from radgs.registration.register import Patient, Registration, register
from radgs.registration.results import write_registration
from radgs.registration.scene import Scene
from radgs.registration.shot import read_patient, register_shot
from radgs.registration.view import View

__all__ = [
    "Estimate",
    "Evidence",
    "Patient",
    "PoseCovariance",
    "Refined",
    "Registration",
    "Scene",
    "Verdict",
    "View",
    "ViewAttention",
    "consensus",
    "estimate",
    "judge",
    "read_attention",
    "read_patient",
    "refine",
    "register",
    "register_shot",
    "write_registration",
]
