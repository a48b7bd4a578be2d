"""What several tests share: two cameras known by heart, the shared data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
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


class Fast(NamedTuple):
    """A fast backend and the device it takes."""

    backend: str
    device: str


_ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


_FAST = [Fast("numba", "cpu"), pytest.param(Fast("cuda", "cuda"), marks=_ON_GPU)]


@pytest.fixture(params=_FAST, ids=lambda f: f.backend)
def fast(request) -> Fast:
    """Every fast backend that this machine can run, each with its device."""
    return request.param


@pytest.fixture(params=[*_FAST, Fast("reference", "cpu")], ids=lambda f: f.backend)
def every(request) -> Fast:
    """Every backend that this machine can run, each with its device."""
    return request.param


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
