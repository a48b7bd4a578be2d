"""The DICOM Spatial Registration object, read back by pydicom and GDCM; its direction checked by ITK moving a voxel."""

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from radgs.errors import ImageError
from radgs.geometry import RigidTransform
from radgs.images import Frames, Volume, Xray, prepare_ct, read_json, world_frame, write_spatial_registration
from tests.dicom_files import SECRETS, ct_values, write_series
from tests.phantoms import block_spine

FRAMES = Frames("1.2.840.99.1", "1.2.840.99.2")
POSE = RigidTransform.from_rotation_translation([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [10.5, -20, 1 / 3])


@pytest.fixture
def written(tmp_path):
    write_spatial_registration(tmp_path / "r.dcm", POSE, FRAMES, "L1", "L1: review, P(error < 2 mm) 0.860")
    return tmp_path / "r.dcm"


def matrix_by_gdcm(path, item):
    """As another DICOM library sees it: the nested sequences walked by tag numbers."""
    reader = gdcm.Reader()
    reader.SetFileName(str(path))
    assert reader.Read()
    data = reader.GetFile().GetDataSet()
    for tag, number in (((0x0070, 0x0308), item), ((0x0070, 0x0309), 1), ((0x0070, 0x030A), 1)):
        data = data.GetDataElement(gdcm.Tag(*tag)).GetValueAsSQ().GetItem(number).GetNestedDataSet()
    text = str(data.GetDataElement(gdcm.Tag(0x3006, 0x00C6)).GetValue())
    return np.array(text.strip().split("\\"), float).reshape(4, 4)


def test_it_takes_a_voxel_of_the_ct_where_itk_resamples_it_to(written):
    """One bright voxel; ITK puts the CT on a grid in the world with the inverse of the matrix, as its transforms go."""
    values = np.zeros((24, 24, 24), np.float32)
    values[5, 9, 13] = 1
    ct = Volume.axis_parallel(values, 2.0, (-30, 10, 4))
    in_ct = ct.points([13, 9, 5])
    world_from_ct = matrix_by_gdcm(written, 1)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(world_from_ct[:3, :3].ravel().tolist())
    transform.SetTranslation(world_from_ct[:3, 3].tolist())
    grid = Volume.axis_parallel(np.zeros((60, 60, 60), np.float32), 1.0, POSE.apply(in_ct) - [20, 33, 27])
    moved = sitk.GetArrayFromImage(sitk.Resample(ct.to_sitk(), grid.to_sitk(), transform.GetInverse(), sitk.sitkLinear))
    peak = np.array(np.unravel_index(moved.argmax(), moved.shape))[::-1]
    np.testing.assert_allclose(grid.points(peak), POSE.apply(in_ct), atol=0.01)
    np.testing.assert_array_equal(peak, [20, 33, 27])


def test_pydicom_and_gdcm_read_the_same_rigid_matrices(written):
    d = pydicom.dcmread(written)
    items = d.RegistrationSequence
    assert [item.FrameOfReferenceUID for item in items] == [FRAMES.ct, FRAMES.world]
    for number, (item, expected) in enumerate(zip(items, [POSE.matrix, np.eye(4)], strict=True), start=1):
        matrix = item.MatrixRegistrationSequence[0].MatrixSequence[0]
        assert matrix.FrameOfReferenceTransformationMatrixType == "RIGID"
        read = np.array(matrix.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
        np.testing.assert_allclose(read, expected, atol=1e-12)
        np.testing.assert_array_equal(matrix_by_gdcm(written, number), read)


def test_it_has_the_elements_that_the_standard_requires_and_says_the_verdict(written):
    d = pydicom.dcmread(written)
    assert d.SOPClassUID == d.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.1"
    assert (d.Modality, d.FrameOfReferenceUID, d.ContentLabel) == ("REG", FRAMES.world, "RADGS_L1")
    assert d.ContentDescription == "L1: review, P(error < 2 mm) 0.860"
    for required in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "ContentDate", "ContentTime"):
        assert d.get(required)
    for empty in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
        assert empty in d
        assert not d.get(empty)


def test_only_what_the_caller_says_of_the_patient_is_in_it(tmp_path):
    told = {"PatientID": "P7", "StudyInstanceUID": "1.2.3"}
    write_spatial_registration(tmp_path / "r.dcm", POSE, FRAMES, "L1", "", told)
    d = pydicom.dcmread(tmp_path / "r.dcm")
    assert (d.PatientID, d.StudyInstanceUID) == ("P7", "1.2.3")
    for wrong, message in (
        ({"PatientAge": "70"}, "cannot be given"),
        ({"StudyInstanceUID": "x1"}, "is no UID"),
        ({"PatientID": 5}, "PatientID: 5 is no text"),
    ):
        with pytest.raises(ImageError, match=message):
            write_spatial_registration(tmp_path / "no.dcm", POSE, FRAMES, "L1", "", wrong)
    assert not (tmp_path / "no.dcm").exists()


def test_levels_of_a_shot_share_their_frames_and_another_image_has_another_world(ap_camera):
    image = np.ones((801, 1001), np.float32)
    first, other = (world_frame({"AP": Xray("AP", values, ap_camera)}) for values in (image, 2 * image))
    assert first == world_frame({"AP": Xray("AP", image.copy(), ap_camera)})
    assert pydicom.uid.UID(first).is_valid
    assert first != other


def test_the_frame_of_a_dicom_ct_is_its_headers_and_nothing_else_of_the_header_is_kept(tmp_path):
    frame = "1.2.840.113619.2.1"
    write_series(tmp_path / "ct", ct_values(), change=lambda _, d: setattr(d, "FrameOfReferenceUID", frame))
    prepare_ct(tmp_path / "ct", tmp_path / "ct.nii.gz", tmp_path / "ct.json")
    assert read_json(tmp_path / "ct.json")["frame_of_reference_uid"] == frame
    assert not [secret for secret in SECRETS if secret in (tmp_path / "ct.json").read_text()]


def test_a_ct_without_a_frame_gets_one_that_depends_on_the_ct_alone(tmp_path):
    uids = []
    for number, shift in enumerate((0, 0, 5)):
        ct, _ = block_spine()
        sitk.WriteImage(ct.with_array(ct.array + shift).to_sitk(), str(tmp_path / "ct.nrrd"))
        prepare_ct(tmp_path / "ct.nrrd", tmp_path / "ct.nii.gz", tmp_path / f"{number}.json")
        uids.append(read_json(tmp_path / f"{number}.json")["frame_of_reference_uid"])
    assert uids[0] == uids[1] != uids[2]
    assert pydicom.uid.UID(uids[0]).is_valid
