"""The whole way from two images to poses with a verdict, through the library's own functions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from world.cases import World
from world.shots import Scene, hand_over

from radgs.anatomy import find_levels, read_levels
from radgs.errors import RadgsError
from radgs.evaluation import target_registration_error
from radgs.geometry import RigidTransform, patient_axes
from radgs.images import Xray, prepare_xrays, read_json, read_xrays
from radgs.registration import Registration, register
from radgs.registration.judge import read_model
from trials.place import Place
from trials.table import Trial

METHOD = "whole chain"
_SEEN = 0.5


@dataclass(frozen=True)
class Shot:
    """What was handed over, prepared, beside the truth."""

    case: str
    seed: int
    scene: Scene
    xrays: dict[str, Xray]
    seconds: float

    def shown(self, place: Place, level: str) -> bool:
        """Whether both images hold half of the vertebra."""
        points = self.scene.truth[level].apply(place.points[level])
        return all(camera.sees(points).mean() >= _SEEN for camera in self.scene.cameras.values())


def take(place: Place, case: str, world: World, seed: int, folder: Path) -> Shot:
    """Simulate and prepare a shot; ``xrays.nii.gz`` and ``cameras.json`` lie in ``folder`` afterwards."""
    scene = hand_over(folder / "raw", folder / "truth.json", place.hospital, world, (seed,))
    began = time.perf_counter()
    prepare_xrays(
        {view: folder / "raw" / f"{view}.png" for view in scene.cameras},
        dict.fromkeys(scene.cameras, folder / "raw" / "cameras.json"),
        folder / "xrays.nii.gz",
        folder / "cameras.json",
    )
    xrays = read_xrays(folder / "xrays.nii.gz", folder / "cameras.json")
    return Shot(case, seed, scene, xrays, time.perf_counter() - began)


def run_chain(place: Place, shot: Shot, folder: Path) -> list[Trial]:
    """Detect, reconstruct, register, refine, judge; a row for each level that should be registered.

    The patient's side (CT, crops, detector and networks) is at hand, as it is before the first X-ray is taken.
    """
    began, target = time.perf_counter(), folder / "levels.json"
    results, levels, absent, note = {}, {}, {}, ""
    try:
        find_levels(place.detector, shot.xrays, target)
        levels, absent = read_levels(target), read_json(target)["not_seen"]
        results = register(place.patient, shot.xrays, levels, *place.networks, read_model(), place.config)
    except RadgsError as error:
        note = str(error)
    seconds = shot.seconds + time.perf_counter() - began
    share = seconds / max(len(results), 1)
    return [
        _row(place, shot, level, levels, results, share, note or absent.get(level, "no box")) for level in place.levels
    ]


def _row(
    place: Place,
    shot: Shot,
    level: str,
    levels: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Registration],
    seconds: float,
    note: str,
) -> Trial:
    truth, points = shot.scene.truth[level], place.points[level]
    about: dict[str, Any] = {"ct_mm": place.ct_mm, "start_mm": _unregistered(place, shot, level)}
    if level in levels:
        centre = truth.apply(place.hospital.body.centres[level])
        about["located_mm"] = float(np.linalg.norm(centre - levels[level]["centre_mm"]))
        about["doubts"] = "; ".join(levels[level]["doubts"])
    found = results.get(level)
    if found is None:
        about |= {"verdict": "rejected", "excluded": "" if shot.shown(place, level) else "outside", "note": note}
    else:
        about |= {
            "regm_mm": target_registration_error(found.estimate.regm, truth, points),
            "mtre_mm": target_registration_error(found.refined, truth, points),
            "verdict": found.verdict.verdict,
            "probability": found.verdict.probability,
            "reasons": "; ".join(found.verdict.reasons[1:]),
            "seconds": seconds,
        }
        about |= {k: v for k, v in found.verdict.evidence.items() if k in Trial.__dataclass_fields__}
    return Trial(METHOD, shot.case, place.patient_id, shot.seed, level, **about)


def _unregistered(place: Place, shot: Shot, level: str) -> float:
    """mTRE of the CT with its targets' middle at the isocentre, in the axes that the views' names imply."""
    axes = patient_axes({view: xray.camera for view, xray in shot.xrays.items()})
    middle = place.hospital.middle
    pose = RigidTransform.from_rotation_translation(axes, shot.scene.isocentre - axes @ middle)
    return target_registration_error(pose, shot.scene.truth[level], place.points[level])
