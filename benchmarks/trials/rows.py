"""The project's goals as rows, from the table of registrations; and what would have told wrong ones apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from measure import Row
from world.cases import BASE, CASES, GOALS, MOVING, World

from radgs.evaluation import capture_range, success_rate
from trials.chain import METHOD

WRONG_MM = 2.0
_FINE_MM = 1.5
USUAL = next(iter(CASES))
_EVIDENCE = (
    "similarity",
    "worst_similarity",
    "disagreement_mm",
    "moved_mm",
    "residual_mm",
    "visible",
    "less_similar",
    "views_apart_mm",
    "spread_mm",
    "joint_mm",
    "joint_deg",
    "laid_mm",
    "contradiction_mm",
    "probability",
)
_HARDER = {"all at once": ">= 95", "neighbours 10 degrees, 6 mm": ">= 95"}
_GOALS = {case: ">= 99" if case == USUAL else _HARDER.get(case, ">= 97") for case in GOALS}
_REFINED = "refinement: two views, all vertebrae"
_SEVERAL = "refinement: several starts"


def counted(table: pd.DataFrame, cases: Iterable[str] = CASES) -> pd.DataFrame:
    """Rows of some cases without levels that less than two images show; one without a pose counts as far off."""
    rows = table[(table["excluded"] == "") & table["case"].isin(list(cases))].copy()
    rows["mtre_mm"] = rows["mtre_mm"].astype(float).fillna(np.inf)
    return rows


def success(name: str, errors: pd.Series, threshold_mm: float, goal: str = "") -> Row:
    """A share in per cent, with half of its 95 % Wilson interval for a spread."""
    if errors.empty:
        return Row.missing(name, "%", goal, "no registration measured")
    found = success_rate(errors.to_numpy(), threshold_mm)
    value, low, high = (100 * found[k] for k in ("value", "low", "high"))
    met = bool(value >= float(goal.split()[1])) if goal else None
    note = f"{low:.1f}-{high:.1f} (95 %, Wilson)"
    return Row(name, value, "%", goal, met, len(errors), (high - low) / 2, note)


def _median(name: str, values: pd.Series, unit: str, goal: str = "", note: str = "") -> Row:
    finite = values[np.isfinite(values)].tolist()
    if not finite:
        return Row.missing(name, unit, goal, "no registration measured")
    return Row.of(name, finite, unit, goal, note)


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the patient that stands first: the others have rows of their own."""
    return rows[rows["patient"] == rows["patient"].iloc[0]] if len(rows) else rows


def patient_rows(table: pd.DataFrame) -> list[Row]:
    """The whole chain on the other patients."""
    rows = counted(table[table["method"] == METHOD])
    made = []
    for patient in rows["patient"].unique()[1:]:
        found = rows[rows["patient"] == patient]
        usual = found[found["case"] == USUAL]
        name, note = f"patient {patient}", f"CT of {found['ct_mm'].iloc[0]:g} mm"
        made += [
            success(f"{name}, usual: success at 2 mm", usual["mtre_mm"], 2.0, ">= 99"),
            success(f"{name}, usual: success at 1 mm", usual["mtre_mm"], 1.0, ">= 97"),
            _median(f"{name}, usual: mTRE, median", usual["mtre_mm"], "mm", "<= 0.35", note),
            *_trust(f"{name}, usual", usual),
            success(f"{name}, all other cases: success at 2 mm", found[found["case"] != USUAL]["mtre_mm"], 2.0),
            *_trust(f"{name}, all cases", found),
        ]
    return made + _everyone(rows) if made else made


def _everyone(rows: pd.DataFrame) -> list[Row]:
    """All patients together, in the cases that have goals."""
    made = [
        success(f"all patients, {case}: success at 2 mm", rows[rows["case"] == case]["mtre_mm"], 2.0, goal)
        for case, goal in _GOALS.items()
    ]
    return [*made, *_trust("all patients, usual", rows[rows["case"] == USUAL]), *_trust("all patients", rows)]


def chain_rows(table: pd.DataFrame) -> list[Row]:
    """Accuracy, trust and time of the whole chain on usual shots; the other strengths, each and at once."""
    everyone = counted(table[table["method"] == METHOD])
    fine = everyone[(everyone["case"] == USUAL) & (everyone["ct_mm"].astype(float) <= _FINE_MM)]
    rows = _first(everyone)
    usual = rows[rows["case"] == USUAL]
    made = [
        success("whole chain: success at 2 mm", usual["mtre_mm"], 2.0, ">= 99"),
        success("whole chain: success at 1 mm", usual["mtre_mm"], 1.0, ">= 97"),
        _median("whole chain: mTRE, median of those with a pose", usual["mtre_mm"], "mm", "<= 0.35", "CT of 2.5 mm"),
        _median("whole chain: mTRE, CT of 1.5 mm or finer", fine["mtre_mm"], "mm", "<= 0.25"),
        _reach("whole chain: capture range (start: CT at the isocentre)", everyone[everyone["case"] == USUAL], 50),
        _median(
            "whole chain: seconds a registration, 1 thread", usual["seconds"].astype(float), "s", "", "busy machine"
        ),
        *_trust("whole chain, usual", usual),
        *_trust("whole chain, all cases", rows),
    ]
    for case in GOALS[1:]:
        made.append(success(f"{case}: success at 2 mm", rows[rows["case"] == case]["mtre_mm"], 2.0, _GOALS[case]))
    return made


def _trust(where: str, rows: pd.DataFrame) -> list[Row]:
    """False accepts, how many are accepted, and how well the probability is calibrated."""
    accepted = rows[rows["verdict"] == "accepted"]
    if rows.empty:
        return []
    share = 100 * len(accepted) / len(rows)
    wrong = int((accepted["mtre_mm"] >= WRONG_MM).sum())
    false = 100 * wrong / max(len(accepted), 1)
    return [
        Row(f"{where}: accepted", share, "%", ">= 95", share >= 95, len(rows), 0.0),
        Row(
            f"{where}: false accepts among accepted", false, "%", "<= 0.3", false <= 0.3, len(accepted), 0.0, f"{wrong}"
        ),
        _calibration(f"{where}: expected calibration error of the probability", rows),
    ]


def _calibration(name: str, rows: pd.DataFrame, bins: int = 10) -> Row:
    """Mean distance between said and seen, over ten bins of equal width; a level without a pose says 0."""
    said = rows["probability"].astype(float).fillna(0.0).to_numpy()
    right = (rows["mtre_mm"] < WRONG_MM).to_numpy()
    place = np.minimum((said * bins).astype(int), bins - 1)
    error = sum(abs(said[place == k].mean() - right[place == k].mean()) * (place == k).mean() for k in set(place))
    return Row(name, float(error), "", "<= 0.03", bool(error <= 0.03), len(rows), 0.0)


def _capture(name: str, rows: pd.DataFrame, goal: str, bin_mm: float, least: int = 10) -> Row:
    """In bins from 0 on, as `radgs.evaluation.capture_range` has it."""
    if rows.empty:
        return Row.missing(name, "mm", goal, "no registration measured")
    good = rows["mtre_mm"] < WRONG_MM
    found = capture_range(rows["start_mm"].astype(float), good, bin_mm=bin_mm, minimum_starts=least)
    beyond, value = found.ended_by == "starts", float(found.mm)
    if beyond and not value:
        return Row.missing(name, "mm", goal, f"fewer than {least} starts in the first bin of {bin_mm:g} mm")
    reached = value >= float(goal.split()[1])
    why = f"at least: fewer than {least} starts beyond" if beyond else "success falls below 95 %"
    # what is not measured is not missed
    met = None if beyond and not reached else bool(reached)
    return Row(name, value, "mm", goal, met, len(rows), bin_mm, f"bins of {bin_mm:g} mm; {why}")


def _reach(name: str, rows: pd.DataFrame, goal_mm: float, least: int = 10, required: float = 0.95) -> Row:
    """The capture range over starts that nobody has chosen: ten and more, next in size, stand for a bin."""
    goal, starts = f">= {goal_mm:g}", rows["start_mm"].astype(float).to_numpy()
    good = (rows["mtre_mm"] < WRONG_MM).to_numpy()
    if len(starts) < least:
        return Row.missing(name, "mm", goal, f"fewer than {least} starts")
    bins = np.array_split(np.argsort(starts, kind="stable"), len(starts) // least)
    fails = [k for k, inside in enumerate(bins) if good[inside].mean() < required]
    ends = [float(starts[inside].max()) for inside in bins]
    value = (0.0, *ends)[fails[0]] if fails else ends[-1]
    # what is not measured is not missed
    met = True if value >= goal_mm else False if fails else None
    why = "success falls below 95 %" if fails else "at least: nothing was further off"
    note = f"{len(bins)} bins of {least} starts and more, the nearest {starts.min():.0f} mm off; {why}"
    return Row(name, value, "mm", goal, met, len(rows), 0.0, note)


def refinement_rows(table: pd.DataFrame) -> list[Row]:
    """Ours and others, compared from the same starts on the same shots."""
    rows = counted(table[table["method"] != METHOD])
    made = [
        _capture("refinement alone: capture range, one start", rows[rows["method"] == _REFINED], ">= 15", 4.0),
        _capture("refinement alone: capture range, several starts", rows[rows["method"] == _SEVERAL], ">= 30", 4.0),
    ]
    for method, found in _common(rows).groupby("method", sort=False):
        near, far = found[found["start_mm"] < 10], found[found["start_mm"] >= 10]
        made += [
            success(f"{method}: success at 2 mm, starts below 10 mm", near["mtre_mm"], 2.0),
            success(f"{method}: success at 2 mm, starts beyond 10 mm", far["mtre_mm"], 2.0),
            _median(f"{method}: mTRE, starts below 10 mm", near["mtre_mm"], "mm"),
            _median(f"{method}: seconds a vertebra", found["seconds"].astype(float), "s", "", "busy machine"),
        ]
        notes = sorted(set(found["note"]) - {""})
        if notes:
            made.append(Row.missing(f"{method}: could not run", "", "", notes[0]))
    return made


def _common(rows: pd.DataFrame) -> pd.DataFrame:
    """The starts that every method has had: only they compare."""
    key = ["patient", "shot", "level", "start_mm"]
    had = rows.groupby(key)["method"].transform("nunique")
    return rows[had == rows["method"].nunique()]


def by_case(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The robustness table: one entry a case, in the order of the cases; of the first patient."""
    return _entries(_first(counted(table[table["method"] == METHOD])), CASES)


def while_moving(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The same of shots between whose images the patient moves, of all patients; errors are to the first image.

    ``told`` is how many had the views' contradiction among the verdict's reasons.
    """
    rows = counted(table[table["method"] == METHOD], MOVING)
    told = rows["reasons"].str.contains("contradict").groupby(rows["case"]).sum()
    return [entry | {"told": int(told[entry["case"]])} for entry in _entries(rows, MOVING)]


def _entries(rows: pd.DataFrame, cases: Mapping[str, World]) -> list[dict[str, Any]]:
    made = []
    for case, world in cases.items():
        found = rows[rows["case"] == case]
        if found.empty:
            continue
        errors, accepted = found["mtre_mm"], found["verdict"] == "accepted"
        finite = errors[np.isfinite(errors)]
        made.append(
            {
                "case": case,
                "changed": {k: v for k, v in vars(world).items() if v != getattr(BASE, k)},
                "n": len(found),
                "shots": len(found[["patient", "shot"]].drop_duplicates()),
                "success_2mm": success_rate(errors, 2.0),
                "success_1mm": success_rate(errors, 1.0),
                "median_mm": float(finite.median()) if len(finite) else None,
                "no_pose": int(np.isinf(errors).sum()),
                "accepted": int(accepted.sum()),
                "false_accepts": int((accepted & ~(errors < WRONG_MM)).sum()),
                "rejected_right": int((~accepted & (errors < WRONG_MM)).sum()),
            }
        )
    return made


def telling(table: pd.DataFrame) -> list[dict[str, Any]]:
    """How well each piece of evidence alone separates right from wrong poses: area under the ROC curve, 0.5 to 1."""
    rows = counted(table[table["method"] == METHOD])
    rows = rows[np.isfinite(rows["mtre_mm"])]
    wrong = (rows["mtre_mm"] >= WRONG_MM).to_numpy()
    made = []
    for name in _EVIDENCE:
        values = rows[name].astype(float).to_numpy()
        if np.isnan(values).all():
            continue
        if wrong.all() or not wrong.any():
            return []
        ranks = pd.Series(values).rank().to_numpy()
        n, m = int(wrong.sum()), int((~wrong).sum())
        area = (ranks[wrong].sum() - n * (n + 1) / 2) / (n * m)
        made.append({"evidence": name, "area": float(max(area, 1 - area)), "wrong_is_larger": bool(area > 0.5)})
    return sorted(made, key=lambda entry: -entry["area"])
