"""What may pass for a CT, and that it comes out unchanged but for its format."""

import nibabel as nib
import numpy as np
import pytest

from radgs.errors import ImageError, RadgsError
from radgs.images import prepare_ct, read_volume

OBLIQUE_RAS = np.array([[0, 1.2, 0, 5], [-1, 0, 0, -60], [0, 0, -2.5, 30], [0, 0, 0, 1.0]])


def save_ct(path, values=None, affine=OBLIQUE_RAS):
    if values is None:
        values = np.random.default_rng(0).integers(-900, 1200, (30, 31, 32)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, affine), path)
    return values


def test_values_and_places_are_kept(tmp_path):
    values = save_ct(tmp_path / "in.nii").astype(float)
    prepare_ct(tmp_path / "in.nii", tmp_path / "out" / "ct.nii.gz")
    image = nib.load(tmp_path / "out" / "ct.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(image.get_fdata(), values)
    np.testing.assert_allclose(image.affine, OBLIQUE_RAS, atol=1e-4)


def test_floats_are_rounded_and_padding_becomes_air(tmp_path):
    values = np.full((30, 30, 30), 40.4, np.float32)
    values[0], values[1], values[2], values[3] = -3024, 500.6, -200.6, 70000
    save_ct(tmp_path / "in.nii.gz", values, np.eye(4))
    prepare_ct(tmp_path / "in.nii.gz", tmp_path / "ct.nii.gz")
    assert np.unique(read_volume(tmp_path / "ct.nii.gz").array).tolist() == [-1024, -201, 40, 501, 32767]


def _levels(low, high):
    values = np.full((30, 30, 30), low, np.int16)
    values[10:20] = high
    return values


@pytest.mark.parametrize(
    ("values", "affine", "message"),
    [
        (_levels(0, 26), np.eye(4), "no bone"),  # a label map
        (_levels(-1000, 60), np.eye(4), "no bone"),
        (_levels(500, 600), np.eye(4), "no bone"),
        (_levels(1024, 2000), np.eye(4), "rescale"),  # stored values
        (None, np.diag([0.001, 0.001, 0.002, 1]), "mm"),  # metres
        (None, np.diag([10.0, 10, 10, 1]), "mm"),
        (_levels(-1000, 900)[:, :, :3], np.eye(4), "too small"),
    ],
)
def test_what_is_no_ct_is_one_clear_line_and_nothing_is_written(tmp_path, values, affine, message):
    save_ct(tmp_path / "in.nii.gz", values, affine)
    with pytest.raises(ImageError, match=message) as error:
        prepare_ct(tmp_path / "in.nii.gz", tmp_path / "out" / "ct.nii.gz")
    assert "in.nii.gz" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["in.nii.gz", "in.nii"])
def test_a_ct_that_was_cut_off_is_one_clear_line_and_nothing_is_written(tmp_path, name):
    save_ct(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RadgsError, match="complete"):
        prepare_ct(tmp_path / name, tmp_path / "ct.nii.gz")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_real_ct_passes_and_its_label_map_does_not(tmp_path, shared_data):
    patient = shared_data / "totalseg_example"
    prepare_ct(patient / "ct.nii.gz", tmp_path / "ct.nii.gz")
    original, prepared = nib.load(patient / "ct.nii.gz"), nib.load(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(prepared.get_fdata(), np.maximum(np.rint(original.get_fdata()), -1024))
    np.testing.assert_allclose(prepared.affine, original.affine, atol=1e-3)
    with pytest.raises(ImageError, match="no bone"):
        prepare_ct(patient / "labels.nii.gz", tmp_path / "labels.nii.gz")
