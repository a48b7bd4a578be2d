"""The command line. Each command imports what it needs when it runs: PyTorch alone takes more than a second."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from radgs.cli.rules import MENDABLE, by_level, line_of, run_rule

__all__ = ["app", "by_level", "main", "run_rule"]

app = typer.Typer(no_args_is_help=True)
_CONFIG = Path("config/config.yaml")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("radgs"))
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")] = False,
) -> None:
    """Where a single vertebra is, from a CT and two calibrated X-rays."""


@app.command()
def check(config: Annotated[Path, typer.Option(help="the config file")] = _CONFIG) -> None:
    """Read both sheets and every file behind them and say all problems at once.

    Errors end with exit code 2, warnings do not: they say what the run will leave out or never accept.
    """
    from radgs.check import check_files
    from radgs.cli.tables import print_findings
    from radgs.config import load_config
    from radgs.sheets import examine_sheets

    settings = load_config(config)
    found, made = check_files(settings, examine_sheets(settings))
    if found:
        print_findings(found)
    if any(finding.kind == "error" for finding in found):
        raise typer.Exit(2)
    typer.echo("both sheets and every file behind them can be used")
    if made:
        typer.echo(f"{made} files of the demo are made by the workflow and were not looked at")


@app.command()
def register(
    xrays: Annotated[Path, typer.Option(help="cameras.json; its views name their image, or it is of a prepared shot")],
    models: Annotated[Path, typer.Option(help="folder with the weights of RecM and RegM")],
    out: Annotated[Path, typer.Option(help="folder for the results")],
    ct: Annotated[Path | None, typer.Option(help="in HU: a folder of DICOM, or a file")] = None,
    labels: Annotated[Path | None, typer.Option(help="its vertebrae; else segmentation of the config")] = None,
    prepared: Annotated[Path | None, typer.Option(help="instead of both: OUT/patient of an earlier shot")] = None,
    boxes: Annotated[Path | None, typer.Option(help="boxes of the levels in the images")] = None,
    detector: Annotated[Path | None, typer.Option(help="or the folder of a trained detector")] = None,
    centres: Annotated[Path | None, typer.Option(help="or JSON of rough centres in the world, mm")] = None,
    levels: Annotated[list[str] | None, typer.Option(help="as 'T12 L1 L2', or one each; else the config's")] = None,
    config: Annotated[Path | None, typer.Option(help="else the defaults, and the network of the models")] = None,
    dicom: Annotated[list[str] | None, typer.Option(help="for the DICOM objects, as PatientID=P7")] = None,
) -> None:
    """Register the vertebrae of one CT to the X-rays of one shot, without Snakemake."""
    subject = dict(one.split("=", 1) for one in dicom or [] if "=" in one)
    if len(subject) < len(dicom or []):
        raise typer.BadParameter("each --dicom is KEYWORD=VALUE, each keyword once")
    from radgs.case import register as register_case
    from radgs.cli.tables import print_outcomes

    outcomes = register_case(
        xrays,
        models,
        out,
        ct=ct,
        labels=labels,
        prepared=prepared,
        boxes=boxes,
        detector=detector,
        centres=centres,
        levels=" ".join(levels or ()).split(),
        config=config,
        subject=subject,
    )
    print_outcomes(outcomes)


@app.command()
def simulate(
    ct: Annotated[Path, typer.Argument(help="in HU: a folder of DICOM, or a file")],
    labels: Annotated[Path, typer.Argument(help="its vertebrae, numbered as segmentation.numbering says")],
    out: Annotated[Path, typer.Option(help="folder to write; its name becomes the patient's")],
    levels: Annotated[list[str] | None, typer.Option(help="as 'T12 L1 L2', or one each; else the config's")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="how many; else demo.shots")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="else demo.seed")] = None,
    config: Annotated[Path, typer.Option(help="the config file; demo sets C-arm, motion and noise")] = _CONFIG,
) -> None:
    """Simulate X-rays of a CT, with their truth, and print the lines for both sheets.

    A way to try a CT of one's own before there are X-rays of the patient.
    """
    from radgs.anatomy import ProvidedLabels
    from radgs.config import load_config
    from radgs.images import read_ct
    from radgs.sheets import PATIENT_COLUMNS, XRAY_COLUMNS
    from radgs.simulation import simulate_shots

    settings = load_config(config)
    settings = settings.with_levels(" ".join(levels or ()).split() or settings.levels)
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
def evaluate(
    poses: Annotated[list[Path] | None, typer.Option(help="CSV of another program's poses; may be repeated")] = None,
    out: Annotated[Path | None, typer.Option(help="folder to write; else evaluation/ in the results")] = None,
    config: Annotated[Path, typer.Option(help="the config file; its sheets name the truth")] = _CONFIG,
) -> None:
    """Compare with the truth: our results, or tables of poses beside them, every method by the same rules."""
    from radgs.cli.tables import print_methods, print_summary
    from radgs.config import load_config
    from radgs.evaluation import evaluate_poses, evaluate_registrations
    from radgs.sheets import evaluated_shots

    settings = load_config(config)
    shots, folder = evaluated_shots(settings), out or settings.results / "evaluation"
    if poses:
        print_methods(evaluate_poses(poses, shots, folder / "poses.csv", folder / "methods.json", settings))
    else:
        evaluate_registrations(shots, folder / "registrations.csv", folder / "summary.json", settings)
        print_summary(folder / "summary.json")


@app.command()
def summary(path: Annotated[Path, typer.Argument()] = Path("results/evaluation/summary.json")) -> None:
    """Print the aggregate of an evaluation as a Markdown table."""
    from radgs.cli.tables import print_summary

    print_summary(path)


@app.command()
def view(
    folder: Annotated[Path, typer.Argument(help="of a level, a shot, a patient or all results")] = Path("results"),
    pictures: Annotated[bool, typer.Option("--open", help="show each level's overlay in the system's viewer")] = False,
) -> None:
    """Say what became of each vertebra and why, and show where it lies on the X-rays."""
    from radgs.cli.tables import print_results

    for level in print_results(folder):
        if pictures and (level / "overlay.png").is_file():
            typer.launch(str(level / "overlay.png"))


@app.command()
def schema(target: Annotated[Path, typer.Argument()] = Path("workflow/schemas/config.schema.json")) -> None:
    """Write the JSON schema of the config, for editors."""
    from radgs.config import export_schema

    export_schema(target)


def main() -> None:
    """Run the command line; a :class:`RadgsError` is one line and exit code 2."""
    try:
        app()
    except MENDABLE as error:
        print(f"radgs: {line_of(error)}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
