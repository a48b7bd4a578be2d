"""CT from DICOM: the same voxels at the same places as ITK says, and a clear line for what is no single CT."""

import gzip

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_frames
from scipy.spatial.transform import Rotation

from radgs.errors import ImageError
from radgs.images import Volume, prepare_ct, read_ct, read_ct_dicom
from tests.dicom_files import SECRETS, compress, ct_values, enhanced_ct, save, write_series, xa_image

OBLIQUE = Rotation.from_euler("xyz", [20, -35, 70], degrees=True).as_matrix()


def itk_series(folder) -> Volume:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return Volume.from_sitk(reader.Execute())


@pytest.mark.parametrize("rotation", [np.eye(3), OBLIQUE, np.diag([-1.0, 1, -1])])
def test_a_series_lies_where_itk_reads_it(tmp_path, rotation):
    axes, step = rotation[:, :2].T.ravel(), 2.5 * rotation[:, 2]
    stored = ct_values()
    found = read_ct_dicom(write_series(tmp_path / "ct", stored, step, axes))
    peer = itk_series(tmp_path / "ct")
    np.testing.assert_array_equal(found.array, stored.astype(float) - 1024)
    np.testing.assert_allclose(found.spacing, [1.1, 0.9, 2.5], atol=1e-5)
    np.testing.assert_array_equal(found.array, peer.array)
    np.testing.assert_allclose(found.corners, peer.corners, atol=1e-4)


def test_the_nifti_written_from_a_series_lies_where_nibabel_reads_it(tmp_path):
    write_series(tmp_path / "ct", ct_values(), 2.5 * OBLIQUE[:, 2], OBLIQUE[:, :2].T.ravel())
    prepare_ct(tmp_path / "ct", tmp_path / "ct.nii.gz")
    image = nib.load(tmp_path / "ct.nii.gz")
    x, y, z = 5, 7, 3
    lps = np.array([-20.0, 30, -100]) + OBLIQUE @ [5 * 1.1, 7 * 0.9, 3 * 2.5]
    np.testing.assert_allclose((image.affine @ [x, y, z, 1])[:3], lps * [-1, -1, 1], atol=1e-3)
    assert image.get_fdata()[x, y, z] == ct_values()[z, y, x] - 1024.0


def test_an_enhanced_file_is_the_same_volume_as_the_series(tmp_path):
    series = read_ct(write_series(tmp_path / "ct", ct_values()))
    path = save(enhanced_ct(ct_values()), tmp_path / "enhanced")  # no extension: the content counts
    for source in (path, tmp_path):
        found = read_ct(source)
        np.testing.assert_array_equal(found.array, series.array)
        np.testing.assert_allclose(found.lps_from_index, series.lps_from_index, atol=1e-5)


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "RLELossless"])
def test_compressed_slices_are_read_exactly_and_not_when_cut_off(tmp_path, syntax):
    write_series(tmp_path / "ct", ct_values())
    files = sorted((tmp_path / "ct").iterdir())
    for path in files:
        compress(path, syntax)
    assert pydicom.dcmread(files[0]).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_ct_dicom(tmp_path / "ct").array, ct_values().astype(float) - 1024)
    whole = files[3].read_bytes()
    for part in (0.6, 0.8, 0.95):
        files[3].write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ImageError, match=r"complete|cut off") as error:
            read_ct_dicom(tmp_path / "ct")
        assert files[3].name in str(error.value)


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "RLELossless"])
@pytest.mark.parametrize("part", [0.5, 0.98])
def test_a_whole_file_around_a_damaged_image_is_refused(tmp_path, syntax, part):
    write_series(tmp_path / "ct", ct_values((3, 64, 64)))
    path = sorted((tmp_path / "ct").iterdir())[1]
    compress(path, syntax)
    d = pydicom.dcmread(path)
    frame = next(generate_frames(d.PixelData, number_of_frames=1))
    d.PixelData = encapsulate([frame[: int(len(frame) * part)]])
    d.save_as(path)
    with pytest.raises(ImageError, match="complete") as error:
        read_ct_dicom(tmp_path / "ct")
    assert path.name in str(error.value)


@pytest.mark.filterwarnings("ignore:The pixel data length")
def test_bytes_after_the_image_do_no_harm(tmp_path):
    def pad(i, d):
        d.PixelData += bytes(4)

    found = read_ct_dicom(write_series(tmp_path / "ct", ct_values(), change=pad))
    np.testing.assert_array_equal(found.array, ct_values().astype(float) - 1024)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.5, 0.99])
def test_a_slice_that_was_cut_off_is_one_clear_line(tmp_path, part):
    write_series(tmp_path / "ct", ct_values())
    path = sorted((tmp_path / "ct").iterdir())[2]
    whole = path.read_bytes()
    path.write_bytes(whole[: max(140, int(len(whole) * part))])
    with pytest.raises(ImageError) as error:
        prepare_ct(tmp_path / "ct", tmp_path / "out" / "ct.nii.gz")
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@settings(max_examples=8)
@given(tilt_deg=st.floats(-25, 25).filter(lambda t: abs(t) > 0.5), about_x=st.booleans())
def test_a_tilted_gantry_is_straightened(tmp_path_factory, tilt_deg, about_x):
    """A linear ramp in LPS stays the same ramp wherever the slices had values."""
    tilt = np.radians(tilt_deg)
    rotation = Rotation.from_rotvec([tilt, 0, 0] if about_x else [0, tilt, 0]).as_matrix()
    axes, step, origin = rotation[:, :2].T, np.array([0, 0, 2.5]), np.array([-20.0, 30, -100])
    k, j, i = np.mgrid[:12, :30, :34]
    points = origin + i[..., None] * 1.1 * axes[0] + j[..., None] * 0.9 * axes[1] + k[..., None] * step
    gradient = np.array([3.0, -2.0, 1.5])
    stored = np.rint(points @ gradient + 3000).astype(np.uint16)
    folder = write_series(tmp_path_factory.mktemp("tilted"), stored, step, axes.ravel())
    found = read_ct_dicom(folder)
    directions = found.lps_from_index[:3, :3] / found.spacing
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found.spacing, [1.1, 0.9, 2.5 * np.cos(tilt)], atol=1e-4)
    d, h, w = found.array.shape
    k, j, i = np.mgrid[:d, :h, :w]
    expected = found.points(np.stack([i, j, k], -1)) @ gradient + 3000 - 1024
    inside = found.array > 0  # the ramp is above 1000 everywhere, air and its mixtures are far below
    assert inside.sum() > 0.85 * stored.size
    close = np.abs(found.array - expected)[inside] < 2.0
    assert close.mean() > 0.93  # the others mix with air at the slices' borders
    centre = found.array[1:-1] > 0
    assert centre.any(axis=(1, 2)).all()


def remove(tag):
    return lambda i, d: delattr(d, tag)


def put(tag, value, at=None):
    return lambda i, d: setattr(d, tag, value) if at in (None, i) else None


SPOILED = {
    "other modality": (put("Modality", "MR", 4), "is MR, not CT"),
    "no modality": (remove("Modality"), "is none, not CT"),
    "mixed series": (put("SeriesInstanceUID", "1.2.3", 4), "holds 2 series"),
    "localizer": (put("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], 4), "localizer"),
    "duplicate": (put("ImagePositionPatient", [-20, 30, -100 + 3 * 2.5], 4), "same place"),
    "moved slice": (put("ImagePositionPatient", [-20, 30, -100 + 4 * 2.5 + 0.8], 4), "apart"),
    "slice aside": (put("ImagePositionPatient", [-15, 30, -100 + 4 * 2.5], 4), "off the line"),
    "other orientation": (put("ImageOrientationPatient", [0, 1, 0, 1, 0, 0], 4), "orientation"),
    "axes not at right angles": (put("ImageOrientationPatient", [1, 0, 0, 1, 1, 0]), r"\(0020,0037\)"),
    "no orientation": (remove("ImageOrientationPatient"), r"has no .* \(0020,0037\)"),
    "no position": (remove("ImagePositionPatient"), r"has no .* \(0020,0032\)"),
    "no spacing": (remove("PixelSpacing"), r"has no .* \(0028,0030\)"),
    "negative spacing": (put("PixelSpacing", [-0.9, 1.1]), "not positive"),
    "zero spacing": (put("PixelSpacing", [0.9, 0]), "not positive"),
    "other spacing": (put("PixelSpacing", [0.8, 1.1], 4), "differ in size or pixel spacing"),
    "no intercept": (remove("RescaleIntercept"), r"has no .* \(0028,1052\)"),
    "no slope": (remove("RescaleSlope"), r"has no .* \(0028,1053\)"),
    "zero slope": (put("RescaleSlope", 0), "not positive"),
    "intercept 0": (put("RescaleIntercept", 0), "rescale"),
    "not in HU": (put("RescaleType", "OD"), "not HU"),
    "colour": (put("SamplesPerPixel", 3, 4), "grey"),
    "no pixels": (remove("PixelData"), "pixels"),
    "frames without places": (put("NumberOfFrames", 2, 4), "places"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_series_is_one_clear_line_without_the_patient(tmp_path, case):
    change, message = SPOILED[case]
    stored = ct_values() + np.uint16(700 if case == "intercept 0" else 0)
    write_series(tmp_path / "ct", stored, change=change)
    with pytest.raises(ImageError, match=message) as error:
        prepare_ct(tmp_path / "ct", tmp_path / "out" / "ct.nii.gz")
    assert str(tmp_path / "ct") in str(error.value)
    assert "\n" not in str(error.value)
    assert not any(secret in str(error.value) for secret in SECRETS)
    assert not (tmp_path / "out").exists()


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path):
    write_series(tmp_path / "ct", ct_values())
    next((tmp_path / "ct").glob("*-slice6.dcm")).unlink()
    with pytest.raises(ImageError, match=r"2\.50 mm apart but .*slice5\.dcm and .*slice7\.dcm 5\.00 mm"):
        read_ct_dicom(tmp_path / "ct")


def test_the_same_file_twice_is_refused_by_both_names(tmp_path):
    write_series(tmp_path / "ct", ct_values())
    one = next((tmp_path / "ct").glob("*-slice6.dcm"))
    (tmp_path / "ct" / "copy.dcm").write_bytes(one.read_bytes())
    with pytest.raises(ImageError, match="same place") as error:
        read_ct_dicom(tmp_path / "ct")
    assert one.name in str(error.value)
    assert "copy.dcm" in str(error.value)


def test_two_times_in_one_enhanced_file_are_refused(tmp_path):
    d = enhanced_ct(np.concatenate([ct_values(), ct_values()]))
    for i, frame in enumerate(d.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2.5 * (i % 12)]
    save(d, tmp_path / "4d.dcm")
    with pytest.raises(ImageError, match=r"4d\.dcm: frame \d+ and frame \d+ show the same place"):
        read_ct(tmp_path / "4d.dcm")


def test_an_enhanced_file_that_was_cut_off_is_refused(tmp_path):
    path = save(enhanced_ct(ct_values()), tmp_path / "cut.dcm")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match=r"cut\.dcm.*complete"):
        read_ct(path)


def test_an_xray_is_no_ct(tmp_path):
    path = save(xa_image(np.arange(600, dtype=np.uint16).reshape(20, 30)), tmp_path / "x.dcm")
    with pytest.raises(ImageError, match="is XA, not CT"):
        read_ct(path)


def test_other_files_are_passed_over_and_a_folder_without_dicom_is_refused(tmp_path):
    folder = write_series(tmp_path / "ct", ct_values())
    (folder / "README.txt").write_text("not DICOM")
    (folder / "deeper").mkdir()
    assert read_ct(folder).array.shape == (12, 30, 34)
    with pytest.raises(ImageError, match="no DICOM file"):
        read_ct(folder / "deeper")
    with pytest.raises(ImageError, match="one slice is no volume"):
        read_ct(sorted(folder.glob("*.dcm"))[0])
    with pytest.raises(ImageError, match="no such file"):
        read_ct(tmp_path / "absent")


def test_padding_becomes_air(tmp_path):
    stored = ct_values()
    stored[:, :4] = 63536

    def pad(i, d):
        d.PixelPaddingValue = 63536

    found = read_ct_dicom(write_series(tmp_path / "ct", stored, change=pad))
    assert np.all(found.array[:, :4] == -1024)
    np.testing.assert_array_equal(found.array[:, 4:], stored[:, 4:].astype(float) - 1024)


@pytest.mark.parametrize("enhanced", [False, True])
def test_nothing_of_the_patient_reaches_the_output(tmp_path, enhanced, capfd, recwarn):
    source = write_series(tmp_path / "ct", ct_values())
    if enhanced:
        source = save(enhanced_ct(ct_values()), tmp_path / "enhanced.dcm")
    prepare_ct(source, tmp_path / "ct.nii.gz")
    written = gzip.decompress((tmp_path / "ct.nii.gz").read_bytes())
    said = "".join(capfd.readouterr()) + " ".join(str(w.message) for w in recwarn)
    for secret in SECRETS:
        assert secret.encode() not in written
        assert secret not in said


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("compressed", [False, True])
def test_nrrd_and_metaimage_are_read_and_refused_when_cut_off(tmp_path, name, compressed):
    ct = Volume.axis_parallel(ct_values().astype(np.int16) - 1024, (1.1, 0.9, 2.5), (-20, 30, -100))
    sitk.WriteImage(ct.to_sitk(), str(tmp_path / name), compressed)
    found = read_ct(tmp_path / name)
    np.testing.assert_array_equal(found.array, ct.array)
    np.testing.assert_allclose(found.lps_from_index, ct.lps_from_index)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ImageError, match="complete"):
        read_ct(tmp_path / name)


def test_real_jpeg_2000_slices_are_what_itk_reads(shared_data):
    found, peer = read_ct_dicom(shared_data / "ct_dicom_slab"), itk_series(shared_data / "ct_dicom_slab")
    np.testing.assert_array_equal(found.array, peer.array)
    np.testing.assert_allclose(found.corners, peer.corners, atol=1e-4)
