"""Who labels the vertebrae of a CT."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from radgs.anatomy.audit import audit_labels, write_audit
from radgs.anatomy.provided import ProvidedLabels
from radgs.anatomy.totalsegmentator import TotalSegmentator
from radgs.config import Config
from radgs.errors import AnatomyError
from radgs.images import Volume, read_volume, write_volume


class Segmenter(Protocol):
    """Anything that labels vertebrae."""

    def segment(self, ct: Volume) -> Volume:
        """Label map in VerSe numbers (uint8) on the CT's grid."""
        ...


def make_segmenter(labels: str | Path | None, config: Config) -> Segmenter:
    """The configured backend.

    Args:
        labels: the patient's label map or folder of masks, for the backend ``provided``.
        config: settings; threads are PyTorch's.

    Raises:
        AnatomyError: the backend is ``provided`` and there are no labels.
    """
    settings = config.segmentation
    if settings.backend == "totalsegmentator":
        return TotalSegmentator(settings.totalsegmentator, torch.get_num_threads())
    if not labels:
        raise AnatomyError("segmentation.backend is provided, but patients.tsv names no labels for this patient")
    return ProvidedLabels(labels, settings.numbering)


def segment(ct: str | Path, labels: str | Path | None, target: str | Path, audit: str | Path, config: Config) -> None:
    """Label the vertebrae of a CT and check the labels.

    Args:
        ct: HU.
        labels: what the user brings, for the backend ``provided``.
        target: where to write the label map, VerSe numbers.
        audit: where to write what :func:`radgs.anatomy.audit.audit_labels` says of it.
        config: settings.

    Raises:
        RadgsError: a file cannot be used, or the backend cannot run; nothing is written.
    """
    volume = read_volume(ct)
    found = make_segmenter(labels, config).segment(volume)
    checked = audit_labels(found, volume)
    write_volume(target, found)
    write_audit(audit, checked)


def read_labelled_ct(ct: str | Path, vertebrae: str | Path) -> tuple[Volume, Volume]:
    """Read a CT and its label map in VerSe numbers.

    Raises:
        AnatomyError: they are not on one grid, or the label map holds no vertebra.
    """
    volume = read_volume(ct)
    return volume, ProvidedLabels(vertebrae).segment(volume)
