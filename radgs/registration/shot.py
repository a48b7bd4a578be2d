"""A shot's files to the files of its registrations."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from radgs.anatomy import (
    LEVELS,
    SpineTissue,
    neighbours,
    read_audit,
    read_crop,
    read_labelled_ct,
    read_levels,
    split_tissue,
)
from radgs.config import Config
from radgs.errors import AnatomyError, ConfigError
from radgs.gaussians import read_ply
from radgs.images import Frames, read_frame_uid, read_json, read_xrays, world_frame, write_json
from radgs.models import RecM, RegM, load_recm, load_regm
from radgs.registration.judge import Verdict, read_model
from radgs.registration.register import Patient, register
from radgs.registration.results import write_registration

_RIM_MM = 3.0  # bone that the label map misses, heads of ribs: they move with the vertebra
_Network = TypeVar("_Network", RecM, RegM)


def read_patient(
    ct: str | Path,
    vertebrae: str | Path,
    audit: str | Path,
    crops: Mapping[str, str | Path],
    masks: Mapping[str, str | Path],
    anchors: Mapping[str, str | Path],
    config: Config,
) -> Patient:
    """Read a patient's CT, audit, crops and anchors (by level); cut levels are drawn but not to be registered.

    Raises:
        AnatomyError: the CT's border cuts every level, or the audit does not know one.
    """
    volume, labels = read_labelled_ct(ct, vertebrae)
    audited = read_audit(audit)
    unknown = sorted(set(crops) - set(audited))
    if unknown:
        raise AnatomyError(f"{audit}: says nothing of {', '.join(unknown)}")
    whole = [level for level in crops if audited[level].status != "cut"]
    if not whole:
        raise AnatomyError(f"{audit}: the border of the CT cuts every level that is to be registered")
    everything = split_tissue(volume, labels, rim_mm=_RIM_MM)
    drawn = {n for level in whole for n in neighbours(level, config.refinement.neighbours, set(everything.excess))}
    tissue = SpineTissue(
        everything.soft,
        {k: v for k, v in everything.excess.items() if k in drawn},
        {k: v for k, v in everything.masks.items() if k in drawn},
    )
    read = {level: read_crop(crops[level], masks[level], level) for level in whole}
    return Patient(tissue, audited, read, {level: read_ply(anchors[level]) for level in whole})


def _networks(
    folder: str | Path | Mapping[str, str | Path], config: Config
) -> tuple[RecM | dict[str, RecM], RegM | dict[str, RegM]]:
    """RecM and RegM, of all levels or by level, that fit the config."""
    if isinstance(folder, Mapping):
        recm = {level: _loaded(load_recm, one, config) for level, one in folder.items()}
        return recm, {level: _loaded(load_regm, one, config) for level, one in folder.items()}
    return _loaded(load_recm, folder, config), _loaded(load_regm, folder, config)


def _loaded(load: Callable[[str | Path], _Network], folder: str | Path, config: Config) -> _Network:
    network = load(folder)
    if network.settings != config.network or network.crop_mm != config.crop.size_mm:
        raise ConfigError(f"{Path(folder) / 'card.json'}: weights of another network or crop than the config's")
    return network


def register_shot(
    ct: str | Path,
    vertebrae: str | Path,
    audit: str | Path,
    crops: Mapping[str, str | Path],
    masks: Mapping[str, str | Path],
    anchors: Mapping[str, str | Path],
    xrays: str | Path,
    cameras: str | Path,
    levels: str | Path,
    models_folder: str | Path | Mapping[str, str | Path],
    output_folder: str | Path,
    config: Config,
    ct_about: str | Path | None = None,
    subject: Mapping[str, str] | None = None,
) -> None:
    """Register every located level of a shot and write its results; others are ``rejected`` with the reason.

    Args:
        ct: HU.
        vertebrae: its labels, VerSe numbers.
        audit: of the labels.
        crops: by level, excess attenuation.
        masks: by level.
        anchors: by level, Gaussians.
        xrays: line integrals of the shot.
        cameras: its ``cameras.json``.
        levels: ``levels.json``.
        models_folder: weights of RecM and RegM; one folder, or one for each level.
        output_folder: for ``registrations.json`` and a folder a level.
        config: settings.
        ct_about: ``ct.json`` of :func:`radgs.images.prepare_ct`; absent: no DICOM objects are written.
        subject: what the DICOM objects shall say of the patient, see :func:`radgs.images.write_spatial_registration`.

    Raises:
        RadgsError: a file cannot be used, or no level can be registered.
    """
    output, absent = Path(output_folder), read_json(levels)["not_seen"]
    for level in LEVELS:  # a pose of an earlier run must not survive, nor a level that is no longer asked for
        shutil.rmtree(output / level, ignore_errors=True)
    patient = read_patient(ct, vertebrae, audit, crops, masks, anchors, config)
    located = read_levels(levels)
    recm, regm = _networks(models_folder, config)
    views = read_xrays(xrays, cameras)
    results = register(patient, views, located, recm, regm, read_model(), config)
    frames = Frames(read_frame_uid(ct_about), world_frame(views)) if ct_about else None
    for level, result in results.items():
        write_registration(output / level, result, patient.crops[level], frames, subject)
    for level in crops:
        if level not in results:
            label = patient.audit[level]
            why = f"not located in the X-rays: {absent.get(level, 'no box was given')}"
            if label.status == "cut":
                why = f"not registered: {'; '.join(label.reasons)}"
            write_json(output / level / "verdict.json", Verdict.not_registered(why, label.status).to_json())
    write_json(
        output / "registrations.json",
        {"registered": sorted(results), "not_registered": sorted(set(crops) - set(results))},
    )
