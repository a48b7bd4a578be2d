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
    check_subject,
    prepare_ct,
    prepare_xrays,
    read_json,
    read_transforms,
    read_view_specs,
    read_volume,
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
    check_subject(subject or {})
    settings = _settings(config, models, levels)
    folder = Path(out)
    patient = _prepare_patient(folder / "patient", ct, labels, prepared, settings)
    images = _prepare_shot(Path(xrays), folder)
    found = folder / "levels.json"
    if boxes is not None:
        detect_provided(folder / "cameras.json", boxes, images, found, settings)
    elif detector is not None:
        detect_trained(
            folder / "xrays.nii.gz",
            folder / "cameras.json",
            patient.folder / "ct.nii.gz",
            patient.folder / "vertebrae.nii.gz",
            detector,
            found,
            settings,
        )
    elif centres is not None:
        place_given(folder / "cameras.json", centres, found)
    register_shot(
        patient.folder / "ct.nii.gz",
        patient.folder / "vertebrae.nii.gz",
        patient.folder / "vertebrae.json",
        patient.files(_EXCESS),
        patient.files(_MASK),
        patient.files(_ANCHORS),
        folder / "xrays.nii.gz",
        folder / "cameras.json",
        found,
        models,
        folder,
        settings,
        ct_about=patient.folder / "ct.json",
        subject=subject,
    )
    return _outcomes(folder, patient)


_CT_FILES = ("ct.nii.gz", "ct.json", "vertebrae.nii.gz", "vertebrae.json")
_EXCESS, _MASK, _ANCHORS = "crops/{}_excess.nii.gz", "crops/{}_mask.nii.gz", "anchors/{}.ply"


@dataclass(frozen=True)
class _Patient:
    """Where the files of a CT are.

    Attributes:
        folder: of the CT, its labels and what is already made of them.
        made: by level, the folder of its crop and anchors: ``folder``, or where they were made now.
    """

    folder: Path
    made: Mapping[str, Path]

    def files(self, pattern: str) -> dict[str, str | Path]:
        return {level: folder / pattern.format(level) for level, folder in self.made.items()}


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
    own: Path, ct: str | Path | None, labels: str | Path | None, prepared: str | Path | None, config: Config
) -> _Patient:
    """What is not in ``prepared`` is made anew in ``own``: what lies there already may be another patient's."""
    folder = own if prepared is None else Path(prepared)
    volume, about, vertebrae, audit = (folder / name for name in _CT_FILES)
    if ct is not None:
        prepare_ct(ct, volume, about)
        segment(volume, labels, vertebrae, audit, config)
    for file in (volume, about, vertebrae, audit):
        if not file.is_file():
            raise ConfigError(f"{file}: no such file, so no CT is prepared there; give the CT and its labels")
    at_hand = [level for level in config.levels if prepared is not None and _is_made(folder, level, config)]
    patient = _Patient(folder, {level: folder if level in at_hand else own for level in config.levels})
    excess, masks, anchors = (patient.files(pattern) for pattern in (_EXCESS, _MASK, _ANCHORS))
    missing = [level for level in config.levels if level not in at_hand]
    if missing:
        crop_vertebrae(volume, vertebrae, {k: (excess[k], masks[k]) for k in missing}, config)
    for level in missing:
        fit_anchors(excess[level], anchors[level], config)
    return patient


def _is_made(folder: Path, level: str, config: Config) -> bool:
    """Whether a level's crop, of the size that the networks take, and its anchors are there."""
    excess, *others = (folder / pattern.format(level) for pattern in (_EXCESS, _MASK, _ANCHORS))
    if not all(file.is_file() for file in (excess, *others)):
        return False
    crop = read_volume(excess)
    edge = float(crop.spacing[0]) * crop.array.shape[0]
    return crop.array.shape[0] == config.crop.voxels and abs(edge - config.crop.size_mm) < 0.01


def _prepare_shot(cameras: Path, folder: Path) -> dict[str, str]:
    """Write the shot's ``xrays.nii.gz`` and ``cameras.json``; by view, its image file."""
    specs = read_view_specs(cameras)
    for view, spec in specs.items():
        if not isinstance(spec.get("image", ""), str):
            raise ConfigError(f"{cameras}: view {view}: image {spec['image']!r} is no name of a file")
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
    for level, mask in patient.files(_MASK).items():
        place = folder / level
        verdict: dict[str, Any] = read_json(place / "verdict.json")
        pose = None
        if (place / "world_from_ct.json").is_file():
            pose = read_transforms(place / "world_from_ct.json")[level]
            draw_registration(place, mask, views, level)
        found[level] = Outcome(pose, verdict["verdict"], verdict["probability"], verdict["reasons"], place)
    return found
