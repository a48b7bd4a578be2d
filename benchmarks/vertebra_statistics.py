"""Make ``resources/vertebra_statistics.json``, what the audit of label maps takes as usual.

    python benchmarks/vertebra_statistics.py vid_keypoints.csv.gz

The input is the landmark file of the VID data set (ImFusion, CC BY-SA 4.0): body centre and both pedicles (LPS mm) of
19,177 vertebrae in 2,116 CTs. A point midway between body and pedicles stands for the centroid of a vertebra's label.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

# Not the neck: there was no label map of it to see how labels relate to these landmarks.
LEVELS = [*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 7))]
TARGET = Path(__file__).parents[1] / "resources/vertebra_statistics.json"
# Measured on 50 whole vertebrae (T1-L5) in five label maps of TotalSegmentator and VerSe: label volume / span.
VOLUME_OF_SPAN = (1.5, 4.1)
# On the same: how far labels' spacings and volumes depart from what the landmarks make expect (0.81 to 1.18).
DEPARTURE = (0.85, 1.18)


def read_landmarks(path):
    """One row a vertebra, head to foot within a scan: distances to its neighbours and its span."""
    table = pd.read_csv(path).query("level in @LEVELS")
    table["place"] = table["level"].map({level: i for i, level in enumerate(LEVELS)})
    table = table.sort_values(["scan", "place"], ignore_index=True)
    body, left, right = (table[[f"{name}_{axis}" for axis in "xyz"]].to_numpy() for name in ("body", "left", "right"))
    pedicles = (left + right) / 2
    centre = (body + pedicles) / 2
    follows = (np.diff(table["place"]) == 1) & (table["scan"].to_numpy()[1:] == table["scan"].to_numpy()[:-1])
    distance = np.where(follows, np.linalg.norm(np.diff(centre, axis=0), axis=1), np.nan)
    table["below"], table["above"] = np.append(distance, np.nan), np.append(np.nan, distance)
    width, depth = np.linalg.norm(left - right, axis=1), np.linalg.norm(body - pedicles, axis=1)
    table["span"] = table[["below", "above"]].mean(axis=1) * width * depth / 1e3
    return table


def bounds(values, outside):
    """Quantiles that leave a share ``outside`` at either end."""
    return np.array([values.quantile(outside), values.quantile(1 - outside)])


def rounded(values):
    return [round(float(v), 2) for v in values]


def statistics(table):
    """The content of the file."""
    median = table.groupby("level")[["below", "span"]].median()
    table["spacing"] = table["below"] / table["level"].map(median["below"])
    scale = table.groupby("scan")["spacing"].median()
    table["filled"] = table["span"] / table["level"].map(median["span"])
    by_scan = table.groupby("scan")["filled"]
    beside = pd.concat([np.log(by_scan.shift(1)), np.log(by_scan.shift(-1))], axis=1).mean(axis=1)
    levels = {}
    for level in LEVELS:
        levels[level] = {"span_cm3": round(float(median["span"][level]), 1)}
        if level != LEVELS[-1]:
            levels[level]["spacing_to_next_mm"] = round(float(median["below"][level]), 1)
        levels[level]["n"] = int((table["level"] == level).sum())
    return {
        "source": "VID vertebra identification data set (ImFusion), CC BY-SA 4.0; by benchmarks/vertebra_statistics.py",
        "meaning": {
            "span_cm3": "median of spacing x distance of the pedicles x distance from body centre to pedicles",
            "spacing_to_next_mm": "median distance to the next vertebra below, midway between body and pedicles",
            "scale": "median of a patient's spacings over the medians: 99.8 % lie within",
            "spacing_ratio": "spacing over the median and the patient's scale: bounds of 99.6 %, times 0.85 and 1.18",
            "volume_ratio": "span over the median, over the neighbours' same: bounds of 99.6 %, times 0.85 and 1.18",
            "volume_of_span": "label volume over the median span: bounds of 99.8 % of spans, times 1.5 and 4.1",
        },
        "scale": rounded(bounds(scale, 0.001)),
        "spacing_ratio": rounded(bounds(table["spacing"] / table["scan"].map(scale), 0.002) * DEPARTURE),
        "volume_ratio": rounded(bounds(table["filled"] / np.exp(beside), 0.002) * DEPARTURE),
        "volume_of_span": rounded(bounds(table["filled"], 0.001) * VOLUME_OF_SPAN),
        "levels": levels,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("landmarks", type=Path)
    TARGET.write_text(json.dumps(statistics(read_landmarks(parser.parse_args().landmarks)), indent=2) + "\n")
