"""How well the levels of a patient are named in X-rays that the detector was not trained on.

    python benchmarks/detection.py --json docs/detection.json [--quick] [--results results --patient demo]

Needs a patient whose detector is trained (``make demo``). The shots come from seeds of their own and are drawn at the
detector's resolution, with noise, scatter, turned views, collimators and metal in half of them. A level is visible if
half of it is inside both images; it is named right if it is located nearer to its true centre than to any other's and
within 15 mm of it. Simulated X-rays of one CT by the simulator that made the training images: an upper bound.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import Row, print_row, write_rows

from radgs.anatomy import detect_trained, read_labelled_ct, read_levels, split_tissue
from radgs.anatomy.detection import TrainedDetector
from radgs.anatomy.yolo import Detector
from radgs.config import load_config
from radgs.errors import AnatomyError
from radgs.gaussians import rasterize
from radgs.images import Xray, read_json, write_xrays
from radgs.projection import XrayPhysics
from radgs.simulation import ArticulatedSpine, CArm, sample_spine_pose
from radgs.simulation.instruments import sample_instruments

SEED = 660_000
SHOTS, QUICK_SHOTS = 100, 8
VISIBLE, NEAR_MM = 0.5, 15.0


def draw(rng, spine, config):
    """The X-rays of a shot, and where every vertebra is."""
    settings = config.simulation
    pose = sample_spine_pose(rng, spine.centres, config.levels, settings.motion)
    middle = np.mean([pose.levels[k].apply(spine.centres[k]) for k in config.levels], axis=0)
    metal = sample_instruments(rng, middle, 4)
    physics = XrayPhysics(settings.physics, rng)
    xrays = {}
    for view, camera in CArm(settings.carm).sample(rng).items():
        soft, bone = spine.project(camera, pose, 1.5)
        if metal is not None:
            k, placed = torch.from_numpy(camera.K.copy())[None], camera.camera_from_world.tensor()[None]
            bone = bone + rasterize(metal, k, placed, (camera.height, camera.width))[0].numpy()
        image = -np.log(np.maximum(physics.counts(soft, bone), 1) / physics.i0).astype(np.float32)
        xrays[view] = Xray(view, image, camera, i0=physics.i0)
    return xrays, pose


def measure(results, patient, shots, config):
    """One row a level: shot, level, visible, found, right, certain, error (mm)."""
    folder, weights = results / "patients" / patient, results / "models/detector" / patient
    known = Detector(weights).levels
    spine = ArticulatedSpine(split_tissue(*read_labelled_ct(folder / "ct.nii.gz", folder / "vertebrae.nii.gz")))
    points = {level: spine.tissue.points(level)[::17] for level in known}
    rows, seconds = [], []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        paths = (work / "xrays.nii.gz", work / "cameras.json", folder / "vertebrae.nii.gz", weights)
        for number in range(shots):
            xrays, pose = draw(np.random.default_rng([SEED, number]), spine, config)
            write_xrays(*paths[:2], xrays)
            try:
                detect_trained(*paths, work / "levels.json", config)
                found = read_levels(work / "levels.json")
            except AnatomyError:
                found = {}
            detector = TrainedDetector(xrays, weights, spine.centres, config.detection.yolo)
            detector.detect()
            began = time.perf_counter()
            detector.detect()
            seconds.append(time.perf_counter() - began)
            centres = np.stack([pose.levels[level].apply(spine.centres[level]) for level in known])
            for row, level in enumerate(known):
                placed = pose.levels[level].apply(points[level])
                visible = min(x.camera.sees(placed).mean() for x in xrays.values()) >= VISIBLE
                entry = found.get(level)
                off = np.linalg.norm(centres - entry["centre_mm"], axis=1) if entry else np.full(len(known), np.nan)
                right = bool(entry) and off.argmin() == row and off[row] < NEAR_MM
                rows.append((number, level, visible, bool(entry), right, bool(entry) and not entry["doubts"], off[row]))
            print(f"shot {number + 1} of {shots}", flush=True)
    return rows, seconds


def report(rows, seconds, card, targets):
    """The table of the issue, and the same for the levels that are registered."""
    made = []
    for name, chosen in (
        ("all visible levels", [r for r in rows if r[2]]),
        ("levels that are registered", [r for r in rows if r[2] and r[1] in targets]),
    ):
        count, right = len(chosen), [r for r in chosen if r[4]]
        errors = [r[6] for r in right]
        certain = [r for r in chosen if r[5]]
        share = 100 * len(right) / count
        goal = name == "all visible levels"
        made += [
            Row.of(f"{name}: named right", [share], "%", ">= 98" if goal else "", f"of {count}"),
            Row.of(
                f"{name}: wrong but reported certain",
                [100 * sum(not r[4] for r in certain) / max(len(certain), 1)],
                "%",
                "<= 0.5" if goal else "",
                f"of {len(certain)} certain",
            ),
            Row.of(f"{name}: centre, median", [float(np.median(errors))], "mm", "<= 2.5" if goal else ""),
            Row.of(
                f"{name}: centre, 95th percentile", [float(np.quantile(errors, 0.95))], "mm", "<= 6" if goal else ""
            ),
        ]
    made.append(Row.of("detector training", [card["seconds"] / 60], "min", "<= 4", f"{card['steps']} steps"))
    made.append(Row.of("both views found, decoded, triangulated", seconds, "s", "<= 0.3", "with loading the weights"))
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--patient", default="demo")
    options = parser.parse_args()
    config = load_config("config/config.yaml")
    shots = QUICK_SHOTS if options.quick else SHOTS
    rows, seconds = measure(options.results, options.patient, shots, config)
    card = read_json(options.results / "models/detector" / options.patient / "card.json")
    made = report(rows, seconds, card, config.levels)
    for row in made:
        print_row(row)
    write_rows(options.json, made)


if __name__ == "__main__":
    main()
