"""X-rays from DICOM: counts, what is not measured, and what is refused."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from radgs.errors import GeometryError, ImageError, RadgsError
from radgs.images import prepare_xrays, read_xray, read_xrays
from tests.dicom_files import (
    SECRETS,
    XA_COLUMNS,
    XA_ROWS,
    as_line_integrals,
    compress,
    counts_image,
    read_view,
    save,
    xa_image,
)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_and_not_the_display_turns_values_round(tmp_path, photometric, sign):
    d = xa_image(counts_image(), orientation=("R", "F"))
    d.PhotometricInterpretation, d.PixelIntensityRelationshipSign = photometric, sign
    found = read_view(tmp_path, d, {"i0": 65535})
    counts = counts_image() if sign == 1 else 65535 - counts_image()
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(counts, 65535), atol=1e-5)


def test_monochrome1_without_a_sign_is_asked_about(tmp_path):
    d = xa_image(counts_image(), orientation=("R", "F"))
    d.PhotometricInterpretation = "MONOCHROME1"
    with pytest.raises(ImageError, match=r"MONOCHROME1 without .*\(0028,1041\); add intensity_sign"):
        read_view(tmp_path, d)
    found = read_view(tmp_path, d, {"intensity_sign": -1, "i0": 65535})
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(65535 - counts_image(), 65535), atol=1e-5)


def test_window_and_voi_lut_are_for_the_eye_and_rescale_is_not(tmp_path):
    d = xa_image(counts_image(), orientation=("R", "F"))
    d.WindowCenter, d.WindowWidth = 1000, 200
    d.RescaleSlope, d.RescaleIntercept = 2, 50
    found = read_view(tmp_path, d, {"i0": 1e5})
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(2.0 * counts_image() + 50, 1e5), atol=1e-5)


def test_logarithmic_values_become_counts_by_their_lut_only(tmp_path):
    stored = np.arange(XA_ROWS * XA_COLUMNS, dtype=np.uint16).reshape(XA_ROWS, XA_COLUMNS) % 256
    d = xa_image(stored, orientation=("R", "F"))
    d.BitsStored, d.HighBit, d.PixelIntensityRelationship = 8, 7, "LOG"
    with pytest.raises(ImageError, match="LOG"):
        read_view(tmp_path, d)
    table = np.rint(60000 * np.exp(-(255 - np.arange(256)) / 80)).astype(np.uint16)
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType, lut.LUTData = [256, 0, 16], "US", table.tobytes()
    lut["LUTData"].VR = "OW"
    d.ModalityLUTSequence, d.PixelIntensityRelationshipSign = [lut], -1  # the LUT has turned the values round already
    found = read_view(tmp_path, d, {"i0": 60000})
    measured = stored != 255  # full scale is saturated
    np.testing.assert_array_equal(np.isfinite(found.line_integrals), measured)
    np.testing.assert_allclose(
        found.line_integrals[measured], as_line_integrals(table[stored], 60000)[measured], atol=1e-5
    )


@pytest.mark.parametrize(
    ("element", "value"), [("PixelIntensityRelationship", "DISP"), ("PresentationIntentType", "FOR PRESENTATION")]
)
def test_an_image_made_for_display_is_refused_unless_its_user_vouches(tmp_path, element, value):
    d = xa_image(counts_image())
    setattr(d, element, value)
    with pytest.raises(ImageError, match='"intensity": "linear"'):
        read_view(tmp_path, d)
    assert np.isfinite(read_view(tmp_path, d, {"intensity": "linear"}).line_integrals).all()


def test_saturated_pixels_are_not_measured(tmp_path):
    counts = counts_image()
    counts[:3] = 65535
    found = read_view(tmp_path, xa_image(counts, orientation=("R", "F")))
    np.testing.assert_array_equal(np.isnan(found.line_integrals), counts == 65535)
    assert (found.i0, found.i0_origin) == (65535, "estimated")


def _collimate(d, shape):
    d.CollimatorShape = shape
    if shape == "RECTANGULAR":
        d.CollimatorLeftVerticalEdge, d.CollimatorRightVerticalEdge = 5, 26
        d.CollimatorUpperHorizontalEdge, d.CollimatorLowerHorizontalEdge = 3, 18
    elif shape == "CIRCULAR":
        d.CenterOfCircularCollimator, d.RadiusOfCircularCollimator = [10, 15], 8
    else:
        d.VerticesOfThePolygonalCollimator = [3, 5, 3, 26, 18, 26, 18, 5]


@pytest.mark.parametrize("shape", ["RECTANGULAR", "CIRCULAR", "POLYGONAL"])
def test_what_lies_behind_the_collimator_is_not_measured_and_not_air(tmp_path, shape):
    row, column = np.mgrid[1 : XA_ROWS + 1, 1 : XA_COLUMNS + 1]
    box = (column > 5) & (column < 26) & (row > 3) & (row < 18)
    inside = (row - 10) ** 2 + (column - 15) ** 2 < 64 if shape == "CIRCULAR" else box
    counts = np.where(inside, counts_image() // 2, 65000).astype(np.uint16)
    d = xa_image(counts, orientation=("R", "F"))
    _collimate(d, shape)
    found = read_view(tmp_path, d)
    np.testing.assert_array_equal(np.isfinite(found.line_integrals), inside)
    assert found.i0 <= 30000


def test_a_frame_is_chosen_and_not_guessed(tmp_path):
    film = np.stack([counts_image(i) for i in range(4)])
    d = xa_image(film, orientation=("R", "F"))
    with pytest.raises(ImageError, match=r'holds 4 frames; choose one, "frame": 1 to 4'):
        read_view(tmp_path, d)
    found = read_view(tmp_path, d, {"frame": 3, "i0": 60000})
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(film[2], 60000), atol=1e-5)
    for frame in (0, 5, "2", True, 1.0):
        with pytest.raises(ImageError, match="frame must be 1 to 4"):
            read_view(tmp_path, d, {"frame": frame})
    d.PositionerMotion = "DYNAMIC"
    with pytest.raises(GeometryError, match="moved between frames"):
        read_view(tmp_path, d, {"frame": 3})


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLosslessProcess14_1"])
def test_compressed_xrays_are_read_exactly(tmp_path, syntax):
    image = save(xa_image(counts_image(), orientation=("R", "F")), tmp_path / "ap.dcm")
    compress(image, syntax)
    found = read_xray("AP", image, image)
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(counts_image(), found.i0), atol=1e-5)


def put(element, value):
    return lambda d: setattr(d, element, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("Modality", "CT"), "is CT; an X-ray is one of XA, RF, DX, CR"),
        (put("Modality", "MG"), "is MG"),
        (put("DistanceSourceToDetector", 700), "impossible"),
        (put("DistanceSourceToPatient", -800), "impossible"),
        (put("ImagerPixelSpacing", [0.4, -0.3]), "impossible"),
        (put("PositionerPrimaryAngle", 270), "180 and 90"),
        (put("PositionerSecondaryAngle", 95), "180 and 90"),
        (put("PatientOrientation", ["F", "L"]), "does not fit"),
        (put("PatientOrientation", ["A", "F"]), "does not fit"),
        (put("PatientOrientation", ["L"]), "pair of directions"),
        (put("PatientOrientation", ["X", "F"]), "pair of directions"),
        (put("DetectorPrimaryAngle", 5), "principal_point"),
        (put("CollimatorShape", "RECTANGULAR"), "lacks its edges"),
        (put("PixelData", np.full((XA_ROWS, XA_COLUMNS), 700, np.uint16).tobytes()), "no detector counts"),
        (put("PixelData", counts_image().tobytes()[:-100]), "complete"),
        (put("SamplesPerPixel", 3), "grey"),
    ],
)
def test_a_spoiled_xray_is_one_clear_line_without_the_patient(tmp_path, change, message):
    d = xa_image(counts_image())
    change(d)
    with pytest.raises(RadgsError, match=message) as error:
        read_view(tmp_path, d)
    assert "ap.dcm" in str(error.value)
    assert "\n" not in str(error.value)
    assert not any(secret in str(error.value) for secret in SECRETS)


@pytest.mark.parametrize(
    "spec",
    [
        {"source_to_detector_mm": "far"},
        {"imager_pixel_spacing_mm": 0.4},
        {"principal_point": [1]},
        {"positioner_primary_angle_deg": float("nan")},
        {"patient_orientation": 7},
        {"intensity": "loud"},
        {"intensity_sign": 2},
        {"size": [XA_COLUMNS + 1, XA_ROWS]},
        {"i0": -1},
    ],
)
def test_a_wrong_number_in_cameras_json_is_named(tmp_path, spec):
    with pytest.raises(RadgsError) as error:
        read_view(tmp_path, xa_image(counts_image()), spec)
    key = next(iter(spec))
    assert key in str(error.value) or key.replace("_", " ") in str(error.value)
    assert "cameras.json" in str(error.value)


@pytest.fixture
def shot(tmp_path, la_camera):
    """One DICOM view and, across it, one PNG view with its camera."""
    save(xa_image(counts_image()), tmp_path / "ap.dcm")
    Image.fromarray(counts_image()).save(tmp_path / "la.png")
    intrinsics = [[2000.0, 0, (XA_COLUMNS - 1) / 2], [0, 2000.0, (XA_ROWS - 1) / 2], [0, 0, 1]]
    camera = {"K": intrinsics, "camera_from_world": la_camera.camera_from_world.matrix.tolist()}
    (tmp_path / "cameras.json").write_text(json.dumps({"views": {"LA": camera}}))
    return tmp_path


def prepare(shot, geometry):
    prepare_xrays(
        {"AP": shot / "ap.dcm", "LA": shot / "la.png"},
        {"AP": shot / geometry, "LA": shot / "cameras.json"},
        shot / "out" / "xrays.nii.gz",
        shot / "out" / "cameras.json",
    )


def test_dicom_and_png_make_a_shot_and_nothing_of_the_patient_is_in_it(shot, capfd, recwarn):
    prepare(shot, "ap.dcm")
    found = read_xrays(shot / "out" / "xrays.nii.gz", shot / "out" / "cameras.json")
    assert list(found) == ["AP", "LA"]
    assert found["AP"].source_file == "ap.dcm"
    written = gzip.decompress((shot / "out" / "xrays.nii.gz").read_bytes())
    written += (shot / "out" / "cameras.json").read_bytes()
    said = "".join(capfd.readouterr()) + " ".join(str(w.message) for w in recwarn)
    for secret in SECRETS:
        assert secret.encode() not in written
        assert secret not in said
    assert len(list((shot / "out").iterdir())) == 2


def test_an_xray_cut_off_leaves_nothing_behind(shot):
    whole = (shot / "ap.dcm").read_bytes()
    for part in (140, len(whole) // 2, len(whole) - 10):
        (shot / "ap.dcm").write_bytes(whole[:part])
        with pytest.raises(RadgsError, match=r"ap\.dcm"):
            prepare(shot, "cameras.json")
        assert not (shot / "out").exists()
