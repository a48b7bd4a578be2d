"""What several tests share: two cameras known by heart, the shared data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from radgs.geometry import Camera, RigidTransform

settings.register_profile("radgs", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("radgs")

_SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real patients beside the repository; tests that use them skip on a machine without."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("the shared data folder is not beside the repository")
    return _SHARED_DATA


@pytest.fixture
def ap_camera() -> Camera:
    """Source 700 mm in front of the origin; x is the patient's left, y down, z posterior; world = LPS."""
    rotation = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    return Camera(
        np.array([[2000.0, 0, 500], [0, 2000, 400], [0, 0, 1]]),
        RigidTransform.from_rotation_translation(rotation, [0, 0, 700]),
        1001,
        801,
    )


@pytest.fixture
def la_camera() -> Camera:
    """Source 700 mm to the patient's right; x is anterior, y down, z the patient's left; world = LPS."""
    rotation = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    return Camera(
        np.array([[2000.0, 0, 500], [0, 2000, 400], [0, 0, 1]]),
        RigidTransform.from_rotation_translation(rotation, [0, 0, 700]),
        1001,
        801,
    )
