"""The two sheets that name a run's files: patients and X-rays."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from radgs.config import Config
from radgs.errors import ConfigError

_ID = re.compile(r"[A-Za-z0-9-]+")
PATIENT_COLUMNS = ("patient", "ct", "labels", "levels", "note")
XRAY_COLUMNS = ("patient", "shot", "view", "image", "geometry", "truth", "boxes")
POPULATION_COLUMNS = ("subject", "ct", "labels", "levels", "leave_out")
_REQUIRED = {"patient", "ct", "shot", "view", "image", "geometry"}
_POPULATION_REQUIRED = {"subject", "labels"}
_RESERVED = ("crops", "anchors")


def _read_sheet(
    path: Path, columns: tuple[str, ...], results: Path, required: Collection[str] = _REQUIRED
) -> list[dict[str, str]]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    kept = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    if not kept:
        raise ConfigError(f"{path}: is empty; its first line names the columns {list(columns)}")
    cells = [(n, [cell.strip().replace("{results}", str(results)) for cell in line.split("\t")]) for n, line in kept]
    header = cells[0][1]
    missing = [c for c in columns if c in required and c not in header]
    unknown = [c for c in header if c not in columns]
    if missing and "\t" not in kept[0][1]:
        raise ConfigError(f"{path}: the first line holds no tab; are the columns {list(columns)} separated by tabs?")
    if missing or unknown:
        raise ConfigError(
            f"{path}: missing columns {missing}, unknown columns {unknown}; it may have {list(columns)} and tabs"
        )
    rows = []
    for number, found in cells[1:]:
        if len(found) > len(header):
            raise ConfigError(f"{path}, line {number}: {len(found)} cells, the first line names {len(header)} columns")
        row = dict.fromkeys(columns, "") | dict(zip(header, found, strict=False))
        rows.append(row)
        for column in columns:
            if column in required and not row[column]:
                raise ConfigError(f"{path}, line {number}: {column} is empty")
            if column in ("patient", "shot", "view", "subject") and not _ID.fullmatch(row[column]):
                raise ConfigError(
                    f"{path}, line {number}: {column} {row[column]!r} may hold letters, digits and '-' only"
                )
    return rows


def patient_levels(row: Mapping[str, str], config: Config) -> list[str]:
    """The levels to register in a patient: those of its row of ``patients.tsv``, else the config's."""
    return row["levels"].split() or list(config.levels)


def read_sheets(config: Config) -> tuple[dict[str, dict[str, str]], list[dict[str, str]]]:
    """Read ``patients.tsv`` (by patient) and ``xrays.tsv``; ``{results}`` in a cell stands for the setting ``results``.

    Raises:
        ConfigError: a column, an id or a view is missing, wrong or twice.
    """
    patients: dict[str, dict[str, str]] = {}
    for row in _read_sheet(config.patients, PATIENT_COLUMNS, config.results):
        if row["patient"] in patients:
            raise ConfigError(f"{config.patients}: patient {row['patient']} stands twice")
        patients[row["patient"]] = row
        try:
            config.with_levels(patient_levels(row, config))
        except ConfigError as error:
            raise ConfigError(f"{config.patients}: patient {row['patient']}: {error}") from None
    if not patients:
        raise ConfigError(f"{config.patients}: holds no patient")
    xrays = _read_sheet(config.xrays, XRAY_COLUMNS, config.results)
    seen = set()
    for row in xrays:
        key = row["patient"], row["shot"], row["view"]
        if row["patient"] not in patients:
            raise ConfigError(f"{config.xrays}: patient {row['patient']} is not in {config.patients}")
        if key in seen:
            raise ConfigError(f"{config.xrays}: {' '.join(key)} stands twice")
        seen.add(key)
    for patient, shot in sorted({(row["patient"], row["shot"]) for row in xrays}):
        rows = [row for row in xrays if (row["patient"], row["shot"]) == (patient, shot)]
        _check_shot(f"{config.xrays}: patient {patient}, shot {shot}", rows)
    return patients, xrays


def read_population_sheet(config: Config) -> dict[str, dict[str, str]]:
    """Read ``population.sheet``, by subject; empty when there is none.

    Raises:
        ConfigError: a column, an id or a level is missing, wrong or twice.
    """
    sheet = config.population.sheet
    if sheet is None:
        return {}
    subjects: dict[str, dict[str, str]] = {}
    for row in _read_sheet(sheet, POPULATION_COLUMNS, config.results, _POPULATION_REQUIRED):
        if row["subject"] in subjects:
            raise ConfigError(f"{sheet}: subject {row['subject']} stands twice")
        subjects[row["subject"]] = row
        named = [*row["levels"].split(), *row["leave_out"].split()]
        try:
            config.with_levels(named or config.levels)
        except ConfigError as error:
            raise ConfigError(f"{sheet}: subject {row['subject']}: {error}") from None
    if not subjects:
        raise ConfigError(f"{sheet}: holds no subject")
    return subjects


def _check_shot(where: str, rows: list[dict[str, str]]) -> None:
    names = [row["view"] for row in rows]
    if rows[0]["shot"] in _RESERVED:
        raise ConfigError(
            f"{where}: a shot may not be named {' or '.join(_RESERVED)}, which are folders of the patient"
        )
    if len(rows) < 2:
        raise ConfigError(f"{where} has one view; two or more are needed")
    if not {"AP", "PA"} & set(names):
        raise ConfigError(f"{where}: one view must be named AP or PA, to tell front from back; got {names}")
    if len({row["image"] for row in rows}) < len(rows):
        raise ConfigError(f"{where}: two views have the same image")
    for column in ("truth", "boxes"):
        if len({row[column] for row in rows}) > 1:
            raise ConfigError(f"{where}: all views of a shot must name the same file of {column}")
