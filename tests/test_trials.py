"""What benchmarks/registration.py makes of a table of registrations; every number is known by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from trials.rows import by_case, chain_rows, counted, patient_rows, refinement_rows, telling, while_moving
from trials.starts import offset, rest_shape
from trials.table import COLUMNS, Table, Trial

from radgs.geometry import RigidTransform

CHAIN = "whole chain"


def _trial(mtre, verdict="accepted", probability=0.99, case="usual", shot=1, level="L1", **about):
    return Trial(
        CHAIN, case, "p", shot, level, start_mm=45.0, mtre_mm=mtre, verdict=verdict, probability=probability, **about
    )


def _table(tmp_path, trials):
    table = Table(tmp_path / "t.csv")
    table.add(trials)
    return table


def _value(rows, name):
    return next(row for row in rows if row.name == name)


def test_rows_of_a_shot_are_found_again_and_only_they(tmp_path):
    table = _table(tmp_path, [_trial(0.5), _trial(0.4, level="T12")])
    table.add([_trial(None, verdict="rejected", shot=2, note="no vertebra, in two views")])
    assert table.has(CHAIN, "usual", "p", 1)
    assert table.has(CHAIN, "usual", "p", 2)
    assert not table.has(CHAIN, "usual", "p", 3)
    assert not table.has(CHAIN, "all at once", "p", 1)
    again = table.read()
    assert list(again.columns) == COLUMNS
    assert again["note"].iloc[2] == "no vertebra, in two views"


def test_a_missing_pose_is_a_failure_and_an_unseen_level_is_none(tmp_path):
    trials = [
        _trial(0.5),
        _trial(1.5),
        _trial(None, "rejected", 0.0),
        _trial(None, "rejected", 0.0, excluded="outside"),
    ]
    rows = chain_rows(_table(tmp_path, trials).read())
    two, one = (_value(rows, f"whole chain: success at {mm} mm") for mm in (2, 1))
    assert two.value == pytest.approx(100 * 2 / 3)
    assert one.value == pytest.approx(100 / 3)
    assert two.n == 3
    assert two.met is False


def test_other_patients_have_rows_of_their_own_and_fine_cts_one(tmp_path):
    first = [_trial(0.4, ct_mm=2.5), _trial(3.0, ct_mm=2.5, shot=2)]
    other = [
        replace(_trial(mtre, ct_mm=1.5, case=case), patient="q") for mtre, case in ((0.2, "usual"), (9.0, "wires"))
    ]
    table = _table(tmp_path, first + other).read()
    rows = chain_rows(table)
    assert _value(rows, "whole chain: success at 2 mm").value == 50.0
    assert _value(rows, "whole chain: mTRE, CT of 1.5 mm or finer").value == pytest.approx(0.2)
    rows = patient_rows(table)
    assert _value(rows, "patient q, usual: success at 2 mm").value == 100.0
    assert _value(rows, "patient q, all other cases: success at 2 mm").value == 0.0
    assert _value(rows, "patient q, all cases: false accepts among accepted").value == 50.0
    both = _value(rows, "all patients, usual: success at 2 mm")
    assert (both.value, both.n, both.met) == (pytest.approx(100 * 2 / 3), 3, False)
    assert _value(rows, "all patients: false accepts among accepted").value == 50.0
    assert patient_rows(_table(tmp_path / "one", first).read()) == []
    assert [entry["case"] for entry in by_case(table)] == ["usual"]


def test_shots_of_a_moving_patient_are_counted_apart(tmp_path):
    case, told = "patient moves 4 mm between the images", "the views contradict each other by 3.9 mm, more than 1.5 mm"
    trials = [
        _trial(0.5),
        _trial(3.0, case=case),
        _trial(3.5, "review", case=case, reasons=told),
        _trial(1.0, "review", case=case, reasons=told, shot=2),
    ]
    table = _table(tmp_path, trials).read()
    (entry,) = while_moving(table)
    assert (entry["case"], entry["n"], entry["shots"], entry["changed"]) == (case, 3, 2, {"between_mm": 4.0})
    assert (entry["accepted"], entry["false_accepts"], entry["told"]) == (1, 1, 2)
    assert [one["case"] for one in by_case(table)] == ["usual"]
    assert _value(chain_rows(table), "whole chain, all cases: false accepts among accepted").n == 1


def test_false_accepts_are_those_accepted_beyond_2_mm(tmp_path):
    trials = [_trial(0.5), _trial(2.5), _trial(9.0, "review"), _trial(0.7, "review")]
    rows = chain_rows(_table(tmp_path, trials).read())
    assert _value(rows, "whole chain, usual: accepted").value == 50.0
    assert _value(rows, "whole chain, usual: false accepts among accepted").value == 50.0


def test_calibration_error_is_the_distance_of_said_and_seen(tmp_path):
    trials = [_trial(0.5, probability=0.95), _trial(0.5, probability=0.95)] + [
        _trial(mtre, probability=0.45) for mtre in (0.5, 9.0)
    ]
    rows = chain_rows(_table(tmp_path, trials).read())
    row = _value(rows, "whole chain, usual: expected calibration error of the probability")
    assert row.value == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)


def test_capture_range_ends_where_success_falls(tmp_path):
    trials = [
        Trial("refinement: two views, all vertebrae", "usual", "p", i, "L1", start_mm=start, mtre_mm=mtre)
        for start, mtre in ((2.0, 0.3), (6.0, 0.3), (10.0, 5.0))
        for i in range(12)
    ]
    rows = refinement_rows(_table(tmp_path, trials).read())
    assert _value(rows, "refinement alone: capture range, one start").value == 8.0


def test_too_few_starts_are_not_a_missed_capture_range(tmp_path):
    trials = [_trial(0.5, shot=i) for i in range(5)]
    row = _value(chain_rows(_table(tmp_path, trials).read()), "whole chain: capture range (start: CT at the isocentre)")
    assert (row.value, row.met) == (None, None)


def test_capture_range_of_the_chain_counts_starts_by_tens_and_of_all_patients(tmp_path):
    name = "whole chain: capture range (start: CT at the isocentre)"
    trials = [replace(_trial(0.5), start_mm=30.0 + i, patient="pq"[i % 2]) for i in range(30)]
    row = _value(chain_rows(_table(tmp_path / "all", trials).read()), name)
    assert (row.value, row.met, row.n) == (59.0, True, 30)
    trials[25] = replace(trials[25], mtre_mm=3.0)
    row = _value(chain_rows(_table(tmp_path / "far", trials).read()), name)
    assert (row.value, row.met) == (49.0, False)
    trials[5] = replace(trials[5], mtre_mm=3.0)
    row = _value(chain_rows(_table(tmp_path / "near", trials).read()), name)
    assert (row.value, row.met) == (0.0, False)
    row = _value(chain_rows(_table(tmp_path / "few", trials[10:20]).read()), name)
    assert (row.value, row.met) == (49.0, None)


def test_methods_are_compared_from_starts_that_all_have_had(tmp_path):
    trials = [Trial("a", "usual", "p", 1, "L1", start_mm=3.0, mtre_mm=0.5)]
    trials += [Trial("b", "usual", "p", 1, "L1", start_mm=start, mtre_mm=9.0 - start) for start in (3.0, 8.5)]
    rows = refinement_rows(_table(tmp_path, trials).read())
    assert _value(rows, "a: success at 2 mm, starts below 10 mm").value == 100.0
    other = _value(rows, "b: success at 2 mm, starts below 10 mm")
    assert (other.value, other.n) == (0.0, 1)


def test_cases_stand_in_their_own_order_with_what_was_changed(tmp_path):
    trials = [_trial(0.5, case="all at once"), _trial(None, "rejected", case="all at once"), _trial(0.4)]
    usual, last = by_case(_table(tmp_path, trials).read())
    assert (usual["case"], last["case"]) == ("usual", "all at once")
    assert usual["changed"] == {}
    assert last["changed"]["wires"] == 3
    assert last["no_pose"] == 1
    assert last["success_2mm"]["value"] == 0.5


def test_evidence_that_separates_perfectly_has_an_area_of_one(tmp_path):
    trials = [_trial(0.5, similarity=0.6 + 0.01 * i, disagreement_mm=1.0) for i in range(5)]
    trials += [_trial(5.0, similarity=0.3 + 0.01 * i, disagreement_mm=1.0) for i in range(5)]
    found = {entry["evidence"]: entry for entry in telling(_table(tmp_path, trials).read())}
    assert found["similarity"]["area"] == 1.0
    assert not found["similarity"]["wrong_is_larger"]
    assert found["disagreement_mm"]["area"] == 0.5


def test_an_empty_table_gives_rows_without_values(tmp_path):
    rows = chain_rows(Table(tmp_path / "none.csv").read())
    assert all(row.value is None for row in rows)
    assert counted(pd.DataFrame(columns=COLUMNS)).empty


@pytest.mark.parametrize("size", [0.5, 6.0, 22.0])
def test_an_offset_moves_the_points_by_what_is_asked_for(size):
    points = np.random.default_rng(0).normal(0, 20, (500, 3)) + np.array([100, 50, -30])
    motion = offset(np.random.default_rng(7), points, size)
    assert np.linalg.norm(motion.apply(points) - points, axis=-1).mean() == pytest.approx(size, rel=0.1)
    other = offset(np.random.default_rng(7), points, size)
    assert np.array_equal(motion.matrix, other.matrix)


def test_the_rest_shape_lies_on_an_unbent_spine_exactly():
    pose = RigidTransform.from_rotation_translation(np.eye(3)[[1, 2, 0]], [4.0, 5, 6])
    points = {level: np.random.default_rng(i).normal(0, 20, (50, 3)) for i, level in enumerate(("L1", "L2"))}
    found = rest_shape(dict.fromkeys(points, pose), points, RigidTransform.identity())
    assert np.abs(found.matrix - pose.matrix).max() < 1e-6
