"""Results and findings as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from radgs.errors import RadgsError
from radgs.images.files import read_json

if TYPE_CHECKING:
    from radgs.case import Outcome
    from radgs.check import Finding

_MESSAGE_WIDTH = 50


def print_findings(found: Sequence[Finding]) -> None:
    """Errors and warnings of ``radgs check``, on the error stream."""
    table = Table()
    table.add_column("kind")
    table.add_column("file", no_wrap=True)
    table.add_column("what is wrong", min_width=_MESSAGE_WIDTH)
    for finding in sorted(found, key=lambda one: one.kind):
        table.add_row(*map(escape, (finding.kind, finding.file, finding.what)))  # "[width, height]" is no markup
    console = Console(stderr=True)
    needed = max(len(finding.file) for finding in found) + _MESSAGE_WIDTH + 20  # paths are printed whole
    Console(stderr=True, width=max(console.width, needed)).print(table)


def print_summary(path: Path) -> None:
    """The aggregate of an evaluation as a Markdown table.

    Args:
        path: ``summary.json``, or its folder or that of the results.

    Raises:
        RadgsError: not such a file.
    """
    if path.is_dir():
        results = path / "evaluation"
        path = (results if results.is_dir() else path) / "summary.json"
    found = read_json(path) if path.suffix == ".json" else None
    if not isinstance(found, dict) or "n" not in found:
        raise RadgsError(f"{path}: not the summary.json of an evaluation, which is needed, or its folder")
    if not found["n"]:
        Console().print("there is no registration whose true pose is known, so there is nothing to sum up")
        return
    rows = [("registrations", str(found["n"]))]
    if out := found.get("not_registered"):
        rows.append(("not registered: cut by the CT; outside the images", f"{out['cut']}; {out['outside']}"))
    for key, name in (
        ("unregistered_mtre_mm", "mTRE before detection"),
        ("start_mtre_mm", "mTRE at the start (CT at the detected centre)"),
        ("regm_mtre_mm", "mTRE after RecM and RegM"),
        ("mtre_mm", "mTRE after refinement"),
    ):
        block = found[key]
        rows.append((f"{name}: median; mean ± SD; 95th percentile", _statistics(block)))
    for key, name in (
        ("success_2mm", "success at 2 mm"),
        ("success_1mm", "success at 1 mm"),
        ("better_than_start_regm", "RecM and RegM better than the start"),
    ):
        rows.append((name, _percent(found[key])))
    rows.append(("accepted", f"{found['accepted']['count']} of {found['n']}"))
    rows.append(("false accepts", str(found["false_accepts"])))
    seconds = found["seconds_per_registration"]
    rows.append(("seconds a registration", "-" if seconds is None else f"{seconds:.1f}"))
    for key, name in (("xray_only", "X-rays only"), ("ct_assisted", "CT-assisted")):
        if found[key]:
            v = found[key]
            text = f"SSIM {v['ssim']:.3f}, PSNR {v['psnr_db']:.1f} dB, Dice {v['dice']:.3f}"
            rows.append((f"reconstruction, {name}", text))
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    Console().print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def _statistics(block: Mapping[str, float]) -> str:
    if not block["n"]:
        return "-"
    return f"{block['median']:.2f}; {block['mean']:.2f} ± {block['sd']:.2f}; {block['p95']:.2f} mm"


def print_outcomes(outcomes: Mapping[str, Outcome]) -> None:
    """What became of each vertebra of a shot."""
    table = Table()
    for column in ("level", "verdict", "P(error < 2 mm)"):
        table.add_column(column, no_wrap=True)
    table.add_column("why")
    for level, one in outcomes.items():
        table.add_row(*map(escape, (level, one.verdict, f"{one.probability:.3f}", "; ".join(one.reasons))))
    Console().print(table)


def print_results(folder: Path) -> list[Path]:
    """What the results under a folder say: of a level, a shot, a patient, or all of them.

    Returns:
        The levels' folders, from head to foot within a shot.

    Raises:
        RadgsError: there are none.
    """
    from radgs.anatomy.levels import LEVELS, cranio_caudal

    by_shot: dict[Path, dict[str, Path]] = {}
    for file in sorted(one for one in folder.rglob("verdict.json") if one.resolve().parent.name in LEVELS):
        by_shot.setdefault(file.resolve().parents[1], {})[file.resolve().parent.name] = file.resolve()
    found = [files[level] for files in by_shot.values() for level in cranio_caudal(files)]
    if not found:
        raise RadgsError(
            f"{folder}: holds no verdict.json; give the folder of a level, a shot, a patient or of all results"
        )
    table = Table()
    for column in ("shot", "level", "verdict", "P(error < 2 mm)", "noise, mm"):
        table.add_column(column, no_wrap=True)
    table.add_column("why")
    for file in found:
        one = read_json(file)
        rms = (one.get("covariance") or {}).get("rms_mm")
        shot = "/".join(file.parents[1].parts[-2:])
        noise = "-" if rms is None else f"{rms:.2f}"
        cells = (shot, file.parent.name, one["verdict"], f"{one['probability']:.3f}", noise, "; ".join(one["reasons"]))
        table.add_row(*map(escape, cells))
    Console().print(table)
    return [file.parent for file in found]


def print_methods(content: Mapping[str, Any]) -> None:
    """What :func:`radgs.evaluation.evaluate_poses` returns, as a Markdown table."""
    lines = [
        "| method | n | without a pose | start mTRE, median | mTRE: median; mean ± SD; 95th percentile "
        "| success at 2 mm | at 1 mm | capture range |",
        "|" + "---|" * 8,
    ]
    for method, found in content["methods"].items():
        if not found["n"]:
            lines.append(f"| {method} | 0 |" + " |" * 6)
            continue
        start, mtre = found["start_mtre_mm"], found["mtre_mm"]
        captured = found.get("capture_range")
        least = ">= " if captured and captured["ended_by"] == "starts" else ""
        cells = [
            str(found["n"]),
            str(found["without_pose"]),
            f"{start['median']:.2f} mm" if start["n"] else "-",
            _statistics(mtre),
            _percent(found["success_2mm"]),
            _percent(found["success_1mm"]),
            f"{least}{captured['mm']:g} mm" if captured else "-",
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    Console().print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def _percent(rate: Mapping[str, float]) -> str:
    return f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f}-{100 * rate['high']:.1f})"
