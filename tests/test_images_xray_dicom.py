"""X-rays from DICOM: counts, cameras worked out by hand, and every number that may be missing."""

import gzip
import json
from math import cos, radians, sin

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from radgs.errors import GeometryError, ImageError, RadgsError
from radgs.images import prepare_xrays, read_xray, read_xrays
from tests.dicom_files import SECRETS, compress, save, xa_image

H, W = 20, 30


def counts_image(seed=1) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 60000, (H, W)).astype(np.uint16)


def read(tmp_path, d, spec=None):
    """One view as the workflow reads it; without a spec the DICOM file is its own geometry."""
    image = save(d, tmp_path / "ap.dcm")
    geometry = image
    if spec is not None:
        geometry = tmp_path / "cameras.json"
        geometry.write_text(json.dumps({"views": {"AP": spec}}))
    return read_xray("AP", image, geometry)


def as_line_integrals(counts, i0):
    return np.log(i0 / counts.astype(float))


def test_the_camera_is_where_the_header_says_worked_out_by_hand(tmp_path):
    """PA, detector in front, image for display: patient's left at the right, so the camera sees it mirrored."""
    found = read(tmp_path, xa_image(counts_image()), {"i0": 60000})
    camera = found.camera
    np.testing.assert_allclose(camera.K, [[4000, 0, 14.5], [0, 3000, 9.5], [0, 0, 1]])
    np.testing.assert_allclose(camera.source, [0, 800, 0], atol=1e-9)  # behind the patient
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(counts_image()[:, ::-1], 60000), atol=1e-5)
    # 1 mm to the patient's left is 1.5 mm on the detector and 5 pixels; in the stored image they rise to the right
    u, v = camera.project([1, 0, 0])
    assert (W - 1 - u, v) == (pytest.approx(14.5 + 5), pytest.approx(9.5))
    # 1 mm to the feet is 3.75 pixels down
    np.testing.assert_allclose(camera.project([0, 0, -1]), [14.5, 9.5 + 3.75])


@pytest.mark.parametrize(
    ("primary", "secondary", "orientation", "flipped"),
    [
        (0, 0, ("L", "F"), [1]),
        (0, 0, ("R", "F"), []),
        (0, 0, ("R", "H"), [0]),
        (0, 0, ("L", "H"), [0, 1]),
        (90, 0, ("A", "F"), []),
        (90, 0, ("P", "F"), [1]),
        (-90, 0, ("P", "F"), []),
        (180, 0, ("L", "F"), []),
        (40, 10, ("LP", "FA"), [1]),
        (-35, -20, ("LA", "F"), [1]),
        (-35, -20, ("R", "F"), []),
    ],
)
def test_a_point_lands_where_the_stored_image_showed_it(tmp_path, primary, secondary, orientation, flipped):
    d = xa_image(counts_image(), primary, secondary, orientation)
    d.PixelData = np.full((H, W), 9000, np.uint16).tobytes()
    p, s, k = radians(primary), radians(secondary), 1200 / 800
    rows = np.array([-cos(p), -sin(p), 0])  # unflipped right, written down here once more
    downs = np.array([sin(s) * sin(p), -sin(s) * cos(p), -cos(s)])
    # a point 4 stored columns and 3 rows from the middle, through the isocentre's plane
    signs = np.array([-1 if 1 in flipped else 1, -1 if 0 in flipped else 1])
    stored_pixel = np.array([14.5 + 4.5, 9.5 + 2.5])
    point = 4.5 * 0.3 / k * signs[0] * rows + 2.5 * 0.4 / k * signs[1] * downs
    image = np.full((H, W), 9000, np.uint16)
    image[12, 19] = 500
    d.PixelData = image.tobytes()
    found = read(tmp_path, d)
    u, v = np.rint(found.camera.project(point)).astype(int)
    assert found.line_integrals[v, u] == found.line_integrals.max() > 2
    np.testing.assert_allclose(stored_pixel, [19, 12])


def test_two_headers_place_one_point_in_space(tmp_path):
    ap, la = read(tmp_path, xa_image(counts_image())), read(tmp_path, xa_image(counts_image(), 90, 0, ("A", "F")))
    np.testing.assert_allclose(ap.camera.source, [0, 800, 0], atol=1e-9)
    np.testing.assert_allclose(la.camera.source, [-800, 0, 0], atol=1e-9)
    assert ap.camera.project([3, 4, 5])[1] == pytest.approx(9.5 - 1200 / (800 - 4) * 5 / 0.4)
    assert la.camera.project([3, 4, 5])[1] == pytest.approx(9.5 - 1200 / (800 + 3) * 5 / 0.4)


MISSING = {
    "DistanceSourceToDetector": ("(0018,1110)", "source_to_detector_mm", 1200),
    "DistanceSourceToPatient": ("(0018,1111)", "source_to_isocentre_mm", 800),
    "ImagerPixelSpacing": ("(0018,1164)", "imager_pixel_spacing_mm", [0.4, 0.3]),
    "PositionerPrimaryAngle": ("(0018,1510)", "positioner_primary_angle_deg", 30),
    "PositionerSecondaryAngle": ("(0018,1511)", "positioner_secondary_angle_deg", -10),
    "PatientOrientation": ("(0020,0020)", "patient_orientation", ["L", "F"]),
    "PixelIntensityRelationship": ("(0028,1040)", "intensity", "linear"),
}


@pytest.mark.parametrize("element", MISSING)
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_missing_number_is_asked_for_by_name_and_can_be_given(tmp_path, element, how):
    tag, key, value = MISSING[element]
    whole = read(tmp_path, xa_image(counts_image(), 30, -10))
    d = xa_image(counts_image(), 30, -10)
    if how == "absent":
        delattr(d, element)
    else:
        setattr(d, element, None)
    with pytest.raises(RadgsError) as error:
        read(tmp_path, d)
    for part in ("ap.dcm", tag, key, "cameras.json"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    found = read(tmp_path, d, {key: value})
    np.testing.assert_allclose(found.camera.K, whole.camera.K)
    np.testing.assert_allclose(found.camera.camera_from_world.matrix, whole.camera.camera_from_world.matrix)
    np.testing.assert_array_equal(found.line_integrals, whole.line_integrals)


def test_cameras_json_goes_before_the_header(tmp_path):
    spec = {"source_to_detector_mm": 1500, "source_to_isocentre_mm": 750, "principal_point": [10, 4]}
    camera = read(tmp_path, xa_image(counts_image()), spec).camera
    np.testing.assert_allclose(camera.K, [[5000, 0, W - 1 - 10], [0, 3750, 4], [0, 0, 1]])
    np.testing.assert_allclose(camera.source, [0, 750, 0], atol=1e-9)


def test_a_calibrated_camera_is_that_of_the_image_as_stored(tmp_path, ap_camera):
    spec = {"K": ap_camera.K.tolist(), "camera_from_world": ap_camera.camera_from_world.matrix.tolist(), "i0": 60000}
    d = xa_image(counts_image())
    for element in list(MISSING)[:6]:
        delattr(d, element)
    found = read(tmp_path, d, spec)
    np.testing.assert_array_equal(found.camera.K, ap_camera.K)
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(counts_image(), 60000), atol=1e-5)
    with pytest.raises(GeometryError, match="lacks camera_from_world"):
        read(tmp_path, d, {"K": spec["K"]})


def test_in_radiography_the_distance_to_the_table_is_not_taken_for_the_isocentre(tmp_path):
    d = xa_image(counts_image())
    d.Modality = "DX"
    with pytest.raises(GeometryError, match="source_to_isocentre_mm"):
        read(tmp_path, d)
    found = read(tmp_path, d, {"source_to_isocentre_mm": 700})
    np.testing.assert_allclose(found.camera.source, [0, 700, 0], atol=1e-9)


def test_the_principal_point_is_the_middle_of_the_active_detector(tmp_path):
    """Elements of 0.15 mm; active 24 x 18 mm from (row 4, column 2); the field of view from (row 44, column 12)."""
    d = xa_image(counts_image(), orientation=("R", "F"))
    d.DetectorElementSpacing, d.DetectorActiveOrigin = [0.15, 0.15], [4, 2]
    d.DetectorActiveDimensions, d.FieldOfViewOrigin = [24, 18], [44, 12]
    d.FieldOfViewRotation, d.FieldOfViewHorizontalFlip = 0, "NO"
    k = read(tmp_path, d).camera.K
    row = ((4 - 44) * 0.15 + 12) / 0.4 - 0.5
    column = ((2 - 12) * 0.15 + 9) / 0.3 - 0.5
    np.testing.assert_allclose(k[:2, 2], [column, row])
    d.FieldOfViewHorizontalFlip = "YES"
    with pytest.raises(GeometryError, match="principal_point"):
        read(tmp_path, d)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_and_not_the_display_turns_values_round(tmp_path, photometric, sign):
    d = xa_image(counts_image(), orientation=("R", "F"))
    d.PhotometricInterpretation, d.PixelIntensityRelationshipSign = photometric, sign
    found = read(tmp_path, d, {"i0": 65535})
    counts = counts_image() if sign == 1 else 65535 - counts_image()
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(counts, 65535), atol=1e-5)


def test_monochrome1_without_a_sign_is_asked_about(tmp_path):
    d = xa_image(counts_image(), orientation=("R", "F"))
    d.PhotometricInterpretation = "MONOCHROME1"
    with pytest.raises(ImageError, match=r"MONOCHROME1 without .*\(0028,1041\); add intensity_sign"):
        read(tmp_path, d)
    found = read(tmp_path, d, {"intensity_sign": -1, "i0": 65535})
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(65535 - counts_image(), 65535), atol=1e-5)


def test_window_and_voi_lut_are_for_the_eye_and_rescale_is_not(tmp_path):
    d = xa_image(counts_image(), orientation=("R", "F"))
    d.WindowCenter, d.WindowWidth = 1000, 200
    d.RescaleSlope, d.RescaleIntercept = 2, 50
    found = read(tmp_path, d, {"i0": 1e5})
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(2.0 * counts_image() + 50, 1e5), atol=1e-5)


def test_logarithmic_values_become_counts_by_their_lut_only(tmp_path):
    stored = np.arange(H * W, dtype=np.uint16).reshape(H, W) % 256
    d = xa_image(stored, orientation=("R", "F"))
    d.BitsStored, d.HighBit, d.PixelIntensityRelationship = 8, 7, "LOG"
    with pytest.raises(ImageError, match="LOG"):
        read(tmp_path, d)
    table = np.rint(60000 * np.exp(-(255 - np.arange(256)) / 80)).astype(np.uint16)
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType, lut.LUTData = [256, 0, 16], "US", table.tobytes()
    lut["LUTData"].VR = "OW"
    d.ModalityLUTSequence, d.PixelIntensityRelationshipSign = [lut], -1  # the LUT has turned the values round already
    found = read(tmp_path, d, {"i0": 60000})
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
        read(tmp_path, d)
    assert np.isfinite(read(tmp_path, d, {"intensity": "linear"}).line_integrals).all()


def test_saturated_pixels_are_not_measured(tmp_path):
    counts = counts_image()
    counts[:3] = 65535
    found = read(tmp_path, xa_image(counts, orientation=("R", "F")))
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
    row, column = np.mgrid[1 : H + 1, 1 : W + 1]
    box = (column > 5) & (column < 26) & (row > 3) & (row < 18)
    inside = (row - 10) ** 2 + (column - 15) ** 2 < 64 if shape == "CIRCULAR" else box
    counts = np.where(inside, counts_image() // 2, 65000).astype(np.uint16)
    d = xa_image(counts, orientation=("R", "F"))
    _collimate(d, shape)
    found = read(tmp_path, d)
    np.testing.assert_array_equal(np.isfinite(found.line_integrals), inside)
    assert found.i0 <= 30000


def test_a_frame_is_chosen_and_not_guessed(tmp_path):
    film = np.stack([counts_image(i) for i in range(4)])
    d = xa_image(film, orientation=("R", "F"))
    with pytest.raises(ImageError, match=r'holds 4 frames; choose one, "frame": 1 to 4'):
        read(tmp_path, d)
    found = read(tmp_path, d, {"frame": 3, "i0": 60000})
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(film[2], 60000), atol=1e-5)
    for frame in (0, 5, "2", True, 1.0):
        with pytest.raises(ImageError, match="frame must be 1 to 4"):
            read(tmp_path, d, {"frame": frame})
    d.PositionerMotion = "DYNAMIC"
    with pytest.raises(GeometryError, match="moved between frames"):
        read(tmp_path, d, {"frame": 3})


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
        (put("PixelData", np.full((H, W), 700, np.uint16).tobytes()), "no detector counts"),
        (put("PixelData", counts_image().tobytes()[:-100]), "complete"),
        (put("SamplesPerPixel", 3), "grey"),
    ],
)
def test_a_spoiled_xray_is_one_clear_line_without_the_patient(tmp_path, change, message):
    d = xa_image(counts_image())
    change(d)
    with pytest.raises(RadgsError, match=message) as error:
        read(tmp_path, d)
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
        {"size": [W + 1, H]},
        {"i0": -1},
    ],
)
def test_a_wrong_number_in_cameras_json_is_named(tmp_path, spec):
    with pytest.raises(RadgsError) as error:
        read(tmp_path, xa_image(counts_image()), spec)
    key = next(iter(spec))
    assert key in str(error.value) or key.replace("_", " ") in str(error.value)
    assert "cameras.json" in str(error.value)


@pytest.fixture
def shot(tmp_path, la_camera):
    """One DICOM view and, across it, one PNG view with its camera."""
    save(xa_image(counts_image()), tmp_path / "ap.dcm")
    Image.fromarray(counts_image()).save(tmp_path / "la.png")
    intrinsics = [[2000.0, 0, (W - 1) / 2], [0, 2000.0, (H - 1) / 2], [0, 0, 1]]
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
