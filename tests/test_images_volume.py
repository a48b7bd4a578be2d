"""Volumes: LPS and RAS against nibabel, resampling against analytic positions, damaged files."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from radgs.errors import ImageError
from radgs.geometry import RigidTransform
from radgs.images import Volume, read_volume, resample_like, write_volume

LPS_FROM_RAS = np.diag([-1.0, -1, 1, 1])
OBLIQUE = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()


def ras_affine(axes: np.ndarray, spacing=(1.0, 1.5, 2.5), origin=(12.0, -34.0, 56.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    affine[:3, 3] = origin
    return affine


GRIDS = {
    "RAS": ras_affine(np.eye(3)),
    "LPS": ras_affine(np.diag([-1.0, -1, 1])),
    "left-handed": ras_affine(np.diag([-1.0, 1, 1])),
    "feet first": ras_affine(np.diag([-1.0, 1, -1])),
    "oblique": ras_affine(OBLIQUE),
    "oblique and flipped": ras_affine(OBLIQUE @ np.diag([-1.0, 1, 1])),
    "sagittal slices": ras_affine(np.eye(3)[:, [1, 2, 0]]),
    "coronal slices, oblique, flipped": ras_affine(OBLIQUE @ np.eye(3)[:, [0, 2, 1]] @ np.diag([1.0, -1, 1])),
}


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii"])
def test_a_marked_voxel_is_read_at_its_physical_point_in_lps(tmp_path, affine, name):
    values = np.zeros((5, 6, 7), dtype=np.int16)  # nibabel: first axis i
    values[1, 2, 4] = 1000
    nib.save(nib.Nifti1Image(values, affine), tmp_path / name)
    r, a, s, _ = affine @ [1, 2, 4, 1]

    volume = read_volume(tmp_path / name)

    assert volume.array.shape == (7, 6, 5)
    z, y, x = np.argwhere(volume.array == 1000)[0]
    np.testing.assert_allclose(volume.points([x, y, z]), [-r, -a, s], atol=1e-4)
    np.testing.assert_allclose(volume.spacing, [1, 1.5, 2.5], atol=1e-5)
    np.testing.assert_allclose((volume.index_from_lps @ [-r, -a, s, 1])[:3], [x, y, z], atol=1e-4)


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS.keys())
def test_nibabel_finds_a_written_voxel_at_the_same_point(tmp_path, affine):
    array = np.zeros((7, 6, 5), dtype=np.float32)
    array[4, 2, 1] = 1.5
    volume = Volume(array, LPS_FROM_RAS @ affine)
    left, posterior, superior = volume.points([1, 2, 4])
    write_volume(tmp_path / "ct.nii.gz", volume)

    image = nib.load(tmp_path / "ct.nii.gz")

    ijk = np.argwhere(image.get_fdata() == 1.5)[0]
    np.testing.assert_allclose(image.affine @ [*ijk, 1], [-left, -posterior, superior, 1], atol=1e-4)
    again = read_volume(tmp_path / "ct.nii.gz")
    assert again.same_grid(volume, tolerance_mm=1e-3)
    np.testing.assert_array_equal(again.array, array)


@given(
    rotvec=st.tuples(*[st.floats(-3, 3)] * 3),
    shift=st.tuples(*[st.floats(-30, 30)] * 3),
    point=st.tuples(*[st.floats(-6, 6)] * 3),
)
def test_resampling_through_a_pose_moves_a_blob_where_the_pose_says(rotvec, shift, point):
    """volume_from_grid maps grid points to volume points, so the blob appears at its inverse."""
    volume_from_grid = RigidTransform.from_rotation_translation(Rotation.from_rotvec(rotvec).as_matrix(), shift)
    centre = volume_from_grid.apply(point)  # the blob, in the volume's frame
    source = Volume.axis_parallel(np.zeros((36, 36, 36), np.float32), 1.0, centre - 17.2)
    source = source.with_array(_blob(source, centre))
    oblique = np.eye(4)
    oblique[:3, :3] = OBLIQUE * np.array([1.0, 1.2, 1.5])
    oblique[:3, 3] = np.array(point) - OBLIQUE @ [18.3, 20.1, 19.7]
    grid = Volume(np.zeros((26, 34, 38), np.float32), oblique)

    there = resample_like(source, grid, volume_from_grid=volume_from_grid.matrix)

    np.testing.assert_allclose(_centroid(there), point, atol=0.02)


def _blob(grid: Volume, centre) -> np.ndarray:
    index = np.moveaxis(np.indices(grid.array.shape)[::-1], 0, -1)
    distance = np.linalg.norm(grid.points(index) - centre, axis=-1)
    return np.exp(-0.5 * (distance / 2.5) ** 2).astype(np.float32)


def _centroid(volume: Volume) -> np.ndarray:
    index = np.moveaxis(np.indices(volume.array.shape)[::-1], 0, -1)
    return (volume.points(index) * volume.array[..., None]).sum((0, 1, 2)) / volume.array.sum()


def test_linear_resampling_of_a_linear_field_is_exact_and_outside_is_what_was_asked():
    values = np.broadcast_to(np.arange(8, dtype=np.float32), (8, 8, 8)).copy()  # the value is x
    volume = Volume.axis_parallel(values, 1.0, (0, 0, 0))
    grid = Volume.axis_parallel(np.zeros((2, 2, 4), np.float32), 0.5, (6.25, 3, 3))
    there = resample_like(volume, grid, outside=-1000.0)
    # 7.25 is still in the last voxel, 7.75 beyond its edge
    np.testing.assert_allclose(there.array[0, 0], [6.25, 6.75, 7, -1000], atol=1e-5)


def test_nearest_resampling_invents_no_labels():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[3:] = 20
    grid = Volume.axis_parallel(np.zeros((12, 6, 6), np.uint8), (1, 1, 0.5), (0, 0, 0))
    there = resample_like(Volume.axis_parallel(labels, 1.0, (0, 0, 0)), grid, nearest=True)
    assert set(np.unique(there.array)) == {0, 20}
    assert there.array.dtype == np.uint8


def test_grids_are_the_same_only_if_voxel_centres_coincide():
    volume = Volume.axis_parallel(np.zeros((3, 4, 5), np.float32), 1.0, (0, 0, 0))
    assert volume.same_grid(Volume.axis_parallel(np.ones((3, 4, 5), np.float32), 1.0, (0.001, 0, 0)))
    assert not volume.same_grid(Volume.axis_parallel(np.zeros((3, 4, 5), np.float32), 1.0, (0.5, 0, 0)))
    assert not volume.same_grid(Volume.axis_parallel(np.zeros((3, 4, 6), np.float32), 1.0, (0, 0, 0)))


def test_corners_are_centres_of_the_outer_voxels():
    volume = Volume.axis_parallel(np.zeros((3, 4, 5), np.float32), (1, 2, 3), (10, 20, 30))
    assert volume.corners.min(axis=0).tolist() == [10, 20, 30]
    assert volume.corners.max(axis=0).tolist() == [14, 26, 36]


@pytest.fixture
def noise_ct(tmp_path):
    values = np.random.default_rng(0).integers(-1000, 1000, (30, 30, 30)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "whole.nii.gz")
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "whole.nii")
    return tmp_path


@pytest.mark.parametrize("name", ["whole.nii.gz", "whole.nii"])
@pytest.mark.parametrize("share", [0.002, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_refused_in_one_line(noise_ct, name, share):
    whole = (noise_ct / name).read_bytes()
    cut = noise_ct / name.replace("whole", "cut")
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError) as error:
        read_volume(cut)
    assert str(cut) in str(error.value)
    assert "complete" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_compressed_file_is_refused(noise_ct):
    whole = bytearray((noise_ct / "whole.nii.gz").read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (noise_ct / "bad.nii.gz").write_bytes(whole)
    with pytest.raises(ImageError, match=r"bad\.nii\.gz"):
        read_volume(noise_ct / "bad.nii.gz")


def test_a_whole_stream_with_too_little_in_it_is_refused(noise_ct):
    plain = (noise_ct / "whole.nii").read_bytes()
    (noise_ct / "short.nii.gz").write_bytes(gzip.compress(plain[: len(plain) // 2]))
    with pytest.raises(ImageError, match="complete"):
        read_volume(noise_ct / "short.nii.gz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_volume_with_nan_is_refused(tmp_path, value):
    values = np.zeros((4, 4, 4), np.float32)
    values[1, 2, 3] = value
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "ct.nii.gz")
    with pytest.raises(ImageError, match="NaN"):
        read_volume(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("shape", [(4, 4, 4, 3), (4, 4), (4, 4, 1)])
def test_what_is_not_one_volume_is_refused(tmp_path, shape):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    with pytest.raises(ImageError, match=r"ct\.nii\.gz"):
        read_volume(tmp_path / "ct.nii.gz")


def test_missing_and_meaningless_files_are_refused(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_volume(tmp_path / "nowhere.nii.gz")
    (tmp_path / "text.nii.gz").write_text("this is no image")
    with pytest.raises(ImageError, match=r"text\.nii\.gz"):
        read_volume(tmp_path / "text.nii.gz")


def test_a_sheared_grid_is_refused(tmp_path):
    affine = np.eye(4)
    affine[1, 2] = 0.3  # gantry tilt
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), affine)
    nib.save(image, tmp_path / "ct.nii.gz")
    with pytest.raises(ImageError, match="right angles"):
        read_volume(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4", "<f8"])
def test_every_kind_of_nifti_is_read_with_its_values(tmp_path, kind, dtype):
    values = np.arange(60).reshape(3, 4, 5).astype(dtype)
    nib.save(kind(values, np.diag([1.0, 2, 3, 1])), tmp_path / "ct.nii.gz")
    volume = read_volume(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(volume.array, values.T)
    np.testing.assert_array_equal(Volume.from_sitk(volume.to_sitk()).array, values.T)


def test_other_formats_are_read_at_the_same_place(tmp_path):
    affine = LPS_FROM_RAS @ GRIDS["oblique and flipped"]
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine)
    for name in ("ct.nrrd", "ct.mha", "ct.nii.gz"):
        write_volume(tmp_path / name, volume)
        again = read_volume(tmp_path / name)
        assert again.same_grid(volume, tolerance_mm=1e-3)
        np.testing.assert_array_equal(again.array, volume.array)


def test_scaled_values_are_read_as_hounsfield_units(tmp_path):
    image = nib.Nifti1Image(np.full((4, 4, 4), 1024, np.int16), np.eye(4))
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array([1, -1024], "<f4").tobytes()  # scl_slope, scl_inter
    raw[-2:] = np.array([2024], "<i2").tobytes()
    (tmp_path / "ct.nii").write_bytes(raw)
    volume = read_volume(tmp_path / "ct.nii")
    assert (volume.array[0, 0, 0], volume.array[-1, -1, -1]) == (0, 1000)
