"""Where things are: rigid transforms, cameras, rays, triangulation."""

from radgs.geometry.camera import Camera, rays
from radgs.geometry.transform import RigidTransform, rigid_motion
from radgs.geometry.triangulation import Triangulation, patient_axes, triangulate

__all__ = [
    "Camera",
    "RigidTransform",
    "Triangulation",
    "patient_axes",
    "rays",
    "rigid_motion",
    "triangulate",
]
