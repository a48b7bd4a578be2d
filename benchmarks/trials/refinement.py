"""Refinement alone, from given starts: ours, ours with less, and other packages; all see the same shots and starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from radgs.anatomy import SpineTissue
from radgs.errors import RadgsError
from radgs.evaluation import target_registration_error
from radgs.geometry import RigidTransform
from radgs.registration import Scene, View, refine
from radgs.registration.hypotheses import refine_from_hypotheses
from trials.chain import Shot
from trials.peer_itk import itk_two_projections
from trials.peer_nanodrr import nanodrr_registration
from trials.place import Place
from trials.starts import offset, rest_shape
from trials.table import Trial

SEVERAL = "refinement: several starts"
Method = Callable[[Place, Shot, RigidTransform], dict[str, RigidTransform]]


def _views(place: Place, shot: Shot, start: RigidTransform, names: list[str]) -> dict[str, View]:
    middle = start.apply(place.hospital.middle)
    return {n: View.from_xray(shot.xrays[n], middle, place.config.refinement.pixel_mm) for n in names}


def _refined(place: Place, scene: Scene, start: RigidTransform) -> dict[str, RigidTransform]:
    return refine(scene, dict.fromkeys(scene.parts, start), place.config.refinement).world_from_ct


def ours(place: Place, shot: Shot, start: RigidTransform) -> dict[str, RigidTransform]:
    """All visible vertebrae together, two views."""
    return _refined(place, Scene(_views(place, shot, start, list(shot.xrays)), place.patient.tissue), start)


def several_starts(place: Place, shot: Shot, start: RigidTransform) -> dict[str, RigidTransform]:
    """As in the whole chain: from elsewhere too where the first start does not convince."""
    scene = Scene(_views(place, shot, start, list(shot.xrays)), place.patient.tissue)
    starts = dict.fromkeys(place.levels, start)
    return refine_from_hypotheses(scene, starts, place.points, place.config.refinement).best.world_from_ct


def single_view(place: Place, shot: Shot, start: RigidTransform) -> dict[str, RigidTransform]:
    """The same with the AP view alone."""
    return _refined(place, Scene(_views(place, shot, start, ["AP"]), place.patient.tissue), start)


def lone_vertebra(place: Place, shot: Shot, start: RigidTransform) -> dict[str, RigidTransform]:
    """Each vertebra alone, two views, no soft tissue: gradient correlation as it is usually meant."""
    tissue, found = place.patient.tissue, {}
    nothing = tissue.soft.with_array(np.zeros_like(tissue.soft.array))
    for level in place.levels:
        alone = SpineTissue(nothing, {level: tissue.excess[level]}, {level: tissue.masks[level]})
        found |= _refined(place, Scene(_views(place, shot, start, list(shot.xrays)), alone), start)
    return found


METHODS: Mapping[str, Method] = {
    "refinement: two views, all vertebrae": ours,
    SEVERAL: several_starts,
    "refinement: one view (AP)": single_view,
    "refinement: lone vertebra, two views": lone_vertebra,
    "nanodrr Registration, two views": nanodrr_registration,
    "itk-twoprojectionregistration": itk_two_projections,
}


def run_refinement(place: Place, shot: Shot, method: str, sizes_mm: list[float]) -> list[Trial]:
    """A row for each level and start; the sizes of the starts are those of the offsets of the CT's own shape."""
    rows = []
    for number, size in enumerate(sizes_mm):
        rng = np.random.default_rng([number, int(1000 * size)])
        move = offset(rng, np.concatenate(list(place.points.values())), size)
        start = rest_shape(shot.scene.truth, place.points, move)
        began, found, note = time.perf_counter(), {}, ""
        try:
            found = METHODS[method](place, shot, start)
        except (RadgsError, ImportError) as error:
            note = f"{type(error).__name__}: {error}"
        seconds = (time.perf_counter() - began) / len(place.levels)
        for level in place.levels:
            truth, points = shot.scene.truth[level], place.points[level]
            rows.append(
                Trial(
                    method,
                    shot.case,
                    place.patient_id,
                    shot.seed,
                    level,
                    start_mm=target_registration_error(start, truth, points),
                    mtre_mm=target_registration_error(found[level], truth, points) if level in found else None,
                    seconds=seconds,
                    excluded="" if shot.shown(place, level) else "outside",
                    note=note,
                )
            )
    return rows
