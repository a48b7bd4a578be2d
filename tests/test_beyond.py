"""Where a CT ends and the patient does not: tissue mirrored at its ends, vertebrae and labels as they were."""

import numpy as np
import pytest

from radgs.anatomy import split_tissue
from radgs.anatomy.beyond import continued, repeated
from radgs.config import load_config
from radgs.images import Volume, hu_to_mu
from radgs.simulation.pairs import PairMaker
from tests.phantoms import block_spine


def parts():
    ct, labels = block_spine()
    tissue = split_tissue(ct, labels)
    return tissue, ct.with_array(hu_to_mu(ct.array))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_ct_goes_on_as_its_mirror_image_along_the_body_whatever_the_order_of_its_axes(axis, flipped):
    rng = np.random.default_rng(axis)
    numbers = rng.uniform(0.01, 0.02, (6, 7, 8)).astype(np.float32)
    frame = np.eye(4)
    frame[:3, :3] = np.roll(np.eye(3), axis, axis=1) * (-2.0 if flipped else 2.0)  # index axis (2 + axis) % 3 is z
    soft, whole = Volume(numbers, frame), Volume(numbers + 1, frame)
    along = int(np.argmax(np.abs(frame[2, :3])))
    middle = soft.points((np.array(numbers.shape[::-1]) - 1) / 2)
    longer = continued(soft, whole, [middle], 12.0)
    n, added = numbers.shape[2 - along], longer.array.shape[2 - along] - numbers.shape[2 - along]
    assert added == 2 * np.ceil(6 - (n - 1) / 2)
    axis_last = np.moveaxis(longer.array, 2 - along, 0)
    before, body, after = np.split(axis_last, [added // 2, added // 2 + n])
    np.testing.assert_array_equal(body, np.moveaxis(numbers, 2 - along, 0))
    np.testing.assert_array_equal(before, np.moveaxis(whole.array, 2 - along, 0)[: added // 2][::-1])
    np.testing.assert_array_equal(after, np.moveaxis(whole.array, 2 - along, 0)[-(added // 2) :][::-1])
    np.testing.assert_allclose(longer.corners.mean(axis=0), soft.corners.mean(axis=0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ends_are_repeated_along_the_body_whatever_the_order_of_its_axes(axis):
    numbers = np.random.default_rng(axis).uniform(0.01, 0.02, (4, 5, 6)).astype(np.float32)
    frame = np.eye(4)
    frame[:3, :3] = np.roll(np.eye(3), axis, axis=1) * 2.0
    soft = Volume(numbers, frame)
    longer = repeated(soft, 7.0)
    slices = np.moveaxis(longer.array, 2 - int(np.argmax(frame[2, :3])), 0)
    inside = np.moveaxis(numbers, 2 - int(np.argmax(frame[2, :3])), 0)
    assert len(slices) == len(inside) + 8
    assert (slices[:4] == inside[0]).all()
    assert (slices[-4:] == inside[-1]).all()
    np.testing.assert_array_equal(slices[4:-4], inside)
    low, high = longer.corners.min(axis=0), longer.corners.max(axis=0)
    np.testing.assert_allclose(soft.corners.min(axis=0) - low, [0, 0, 8])
    np.testing.assert_allclose(high - soft.corners.max(axis=0), [0, 0, 8])


def test_only_the_end_that_is_near_is_continued_and_a_long_ct_is_left_alone():
    tissue, whole = parts()
    centre = tissue.centre("T12")
    top = tissue.soft.corners[:, 2].max()
    longer = continued(tissue.soft, whole, [centre], 60.0)
    assert longer.corners[:, 2].min() == pytest.approx(tissue.soft.corners[:, 2].min())
    assert centre[2] + 60 <= longer.corners[:, 2].max() < centre[2] + 63.1
    assert longer.corners[:, 2].max() > top
    assert continued(tissue.soft, whole, [tissue.centre("L1")], 40.0) is None


def maker(share):
    return PairMaker(
        *block_spine(),
        ["L1"],
        load_config({"crop": {"size_mm": 180}, "simulation": {"reach_mm": 120, "reach_share": share}}),
    )


def test_pairs_of_a_patient_that_goes_on_show_no_end_and_are_taught_the_same():
    ends, goes_on = (maker(share).scene(np.random.default_rng(3))[0] for share in (0.0, 1.0))
    for field in ("targets", "K", "camera_from_crop", "crop_from_vertebra"):
        np.testing.assert_array_equal(ends[field], goes_on[field])
    lowest = [pair["images"][:, [0, -1]].mean(axis=2) for pair in (ends, goes_on)]
    assert (lowest[1] > lowest[0] + 0.3).all()  # tissue where there was air, above and below, in both views


def test_a_share_of_the_scenes_goes_on():
    made = maker(0.5)
    assert made.longer is not None
    edges = [made.scene(np.random.default_rng(k))[0]["images"][0, -1].mean() for k in range(12)]
    assert min(edges) < 0.5 * max(edges)
