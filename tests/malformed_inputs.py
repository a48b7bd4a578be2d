"""Ways to spoil one file, or one cell, of a patient that is right without it.

Each takes the patient's folder; it may return another path for the cell of the CT or of the frontal image.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image

from radgs.images import read_json, write_json
from tests.dicom_files import ct_values, enhanced_ct, save, write_series, xa_image


def edit_json(path, change):
    content = read_json(path)
    change(content["views"])
    write_json(path, content)


def nifti(folder, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.diag([2.5, 2.5, 3, 1.0]) if affine is None else affine), folder / "ct.nii.gz")


def series(folder, change=None, keep=slice(None), **more):
    """The CT as a DICOM series that ``change(number, dataset)`` spoils."""
    write_series(folder / "ct", ct_values()[keep], change=change, **more)
    return str(folder / "ct")


def xa(folder, change):
    """The frontal X-ray as a DICOM file that ``change(dataset)`` spoils."""
    counts = np.random.default_rng(0).integers(100, 60000, (240, 240)).astype(np.uint16)
    d = xa_image(counts)
    change(d)
    return str(save(d, folder / "s/AP.dcm"))


def png_bomb(path, side):
    """A valid PNG of ``side * side`` black pixels in a few kilobytes."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 2 * side)) for _ in range(200)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def relabel(folder, change):
    image = nib.load(folder / "labels.nii.gz")
    array = change(np.asanyarray(image.dataobj).astype(np.float32))
    nib.save(nib.Nifti1Image(array, image.affine), folder / "labels.nii.gz")


def replaced(folder, sheet, old, new):
    path = folder / f"{sheet}.tsv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def ct_claims_to_be_huge(folder):
    header = nib.Nifti1Header()
    header.set_data_shape((32000, 32000, 32000))
    header.set_data_dtype(np.int16)
    header.set_zooms((1, 1, 1))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (folder / "ct.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(5000)))


def ct_zip_bomb(folder):
    """A gigabyte of zeros in a megabyte, behind a header of a small image that reaches across all of them."""
    header = nib.Nifti1Header()
    header.set_data_shape((30000, 30000, 1))
    header.set_data_dtype(np.float64)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with gzip.open(folder / "ct.nii.gz", "wb", compresslevel=9) as file:
        file.write(header.binaryblock)
        for _ in range(100):
            file.write(bytes(1_000_000))


def ct_metaimage_of_negative_spacing(folder):
    image = sitk.GetImageFromArray(np.zeros((20, 20, 20), np.int16))
    sitk.WriteImage(image, str(folder / "ct.mha"))
    raw = (folder / "ct.mha").read_bytes()
    (folder / "ct.mha").write_bytes(raw.replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1 -1"))
    return str(folder / "ct.mha")


def ct_series_empty_folder(folder):
    (folder / "ct").mkdir()
    return str(folder / "ct")


def ct_series_of_text_files(folder):
    (folder / "ct").mkdir()
    (folder / "ct/1.dcm").write_text("no DICOM")
    return str(folder / "ct")


def ct_series_with_a_truncated_slice(folder):
    path = series(folder)
    one = sorted(Path(path).iterdir())[3]
    one.write_bytes(one.read_bytes()[:-500])
    return path


def ct_enhanced_without_positions(folder):
    d = enhanced_ct(ct_values())
    for frame in d.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    return str(save(d, folder / "ct.dcm"))


def ct_is_a_deflated_bomb(folder):
    """A deflated DICOM file whose header inflates to a hundred megabytes."""
    path = save(enhanced_ct(ct_values()), folder / "ct.dcm")
    d = pydicom.dcmread(path)
    d.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    d.PixelData = bytes(100_000_000)
    d.save_as(path, enforce_file_format=True)
    return str(path)


def labels_of_another_place(folder):
    image = nib.load(folder / "labels.nii.gz")
    nib.save(
        nib.Nifti1Image(image.get_fdata().astype(np.uint8), image.affine @ np.diag([2, 2, 2, 1])),
        folder / "labels.nii.gz",
    )


def xray_dicom_truncated(folder):
    path = Path(xa(folder, lambda d: None))
    path.write_bytes(path.read_bytes()[:-9000])
    return str(path)


def cameras_with_nan(folder):
    text = (folder / "s/cameras.json").read_text()
    view = json.loads(text)
    view["views"]["AP"]["K"][0][0] = float("nan")
    (folder / "s/cameras.json").write_text(json.dumps(view))


def boxes_of_swapped_views(folder):
    """Those of one view lie at another height than those of the other, so no rays meet."""
    edit_json(
        folder / "s/boxes.json",
        lambda v: [one.update(box=[a, b - 60, c, d - 60]) for one in v["LA"].values() for a, b, c, d in [one["box"]]],
    )


def images_of_swapped_views(folder):
    """The detectors differ in size, as when one image was cropped."""
    Image.fromarray(np.random.default_rng(0).integers(9, 9999, (200, 240)).astype(np.uint16)).save(folder / "s/AP.png")


def sheet_with_a_shot_of_one_view(folder):
    lines = (folder / "xrays.tsv").read_text().splitlines()
    (folder / "xrays.tsv").write_text("\n".join(lines[:2]) + "\n")


CT = {
    "ct missing": lambda folder: (folder / "ct.nii.gz").unlink(),
    "ct empty": lambda folder: (folder / "ct.nii.gz").write_bytes(b""),
    "ct truncated": lambda folder: (folder / "ct.nii.gz").write_bytes((folder / "ct.nii.gz").read_bytes()[:-2000]),
    "ct text": lambda folder: (folder / "ct.nii.gz").write_text("Dear colleague, attached please find"),
    "ct of noise bytes": lambda folder: (folder / "ct.nii.gz").write_bytes(np.random.default_rng(0).bytes(50000)),
    "ct gzip of text": lambda folder: (folder / "ct.nii.gz").write_bytes(gzip.compress(b"no image" * 1000)),
    "ct with nan": lambda folder: nifti(folder, np.full((30, 30, 30), np.nan, np.float32)),
    "ct of four dimensions": lambda folder: nifti(folder, np.zeros((20, 20, 20, 3), np.int16)),
    "ct sheared": lambda folder: nifti(
        folder, np.zeros((30, 30, 30), np.int16), np.array([[2, 1, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    ),
    "ct in metres": lambda folder: nifti(folder, np.zeros((30, 30, 30), np.int16), np.diag([0.002, 0.002, 0.002, 1])),
    "ct all air": lambda folder: nifti(folder, np.full((30, 30, 30), -1000, np.int16)),
    "ct unscaled": lambda folder: nifti(
        folder, np.random.default_rng(0).integers(900, 2200, (30, 30, 30)).astype(np.int16)
    ),
    "ct is the label map": lambda folder: shutil.copy(folder / "labels.nii.gz", folder / "ct.nii.gz"),
    "ct claims to be huge": ct_claims_to_be_huge,
    "ct zip bomb": ct_zip_bomb,
    "ct metaimage of negative spacing": ct_metaimage_of_negative_spacing,
    "ct series empty folder": ct_series_empty_folder,
    "ct series of text files": ct_series_of_text_files,
    "ct series of wrong modality": lambda folder: series(folder, lambda _, d: setattr(d, "Modality", "MR")),
    "ct series of negative spacing": lambda folder: series(
        folder, lambda _, d: setattr(d, "PixelSpacing", [-0.9, 1.1])
    ),
    "ct series of no spacing": lambda folder: series(folder, lambda _, d: setattr(d, "PixelSpacing", [0, 0])),
    "ct series without rescale": lambda folder: series(folder, lambda _, d: delattr(d, "RescaleIntercept")),
    "ct series with a gap": lambda folder: series(
        folder,
        keep=[0, 1, 2, 3, 5, 6, 7],
        change=lambda i, d: setattr(d, "ImagePositionPatient", [-20, 30, -100 + 2.5 * [0, 1, 2, 3, 5, 6, 7][i]]),
    ),
    "ct series with a slice twice": lambda folder: series(
        folder, lambda i, d: setattr(d, "ImagePositionPatient", [-20, 30, -100 + 2.5 * min(i, 10)])
    ),
    "ct series of two series": lambda folder: series(
        folder, lambda i, d: i < 5 and setattr(d, "SeriesInstanceUID", "1.2.3")
    ),
    "ct series of oblique orientation tags": lambda folder: series(
        folder, lambda _, d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0.7, 0.7, 0])
    ),
    "ct series of zero orientation tags": lambda folder: series(
        folder, lambda _, d: setattr(d, "ImageOrientationPatient", [0, 0, 0, 0, 0, 0])
    ),
    "ct series of changing orientation": lambda folder: series(
        folder, lambda i, d: i == 3 and setattr(d, "ImageOrientationPatient", [0, 1, 0, 1, 0, 0])
    ),
    "ct series with a truncated slice": ct_series_with_a_truncated_slice,
    "ct series with huge slices": lambda folder: series(
        folder, lambda _, d: (setattr(d, "Rows", 60000), setattr(d, "Columns", 60000))
    ),
    "ct enhanced without positions": ct_enhanced_without_positions,
    "ct is an xray": lambda folder: str(save(xa_image(np.full((40, 40), 500, np.uint16)), folder / "ct.dcm")),
    "ct is a deflated bomb": ct_is_a_deflated_bomb,
}
LABELS = {
    "labels missing": lambda folder: (folder / "labels.nii.gz").unlink(),
    "labels text": lambda folder: (folder / "labels.nii.gz").write_text("T12 L1 L2"),
    "labels of another numbering": lambda folder: relabel(
        folder, lambda a: np.where(a > 0, a + 100, 0).astype(np.uint8)
    ),
    "labels that are fractions": lambda folder: relabel(folder, lambda a: a / 3),
    "labels all zero": lambda folder: relabel(folder, lambda a: (0 * a).astype(np.uint8)),
    "labels upside down": lambda folder: relabel(
        folder, lambda a: np.where(a == 19, 21, np.where(a == 21, 19, a)).astype(np.uint8)
    ),
    "labels of another place": labels_of_another_place,
}
XRAY = {
    "xray missing": lambda folder: (folder / "s/AP.png").unlink(),
    "xray empty": lambda folder: (folder / "s/AP.png").write_bytes(b""),
    "xray text": lambda folder: (folder / "s/AP.png").write_text("an X-ray"),
    "xray truncated": lambda folder: (folder / "s/AP.png").write_bytes((folder / "s/AP.png").read_bytes()[:2000]),
    "xray zip bomb": lambda folder: png_bomb(folder / "s/AP.png", 60000),
    "xray of 8 bits": lambda folder: Image.fromarray(np.eye(240, dtype=np.uint8)).save(folder / "s/AP.png"),
    "xray in colour": lambda folder: Image.fromarray(np.zeros((240, 240, 3), np.uint8)).save(folder / "s/AP.png"),
    "xray constant": lambda folder: Image.fromarray(np.full((240, 240), 900, np.uint16)).save(folder / "s/AP.png"),
    "xray dicom truncated": xray_dicom_truncated,
    "xray dicom is a ct": lambda folder: str(save(enhanced_ct(ct_values()), folder / "s/AP.dcm")),
    "xray dicom of nonsense orientation": lambda folder: xa(
        folder, lambda d: setattr(d, "PatientOrientation", ["L", "R"])
    ),
    "xray dicom of negative spacing": lambda folder: xa(
        folder, lambda d: setattr(d, "ImagerPixelSpacing", [-0.4, 0.3])
    ),
    "xray dicom of negative distance": lambda folder: xa(
        folder, lambda d: setattr(d, "DistanceSourceToDetector", -1200)
    ),
    "xray dicom without distance": lambda folder: xa(folder, lambda d: delattr(d, "DistanceSourceToDetector")),
    "xray dicom of impossible angles": lambda folder: xa(folder, lambda d: setattr(d, "PositionerSecondaryAngle", 120)),
    "xray dicom for the eye": lambda folder: xa(folder, lambda d: setattr(d, "PixelIntensityRelationship", "DISP")),
    "images of swapped views": images_of_swapped_views,
}
CAMERAS = {
    "cameras missing": lambda folder: (folder / "s/cameras.json").unlink(),
    "cameras text": lambda folder: (folder / "s/cameras.json").write_text("AP: 1124 mm"),
    "cameras truncated": lambda folder: (folder / "s/cameras.json").write_text(
        (folder / "s/cameras.json").read_text()[:90]
    ),
    "cameras without a view": lambda folder: edit_json(folder / "s/cameras.json", lambda v: v.pop("AP")),
    "cameras with nan": cameras_with_nan,
    "cameras of negative focal length": lambda folder: edit_json(
        folder / "s/cameras.json", lambda v: v["AP"]["K"][0].__setitem__(0, -2900.0)
    ),
    "cameras mirrored": lambda folder: edit_json(
        folder / "s/cameras.json", lambda v: v["AP"].update(camera_from_world=np.diag([-1.0, 1, 1, 1]).tolist())
    ),
    "cameras scaled": lambda folder: edit_json(
        folder / "s/cameras.json", lambda v: v["AP"].update(camera_from_world=np.diag([2.0, 2, 2, 1]).tolist())
    ),
}
BOXES = {
    "boxes missing": lambda folder: (folder / "s/boxes.json").unlink(),
    "boxes text": lambda folder: (folder / "s/boxes.json").write_text("L1"),
    "boxes of no vertebra": lambda folder: edit_json(
        folder / "s/boxes.json", lambda v: v["AP"].update(heart=v["AP"]["L1"])
    ),
    "boxes of swapped views": boxes_of_swapped_views,
    "boxes outside": lambda folder: edit_json(
        folder / "s/boxes.json", lambda v: v["AP"]["L1"].update(box=[9000, 9000, 9100, 9100])
    ),
    "boxes inside out": lambda folder: edit_json(
        folder / "s/boxes.json", lambda v: v["AP"]["L1"].update(box=[90, 90, 10, 10])
    ),
}
SHEETS = {
    "patient id climbs out": lambda folder: [replaced(folder, s, "\np\t", "\n../p\t") for s in ("patients", "xrays")],
    "patient id is absolute": lambda folder: [
        replaced(folder, s, "\np\t", "\n/etc/p\t") for s in ("patients", "xrays")
    ],
    "shot id climbs out": lambda folder: replaced(folder, "xrays", "p\ts\t", "p\t../../s\t"),
    "shot id is a wildcard": lambda folder: replaced(folder, "xrays", "p\ts\t", "p\t{shot}*\t"),
    "view climbs out": lambda folder: replaced(folder, "xrays", "\tAP\t", "\t../AP\t"),
    "patient id of spaces": lambda folder: [replaced(folder, s, "\np\t", "\np q\t") for s in ("patients", "xrays")],
    "patient id with a zero byte": lambda folder: [
        replaced(folder, s, "\np\t", "\np\x00\t") for s in ("patients", "xrays")
    ],
    "sheet empty": lambda folder: (folder / "patients.tsv").write_bytes(b""),
    "sheet of bytes": lambda folder: (folder / "patients.tsv").write_bytes(np.random.default_rng(1).bytes(3000)),
    "sheet without tabs": lambda folder: (folder / "patients.tsv").write_text(
        "patient,ct,labels\np,ct.nii.gz,labels.nii.gz\n"
    ),
    "sheet with a shot of one view": sheet_with_a_shot_of_one_view,
    "sheet with an unknown patient": lambda folder: replaced(folder, "xrays", "\np\t", "\nq\t"),
}
KINDS = CT | LABELS | XRAY | CAMERAS | BOXES | SHEETS
