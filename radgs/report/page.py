"""``report.html``: one page that opens without a network; pictures are embedded."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from radgs.config import ReportSettings
from radgs.geometry import RigidTransform
from radgs.images import Xray, atomic_path, read_json, read_volume, read_xrays
from radgs.registration import read_attention
from radgs.report.figures import draw_attention, draw_overlay, draw_slices, draw_steps
from radgs.report.stages import stages_section

_EVERYTHING = ReportSettings()
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .7rem; border-bottom: 1px solid #ccc }
th { text-align: left } td.n { text-align: right; font-variant-numeric: tabular-nums }
.note { background: #fff3cd; border-left: 4px solid #e0a800; padding: .6rem 1rem }
img { max-width: 100% } .accepted { color: #06702c } .review { color: #8a5a00 } .rejected { color: #a40000 }
"""


def _picture(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">'


def _number(value: Any, digits: int = 2) -> str:
    return "-" if value is None or pd.isna(value) else f"{float(value):.{digits}f}"


def _text(value: Any) -> str:
    return "-" if pd.isna(value) else html.escape(str(value))


def _overview(summary: Mapping[str, Any]) -> str:
    rows = []
    for key, name in (
        ("unregistered_mtre_mm", "before detection"),
        ("start_mtre_mm", "start: CT at the detected centre"),
        ("regm_mtre_mm", "after RecM and RegM"),
        ("mtre_mm", "after refinement, all"),
        ("accepted_mtre_mm", "after refinement, accepted"),
    ):
        block = summary.get(key)
        if block:
            cells = "".join(f'<td class="n">{_number(block[k])}</td>' for k in ("median", "mean", "sd", "p95"))
            rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    table = (
        "<table><tr><th>mTRE, mm</th><th>median</th><th>mean</th><th>SD</th><th>95th percentile</th></tr>"
        + "".join(rows)
        + "</table>"
    )
    facts = [f"<tr><td>registrations</td><td>{summary['n']}</td></tr>"]
    out = summary.get("not_registered", {})
    facts += [
        f"<tr><td>not registered, {name} (counted nowhere else)</td><td>{out[key]}</td></tr>"
        for key, name in (("cut", "cut by the CT"), ("outside", "outside the images"))
        if out.get(key)
    ]
    for key, name in (
        ("success_2mm", "success at 2 mm"),
        ("success_1mm", "success at 1 mm"),
        ("better_than_start_regm", "RecM and RegM better than the start"),
    ):
        if summary.get(key):
            v = summary[key]
            facts.append(
                f"<tr><td>{name}</td><td>{100 * v['value']:.1f} % "
                f"(95 % Wilson interval {100 * v['low']:.1f} to {100 * v['high']:.1f})</td></tr>"
            )
    accepted = summary["accepted"]
    facts.append(f"<tr><td>accepted</td><td>{accepted['count']} ({100 * accepted['fraction']:.0f} %)</td></tr>")
    facts.append(f"<tr><td>false accepts (accepted, above 2 mm)</td><td>{summary['false_accepts']}</td></tr>")
    facts.append(f"<tr><td>seconds a registration</td><td>{_number(summary['seconds_per_registration'], 1)}</td></tr>")
    return table + "<table>" + "".join(facts) + "</table>" + _reconstructions(summary)


def _reconstructions(summary: Mapping[str, Any]) -> str:
    rows = []
    for key, name in (("xray_only", "X-rays only"), ("ct_assisted", "CT-assisted")):
        block = summary.get(key)
        if block:
            cells = "".join(f'<td class="n">{_number(block.get(k), 3)}</td>' for k in ("ssim", "psnr_db", "dice"))
            rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    return (
        "<h2>Reconstruction</h2><p>Against the CT at the true pose. The two are different tasks: CT-assisted starts "
        "from Gaussians fitted to the patient's CT.</p><table><tr><th></th><th>SSIM 3D</th><th>PSNR, dB</th>"
        "<th>Dice of bone</th></tr>" + "".join(rows) + "</table>"
    )


def _registrations(table: pd.DataFrame) -> str:
    steps = ["unregistered_mtre_mm", "start_mtre_mm", "regm_mtre_mm", "mtre_mm"]
    rows = [
        "<tr><th>patient</th><th>shot</th><th>level</th><th>unregistered</th><th>start</th><th>RecM and RegM</th>"
        "<th>refined, mm</th><th>verdict</th><th>P(mTRE &lt; 2 mm)</th><th>label</th></tr>"
    ]
    for row in table.to_dict("records"):
        ids = "".join(f"<td>{html.escape(str(row[c]))}</td>" for c in ("patient", "shot", "level"))
        numbers = "".join(f'<td class="n">{_number(row[c])}</td>' for c in steps)
        verdict = html.escape(str(row["verdict"]))
        rows.append(
            f'<tr>{ids}{numbers}<td class="{verdict}">{verdict}</td>'
            f'<td class="n">{_number(row["probability"])}</td><td>{_text(row["labels"])}</td></tr>'
        )
    return "<table>" + "".join(rows) + "</table>"


def _level(folder: Path, mask: Path, xrays: Mapping[str, Xray], title: str, attention: bool) -> str:
    """Draw one registration's pictures into its folder; the section that shows them."""
    verdict = read_json(folder / "verdict.json")
    reasons = "; ".join(html.escape(reason) for reason in verdict["reasons"])
    section = (
        f"<h3>{html.escape(title)}: <span class={verdict['verdict']}>{verdict['verdict']}</span></h3><p>{reasons}</p>"
    )
    section += "".join(_picture(path, text) for path, text in draw_registration(folder, mask, xrays, title))
    if attention and (folder / "attention.h5").is_file():
        draw_attention(read_attention(folder / "attention.h5"), f"{title}: where RecM looked", folder / "attention.png")
        picture = _picture(folder / "attention.png", f"{title}: attention maps")
        section += f"<details><summary>where RecM looked</summary>{picture}</details>"
    return section


def draw_registration(
    folder: str | Path, mask: str | Path, xrays: Mapping[str, Xray], title: str
) -> list[tuple[Path, str]]:
    """Draw ``overlay.png`` and ``slices.png`` of one registration into its folder.

    Args:
        folder: with the files of :func:`radgs.registration.write_registration`.
        mask: of the vertebra, in the CT.
        xrays: the views of the shot.
        title: stands above.

    Returns:
        each picture and what it shows; none without a pose.
    """
    folder = Path(folder)
    pose_file = folder / "world_from_ct.json"
    if not pose_file.is_file():
        return []
    steps = {name: RigidTransform(matrix) for name, matrix in read_json(pose_file)["steps"].items()}
    draw_overlay(xrays, read_volume(mask), steps["detected"], steps["refined"], title, folder / "overlay.png")
    names = {
        "X-rays only": "reconstruction_xray_only.nii.gz",
        "CT-assisted": "reconstruction_ct_assisted.nii.gz",
        "registered CT": "registered_ct.nii.gz",
    }
    draw_slices({n: read_volume(folder / f) for n, f in names.items() if (folder / f).is_file()}, folder / "slices.png")
    pictures = {"overlay.png": "outline on the X-rays", "slices.png": "slices"}
    return [(folder / name, f"{title}: {text}") for name, text in pictures.items()]


def write_report(
    results: str | Path,
    shots: Sequence[tuple[str, str]],
    notes: Mapping[str, str],
    registrations_csv: str | Path,
    summary_json: str | Path,
    target: str | Path,
    settings: ReportSettings = _EVERYTHING,
    stages: Mapping[str, Sequence[tuple[str, str | Path]]] = MappingProxyType({}),
) -> None:
    """Draw every registration's pictures and write the page.

    Args:
        results: the results folder.
        shots: (patient, shot) pairs.
        notes: by patient, what a reader must know of the data first (for example that X-rays are simulated).
        registrations_csv: one row a registration whose truth is known.
        summary_json: the aggregate.
        target: the HTML file.
        settings: what is drawn.
        stages: by patient, name and ``card.json`` of each stage of training.
    """
    root = Path(results) / "patients"
    table, summary = pd.read_csv(registrations_csv), json.loads(Path(summary_json).read_text())
    measured = "<p>No true pose is known of any registration, so no error can be measured.</p>"
    if summary["n"]:
        steps_png = Path(target).parent / "evaluation" / "steps.png"
        draw_steps(table, steps_png)
        measured = (
            f"<h2>Overview</h2>{_overview(summary)}<h2>What each step contributed</h2>"
            f"{_picture(steps_png, 'mTRE after each step')}<h2>Every registration</h2>{_registrations(table)}"
        )
    sections = []
    for patient, shot in shots:
        xrays = read_xrays(root / patient / shot / "xrays.nii.gz", root / patient / shot / "cameras.json")
        for verdict in sorted((root / patient / shot).glob("*/verdict.json")):
            mask = root / patient / "crops" / f"{verdict.parent.name}_mask.nii.gz"
            title = f"{patient}, shot {shot}, {verdict.parent.name}"
            sections.append(_level(verdict.parent, mask, xrays, title, settings.attention_maps))
    about = "".join(
        f'<p class="note"><b>{html.escape(p)}:</b> {html.escape(note)}</p>' for p, note in notes.items() if note
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>radgs: registrations</title>'
        f"<style>{_STYLE}</style><h1>Registration of single vertebrae to two X-rays</h1>{about}"
        f"<p>Research software, not a medical device.</p>{measured}{stages_section(stages)}{''.join(sections)}</html>"
    )
    with atomic_path(target) as part:
        part.write_text(page)
