"""DICOM files made on the spot, with a patient whose name, id and dates must never be seen again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    XRayAngiographicImageStorage,
    generate_uid,
)

from radgs.images import Xray, read_xray

SECRETS = ("Doe^Secret", "ID-4711-SECRET", "19470211", "20221208", "Hospital-of-Secrets", "ACC-SECRET", "112233.456")
SERIES = generate_uid(entropy_srcs=["series"])


def _patient(storage_class: str, modality: str) -> Dataset:
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = storage_class
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = generate_uid()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.PatientName, d.PatientID, d.PatientBirthDate, d.StudyDate = SECRETS[:4]
    d.InstitutionName, d.AccessionNumber, d.StudyTime = SECRETS[4:]
    d.SeriesDescription = f"{SECRETS[0]} {SECRETS[3]}"
    d.Modality, d.SeriesInstanceUID, d.StudyInstanceUID = modality, SERIES, generate_uid(entropy_srcs=["study"])
    return d


def _set_pixels(d: Dataset, stored: np.ndarray) -> None:
    d.Rows, d.Columns = stored.shape[-2:]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
    d.PixelRepresentation = int(stored.dtype == np.int16)
    if stored.ndim == 3:
        d.NumberOfFrames = len(stored)
    d.PixelData = stored.tobytes()


def save(d: Dataset, path: Path) -> Path:
    d.save_as(path, enforce_file_format=True)
    return path


def ct_slice(stored: np.ndarray, position, axes=(1, 0, 0, 0, 1, 0), spacing=(0.9, 1.1)) -> Dataset:
    """One slice; spacing is (between rows, between columns), mm; HU = stored - 1024."""
    d = _patient(CTImageStorage, "CT")
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.ImagePositionPatient, d.ImageOrientationPatient = [f"{x:.6f}" for x in position], [f"{x:.8f}" for x in axes]
    d.PixelSpacing, d.RescaleSlope, d.RescaleIntercept, d.RescaleType = list(spacing), 1, -1024, "HU"
    _set_pixels(d, stored)
    return d


def ct_values(shape=(12, 30, 34), seed=0) -> np.ndarray:
    """Stored values ``[D, H, W]``: smooth with noise, air, soft tissue and bone."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    hu = 1400 * np.exp(-3 * (x**2 + y**2 + 0.3 * z)) - 900
    return (hu + 1024 + np.random.default_rng(seed).integers(0, 40, shape)).astype(np.uint16)


def write_series(folder: Path, stored: np.ndarray, step=(0, 0, 2.5), axes=(1, 0, 0, 0, 1, 0), change=None) -> Path:
    """One file a slice, named in an order that is not that of the slices; ``change(i, dataset)`` may spoil some."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, values in enumerate(stored):
        d = ct_slice(values, np.array([-20.0, 30.0, -100.0]) + i * np.array(step, dtype=float), axes)
        if change:
            change(i, d)
        save(d, folder / f"{(i * 7) % 101:03d}-slice{i}.dcm")
    return folder


def enhanced_ct(stored: np.ndarray, step=(0, 0, 2.5), axes=(1, 0, 0, 0, 1, 0)) -> Dataset:
    """One multi-frame file with the frames backwards."""
    d = _patient(EnhancedCTImageStorage, "CT")
    d.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared, measures, orientation, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationPatient = [0.9, 1.1], list(axes)
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [rescale]
    d.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for i in reversed(range(len(stored))):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = (np.array([-20.0, 30.0, -100.0]) + i * np.array(step)).tolist()
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    d.PerFrameFunctionalGroupsSequence = frames
    _set_pixels(d, stored[::-1])
    return d


def xa_image(counts: np.ndarray, primary=0.0, secondary=0.0, orientation=("L", "F")) -> Dataset:
    """A fluoroscopy image ``[H, W]`` or several ``[frames, H, W]``: 1200 mm to the detector, 800 to the isocentre."""
    d = _patient(XRayAngiographicImageStorage, "XA")
    d.PixelIntensityRelationship = "LIN"
    d.DistanceSourceToDetector, d.DistanceSourceToPatient = 1200, 800
    d.ImagerPixelSpacing = [0.4, 0.3]
    d.PositionerPrimaryAngle, d.PositionerSecondaryAngle = primary, secondary
    d.PatientOrientation = list(orientation)
    _set_pixels(d, counts)
    return d


def compress(path: Path, syntax: str) -> None:
    """Compress a file where it lies, without loss; ``syntax`` is GDCM's name."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


XA_ROWS, XA_COLUMNS = 20, 30


def counts_image(seed=1) -> np.ndarray:
    """Detector counts of an X-ray."""
    return np.random.default_rng(seed).integers(100, 60000, (XA_ROWS, XA_COLUMNS)).astype(np.uint16)


def read_view(folder: Path, d: Dataset, spec: dict[str, Any] | None = None) -> Xray:
    """One view as the workflow reads it; without a spec the DICOM file is its own geometry."""
    geometry = image = save(d, folder / "ap.dcm")
    if spec is not None:
        geometry = folder / "cameras.json"
        geometry.write_text(json.dumps({"views": {"AP": spec}}))
    return read_xray("AP", image, geometry)


def as_line_integrals(counts: np.ndarray, i0: float) -> np.ndarray:
    """What counts mean."""
    return np.log(i0 / counts.astype(float))
