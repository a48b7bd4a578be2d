"""Where a C-arm stands, from the two angles that it shows (DICOM PS3.3, C.8.7.5.1.2).

Frame: axes of patient LPS (x to the left, y to the back, z to the head), origin at the isocentre.
The **primary** angle tells where the detector is around the patient: 0 in front of the patient, +90 degrees at the
patient's left (LAO), -90 at the right (RAO), 180 behind. The **secondary** angle lifts it towards the head (CRA,
positive) or lowers it towards the feet (CAU, negative). With p and s the two, the detector lies in the direction

    (cos s sin p, -cos s cos p, sin s)

and the source opposite. The image's down is where the detector goes when s falls (feet, at s = 0), and its right is
such that the camera is not mirrored: the image as seen from the source.
"""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from radgs.errors import GeometryError
from radgs.geometry.transform import RigidTransform


def positioner_axes(primary: float, secondary: float) -> NDArray[np.float64]:
    """Camera axes (right, down, source to detector) as rows ``[3, 3]`` in patient LPS.

    Args:
        primary: positioner primary angle, radians, -pi to pi.
        secondary: positioner secondary angle, radians, -pi/2 to pi/2.

    Raises:
        GeometryError: an angle outside its range.
    """
    if not (abs(primary) <= pi + 1e-9 and abs(secondary) <= pi / 2 + 1e-9):
        raise GeometryError(
            f"positioner angles must lie within 180 and 90 degrees, got {np.degrees([primary, secondary]).tolist()}"
        )
    to_detector = np.array([cos(secondary) * sin(primary), -cos(secondary) * cos(primary), sin(secondary)])
    down = np.array([sin(secondary) * sin(primary), -sin(secondary) * cos(primary), -cos(secondary)])
    return np.stack([np.cross(down, to_detector), down, to_detector])


def positioner_pose(primary: float, secondary: float, source_to_isocentre_mm: float) -> RigidTransform:
    """``camera_from_world`` of a C-arm; the world is patient LPS with its origin at the isocentre, mm.

    Raises:
        GeometryError: an angle outside its range, or a distance that is not positive.
    """
    if not (np.isfinite(source_to_isocentre_mm) and source_to_isocentre_mm > 0):
        raise GeometryError(f"the distance source to isocentre must be positive, got {source_to_isocentre_mm} mm")
    return RigidTransform.from_rotation_translation(positioner_axes(primary, secondary), [0, 0, source_to_isocentre_mm])
