"""A finished run of the workflow: the patient, its networks and its detector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from world.shots import Hospital

from radgs.anatomy import LEVELS, read_labelled_ct, split_tissue
from radgs.anatomy.trained import TrainedDetector
from radgs.config import Config, load_config
from radgs.evaluation import target_points
from radgs.images import read_volume
from radgs.models import RecM, RegM, load_recm, load_regm
from radgs.registration import Patient, read_patient

_PARTS = {"excess": "crops/{}_excess.nii.gz", "mask": "crops/{}_mask.nii.gz", "anchors": "anchors/{}.ply"}


@dataclass(frozen=True)
class Place:
    """Where things lie and what they hold.

    Attributes:
        results: the workflow's folder.
        patient_id: in it.
        config: its settings.
    """

    results: Path
    patient_id: str
    config: Config

    @classmethod
    def of(cls, results: Path, patient_id: str, config: Path) -> Place:
        """A finished run."""
        return cls(results, patient_id, load_config(config))

    @property
    def levels(self) -> list[str]:
        """Those that are registered."""
        return list(self.config.levels)

    def file(self, name: str) -> Path:
        """A file of the patient."""
        return self.results / "patients" / self.patient_id / name

    @cached_property
    def detector(self) -> TrainedDetector:
        """Of the patient."""
        tissue = split_tissue(*read_labelled_ct(self.file("ct.nii.gz"), self.file("vertebrae.nii.gz")))
        return TrainedDetector(self.results / "models/detector" / self.patient_id, tissue, self.config)

    @cached_property
    def patient(self) -> Patient:
        """The CT's side of a registration."""
        parts = {k: {n: self.file(p.format(n)) for n in self.levels} for k, p in _PARTS.items()}
        files = [self.file(name) for name in ("ct.nii.gz", "vertebrae.nii.gz", "vertebrae.json")]
        return read_patient(*files, parts["excess"], parts["mask"], parts["anchors"], self.config)

    @cached_property
    def networks(self) -> tuple[RecM, RegM]:
        """Of the last stage."""
        folder = self.results / "models/p3" / self.patient_id / "joint"
        return load_recm(folder), load_regm(folder)

    @cached_property
    def ct_mm(self) -> float:
        """The largest side of the CT's voxels."""
        return float(read_volume(self.file("ct.nii.gz")).spacing.max())

    @cached_property
    def hospital(self) -> Hospital:
        """Takes the X-rays."""
        return Hospital(read_volume(self.file("ct.nii.gz")), read_volume(self.file("vertebrae.nii.gz")), self.levels)

    @cached_property
    def points(self) -> dict[str, NDArray[np.float64]]:
        """By level, the fixed points at which poses are judged, LPS mm."""
        labels = read_volume(self.file("vertebrae.nii.gz"))
        return {
            level: target_points(labels.with_array(labels.array == LEVELS[level]), self.config.evaluation.points)
            for level in self.levels
        }
