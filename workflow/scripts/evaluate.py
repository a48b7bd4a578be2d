from pathlib import Path

from radgs.cli import run_rule
from radgs.evaluation import EvaluatedShot, evaluate_registrations


def shots():
    for patient, shot, truth in snakemake.params.shots:
        folder = Path(snakemake.params.results) / "patients" / patient
        yield EvaluatedShot(
            patient, shot, folder / shot, Path(truth), folder / "vertebrae.nii.gz", folder / "ct.nii.gz"
        )


run_rule(
    snakemake,
    lambda config: evaluate_registrations(list(shots()), snakemake.output.csv, snakemake.output.summary, config),
)
