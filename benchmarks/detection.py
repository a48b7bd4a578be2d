"""How well the levels of a patient are named in X-rays that the detector was not trained on.

    python benchmarks/detection.py --json docs/detection.json [--quick] [--results results --patient demo]

Needs a patient whose detector is trained (``make demo``). The shots come from seeds of their own: noise, scatter, views
turned by 15 degrees, and metal in half of them; the detector is read out 2 x 2 pixels at a time. Images are written as
16-bit PNG and prepared as a user's are. A level is visible if half of it was measured in both images; it is named right
if it is located nearer to its true centre than to any other's and within 15 mm of it. Simulated X-rays of one CT by the
simulator that made the training images: an upper bound. Beside the shots of the issue, some with collimators and some
whose every joint bends up to 10 degrees and shifts up to 6 mm. The tests on malformed inputs and on patients' names are
run and counted.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measure import Row, print_row, write_rows
from PIL import Image
from scipy import ndimage

from radgs.anatomy import read_labelled_ct, split_tissue
from radgs.anatomy.trained import TrainedDetector
from radgs.anatomy.yolo import Detector
from radgs.config import load_config
from radgs.gaussians import rasterize
from radgs.images import prepare_xrays, read_json, read_xrays, write_json
from radgs.projection import XrayPhysics
from radgs.simulation import ArticulatedSpine, CArm, sample_spine_pose
from radgs.simulation.collimation import opening
from radgs.simulation.instruments import sample_instruments

SEED = 660_000
VISIBLE, NEAR_MM = 0.5, 15.0
COUNTS = 50_000  # of an open pixel
LEAF, SCATTER, SCATTER_PX, PENUMBRA_PX = 0.005, 0.3, 30.0, 1.0
TESTS = Path(__file__).parents[1] / "tests"


@dataclass(frozen=True)
class Case:
    """A kind of shots; ``open_field``: of a collimator, of the image's side, least and most."""

    name: str
    shots: int
    quick_shots: int
    neighbour_deg: float | None = None
    neighbour_mm: float | None = None
    open_field: tuple[float, float] | None = None


CASES = (
    Case("all visible levels", 100, 6),
    Case("joints up to 10 degrees and 6 mm", 15, 2, 10.0, 6.0),
    Case("collimator open to 45-75 %", 15, 2, open_field=(0.45, 0.75)),
)


def of_case(config, case):
    """The settings of a case's shots: motion, and a detector read out 2 x 2 pixels at a time."""
    carm, motion, physics = config.simulation.carm, config.simulation.motion, config.simulation.physics
    changes = {}
    if case.neighbour_deg is not None:
        changes = {"neighbour_rotation_deg": case.neighbour_deg, "neighbour_translation_mm": case.neighbour_mm}
    return (
        carm.model_copy(update={"detector_px": carm.detector_px // 2, "pixel_mm": carm.pixel_mm * 2}),
        motion.model_copy(update=changes),
        physics.model_copy(
            update={
                "photons": physics.photons * 4,
                "scatter_blur_px": physics.scatter_blur_px / 2,
                "detector_blur_px": physics.detector_blur_px / 2,
            }
        ),
    )


def draw(rng, spine, config, case, folder):
    """Write the images of a shot and its cameras; where every vertebra is."""
    carm, motion, settings = of_case(config, case)
    pose = sample_spine_pose(rng, spine.centres, config.levels, motion)
    middle = np.mean([pose.levels[k].apply(spine.centres[k]) for k in config.levels], axis=0)
    metal = sample_instruments(rng, middle, 4)
    physics = XrayPhysics(settings, rng)
    views = {}
    for view, camera in CArm(carm).sample(rng).items():
        soft, bone = spine.project(camera, pose, 2.0)
        if metal is not None:
            k, placed = torch.from_numpy(camera.K.copy())[None], camera.camera_from_world.tensor()[None]
            bone = bone + rasterize(metal, k, placed, (camera.height, camera.width))[0].numpy()
        share = rng.poisson(physics.expected(soft, bone)) / physics.i0
        if case.open_field:
            share = collimated(rng, share, case.open_field, physics.i0)
        Image.fromarray(np.clip(np.rint(share * COUNTS), 0, 65535).astype(np.uint16)).save(folder / f"{view}.png")
        views[view] = {
            "K": camera.K.tolist(),
            "camera_from_world": camera.camera_from_world.matrix.tolist(),
            "i0": COUNTS,
        }
    write_json(folder / "given.json", {"views": views})
    return pose


def collimated(rng, share, widths, photons):
    """Blades turned by up to 8 degrees, their leak and penumbra, scatter behind them and new noise."""
    side = len(share)
    v, u = np.mgrid[:side, :side].astype(float)
    width, height = rng.uniform(*widths, 2) * side
    centre = [n / 2 + rng.uniform(0.2, 0.8) * (side - n) for n in (width, height)]
    open_ = opening(u, v, tuple(centre), width, height, np.deg2rad(rng.uniform(-8, 8)))
    passed = share * ndimage.gaussian_filter(np.where(open_, 1.0, LEAF), PENUMBRA_PX)
    scattered = SCATTER * ndimage.gaussian_filter(share * open_, SCATTER_PX)
    return rng.poisson((passed + scattered) * photons) / photons


def visible_share(xray, points):
    """Of a vertebra's points, how many lie on measured pixels."""
    column, row = np.rint(xray.camera.project(points)).astype(int).T
    seen = xray.camera.sees(points)
    row, column = np.clip(row, 0, xray.camera.height - 1), np.clip(column, 0, xray.camera.width - 1)
    return (seen & np.isfinite(xray.line_integrals[row, column])).mean()


def measure(results, patient, case, shots, config):
    """One row a level: shot, level, visible, found, right, certain, error (mm)."""
    folder, weights = results / "patients" / patient, results / "models/detector" / patient
    known = Detector(weights).levels
    spine = ArticulatedSpine(split_tissue(*read_labelled_ct(folder / "ct.nii.gz", folder / "vertebrae.nii.gz")))
    points = {level: spine.tissue.points(level)[::17] for level in known}
    detector = TrainedDetector(weights, spine.tissue, config)
    rows, seconds = [], []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        files = work / "xrays.nii.gz", work / "cameras.json"
        for number in range(shots):
            pose = draw(np.random.default_rng([SEED, CASES.index(case), number]), spine, config, case, work)
            images = {view: work / f"{view}.png" for view in ("AP", "LA")}
            prepare_xrays(images, dict.fromkeys(images, work / "given.json"), *files)
            xrays = read_xrays(*files)
            if not number:
                detector.locate(xrays)  # compiles
            began = time.perf_counter()
            found, _ = detector.locate(xrays)
            seconds.append(time.perf_counter() - began)
            centres = np.stack([pose.levels[level].apply(spine.centres[level]) for level in known])
            for row, level in enumerate(known):
                placed = pose.levels[level].apply(points[level])
                visible = min(visible_share(xray, placed) for xray in xrays.values()) >= VISIBLE
                entry = found.get(level)
                off = np.linalg.norm(centres - entry["centre_mm"], axis=1) if entry else np.full(len(known), np.nan)
                right = bool(entry) and off.argmin() == row and off[row] < NEAR_MM
                rows.append((number, level, visible, bool(entry), right, bool(entry) and not entry["doubts"], off[row]))
            print(f"{case.name}: shot {number + 1} of {shots}", flush=True)
    return rows, seconds


def report(rows, name, goals):
    """Names and places of one case's visible levels."""
    right, certain = [r for r in rows if r[4]], [r for r in rows if r[5]]
    errors = [r[6] for r in right]
    share, wrong = 100 * len(right) / len(rows), 100 * sum(not r[4] for r in certain) / max(len(certain), 1)
    return [
        Row.of(f"{name}: named right", [share], "%", ">= 98" if goals else "", f"of {len(rows)}"),
        Row.of(
            f"{name}: wrong but reported certain", [wrong], "%", "<= 0.5" if goals else "", f"of {len(certain)} certain"
        ),
        Row.of(f"{name}: centre, median", [float(np.median(errors))], "mm", "<= 2.5" if goals else ""),
        Row.of(f"{name}: centre, 95th percentile", [float(np.quantile(errors, 0.95))], "mm", "<= 6" if goals else ""),
    ]


def tested(name, goal, *arguments):
    """How many tests of a choice pass; none if one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS.parent)
    passed = re.search(r"(\d+) passed", done.stdout)
    failed = re.search(r"(\d+) (failed|error)", done.stdout)
    if failed or not passed:
        return Row.missing(name, "tests", goal, (failed or re.match("", "")).group() or "no test ran")
    return Row.of(name, [float(passed.group(1))], "tests", goal, "all pass")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--patient", default="demo")
    options = parser.parse_args()
    config = load_config("config/config.yaml")
    made, seconds, more = [], [], {}
    for case in CASES:
        shots = case.quick_shots if options.quick else case.shots
        rows, taken = measure(options.results, options.patient, case, shots, config)
        seconds += taken
        seen = [row for row in rows if row[2]]
        made += report(seen, case.name, case is CASES[0])
        if case is CASES[0]:
            made += report([r for r in seen if r[1] in config.levels], "levels that are registered", False)
            names = dict.fromkeys(row[1] for row in seen)
            more = {k: [len([r for r in seen if r[1] == k]), int(sum(r[4] for r in seen if r[1] == k))] for k in names}
        write_rows(options.json, made, visible_and_right_by_level=more)  # what there is, should the rest break off
    card = read_json(options.results / "models/detector" / options.patient / "card.json")
    made.append(Row.of("detector training", [card["seconds"] / 60], "min", "<= 4", f"{card['steps']} steps"))
    name, note = "both views found, decoded, triangulated, fitted", "without reading the CT and the weights"
    made.append(Row.of(name, seconds, "s", "<= 0.3", note))
    made.append(tested("malformed inputs tried", ">= 40", TESTS / "test_malformed_inputs.py", "-k", "one_clear_line"))
    made.append(
        tested(
            "no patient names, ids, dates in outputs or messages",
            ">= 1",
            TESTS,
            "-k",
            "nothing_of_the_patient or without_the_patient",
        )
    )
    for row in made:
        print_row(row)
    write_rows(options.json, made, visible_and_right_by_level=more)


if __name__ == "__main__":
    main()
