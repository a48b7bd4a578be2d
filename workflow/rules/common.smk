import hashlib
from pathlib import Path

from radgs.anatomy import required_weights
from radgs.config import ablation_rows, load_config
from radgs.errors import ConfigError
from radgs.sheets import patient_levels, read_population_sheet, read_sheets, real_folds
from radgs.simulation import demo_shot_files

try:
    CONFIG = load_config(config)
    PATIENTS, XRAYS = read_sheets(CONFIG)
    POPULATION = read_population_sheet(CONFIG)
except ConfigError as error:
    raise SystemExit(f"radgs: {error}")
RESULTS = CONFIG.results

# Lowest layer first: what a rule computes may change with its package and with every package below it.
PACKAGES = "config geometry images kernels projection gaussians anatomy simulation models training registration evaluation report".split()


def code(package):
    """A fingerprint of the library up to a package: Snakemake does not see edits of what a script imports."""
    digest = hashlib.sha256()
    for name in PACKAGES[: PACKAGES.index(package) + 1]:
        place = Path(workflow.basedir) / "radgs" / name
        files = (
            sorted(place.rglob("*.py"))
            if place.is_dir()
            else [place.with_suffix(".py")]
        )
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def settings(*sections):
    """The settings a rule depends on, so that changing others reruns nothing."""
    return {name: CONFIG.model_dump(mode="json")[name] for name in sections}


def provided_labels(wildcards):
    labels = PATIENTS[wildcards.patient]["labels"]
    return labels if labels and CONFIG.segmentation.backend == "provided" else []


def segmentation_weights(wildcards):
    if CONFIG.segmentation.backend == "provided":
        return []
    return required_weights(CONFIG.segmentation.totalsegmentator)


def shots(patient):
    return sorted({x["shot"] for x in XRAYS if x["patient"] == patient})


def views(wildcards):
    return {
        x["view"]: x
        for x in XRAYS
        if (x["patient"], x["shot"]) == (wildcards.patient, wildcards.shot)
    }


def view_files(column):
    return lambda wildcards: [x[column] for x in views(wildcards).values()]


def boxes(wildcards):
    return sorted({x["boxes"] for x in views(wildcards).values() if x["boxes"]})


def levels(wildcards):
    return patient_levels(PATIENTS[wildcards.patient], CONFIG)


def per_level(pattern):
    return lambda wildcards: expand(
        RESULTS / pattern, patient=wildcards.patient, level=levels(wildcards)
    )


def registered():
    return [
        RESULTS / f"patients/{p}/{s}/registrations.json"
        for p in PATIENTS
        for s in shots(p)
    ]


def with_truth():
    """Patient, shot and truth file of every shot whose true poses are known."""
    return sorted({(x["patient"], x["shot"], x["truth"]) for x in XRAYS if x["truth"]})


def levels_with_truth():
    """By patient, the levels of those that have a shot whose true poses are known."""
    return {p: patient_levels(PATIENTS[p], CONFIG) for p, _, _ in with_truth()}
