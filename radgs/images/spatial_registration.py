"""A pose as a DICOM Spatial Registration object (PS3.3, A.39 and C.20.2), and the frames of reference it links.

Nothing of a patient is in it unless the caller names it: type 2 elements are empty, UIDs but that of the CT's frame of
reference are made here, and the only date is that of writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydicom.config import IGNORE
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SpatialRegistrationStorage, generate_uid
from pydicom.valuerep import DSfloat

from radgs.errors import ImageError
from radgs.geometry import RigidTransform
from radgs.images.dicom import derived_uid
from radgs.images.files import atomic_path, read_json
from radgs.images.xray import Xray

# What a caller may say of patient and study; the empty ones are required to be there (type 2).
SUBJECT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_IDENTITY = ("125021", "Frame of Reference Identity")  # DICOM PS3.16, CID 7100
_BY_IMAGES = ("125024", "Image Content-based Alignment")
_LONGEST_TEXT = 64


@dataclass(frozen=True)
class Frames:
    """UIDs of the two frames of reference of a shot: the CT's, and the world in which its cameras are calibrated."""

    ct: str
    world: str


def world_frame(xrays: Mapping[str, Xray]) -> str:
    """The UID of a shot's world: the same for the same images and cameras, so that all levels share it."""
    contents = [
        content
        for name, x in sorted(xrays.items())
        for content in (name.encode(), x.camera.K, x.camera.camera_from_world.matrix, x.line_integrals)
    ]
    return derived_uid("world", *(c if isinstance(c, bytes) else c.tobytes() for c in contents))


def read_frame_uid(about: str | Path) -> str:
    """The UID of the CT's frame of reference in the ``ct.json`` of :func:`radgs.images.prepare_ct`.

    Raises:
        ImageError: not such a file.
    """
    content = read_json(about)
    uid = content.get("frame_of_reference_uid") if isinstance(content, dict) else None
    if not isinstance(uid, str) or not UID(uid, validation_mode=IGNORE).is_valid:
        raise ImageError(f"{about}: not the ct.json of rule prepare_ct; delete it and run again")
    return uid


def write_spatial_registration(
    path: str | Path,
    world_from_ct: RigidTransform,
    frames: Frames,
    level: str,
    description: str,
    subject: Mapping[str, str] | None = None,
) -> None:
    """Write the pose of one vertebra.

    The registered frame is the world. The item of the CT's frame holds ``world_from_ct``, which by C.20.2.1.1 takes a
    point of the item's frame into the registered one; that of the world holds the identity.

    Args:
        path: the file.
        world_from_ct: LPS of the CT to the world, mm.
        frames: which frames of reference these are.
        level: the vertebra; the transform is right for no other.
        description: what a reader must know first, such as the verdict; at most 64 characters.
        subject: elements of patient and study by keyword, some of :data:`SUBJECT`.

    Raises:
        ImageError: ``subject`` has a keyword that may not be set, a value that is no text, or a UID that is none.
    """
    now, d = datetime.now(), Dataset()
    _set_subject(d, subject or {}, frames)
    d.Modality, d.SeriesNumber, d.InstanceNumber = "REG", 1, 1
    d.SeriesInstanceUID = derived_uid("series", frames.ct.encode(), frames.world.encode())
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = frames.world, ""
    d.Manufacturer, d.ManufacturerModelName, d.SoftwareVersions = "radgs", "radgs", version("radgs")
    d.ContentDate, d.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    d.ContentLabel, d.ContentDescription = f"RADGS_{level}", description[:_LONGEST_TEXT]
    d.ContentCreatorName = ""
    d.RegistrationSequence = [
        _item(frames.ct, world_from_ct, _BY_IMAGES, f"{level} alone; every vertebra has its own"),
        _item(frames.world, RigidTransform.identity(), _IDENTITY, ""),
    ]
    d.SOPClassUID, d.SOPInstanceUID = SpatialRegistrationStorage, generate_uid()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with atomic_path(path) as part:
        d.save_as(part, enforce_file_format=True)


def check_subject(subject: Mapping[str, str]) -> None:
    """Refuse elements that :func:`write_spatial_registration` would not write.

    Raises:
        ImageError: a keyword that may not be set, a value that is no text, or a UID that is none.
    """
    unknown = sorted(set(subject) - set(SUBJECT))
    if unknown:
        raise ImageError(f"DICOM elements {', '.join(unknown)} cannot be given; these can: {', '.join(SUBJECT)}")
    for keyword, value in subject.items():
        if not isinstance(value, str):
            raise ImageError(f"DICOM element {keyword}: {value!r} is no text")
    study = subject.get("StudyInstanceUID")
    if study and not UID(study, validation_mode=IGNORE).is_valid:
        raise ImageError(f"StudyInstanceUID {study!r} is no UID, which is numbers with dots between them")


def _set_subject(d: Dataset, subject: Mapping[str, str], frames: Frames) -> None:
    check_subject(subject)
    for keyword in SUBJECT:
        setattr(d, keyword, subject.get(keyword, ""))
    d.StudyInstanceUID = subject.get("StudyInstanceUID") or derived_uid("study", frames.ct.encode())


def _item(frame: str, registered_from_frame: RigidTransform, kind: tuple[str, str], comment: str) -> Dataset:
    matrix, registration, code, item = Dataset(), Dataset(), Dataset(), Dataset()
    elements = np.asarray(registered_from_frame.matrix).ravel().tolist()
    matrix.FrameOfReferenceTransformationMatrix = [DSfloat(e, auto_format=True) for e in elements]
    matrix.FrameOfReferenceTransformationMatrixType = "RIGID"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = kind[0], "DCM", kind[1]
    registration.RegistrationTypeCodeSequence = [code]
    registration.MatrixSequence = [matrix]
    if comment:
        registration.FrameOfReferenceTransformationComment = comment
    item.FrameOfReferenceUID = frame
    item.MatrixRegistrationSequence = [registration]
    return item
