"""Where things are: rigid transforms, cameras, rays, triangulation."""

from radgs.geometry.camera import Camera, rays
from radgs.geometry.checks import check_size, check_views
from radgs.geometry.positioner import positioner_axes, positioner_pose
from radgs.geometry.transform import RigidTransform, cross_matrix, rigid_motion
from radgs.geometry.triangulation import (
    Triangulation,
    frontal_and_lateral,
    patient_axes,
    triangulate,
    triangulate_pairs,
)

__all__ = [
    "Camera",
    "RigidTransform",
    "Triangulation",
    "check_size",
    "check_views",
    "cross_matrix",
    "frontal_and_lateral",
    "patient_axes",
    "positioner_axes",
    "positioner_pose",
    "rays",
    "rigid_motion",
    "triangulate",
    "triangulate_pairs",
]
