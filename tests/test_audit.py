"""The audit finds what has been done to a label map, and nothing in one to which nothing has been done."""

import numpy as np
import pytest

from radgs.anatomy import LEVELS, audit_labels, read_audit, write_audit
from radgs.anatomy.audit import STATISTICS
from radgs.errors import AnatomyError
from radgs.images import Volume, read_json
from tests.phantoms import block_spine

SPINE = ["T10", "T11", "T12", "L1", "L2", "L3", "L4"]
MM = 2.0


def spine(levels=SPINE, scale=1.0):
    """Boxes of 2.3 times the usual span (a usual filling), the usual distances apart; and each box, head first."""
    usual = read_json(STATISTICS)["levels"]
    spacing = [round(scale * usual[level]["spacing_to_next_mm"] / MM) for level in levels]
    labels = np.zeros((sum(spacing) + 40, 40, 40), np.uint8)
    top, boxes = labels.shape[0] - 20, {}
    for level, step in zip(levels, spacing, strict=True):
        height = round(0.75 * step)
        side = round((2.3e3 * scale**3 * usual[level]["span_cm3"] / (height * MM**3)) ** 0.5)
        edge = 20 - side // 2
        boxes[level] = (slice(top - height, top), slice(edge, edge + side), slice(edge, edge + side))
        labels[boxes[level]] = LEVELS[level]
        top -= step
    return Volume.axis_parallel(labels, MM, [0, 0, 0]), boxes


def statuses(labels, ct=None):
    return {level: found.status for level, found in audit_labels(labels, ct).items()}


def suspects(labels):
    return {level: found.reasons for level, found in audit_labels(labels).items() if found.status == "suspect"}


def renamed(labels, names):
    out = labels.array.copy()
    for old, new in names.items():
        out[labels.array == LEVELS[old]] = LEVELS[new] if new else 0
    return labels.with_array(out)


@pytest.mark.parametrize("scale", [0.85, 1.0, 1.15])
def test_whole_vertebrae_of_usual_proportions_are_ok_in_small_and_large_patients(scale):
    labels, boxes = spine(scale=scale)
    audit = audit_labels(labels)
    assert list(audit) == SPINE
    assert {found.status for found in audit.values()} == {"ok"}
    middle = [(s.start + s.stop - 1) / 2 * MM for s in reversed(boxes["L1"])]
    assert audit["L1"].centre_mm == pytest.approx(middle, abs=0.01)
    assert audit["L1"].volume_mm3 == pytest.approx((labels.array == 20).sum() * MM**3)


def test_a_vertebra_at_the_border_is_cut_and_its_neighbours_are_not_blamed():
    labels, boxes = spine()
    half = (boxes["L4"][0].start + boxes["L4"][0].stop) // 2
    clipped = Volume(labels.array[half:], labels.lps_from_index)
    assert statuses(clipped) == {**dict.fromkeys(SPINE, "ok"), "L4": "cut"}
    assert audit_labels(clipped)["L4"].reasons == ["cut by the border of the CT"]


def test_what_was_filled_in_around_the_scan_is_a_border_too():
    labels, boxes = spine()
    hu = np.random.default_rng(0).normal(0, 20, labels.array.shape).astype(np.float32)
    assert statuses(labels, labels.with_array(hu))["T10"] == "ok"
    hu[boxes["T10"][0].stop - 2 :] = -1024
    labels.array[boxes["T10"][0].stop - 2 :] = 0
    assert statuses(labels, labels.with_array(hu)) == {**dict.fromkeys(SPINE, "ok"), "T10": "cut"}


def test_a_level_that_is_missing_makes_both_its_neighbours_suspect():
    found = suspects(renamed(spine()[0], {"L1": None}))
    assert set(found) == {"T12", "L2"}
    assert found["T12"] == ["L1 missing between T12 and L2; are the levels named right?"]


def test_a_vertebra_skipped_in_counting_is_found_by_the_distance():
    skipped = renamed(spine()[0], {"L1": None, "L2": "L1", "L3": "L2", "L4": "L3"})
    found = suspects(skipped)
    assert set(found) == {"T12", "L1"}
    assert all("T12 and L1 lie" in " ".join(reasons) for reasons in found.values())


def test_two_names_exchanged_are_found():
    assert {"L1", "L2"} <= set(suspects(renamed(spine()[0], {"L1": "L2", "L2": "L1"})))


def test_two_vertebrae_under_one_name_are_found():
    found = suspects(renamed(spine()[0], {"L2": "L1"}))
    assert "merged" in " ".join(found["L1"])


def test_half_of_the_neighbour_under_a_wrong_name_is_found():
    labels, boxes = spine()
    z = boxes["L2"][0]
    labels.array[(z.start + z.stop) // 2 : z.stop][labels.array[(z.start + z.stop) // 2 : z.stop] == 21] = 20
    assert {"L1", "L2"} & set(suspects(labels))


def test_a_vertebra_of_which_half_is_missing_is_found():
    labels, boxes = spine()
    z, y, x = boxes["L1"]
    labels.array[z, y, x.start : (x.start + x.stop) // 2] = 0
    assert "is a part missing" in " ".join(suspects(labels)["L1"])


def test_islands_count_from_one_percent_on():
    labels, _ = spine()
    size = (labels.array == 20).sum()
    labels.array[2, 2, 2 : 2 + int(0.005 * size)] = 20
    assert not suspects(labels)
    labels.array[2:6, 2:6, 2 : 2 + int(0.002 * size)] = 20
    assert "lie apart" in " ".join(suspects(labels)["L1"])


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0])
def test_a_wrong_voxel_size_makes_everything_suspect(factor):
    labels, _ = spine()
    wrong = Volume(labels.array, np.diag([factor, factor, factor, 1.0]) @ labels.lps_from_index)
    assert set(suspects(wrong)) == set(SPINE)
    assert "voxel size" in " ".join(suspects(wrong)["L1"])


def test_a_thirteenth_thoracic_vertebra_is_no_gap_and_its_absence_neither():
    names = {"T10": "T11", "T11": "T12", "T12": "T13"}
    assert not suspects(renamed(spine()[0], names))


def test_the_sacrum_shows_that_a_lumbar_vertebra_is_missing():
    labels, _ = spine()
    labels.array[2:8, 10:30, 10:30] = LEVELS["S"]
    assert set(suspects(labels)) == {"L4"}
    assert "S" not in audit_labels(labels)


def test_the_block_phantom_is_ok():
    ct, labels = block_spine()
    assert set(statuses(labels, ct).values()) == {"ok"}


def test_an_audit_is_read_as_it_was_written(tmp_path):
    audit = audit_labels(renamed(spine()[0], {"L1": None}))
    write_audit(tmp_path / "a.json", audit)
    assert read_audit(tmp_path / "a.json") == audit
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(AnatomyError, match=r"b\.json: not the audit"):
        read_audit(tmp_path / "b.json")
