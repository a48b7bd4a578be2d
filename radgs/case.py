"""One case without Snakemake: the functions of the workflow's rules, called one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from radgs.anatomy import crop_vertebrae, detect_provided, detect_trained, fit_anchors, place_given, segment
from radgs.config import Config, NetworkSettings, load_config
from radgs.errors import ConfigError
from radgs.geometry import RigidTransform
from radgs.images import (
    prepare_ct,
    prepare_xrays,
    read_json,
    read_transforms,
    read_view_specs,
    read_xrays,
    write_xrays,
)
from radgs.registration import register_shot
from radgs.report import draw_registration


@dataclass(frozen=True)
class Outcome:
    """What became of one vertebra.

    Attributes:
        world_from_ct: its pose; None if it has none.
        verdict: ``accepted``, ``review`` or ``rejected``.
        probability: of an mTRE below 2 mm.
        reasons: why, in words.
        folder: its files.
    """

    world_from_ct: RigidTransform | None
    verdict: str
    probability: float
    reasons: list[str]
    folder: Path


def register(
    xrays: str | Path,
    models: str | Path,
    out: str | Path,
    *,
    ct: str | Path | None = None,
    labels: str | Path | None = None,
    prepared: str | Path | None = None,
    boxes: str | Path | None = None,
    detector: str | Path | None = None,
    centres: str | Path | None = None,
    levels: Sequence[str] | None = None,
    config: Config | str | Path | None = None,
    subject: Mapping[str, str] | None = None,
) -> dict[str, Outcome]:
    """Register the vertebrae of one CT to the X-rays of one shot.

    What is made of the CT goes to ``out/patient``; name that folder as ``prepared`` to register the next shot of the
    same patient without making it again. The folder of a patient of the workflow, ``results/patients/{patient}``, will
    do too.

    Args:
        xrays: ``cameras.json`` whose views name their ``image`` (PNG, TIFF or DICOM, beside it), or that of a shot that
            the workflow has prepared.
        models: folder with the weights of RecM and RegM.
        out: folder for the results: those of the shot, and a folder a level.
        ct: HU: a folder of DICOM, or a file.
        labels: its vertebrae; absent: ``segmentation`` of the config labels them.
        prepared: instead of both.
        boxes: where the levels are: boxes in the images (see :class:`radgs.anatomy.ProvidedBoxes`),
        detector: or the folder of a trained detector,
        centres: or JSON of approximate centres in the world, ``{"L1": [x, y, z]}``, mm.
        levels: to be registered; absent: those of the config.
        config: settings; absent: the defaults, with the network and crop that the models were trained with.
        subject: what the DICOM objects shall say of the patient, see :func:`radgs.images.write_spatial_registration`.

    Returns:
        by level, what became of it.

    Raises:
        RadgsError: a file cannot be used, no level can be registered, or arguments contradict each other.
    """
    if (ct is None) == (prepared is None) or (prepared is not None and labels is not None):
        raise ConfigError("give a CT with its labels, or the folder of a CT that is prepared, and not both")
    if sum(where is not None for where in (boxes, detector, centres)) != 1:
        raise ConfigError("one of boxes, detector and centres is needed to find the levels in the X-rays")
    settings = _settings(config, models, levels)
    folder = Path(out)
    patient = _prepare_patient(folder / "patient", ct, labels, prepared, settings)
    images = _prepare_shot(Path(xrays), folder)
    found = folder / "levels.json"
    if boxes is not None:
        detect_provided(folder / "cameras.json", boxes, images, found, settings)
    elif detector is not None:
        detect_trained(folder / "xrays.nii.gz", folder / "cameras.json", patient.vertebrae, detector, found, settings)
    elif centres is not None:
        place_given(folder / "cameras.json", centres, found)
    register_shot(
        patient.ct,
        patient.vertebrae,
        patient.audit,
        patient.files("crops/{}_excess.nii.gz"),
        patient.files("crops/{}_mask.nii.gz"),
        patient.files("anchors/{}.ply"),
        folder / "xrays.nii.gz",
        folder / "cameras.json",
        found,
        models,
        folder,
        settings,
        ct_about=patient.about,
        subject=subject,
    )
    return _outcomes(folder, patient)


@dataclass(frozen=True)
class _Patient:
    """Where the files of a CT are: in the folder of one that is prepared, or else where they are made."""

    made: Path
    prepared: Path | None
    levels: Sequence[str]

    def file(self, name: str) -> Path:
        if self.prepared is not None and (self.prepared / name).is_file():
            return self.prepared / name
        return self.made / name

    def files(self, pattern: str) -> dict[str, str | Path]:
        return {level: self.file(pattern.format(level)) for level in self.levels}

    ct = property(lambda self: self.file("ct.nii.gz"))
    about = property(lambda self: self.file("ct.json"))
    vertebrae = property(lambda self: self.file("vertebrae.nii.gz"))
    audit = property(lambda self: self.file("vertebrae.json"))


def _settings(config: Config | str | Path | None, models: str | Path, levels: Sequence[str] | None) -> Config:
    if config is None:
        card = Path(models) / "card.json"
        content = read_json(card)
        try:
            network, crop_mm = NetworkSettings.model_validate(content["network"]), float(content["crop_mm"])
        except (KeyError, TypeError, ValueError, ValidationError):
            raise ConfigError(f"{card}: says no network settings; give the folder of trained weights") from None
        settings = Config(network=network)
        settings = settings.model_copy(update={"crop": settings.crop.model_copy(update={"size_mm": crop_mm})})
    else:
        settings = config if isinstance(config, Config) else load_config(config)
    return settings.with_levels(levels) if levels else settings


def _prepare_patient(
    made: Path, ct: str | Path | None, labels: str | Path | None, prepared: str | Path | None, config: Config
) -> _Patient:
    patient = _Patient(made, None if prepared is None else Path(prepared), config.levels)
    if ct is not None:
        prepare_ct(ct, patient.ct, patient.about)
        segment(patient.ct, labels, patient.vertebrae, patient.audit, config)
    for file in (patient.ct, patient.about, patient.vertebrae, patient.audit):
        if not file.is_file():
            raise ConfigError(f"{prepared}: lacks {file.name}, so no CT is prepared there; give the CT and its labels")
    excess, masks, anchors = (
        patient.files(p) for p in ("crops/{}_excess.nii.gz", "crops/{}_mask.nii.gz", "anchors/{}.ply")
    )
    missing = [
        level for level in config.levels if ct is not None or not all(Path(f[level]).is_file() for f in (excess, masks))
    ]
    if missing:
        crop_vertebrae(patient.ct, patient.vertebrae, {k: (excess[k], masks[k]) for k in missing}, config)
    for level in config.levels:
        if ct is not None or level in missing or not Path(anchors[level]).is_file():
            fit_anchors(excess[level], anchors[level], config)
    return patient


def _prepare_shot(cameras: Path, folder: Path) -> dict[str, str]:
    """Write the shot's ``xrays.nii.gz`` and ``cameras.json``; by view, its image file."""
    specs = read_view_specs(cameras)
    images = {view: str(cameras.parent / spec["image"]) for view, spec in specs.items() if "image" in spec}
    if len(images) == len(specs):
        prepare_xrays(images, dict.fromkeys(images, cameras), folder / "xrays.nii.gz", folder / "cameras.json")
        return images
    prepared = cameras.with_name("xrays.nii.gz")
    if images or not prepared.is_file():
        lacking = sorted(set(specs) - set(images))
        raise ConfigError(f'{cameras}: view {", ".join(lacking)} names no image; add "image": its file beside this one')
    write_xrays(folder / "xrays.nii.gz", folder / "cameras.json", read_xrays(prepared, cameras))
    return {view: spec.get("source_file", "") for view, spec in specs.items()}


def _outcomes(folder: Path, patient: _Patient) -> dict[str, Outcome]:
    views = read_xrays(folder / "xrays.nii.gz", folder / "cameras.json")
    found = {}
    for level in patient.levels:
        place = folder / level
        verdict: dict[str, Any] = read_json(place / "verdict.json")
        pose = None
        if (place / "world_from_ct.json").is_file():
            pose = read_transforms(place / "world_from_ct.json")[level]
            draw_registration(place, patient.file(f"crops/{level}_mask.nii.gz"), views, level)
        found[level] = Outcome(pose, verdict["verdict"], verdict["probability"], verdict["reasons"], place)
    return found
