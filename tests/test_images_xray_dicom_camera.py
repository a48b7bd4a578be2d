"""Cameras from the headers of X-rays, worked out by hand, and every number that may be missing."""

from math import cos, radians, sin

import numpy as np
import pytest

from radgs.errors import GeometryError, RadgsError
from tests.dicom_files import XA_COLUMNS, XA_ROWS, as_line_integrals, counts_image, read_view, xa_image


def test_the_camera_is_where_the_header_says_worked_out_by_hand(tmp_path):
    """PA, detector in front, image for display: patient's left at the right, so the camera sees it mirrored."""
    found = read_view(tmp_path, xa_image(counts_image()), {"i0": 60000})
    camera = found.camera
    np.testing.assert_allclose(camera.K, [[4000, 0, 14.5], [0, 3000, 9.5], [0, 0, 1]])
    np.testing.assert_allclose(camera.source, [0, 800, 0], atol=1e-9)  # behind the patient
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(counts_image()[:, ::-1], 60000), atol=1e-5)
    # 1 mm to the patient's left is 1.5 mm on the detector and 5 pixels; in the stored image they rise to the right
    u, v = camera.project([1, 0, 0])
    assert (XA_COLUMNS - 1 - u, v) == (pytest.approx(14.5 + 5), pytest.approx(9.5))
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
    d.PixelData = np.full((XA_ROWS, XA_COLUMNS), 9000, np.uint16).tobytes()
    p, s, k = radians(primary), radians(secondary), 1200 / 800
    rows = np.array([-cos(p), -sin(p), 0])  # unflipped right, written down here once more
    downs = np.array([sin(s) * sin(p), -sin(s) * cos(p), -cos(s)])
    # a point 4 stored columns and 3 rows from the middle, through the isocentre's plane
    signs = np.array([-1 if 1 in flipped else 1, -1 if 0 in flipped else 1])
    stored_pixel = np.array([14.5 + 4.5, 9.5 + 2.5])
    point = 4.5 * 0.3 / k * signs[0] * rows + 2.5 * 0.4 / k * signs[1] * downs
    image = np.full((XA_ROWS, XA_COLUMNS), 9000, np.uint16)
    image[12, 19] = 500
    d.PixelData = image.tobytes()
    found = read_view(tmp_path, d)
    u, v = np.rint(found.camera.project(point)).astype(int)
    assert found.line_integrals[v, u] == found.line_integrals.max() > 2
    np.testing.assert_allclose(stored_pixel, [19, 12])


def test_two_headers_place_one_point_in_space(tmp_path):
    ap, la = (
        read_view(tmp_path, xa_image(counts_image())),
        read_view(tmp_path, xa_image(counts_image(), 90, 0, ("A", "F"))),
    )
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
    whole = read_view(tmp_path, xa_image(counts_image(), 30, -10))
    d = xa_image(counts_image(), 30, -10)
    if how == "absent":
        delattr(d, element)
    else:
        setattr(d, element, None)
    with pytest.raises(RadgsError) as error:
        read_view(tmp_path, d)
    for part in ("ap.dcm", tag, key, "cameras.json"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    found = read_view(tmp_path, d, {key: value})
    np.testing.assert_allclose(found.camera.K, whole.camera.K)
    np.testing.assert_allclose(found.camera.camera_from_world.matrix, whole.camera.camera_from_world.matrix)
    np.testing.assert_array_equal(found.line_integrals, whole.line_integrals)


def test_cameras_json_goes_before_the_header(tmp_path):
    spec = {"source_to_detector_mm": 1500, "source_to_isocentre_mm": 750, "principal_point": [10, 4]}
    camera = read_view(tmp_path, xa_image(counts_image()), spec).camera
    np.testing.assert_allclose(camera.K, [[5000, 0, XA_COLUMNS - 1 - 10], [0, 3750, 4], [0, 0, 1]])
    np.testing.assert_allclose(camera.source, [0, 750, 0], atol=1e-9)


def test_a_calibrated_camera_is_that_of_the_image_as_stored(tmp_path, ap_camera):
    spec = {"K": ap_camera.K.tolist(), "camera_from_world": ap_camera.camera_from_world.matrix.tolist(), "i0": 60000}
    d = xa_image(counts_image())
    for element in list(MISSING)[:6]:
        delattr(d, element)
    found = read_view(tmp_path, d, spec)
    np.testing.assert_array_equal(found.camera.K, ap_camera.K)
    np.testing.assert_allclose(found.line_integrals, as_line_integrals(counts_image(), 60000), atol=1e-5)
    with pytest.raises(GeometryError, match="lacks camera_from_world"):
        read_view(tmp_path, d, {"K": spec["K"]})


def test_in_radiography_the_distance_to_the_table_is_not_taken_for_the_isocentre(tmp_path):
    d = xa_image(counts_image())
    d.Modality = "DX"
    with pytest.raises(GeometryError, match="source_to_isocentre_mm"):
        read_view(tmp_path, d)
    found = read_view(tmp_path, d, {"source_to_isocentre_mm": 700})
    np.testing.assert_allclose(found.camera.source, [0, 700, 0], atol=1e-9)


def test_the_principal_point_is_the_middle_of_the_active_detector(tmp_path):
    """Elements of 0.15 mm; active 24 x 18 mm from (row 4, column 2); the field of view from (row 44, column 12)."""
    d = xa_image(counts_image(), orientation=("R", "F"))
    d.DetectorElementSpacing, d.DetectorActiveOrigin = [0.15, 0.15], [4, 2]
    d.DetectorActiveDimensions, d.FieldOfViewOrigin = [24, 18], [44, 12]
    d.FieldOfViewRotation, d.FieldOfViewHorizontalFlip = 0, "NO"
    k = read_view(tmp_path, d).camera.K
    row = ((4 - 44) * 0.15 + 12) / 0.4 - 0.5
    column = ((2 - 12) * 0.15 + 9) / 0.3 - 0.5
    np.testing.assert_allclose(k[:2, 2], [column, row])
    d.FieldOfViewHorizontalFlip = "YES"
    with pytest.raises(GeometryError, match="principal_point"):
        read_view(tmp_path, d)
