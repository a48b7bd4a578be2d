"""CT to X-ray: line integrals, and the physics from them to detector counts."""

from radgs.projection.jacobian import project_with_jacobian
from radgs.projection.layers import project_layers
from radgs.projection.moving import DrawnPart, MovingParts
from radgs.projection.parts import project_part, project_parts
from radgs.projection.physics import XrayPhysics
from radgs.projection.project import project

__all__ = [
    "DrawnPart",
    "MovingParts",
    "XrayPhysics",
    "project",
    "project_layers",
    "project_part",
    "project_parts",
    "project_with_jacobian",
]
