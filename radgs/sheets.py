"""The sheets that name a run's files: patients, X-rays, and the population if there is one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from radgs.config import Config
from radgs.errors import ConfigError

if TYPE_CHECKING:
    from radgs.evaluation import EvaluatedShot

_ID = re.compile(r"[A-Za-z0-9-]+")
PATIENT_COLUMNS = ("patient", "ct", "labels", "levels", "note")
XRAY_COLUMNS = ("patient", "shot", "view", "image", "geometry", "truth", "boxes")
POPULATION_COLUMNS = ("subject", "ct", "labels", "levels", "leave_out")
_REQUIRED = {"patient", "ct", "shot", "view", "image", "geometry"}
_POPULATION_REQUIRED = {"subject", "labels"}
_RESERVED = ("crops", "anchors")
Row = dict[str, str]


@dataclass
class Sheets:
    """What the sheets say, and all that is wrong with them.

    Attributes:
        patients: rows by patient.
        xrays: rows of shots that can be used.
        doubtful: rows of the other shots.
        problems: sheet, place and mistake, of each.
    """

    patients: dict[str, Row] = field(default_factory=dict)
    xrays: list[Row] = field(default_factory=list)
    doubtful: list[Row] = field(default_factory=list)
    problems: list[tuple[Path, str, str]] = field(default_factory=list)

    def refuse_if_wrong(self) -> None:
        """Raise a ConfigError that names every mistake, if there is one."""
        said = [f"{sheet}{place and ', ' + place}: {what}" for sheet, place, what in self.problems]
        if said:
            raise ConfigError("; ".join(said))

    def add(self, sheet: Path, place: str, mistake: str) -> None:
        """Note a mistake; ``place`` within the sheet may be empty."""
        self.problems.append((sheet, place, mistake))


def read_sheets(config: Config) -> tuple[dict[str, Row], list[Row]]:
    """Read ``patients.tsv`` (by patient) and ``xrays.tsv``; ``{results}`` in a cell stands for the setting ``results``.

    Raises:
        ConfigError: columns, ids or views are missing, wrong or twice; all are named.
    """
    sheets = examine_sheets(config)
    sheets.refuse_if_wrong()
    return sheets.patients, sheets.xrays


def read_population_sheet(config: Config) -> dict[str, Row]:
    """Read ``population.sheet``, by subject; empty when there is none.

    Raises:
        ConfigError: columns, ids or levels are missing, wrong or twice; all are named.
    """
    sheets = Sheets()
    subjects = _examine_population(config, sheets)
    sheets.refuse_if_wrong()
    return subjects


def examine_sheets(config: Config) -> Sheets:
    """Read all sheets as far as they can be read, and note every mistake."""
    sheets = Sheets()
    rows = _read_sheet(config.patients, PATIENT_COLUMNS, config.results, sheets)
    for place, row in rows or []:
        if row["patient"] in sheets.patients:
            sheets.add(config.patients, place, f"patient {row['patient']} stands twice")
            continue
        sheets.patients[row["patient"]] = row
        try:
            config.with_levels(patient_levels(row, config))
        except ConfigError as error:
            sheets.add(config.patients, place, f"patient {row['patient']}: {error}")
            row["levels"] = ""
    if rows == []:
        sheets.add(config.patients, "", "holds no patient")
    seen, kept = set(), []
    for place, row in _read_sheet(config.xrays, XRAY_COLUMNS, config.results, sheets) or []:
        key = row["patient"], row["shot"], row["view"]
        if sheets.patients and row["patient"] not in sheets.patients:
            sheets.add(config.xrays, place, f"patient {row['patient']} is not in {config.patients}")
        elif key in seen:
            sheets.add(config.xrays, place, f"{' '.join(key)} stands twice")
        else:
            kept.append(row)
        seen.add(key)
    kept.sort(key=lambda row: (row["patient"], row["shot"]))
    for (patient, shot), group in groupby(kept, key=lambda row: (row["patient"], row["shot"])):
        views = list(group)
        mistakes = _mistakes_of_shot(views)
        for mistake in mistakes:
            sheets.add(config.xrays, f"patient {patient}, shot {shot}", mistake)
        (sheets.doubtful if mistakes else sheets.xrays).extend(views)
    _examine_population(config, sheets)
    return sheets


def _examine_population(config: Config, sheets: Sheets) -> dict[str, Row]:
    sheet, subjects = config.population.sheet, dict[str, Row]()
    if sheet is None:
        return subjects
    rows = _read_sheet(sheet, POPULATION_COLUMNS, config.results, sheets, _POPULATION_REQUIRED)
    for place, row in rows or []:
        if row["subject"] in subjects:
            sheets.add(sheet, place, f"subject {row['subject']} stands twice")
            continue
        subjects[row["subject"]] = row
        named = [*row["levels"].split(), *row["leave_out"].split()]
        try:
            config.with_levels(named or config.levels)
        except ConfigError as error:
            sheets.add(sheet, place, f"subject {row['subject']}: {error}")
    if rows == []:
        sheets.add(sheet, "", "holds no subject")
    return subjects


def patient_levels(row: Mapping[str, str], config: Config) -> list[str]:
    """The levels to register in a patient: those of its row of ``patients.tsv``, else the config's."""
    return row["levels"].split() or list(config.levels)


@dataclass(frozen=True)
class Fold:
    """Patients whose networks must not learn from their own X-rays, and those whose X-rays they learn from in P2."""

    held_out: list[str]
    learned: list[str]


def real_folds(config: Config, patients: Iterable[str], xrays: Sequence[Mapping[str, str]]) -> dict[str, Fold]:
    """The folds of stage P2, by name; none without ``real.folds``.

    Patients with a truth are dealt out in the order of the sheet, each with all of its shots. Those without are in the
    fold ``all``, whose networks learn from every truth.
    """
    known = {row["patient"] for row in xrays if row["truth"]}
    real, other = [p for p in patients if p in known], [p for p in patients if p not in known]
    folds = {}
    for number in range(min(config.real.folds, len(real))):
        held_out = real[number :: config.real.folds]
        folds[str(number)] = Fold(held_out, [p for p in real if p not in held_out])
    if config.real.folds and other:
        folds["all"] = Fold(other, real)
    return folds


def evaluated_shots(config: Config) -> list[EvaluatedShot]:
    """The shots of the sheets whose true poses are known, with their results.

    Raises:
        ConfigError: as :func:`read_sheets`.
    """
    from radgs.evaluation import EvaluatedShot

    patients, xrays = read_sheets(config)
    known = sorted({(row["patient"], row["shot"], row["truth"]) for row in xrays if row["truth"]})
    root = config.results / "patients"
    return [
        EvaluatedShot(
            patient,
            shot,
            root / patient / shot,
            Path(truth),
            root / patient / "vertebrae.nii.gz",
            root / patient / "ct.nii.gz",
            patient_levels(patients[patient], config),
        )
        for patient, shot, truth in known
    ]


def _read_sheet(
    path: Path, columns: Sequence[str], results: Path, sheets: Sheets, required: Collection[str] = _REQUIRED
) -> list[tuple[str, Row]] | None:
    """The rows that can be used, each with its place; None if there may be others that cannot."""
    try:
        lines = _split(path, columns, results, required)
    except ConfigError as error:
        sheets.add(path, "", str(error))
        return None
    header, rows, wrong = lines[0][1], [], False
    for number, found in lines[1:]:
        row = dict.fromkeys(columns, "") | dict(zip(header, found, strict=False))
        mistakes = _mistakes_of_row(row, required, len(found), len(header))
        for mistake in mistakes:
            sheets.add(path, f"line {number}", mistake)
        wrong |= bool(mistakes)
        if not mistakes:
            rows.append((f"line {number}", row))
    return rows or (None if wrong else [])


def _split(path: Path, columns: Sequence[str], results: Path, required: Collection[str]) -> list[tuple[int, list[str]]]:
    """The lines that hold something, with their numbers, in cells; the first one names the columns."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ConfigError("no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as UTF-8 text ({error})") from None
    kept = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    if not kept:
        raise ConfigError(f"is empty; its first line names the columns {list(columns)}")
    cells = [(n, [cell.strip().replace("{results}", str(results)) for cell in line.split("\t")]) for n, line in kept]
    header = cells[0][1]
    missing = [c for c in columns if c in required and c not in header]
    unknown = [c for c in header if c not in columns]
    if missing and "\t" not in kept[0][1]:
        raise ConfigError(f"the first line holds no tab; are the columns {list(columns)} separated by tabs?")
    if missing or unknown:
        told = f"missing columns {missing}, unknown columns {unknown}"
        raise ConfigError(f"{told}; it may have {list(columns)} and tabs")
    return cells


def _mistakes_of_row(row: Row, required: Collection[str], cells: int, named: int) -> list[str]:
    if cells > named:
        return [f"{cells} cells, the first line names {named} columns"]
    empty = [f"{column} is empty" for column in row if column in required and not row[column]]
    return empty + [
        f"{column} {row[column]!r} may hold letters, digits and '-' only"
        for column in ("patient", "shot", "view", "subject")
        if row.get(column) and not _ID.fullmatch(row[column])
    ]


def _mistakes_of_shot(rows: Sequence[Row]) -> list[str]:
    names, found = [row["view"] for row in rows], []
    if rows[0]["shot"] in _RESERVED:
        found.append(f"a shot may not be named {' or '.join(_RESERVED)}, which are folders of the patient")
    if len(rows) < 2:
        found.append("it has one view; two or more are needed")
    elif not {"AP", "PA"} & set(names):
        found.append(f"one view must be named AP or PA, to tell front from back; got {names}")
    if len({row["image"] for row in rows}) < len(rows):
        found.append("two views have the same image")
    return found + [
        f"all views of a shot must name the same file of {column}"
        for column in ("truth", "boxes")
        if len({row[column] for row in rows}) > 1
    ]
