from pathlib import Path

from radgs.cli import run_rule
from radgs.evaluation import EvaluatedShot, evaluate_registrations


def shots(results):
    for patient, shot, truth in snakemake.params.shots:
        folder = results / "patients" / patient
        yield EvaluatedShot(
            patient,
            shot,
            folder / shot,
            Path(truth),
            folder / "vertebrae.nii.gz",
            folder / "ct.nii.gz",
            snakemake.params.patient_levels[patient],
        )


run_rule(
    snakemake,
    lambda config: evaluate_registrations(
        list(shots(config.results)), snakemake.output.csv, snakemake.output.summary, config
    ),
)
