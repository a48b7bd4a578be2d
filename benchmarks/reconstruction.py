"""What the networks reconstruct, and where they say it is, on patients that no stage before P3 has seen.

    python benchmarks/reconstruction.py --json FILE --sheet patients.tsv [--models resources/p1] [--quick]

The sheet names the patients as a population's does (subject, ct, labels, levels, leave_out). Their X-rays are simulated
by the simulator that made the training pairs, from seeds of their own: an upper bound. ``--quick`` leaves P3 and the
joint training out, which take minutes a patient.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from measure import Row, print_row, write_rows

from radgs.config import Config, load_config
from radgs.evaluation.volumes import compare_volumes
from radgs.gaussians import Grid, voxelize
from radgs.images import Volume, read_json
from radgs.models import RecM, RegM, load_recm, load_regm, warp
from radgs.sheets import read_population_sheet
from radgs.simulation import simulate_population
from radgs.training import TrainingData, read_shards, train_joint, train_recm, train_regm
from radgs.training.data import views_of
from radgs.training.losses import point_errors
from radgs.training.recm_stage import anchors_of

SEED = 770_000
VOXELS = 64  # of the volumes compared, 1.75 mm; RegM gets means over the network's voxels
STILL = {"growth": 0, "warp_mm": 0, "mineral": [1, 1], "texture": 0, "mirror": False}
GOALS = {
    "P1": {"dice": ">= 0.84", "asd_mm": "<= 0.75", "mtre": "<= 4"},
    "P3": {
        "dice": ">= 0.92",
        "asd_mm": "<= 0.4",
        "ssim": ">= 0.95",
        "psnr_db": ">= 29",
        "mtre": "<= 1.5",
        "p95": "<= 4",
    },
}
UNITS = {"ssim": "", "psnr_db": "dB", "dice": "", "asd_mm": "mm"}
KINDS = {"grid": "X-ray-only", "patient": "CT-assisted"}


def settings(models: Path, pairs: int) -> Config:
    """The card's network; patients as they are; truth on a finer grid than the network's."""
    card = read_json(models / "card.json")
    network = {**card["network"], "volume_voxels": VOXELS}
    population = {"pairs": pairs, "variation": STILL, "levels": 4}
    return load_config(
        {"seed": SEED, "network": network, "crop": {"size_mm": card["crop_mm"]}, "population": population}
    )


def simulated(row: Mapping[str, str], variant: int, folder: Path, config: Config) -> TrainingData:
    """Pairs of a patient; each variant has scenes of its own."""
    path = folder / f"{row['subject']}-{variant}-{config.network.volume_voxels}.h5"
    levels, left_out = row["levels"].split(), row["leave_out"].split()
    simulate_population(row["ct"] or None, row["labels"], levels, left_out, row["subject"], variant, path, config)
    return read_shards([path])


@torch.no_grad()
def measured(recm: RecM, regm: RegM, data: TrainingData) -> dict[str, list[float]]:
    """Numbers of every pair: reconstructions in both kinds, poses, seconds of the whole chain."""
    found: dict[str, list[float]] = {}
    fine, coarse = Grid.centred(recm.crop_mm, VOXELS), Grid.centred(recm.crop_mm, recm.settings.volume_voxels)
    for i in range(len(data.fields["level"])):
        pair = {name: values[i : i + 1] for name, values in data.fields.items()}
        rows, truth = pair["vertebra"], pair["crop_from_vertebra"]
        ct = data.vertebrae.volumes[rows]
        small = torch.nn.functional.adaptive_avg_pool3d(ct, recm.settings.volume_voxels)
        began = time.perf_counter()
        made = recm.factual(
            recm.observe(views_of(pair)), views_of(pair), anchors_of(recm, rows, data.vertebrae, "patient")
        )
        motion = recm.observe(views_of(pair)).factual_motion
        pose = regm(small, voxelize(made, coarse), motion)
        numbers = {"seconds": time.perf_counter() - began}
        points = data.vertebrae.points[rows]
        start = torch.eye(4, dtype=truth.dtype)[None]
        for name, at in (("start", start), ("recm", motion), ("mtre", pose)):
            numbers[name] = float(point_errors(at, truth, points))
        target = Volume.axis_parallel(warp(ct, truth, recm.crop_mm)[0].numpy(), fine.spacing_mm, (0, 0, 0))
        for kind, said in KINDS.items():
            gaussians = recm(views_of(pair), anchors_of(recm, rows, data.vertebrae, kind)).factual
            volume = voxelize(gaussians, fine)[0].numpy()
            numbers |= {f"{said} {k}": v for k, v in vars(compare_volumes(target.with_array(volume), target)).items()}
        for name, value in numbers.items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return found


def rows_of(stage: str, found: Mapping[str, list[float]]) -> list[Row]:
    """The lines of one stage."""
    goals, rows = GOALS[stage], []
    for said in KINDS.values():
        for name, unit in UNITS.items():
            goal = goals.get(name, "") if said == "X-ray-only" else ""
            if values := found.get(f"{said} {name}"):
                rows.append(Row.of(f"{stage}: {said} {name}", values, unit, goal))
            else:
                rows.append(Row.missing(f"{stage}: {said} {name}", unit, goal, "no bone in any reconstruction"))
    for name, said in (("start", "before any network"), ("recm", "after RecM"), ("mtre", "after RegM")):
        rows.append(Row.of(f"{stage}: mTRE {said}, median", found[name], "mm", goals.get(name, "")))
    p95 = float(np.quantile(found["mtre"], 0.95))
    rows.append(Row.of(f"{stage}: mTRE after RegM, 95th percentile", [p95], "mm", goals.get("p95", "")))
    if stage == "P1":
        rows.append(Row.of("RecM, voxelize, RegM of one vertebra, warm", found["seconds"][3:], "s", "<= 0.5"))
    return rows


def trained(row: Mapping[str, str], models: Path, folder: Path, pairs: int) -> tuple[RecM, RegM, float]:
    """P3 and joint training for one patient, as the workflow does it, with the default settings."""
    network = read_json(models / "card.json")["network"]
    fine = settings(models, pairs).model_dump(mode="json")
    config = load_config({**fine, "network": network})
    data = simulated(row, 1, folder, config)
    began = time.perf_counter()
    train_recm(data, models, folder / "recm", config, config.training)
    train_regm(data, folder / "recm", models, folder / "regm", config, config.training)
    train_joint(data, folder / "recm", folder / "regm", folder / "joint", config, config.training)
    seconds = time.perf_counter() - began
    return load_recm(folder / "joint"), load_regm(folder / "joint"), seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("resources/p1"))
    parser.add_argument("--pairs", type=int, default=100, help="test pairs of each patient")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    sheet = read_population_sheet(Config.model_validate({"population": {"sheet": given.sheet}}))
    found: dict[str, dict[str, list[float]]] = {"P1": {}, "P3": {}}
    seconds: list[float] = []
    recm, regm = load_recm(given.models), load_regm(given.models)
    seen = read_json(given.models / "card.json")
    for row in sheet.values():
        with tempfile.TemporaryDirectory() as made:
            test = simulated(row, 0, Path(made), settings(given.models, given.pairs))
            stages = {"P1": (recm, regm)}
            if not given.quick:
                pairs = Config().simulation.pairs
                *networks, spent = trained(row, given.models, Path(made), pairs)
                stages["P3"], seconds = (networks[0], networks[1]), [*seconds, spent]
            for stage, networks_of in stages.items():
                for name, values in measured(*networks_of, test).items():
                    found[stage].setdefault(name, []).extend(values)
    rows = [row for stage, numbers in found.items() if numbers for row in rows_of(stage, numbers)]
    if seconds:
        rows.append(Row.of("P3 and joint training of one patient", [s / 60 for s in seconds], "min", "<= 6"))
    for one in rows:
        print_row(one)
    facts = {"patients": list(sheet), "trained_on": seen.get("data"), "pairs_of_each": given.pairs}
    write_rows(given.json, rows, **facts)


if __name__ == "__main__":
    main()
