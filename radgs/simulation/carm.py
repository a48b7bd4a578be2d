"""A C-arm: two nominal views, each turned about the isocentre."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from radgs.config import CArmSettings
from radgs.geometry import Camera, RigidTransform

# Rows are the camera's x, y, z in LPS. AP: source in front of the patient. LA: source on the patient's left.
# Both images are head-up (y points to the feet).
_NOMINAL = {
    "AP": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "LA": np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]]),
}


@dataclass(frozen=True)
class CArm:
    """Makes cameras in a world whose origin is the isocentre and whose axes are nominally the patient's LPS."""

    settings: CArmSettings

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views that :meth:`sample` draws."""
        return tuple(_NOMINAL)

    def camera(self, view: str, orbital: float = 0.0, angulation: float = 0.0) -> Camera:
        """The camera of a view.

        Args:
            view: ``AP`` or ``LA``.
            orbital: turn about the patient's long axis, radians.
            angulation: turn about the image's horizontal axis, radians.
        """
        s = self.settings
        world_from_nominal = Rotation.from_rotvec([0, 0, orbital]).as_matrix()
        tilt = Rotation.from_rotvec([angulation, 0, 0]).as_matrix()
        rotation = tilt @ _NOMINAL[view] @ world_from_nominal.T
        pose = RigidTransform.from_rotation_translation(rotation, [0, 0, s.source_to_isocentre_mm])
        focal, middle = s.source_to_detector_mm / s.pixel_mm, (s.detector_px - 1) / 2
        k = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
        return Camera(k, pose, s.detector_px, s.detector_px)

    def sample(self, rng: np.random.Generator) -> dict[str, Camera]:
        """AP and LA, each turned at random within the settings' limits."""
        limit = math.radians(self.settings.max_turn_deg)
        return {view: self.camera(view, *rng.uniform(-limit, limit, 2)) for view in _NOMINAL}
