"""The command line, and what the workflow's scripts share: sheets in, one clear line out when something is wrong."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TextIO

import numba
import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from radgs.anatomy import ProvidedLabels
from radgs.check import Finding, check_files
from radgs.config import Config, export_schema, load_config
from radgs.errors import RadgsError
from radgs.images import read_ct, read_json
from radgs.sheets import PATIENT_COLUMNS, XRAY_COLUMNS, read_sheets
from radgs.simulation import simulate_shots

app = typer.Typer(no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        Console().print(version("radgs"), highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")] = False,
) -> None:
    """Where a single vertebra is, from a CT and two calibrated X-rays."""


# What a user can mend: bad input, a full disk, a file that may not be read, too little memory.
_MENDABLE = (RadgsError, OSError, MemoryError)


_CONFIG = Path("config/config.yaml")
_MESSAGE_WIDTH = 50


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return "not enough memory" if isinstance(error, MemoryError) else str(error)


def by_level(config: Config, paths: Iterable[str]) -> dict[str, str]:
    """Files of a rule in the order of the configured levels, by level."""
    return dict(zip(config.levels, paths, strict=True))


class _Tee:
    """Writes to the terminal and to a rule's log."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def isatty(self) -> bool:
        return False


def run_rule(snakemake: Any, action: Callable[[Config], object]) -> None:
    """Run one rule's library call with its config, threads and log; a :class:`RadgsError` becomes one line.

    Args:
        snakemake: the object that Snakemake gives to a script; its param ``levels``, if there, is the patient's.
        action: takes the config and calls the library.

    Raises:
        SystemExit: with code 2 after a :class:`RadgsError`.
    """
    torch.set_num_threads(snakemake.threads)
    numba.set_num_threads(min(snakemake.threads, numba.get_num_threads()))
    helper = os.environ.get("LOCAL_RANK", "0") != "0"  # started by a training on several devices, for one of them
    with Path(snakemake.log[0]).open("a" if helper else "w") as log:
        sys.stdout = _Tee(sys.__stdout__ or sys.stdout, log)
        try:
            config = load_config(snakemake.config)
            levels = snakemake.params.get("levels")
            action(config.with_levels(levels) if levels else config)
        except _MENDABLE as error:
            log.write(f"{_line(error)}\n")
            sys.__stderr__ and print(f"radgs: {_line(error)}", file=sys.__stderr__)
            raise SystemExit(2) from None
        finally:
            sys.stdout = sys.__stdout__ or sys.stdout


@app.command()
def check(config: Annotated[Path, typer.Option(help="the config file")] = _CONFIG) -> None:
    """Read both sheets and every file behind them and say all problems at once.

    Errors end with exit code 2, warnings do not: they say what the run will leave out or never accept.
    """
    settings = load_config(config)
    patients, xrays = read_sheets(settings)
    found, made = check_files(settings, patients, xrays)
    wrong = any(finding.kind == "error" for finding in found)
    if found:
        _print_findings(found)
    if wrong:
        raise typer.Exit(2)
    Console().print("both sheets and every file behind them can be used")
    if made:
        Console().print(f"{made} files of the demo are made by the workflow and were not looked at")


def _print_findings(found: Sequence[Finding]) -> None:
    table = Table()
    table.add_column("kind")
    table.add_column("file", no_wrap=True)
    table.add_column("what is wrong", min_width=_MESSAGE_WIDTH)
    for finding in sorted(found, key=lambda one: one.kind):
        table.add_row(*map(escape, (finding.kind, finding.file, finding.what)))  # "[width, height]" is no markup
    console = Console(stderr=True)
    needed = max(len(finding.file) for finding in found) + _MESSAGE_WIDTH + 20  # paths are printed whole
    Console(stderr=True, width=max(console.width, needed)).print(table)


@app.command()
def simulate(
    ct: Annotated[Path, typer.Argument(help="in HU: a folder of DICOM, or a file")],
    labels: Annotated[Path, typer.Argument(help="its vertebrae, numbered as segmentation.numbering says")],
    out: Annotated[Path, typer.Option(help="folder to write; its name becomes the patient's")],
    levels: Annotated[str, typer.Option(help="as 'T12 L1 L2'; else those of the config")] = "",
    shots: Annotated[int | None, typer.Option(min=1, help="how many; else demo.shots")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="else demo.seed")] = None,
    config: Annotated[Path, typer.Option(help="the config file; demo sets C-arm, motion and noise")] = _CONFIG,
) -> None:
    """Simulate X-rays of a CT, with their truth, and print the lines for both sheets.

    A way to try a CT of one's own before there are X-rays of the patient.
    """
    settings = load_config(config)
    settings = settings.with_levels(levels.split() or settings.levels)
    if seed is not None:
        settings = settings.model_copy(update={"demo": settings.demo.model_copy(update={"seed": seed})})
    names = [f"s{number}" for number in range(1, (shots or settings.demo.shots) + 1)]
    volume = read_ct(ct)
    labelled = ProvidedLabels(labels, settings.segmentation.numbering).segment(volume)
    simulate_shots(volume, labelled, out, out / "truth", names, settings)
    patient = re.sub("[^A-Za-z0-9-]+", "-", out.resolve().name)
    note = "The X-rays are simulated from the CT."
    views = [
        (patient, shot, view, *(out / shot / name for name in (f"{view}.png", "cameras.json")), truth, boxes)
        for shot in names
        for truth, boxes in [(out / "truth" / f"{shot}.json", out / shot / "boxes.json")]
        for view in ("AP", "LA")
    ]
    _print_lines(settings.patients, PATIENT_COLUMNS, [(patient, ct, labels, " ".join(settings.levels), note)])
    _print_lines(settings.xrays, XRAY_COLUMNS, views)


def _print_lines(sheet: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"# for {sheet}")  # noqa: T201
    for row in (columns, *rows):
        print("\t".join(map(str, row)))  # noqa: T201


@app.command()
def summary(path: Annotated[Path, typer.Argument()] = Path("results/evaluation/summary.json")) -> None:
    """Print the aggregate of an evaluation as a Markdown table."""
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
        v = found[key]
        rows.append((name, f"{100 * v['value']:.1f} % ({100 * v['low']:.1f}-{100 * v['high']:.1f})"))
    rows.append(("accepted", f"{found['accepted']['count']} of {found['n']}"))
    rows.append(("false accepts", str(found["false_accepts"])))
    rows.append(("seconds a registration", f"{found['seconds_per_registration']:.1f}"))
    for key, name in (("xray_only", "X-rays only"), ("ct_assisted", "CT-assisted")):
        if found[key]:
            v = found[key]
            text = f"SSIM {v['ssim']:.3f}, PSNR {v['psnr_db']:.1f} dB, Dice {v['dice']:.3f}"
            rows.append((f"reconstruction, {name}", text))
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    Console().print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def _statistics(block: Mapping[str, float]) -> str:
    return f"{block['median']:.2f}; {block['mean']:.2f} ± {block['sd']:.2f}; {block['p95']:.2f} mm"


@app.command()
def schema(target: Annotated[Path, typer.Argument()] = Path("workflow/schemas/config.schema.json")) -> None:
    """Write the JSON schema of the config, for editors."""
    export_schema(target)


def main() -> None:
    """Run the command line; a :class:`RadgsError` is one line and exit code 2."""
    try:
        app()
    except _MENDABLE as error:
        print(f"radgs: {_line(error)}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
