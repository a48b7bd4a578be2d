"""Metrics of reconstructions against scikit-image, closed forms and spheres."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from radgs.errors import ImageError
from radgs.evaluation import average_metrics, compare_volumes
from radgs.evaluation.volumes import BONE_EXCESS_PER_MM, DATA_RANGE_PER_MM, VolumeMetrics
from radgs.images import Volume


def sphere(radius_mm: float, spacing=(1.0, 1.0, 1.0), shape=(24, 56, 60), value=0.02, centre=(0, 0, 0)) -> Volume:
    spacing = np.array(spacing)
    grid = Volume.axis_parallel(np.zeros(shape, np.float32), spacing, -(np.array(shape[::-1]) - 1) / 2 * spacing)
    index = np.moveaxis(np.indices(shape)[::-1], 0, -1)
    inside = np.linalg.norm(grid.points(index) - centre, axis=-1) <= radius_mm
    return grid.with_array((value * inside).astype(np.float32))


def test_the_truth_itself_is_perfect():
    truth = sphere(10)
    metrics = compare_volumes(truth, truth)
    assert metrics == VolumeMetrics(pytest.approx(1, abs=1e-5), None, 1.0, 0.0, 0.0)


def test_ssim_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    truth = sphere(10, shape=(20, 24, 28))
    noisy = truth.with_array((truth.array + rng.normal(0, 0.004, truth.array.shape)).astype(np.float32))
    expected = structural_similarity(
        noisy.array,
        truth.array,
        data_range=0.03,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert compare_volumes(noisy, truth).ssim == pytest.approx(expected, abs=1e-4)
    assert 0.1 < expected < 0.9  # the case can tell metrics apart


def test_psnr_of_an_even_error_is_that_of_its_share_of_the_range():
    truth = sphere(10)
    off = truth.with_array(truth.array + np.float32(0.003))  # a tenth of 0.03 / mm
    assert compare_volumes(off, truth).psnr_db == pytest.approx(20, abs=1e-3)
    assert DATA_RANGE_PER_MM == 0.03


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.5), (2.5, 1.0, 1.0)])
def test_surfaces_of_concentric_spheres_are_as_far_apart_as_their_radii(spacing):
    shape = tuple(int(60 / s) for s in spacing[::-1])
    metrics = compare_volumes(sphere(25, spacing, shape), sphere(19, spacing, shape))
    assert metrics.asd_mm == pytest.approx(6, abs=0.7)
    assert metrics.hd95_mm == pytest.approx(6, abs=1.2)
    assert metrics.dice == pytest.approx(2 * 19**3 / (19**3 + 25**3), abs=0.02)


def test_bone_is_what_exceeds_the_threshold():
    truth = sphere(10)
    faint = sphere(10, value=BONE_EXCESS_PER_MM * 0.99)
    metrics = compare_volumes(faint, truth)
    assert metrics.dice == 0
    assert metrics.asd_mm is None
    assert metrics.hd95_mm is None
    assert compare_volumes(sphere(10, value=BONE_EXCESS_PER_MM * 1.01), truth).dice == 1


def test_no_bone_at_all_has_no_dice():
    empty = sphere(10, value=0.0)
    assert compare_volumes(empty, empty).dice is None


def test_volumes_on_other_grids_are_refused():
    with pytest.raises(ImageError):
        compare_volumes(sphere(10, shape=(20, 20, 20)), sphere(10, shape=(20, 20, 21)))


def test_the_mean_is_over_what_exists_and_there_is_none_without_reconstructions():
    first = VolumeMetrics(0.8, 20.0, 0.5, 1.0, 3.0)
    second = VolumeMetrics(0.6, 30.0, 0.0, None, None)
    assert average_metrics([first, second]) == {
        "n": 2, "ssim": pytest.approx(0.7), "psnr_db": 25, "dice": 0.25, "asd_mm": 1.0, "hd95_mm": 3.0,
    }  # fmt: skip
    assert average_metrics([]) is None
