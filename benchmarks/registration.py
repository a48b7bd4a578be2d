"""How well registration works in a world that is not ours, beside other methods; the rows of the project's goals.

    python benchmarks/registration.py --json docs/registration.json [--quick] [--results results --patient demo]

Needs a patient whose models are trained (``make demo``) and the extra ``bench``. Each registration is a row of the CSV
beside the JSON: a run that was stopped goes on where it was, one that is finished is only counted again. ``--minutes``
ends a run early, with what there is. The X-rays are simulated, by a simulator that shares no projector, physics or
bending with training (benchmarks/world); the CT is the one that the patient's networks (P3) were trained on, as it
should be. Seeds begin at 31000, which nothing else uses.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from measure import print_row, write_rows
from trials.chain import METHOD, run_chain, take
from trials.place import Place
from trials.refinement import METHODS, SEVERAL, run_refinement
from trials.rows import by_case, chain_rows, patient_rows, refinement_rows, telling, while_moving
from trials.table import Table
from world.cases import CASES, GOALS, MOVING

SEED = 31_000
USUAL = next(iter(CASES))
USUAL_SHOTS, OTHER_SHOTS, SWEEP_EVERY = 100, 40, 4
MOVING_SHOTS = 5
REFINEMENT_SEED, REFINEMENT_SHOTS, BINS, BIN_MM = 32_000, 20, 6, 4.0
FAR_BINS = 10  # of the method that looks far


def plan(quick: bool) -> list[tuple[int, str]]:
    """Seeds and cases, in rounds, so that a run that is ended early has some of everything that has a goal."""
    if quick:
        return [(SEED, USUAL), (SEED, "all at once"), (SEED + 1, USUAL)]
    wanted = []
    for number in range(USUAL_SHOTS):
        cases = CASES if number % SWEEP_EVERY == 0 else GOALS
        wanted += [(SEED + number, case) for case in cases if case == USUAL or number < OTHER_SHOTS]
        wanted += [(SEED + number, case) for case in MOVING if number < MOVING_SHOTS]
    return wanted


def measure_chain(place: Place, table: Table, quick: bool, until: float) -> None:
    """Register every shot of the plan that is not in the table yet."""
    for seed, case in plan(quick):
        if time.monotonic() > until:
            return
        if table.has(METHOD, case, place.patient_id, seed):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            shot = take(place, case, (CASES | MOVING)[case], seed, Path(scratch))
            trials = run_chain(place, shot, Path(scratch))
        table.add(trials)
        shown = " ".join("-" if t.mtre_mm is None else f"{t.mtre_mm:.2f}{t.verdict[0]}" for t in trials)
        print(f"{seed} {case:<36} {shown}", flush=True)


def measure_refinement(place: Place, table: Table, quick: bool, until: float, names: list[str]) -> None:
    """Every method from the same starts on usual shots."""
    for number in range(1 if quick else REFINEMENT_SHOTS):
        seed, shot = REFINEMENT_SEED + number, None
        with tempfile.TemporaryDirectory() as scratch:
            for method in names:
                if time.monotonic() > until:
                    return
                if table.has(method, USUAL, place.patient_id, seed):
                    continue
                shot = shot or take(place, USUAL, CASES[USUAL], seed, Path(scratch))
                # one start in each of so many bins, another place in the bin for every shot
                bins = 1 if quick else FAR_BINS if method == SEVERAL else BINS
                sizes = [BIN_MM * (i + (number * 0.618) % 1) for i in range(bins)]
                trials = run_refinement(place, shot, method, [max(size, 0.5) for size in sizes])
                table.add(trials)
                right = sum(t.mtre_mm is not None and t.mtre_mm < 2 for t in trials)
                print(f"{seed} {method:<40} {right} of {len(trials)} below 2 mm", flush=True)


def pages(found: pd.DataFrame) -> dict[str, Any]:
    """The tables beside the goals."""
    return {"cases": by_case(found), "moving": while_moving(found), "evidence": telling(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a few shots: minutes; numbers of no weight")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--patient", default="demo")
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"))
    parser.add_argument("--parts", nargs="*", default=["chain", "refinement"], choices=["chain", "refinement"])
    parser.add_argument("--about", default="", help="a sentence for the page, such as the library's version")
    parser.add_argument("--minutes", type=float, default=1e6, help="start no new shot after so long")
    options = parser.parse_args()
    place = Place.of(options.results, options.patient, options.config)
    table = Table(options.json.with_suffix(".quick.csv" if options.quick else ".csv"))
    until = time.monotonic() + 60 * options.minutes
    if "chain" in options.parts:
        measure_chain(place, table, options.quick, until)
    if "refinement" in options.parts:
        measure_refinement(place, table, options.quick, until, list(METHODS))
    found = table.read()
    rows = chain_rows(found) + patient_rows(found) + refinement_rows(found)
    for row in rows:
        print_row(row)
    write_rows(options.json, rows, about=options.about, **pages(found))


if __name__ == "__main__":
    main()
