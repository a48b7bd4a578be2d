"""What the networks reconstruct, and where they say it is, on patients that no stage before P3 has seen.

    python benchmarks/reconstruction.py --json docs/reconstruction.json --sheet benchmarks/held_out.tsv [--quick]

The sheet names the patients as a population's does (subject, ct, labels, levels, leave_out); the CT of s0328 is made by
benchmarks/fill_body.py. Their X-rays are simulated by the simulator that made the training pairs, from seeds of their
own: an upper bound. Each piece (pairs, training, measuring a stage) is kept in ``--work`` and not done again: run it in
as many goes as needed, or with ``--only`` for some patients. ``--quick`` leaves P3 and the joint training out, which
take minutes a patient, and takes few pairs.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from measure import Row, print_row, write_rows

from radgs.config import Config, load_config
from radgs.evaluation import COMPARED_VOXELS, write_measured
from radgs.images import read_json
from radgs.sheets import read_population_sheet
from radgs.simulation import simulate_population
from radgs.training import TrainingData, read_shards, train_joint, train_recm, train_regm

SEED = 770_000
QUICK_PAIRS = 12
STILL = {"growth": 0, "warp_mm": 0, "mineral": [1, 1], "texture": 0, "mirror": False}
STAGES = {"p1": "P1 only", "p3": "after P3 and joint"}
KINDS = {"xray_only": "X-ray-only", "ct_assisted": "CT-assisted"}
GOALS = {
    ("p1", "xray_only_dice"): ">= 0.84",
    ("p1", "xray_only_asd_mm"): "<= 0.75",
    ("p1", "regm_mm"): "<= 4",
    ("p3", "xray_only_dice"): ">= 0.92",
    ("p3", "xray_only_asd_mm"): "<= 0.4",
    ("p3", "xray_only_ssim"): ">= 0.95",
    ("p3", "xray_only_psnr_db"): ">= 29",
    ("p3", "regm_mm"): "<= 1.5",
    ("p3", "p95"): "<= 4",
}
UNITS = {"dice": "", "asd_mm": "mm", "ssim": "", "psnr_db": "dB"}
POSES = {"start_mm": "before any network", "recm_mm": "after RecM", "regm_mm": "after RegM"}


def settings(base: Config, models: Path, pairs: int, **network: int) -> Config:
    """The card's network, patients as they are, the rest as configured."""
    card = read_json(models / "card.json")
    return base.changed(
        {
            "seed": SEED,
            "network": {**card["network"], **network},
            "crop": {"size_mm": card["crop_mm"]},
            "population": {"pairs": pairs, "variation": STILL, "levels": 4},
        }
    )


def simulated(row: Mapping[str, str], variant: int, path: Path, config: Config) -> TrainingData:
    """Pairs of a patient; each variant has scenes of its own."""
    if not path.exists():
        levels, left_out = row["levels"].split(), row["leave_out"].split()
        simulate_population(row["ct"] or None, row["labels"], levels, left_out, row["subject"], variant, path, config)
    return read_shards([path], of_population=False)


def trained(row: Mapping[str, str], models: Path, work: Path, base: Config) -> Path:
    """P3 and joint training for one patient, as the workflow does it; the models folder."""
    config = settings(base, models, base.simulation.pairs)
    if not (work / "joint/card.json").exists():
        data = simulated(row, 1, work / "train.h5", config)
        for part, train in (
            ("recm", lambda to: train_recm(data, models, to, config, config.training)),
            ("regm", lambda to: train_regm(data, work / "recm", models, to, config, config.training)),
            ("joint", lambda to: train_joint(data, work / "recm", work / "regm", to, config, config.training)),
        ):
            if not (work / part / "card.json").exists():
                train(work / part)
    return work / "joint"


def rows_of(stage: str, found: pd.DataFrame) -> list[Row]:
    """The lines of one stage; each number's median over the pairs that have it."""
    rows = []
    for kind, said in KINDS.items():
        for name, unit in UNITS.items():
            title, goal = f"{STAGES[stage]}: {said} {name}", GOALS.get((stage, f"{kind}_{name}"), "")
            values = found[f"{kind}_{name}"].dropna().tolist()
            missing = len(found) - len(values)
            note = f"{missing} of {len(found)} pairs have none" if missing else ""
            rows.append(
                Row.of(title, values, unit, goal, note) if values else Row.missing(title, unit, goal, "no bone in any")
            )
    for name, said in POSES.items():
        rows.append(Row.of(f"{STAGES[stage]}: mTRE {said}", found[name].tolist(), "mm", GOALS.get((stage, name), "")))
    p95 = float(found["regm_mm"].quantile(0.95))
    title = f"{STAGES[stage]}: mTRE after RegM, 95th percentile"
    return [*rows, Row.of(title, [p95], "mm", GOALS.get((stage, "p95"), ""), f"of {len(found)} pairs")]


def costs(work: Path, found: Mapping[str, pd.DataFrame], ablation: Path | None) -> list[Row]:
    """How long it all takes."""
    seconds = [
        sum(read_json(joint.parents[1] / part / "card.json")["seconds"] for part in ("recm", "regm", "joint"))
        for joint in sorted(work.glob("*/joint/card.json"))
    ]
    p3, whole = "P3 and joint training of one patient", "ablation, training of all rows"
    first = next(iter(found.values()))
    rows = [
        Row.of(p3, [s / 60 for s in seconds], "min", "<= 6")
        if seconds
        else Row.missing(p3, "min", "<= 6", "not run (--quick)"),
        Row.of("RecM, voxelize, RegM of one vertebra, warm", first["seconds"][3:].tolist(), "s", "<= 0.5"),
    ]
    if ablation is None:
        return [*rows, Row.missing(whole, "min", "<= 60", "not run; give --ablation with its ablation.csv")]
    table = pd.read_csv(ablation)
    note = f"{len(table)} rows, one thread each, added up"
    return [*rows, Row.of(whole, [float(table["trained_min"].sum())], "min", "<= 60", note)]


def measure(row: Mapping[str, str], stages: Sequence[str], models: Path, work: Path, pairs: int, base: Config) -> None:
    """One patient: make test pairs, train, measure, each if it is not there yet."""
    config = settings(base, models, pairs, volume_voxels=COMPARED_VOXELS)
    test = simulated(row, 0, work / f"test-{pairs}.h5", config)
    for stage in stages:
        if not (work / f"{stage}-{pairs}.csv").exists():
            folder = models if stage == "p1" else trained(row, models, work, base)
            write_measured(folder, test, work / f"{stage}-{pairs}.csv")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, default=Path("benchmarks/held_out.tsv"))
    parser.add_argument("--models", type=Path, default=Path("resources/p1"))
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"))
    parser.add_argument("--work", type=Path, default=Path("results/benchmarks/reconstruction"))
    parser.add_argument("--pairs", type=int, default=100, help="test pairs of each patient")
    parser.add_argument("--only", nargs="*", help="subjects of the sheet to go on with")
    parser.add_argument("--ablation", type=Path, help="ablation.csv of `snakemake ablation`")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    pairs, stages = (QUICK_PAIRS, ["p1"]) if given.quick else (given.pairs, list(STAGES))
    base = load_config(given.config).changed({"population": {"sheet": str(given.sheet)}})
    sheet = read_population_sheet(base)
    for subject in given.only or sheet:
        measure(sheet[subject], stages, given.models, given.work / subject, pairs, base)
    tables = {
        stage: {s: path for s in sheet if (path := given.work / s / f"{stage}-{pairs}.csv").exists()}
        for stage in STAGES
    }
    found = {stage: pd.concat(map(pd.read_csv, paths.values())) for stage, paths in tables.items() if paths}
    rows = [row for stage, table in found.items() for row in rows_of(stage, table)]
    rows += costs(given.work, found, given.ablation)
    for one in rows:
        print_row(one)
    facts = {
        "patients": {stage: list(paths) for stage, paths in tables.items()},
        "trained_on": read_json(given.models / "card.json").get("data"),
        "pairs_of_each": pairs,
    }
    write_rows(given.json, rows, **facts)


if __name__ == "__main__":
    main()
