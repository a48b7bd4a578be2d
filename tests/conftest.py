"""What several tests share: two cameras known by heart, a spine in a scene, the shared data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import settings

from radgs.anatomy import SpineTissue, split_tissue
from radgs.config import CArmSettings
from radgs.geometry import Camera, RigidTransform
from radgs.registration import Scene, View
from tests.phantoms import THERE, block_spine, xrays_of

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


@pytest.fixture(scope="session")
def straight() -> tuple[SpineTissue, Scene]:
    """The block spine with vertebrae that cannot be mistaken for each other, seen from the front and from the side."""
    ct, labels = block_spine()
    hu = ct.array.copy()
    hu[32:40, 12:16, 14:18] = 1500.0
    hu[22:26, 18:22, 18:28] = 1500.0
    hu[13:15, 24:32, 19:22] = 1800.0
    hu[16:20, 12:22, 24:28] = 1200.0
    tissue = split_tissue(ct.with_array(hu), labels)
    xrays = xrays_of(tissue, CArmSettings(detector_px=244, pixel_mm=1.552))
    middle = THERE.apply(tissue.centre("L1"))
    return tissue, Scene({name: View.from_xray(x, middle, 0.9) for name, x in xrays.items()}, tissue)
