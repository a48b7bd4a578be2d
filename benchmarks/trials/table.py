"""One row a registration in a CSV that grows, so that a long run can be stopped and continued."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Trial:
    """One registration, or one that should have been; None is not known.

    Attributes:
        method: ``whole chain``, or a way of refining from a given start.
        case: of the world.
        patient: id.
        shot: its seed.
        level: name.
        ct_mm: the largest side of the CT's voxels.
        start_mm: mTRE before anything: of the CT laid at the isocentre (whole chain), or of the start.
        located_mm: distance of the detected centre from the true one.
        regm_mm: mTRE after RecM and RegM.
        mtre_mm: at the end.
        verdict: of the library.
        probability: of mTRE < 2 mm, as the library judges.
        seconds: the share of one registration.
        excluded: why it is none: less than two images show half of the vertebra.
        reasons: of the verdict, beside the probability.
        note: an error's message.
    """

    method: str
    case: str
    patient: str
    shot: int
    level: str
    ct_mm: float | None = None
    start_mm: float | None = None
    located_mm: float | None = None
    regm_mm: float | None = None
    mtre_mm: float | None = None
    verdict: str = ""
    probability: float | None = None
    seconds: float | None = None
    similarity: float | None = None
    worst_similarity: float | None = None
    disagreement_mm: float | None = None
    moved_mm: float | None = None
    residual_mm: float | None = None
    visible: float | None = None
    less_similar: float | None = None
    views_apart_mm: float | None = None
    spread_mm: float | None = None
    joint_mm: float | None = None
    joint_deg: float | None = None
    laid_mm: float | None = None
    contradiction_mm: float | None = None
    doubts: str = ""
    reasons: str = ""
    excluded: str = ""
    note: str = ""


_TEXT = ("verdict", "doubts", "reasons", "excluded", "note")
COLUMNS = [field.name for field in fields(Trial)]


class Table:
    """The rows of a CSV file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> pd.DataFrame:
        """All rows so far."""
        if not self.path.exists():
            return pd.DataFrame(columns=COLUMNS)
        return pd.read_csv(self.path, dtype=dict.fromkeys(_TEXT, str)).fillna(dict.fromkeys(_TEXT, ""))

    def has(self, method: str, case: str, patient: str, shot: int) -> bool:
        """Whether these registrations are done."""
        rows = self.read()
        same = (rows["method"] == method) & (rows["case"] == case)
        return bool((same & (rows["patient"] == patient) & (rows["shot"] == shot)).any())

    def add(self, trials: Iterable[Trial]) -> None:
        """Append the rows of one shot at once."""
        new = pd.DataFrame([asdict(trial) for trial in trials], columns=COLUMNS)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new.to_csv(self.path, mode="a", index=False, header=not self.path.exists(), float_format="%.5g")
