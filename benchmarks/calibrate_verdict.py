"""Fit the verdict's logistic model on simulated shots, and write it to resources/verdict.json.

    python benchmarks/calibrate_verdict.py --results results --patient demo --shots 18 --also TABLE.csv ...

``--also`` adds tables of benchmarks/registration.py: registrations of the second simulator, from seeds that no
benchmark reports. The shipped model: ``--shots 0 --also benchmarks/verdict.csv`` (seeds from 990000, 41000,
43000 and development seeds from 59600).
``--shots`` needs a patient whose models are trained. It draws from seeds that neither the demo nor training uses; a
third of the shots start where they should, a third from centres that are centimetres off, a third from the neighbouring
level, so that there is something to reject.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from radgs.anatomy import neighbours, read_levels
from radgs.anatomy.detection import detect_provided
from radgs.config import load_config
from radgs.evaluation import target_registration_error
from radgs.images import prepare_xrays, read_transforms, read_xrays, write_json
from radgs.models import load_recm, load_regm
from radgs.registration import read_patient, register
from radgs.registration.evidence import Evidence
from radgs.registration.judge import MODEL
from radgs.simulation import make_demo_shots

SEED = 990_000
KINDS = ("as detected", "centres off", "one level off")
SUCCESS_MM = 2.0
#: Which way each piece of evidence may speak: no chance of a few shots makes a long way to the answer a merit.
_SIGNS = {"log_disagreement": -1, "log_spread": -1, "log_joint": -1, "log_laid": -1}
NEUTRAL = {"bias": 0.0, **{k: dict.fromkeys(_SIGNS, 1.0) for k in ("weights", "mean", "scale")}}


def disturbed(levels, kind, rng):
    """Located levels as they are, all moved by the same few centimetres, or each at its neighbour's place."""
    if kind == "centres off":
        shift = rng.normal(0, 12, 3)
        return {k: {**v, "centre_mm": (np.array(v["centre_mm"]) + shift).tolist()} for k, v in levels.items()}
    if kind == "one level off":
        order = neighbours(next(iter(levels)), 99, set(levels))
        step = np.mean(np.diff([levels[k]["centre_mm"] for k in order], axis=0), axis=0) * rng.choice([-1, 1])
        return {k: {**v, "centre_mm": (np.array(v["centre_mm"]) + step).tolist()} for k, v in levels.items()}
    return levels


def measure(results, patient_id, shots, config):
    """One row a registration: its evidence and its true error."""
    folder = results / "patients" / patient_id
    paths = {
        k: {n: folder / p.format(n) for n in config.levels}
        for k, p in {
            "excess": "crops/{}_excess.nii.gz",
            "mask": "crops/{}_mask.nii.gz",
            "anchors": "anchors/{}.ply",
        }.items()
    }
    ct, labels = folder / "ct.nii.gz", folder / "vertebrae.nii.gz"
    patient = read_patient(
        ct, labels, labels.with_name("vertebrae.json"), paths["excess"], paths["mask"], paths["anchors"], config
    )
    models = results / "models/p3" / patient_id / "joint"
    recm, regm = load_recm(models), load_regm(models)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        names = [f"c{i}" for i in range(shots)]
        make_demo_shots(ct, labels, work, work / "truth", names, config)
        for number, shot in enumerate(names):
            views = ("AP", "LA")
            prepare_xrays(
                {v: work / shot / f"{v}.png" for v in views},
                dict.fromkeys(views, work / shot / "cameras.json"),
                work / "xrays.nii.gz",
                work / "cameras.json",
            )
            detect_provided(work / "cameras.json", work / shot / "boxes.json", {}, work / "levels.json", config)
            xrays = read_xrays(work / "xrays.nii.gz", work / "cameras.json")
            truth = read_transforms(work / "truth" / f"{shot}.json")
            kind = KINDS[number % 3]
            levels = disturbed(read_levels(work / "levels.json"), kind, np.random.default_rng([SEED, number]))
            for level, result in register(patient, xrays, levels, recm, regm, NEUTRAL, config).items():
                points = patient.crops[level].points(1000)
                error = target_registration_error(result.refined, truth[level], points)
                start = target_registration_error(result.estimate.regm, truth[level], points)
                evidence = result.verdict.evidence
                rows.append(
                    {"shot": shot, "kind": kind, "level": level, "regm_mm": start, "mtre_mm": error, **evidence}
                )
            print(
                shot,
                kind,
                [f"{r['level']} {r['regm_mm']:.1f}->{r['mtre_mm']:.2f}" for r in rows if r["shot"] == shot],
                flush=True,
            )
    return pd.DataFrame(rows)


def fit(table):
    """Ridge-penalised logistic regression of success on the standardised features, with the signs they must have."""
    columns = Evidence.__dataclass_fields__
    features = pd.DataFrame([Evidence(**{c: row[c] for c in columns}).features() for row in table.to_dict("records")])
    mean, scale = features.mean(), features.std() + 1e-9
    x = ((features - mean) / scale).to_numpy()
    y = (table["mtre_mm"] < SUCCESS_MM).to_numpy(float)

    def loss(w):
        logit = w[0] + x @ w[1:]
        return np.logaddexp(0, np.where(y > 0, -logit, logit)).sum() + 0.1 * (w[1:] ** 2).sum()

    names = list(features.columns)
    bounds = [(None, None), *((0, None) if _SIGNS[name] > 0 else (None, 0) for name in names)]
    w = minimize(loss, np.zeros(x.shape[1] + 1), bounds=bounds).x
    return {
        "about": "logistic model of P(mTRE < 2 mm); made by benchmarks/calibrate_verdict.py on shots of two simulators",
        "registrations": len(y),
        "successes": int(y.sum()),
        "bias": float(w[0]),
        "weights": dict(zip(names, map(float, w[1:]), strict=True)),
        "mean": mean.to_dict(),
        "scale": scale.to_dict(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--patient", default="demo")
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"))
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--also", type=Path, nargs="*", default=[])
    parser.add_argument("--table", type=Path, default=Path("results/calibration.csv"))
    arguments = parser.parse_args()
    base = load_config(arguments.config)
    settings = base.model_copy(update={"demo": base.demo.model_copy(update={"seed": SEED})})
    tables = [pd.read_csv(path) for path in arguments.also]
    if arguments.shots:
        tables.append(measure(arguments.results, arguments.patient, arguments.shots, settings))
        tables[-1].to_csv(arguments.table, index=False)
    columns = [*Evidence.__dataclass_fields__, "mtre_mm"]
    found = pd.concat([table[columns] for table in tables]).dropna()
    model = fit(found)
    write_json(MODEL, model)
    print(model)
