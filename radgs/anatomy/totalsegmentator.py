"""TotalSegmentator (Wasserthal et al. 2023, Apache-2.0) as a backend: without network, telemetry or shared state."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from radgs.anatomy import totalsegmentator_job
from radgs.anatomy.levels import LEVELS, NUMBERINGS, verse_numbers
from radgs.anatomy.provided import check_grid
from radgs.config import TotalSegmentatorSettings
from radgs.errors import AnatomyError
from radgs.images import Volume, read_volume, write_volume

# Restricting `total` to the vertebrae needs, of its models, 292 (vertebrae, 1.5 mm) or 297 (all classes, 3 mm), and 298
# (all classes, 6 mm) that says where to crop (totalsegmentator 2.18, python_api.py).
_DATASETS = {("total", False): (292, 298), ("total", True): (297, 298), ("vertebrae_pp", False): (803,)}
_NUMBERING = {"total": "totalsegmentator", "vertebrae_pp": "verse"}  # 1-24 = C1-L5
_THREADS = ("OMP_NUM_THREADS", "nnUNet_def_n_proc")  # the second in the worker that writes the result
_ROI = [f"vertebrae_{name}" for name, n in LEVELS.items() if n in NUMBERINGS["totalsegmentator"].values() and n < 26]


def required_weights(settings: TotalSegmentatorSettings) -> list[Path]:
    """The model files that a run with these settings reads.

    Raises:
        AnatomyError: no folder is given or a model is not in it; the message has the command that fetches it.
    """
    task = f"{settings.task}_fast" if settings.fast else settings.task
    if settings.weights is None:
        where, folder = "segmentation.totalsegmentator.weights is not set, it is to hold", Path("weights")
    else:
        where, folder = f"{settings.weights}: holds no complete model", settings.weights
    found = []
    for dataset in _DATASETS[settings.task, settings.fast]:
        models = sorted(folder.glob(f"Dataset{dataset}_*/*__3d_fullres/fold_0/checkpoint_final.pth"))
        if settings.weights is None or not models:
            raise AnatomyError(
                f"{where} Dataset{dataset}_...; fetch it once with: "
                f"TOTALSEG_WEIGHTS_PATH={folder} totalseg_download_weights -t {task}"
            )
        found += models
    return found


class TotalSegmentator:
    """The vertebrae that TotalSegmentator finds.

    Attributes:
        settings: task, resolution, weights, device.
        threads: for PyTorch and resampling.
    """

    def __init__(self, settings: TotalSegmentatorSettings, threads: int) -> None:
        self.settings, self.threads = settings, threads

    def segment(self, ct: Volume) -> Volume:
        """Run the model on a CT (HU).

        Raises:
            AnatomyError: the package, its weights or the device is missing, it failed, or it found no vertebra.
        """
        weights = required_weights(self.settings)[0].parents[3].resolve()
        if importlib.util.find_spec("totalsegmentator") is None:
            raise AnatomyError("TotalSegmentator is not installed: pip install -c constraints.txt 'radgs[segment]'")
        self._check_device()
        with tempfile.TemporaryDirectory(prefix="radgs-segment-") as scratch:
            folder = Path(scratch)
            write_volume(folder / "ct.nii.gz", ct)
            self._run(folder, weights)
            labels = read_volume(folder / "labels.nii.gz")
        check_grid(ct, labels, "TotalSegmentator's result")
        try:
            return ct.with_array(verse_numbers(labels.array, _NUMBERING[self.settings.task]))
        except AnatomyError as error:
            raise AnatomyError(f"TotalSegmentator's result {error}") from None

    def _check_device(self) -> None:
        """TotalSegmentator itself would go on with the CPU."""
        kind, _, number = self.settings.device.partition(":")
        there = {"cpu": 1, "gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
        if int(number or 0) >= there:
            raise AnatomyError(f"segmentation.totalsegmentator.device: there is no {self.settings.device} here")

    def _run(self, folder: Path, weights: Path) -> None:
        home = folder / "home"
        home.mkdir()
        # A home for each job, because parallel runs race on config.json; this one forbids usage statistics.
        config = {"totalseg_id": "none", "send_usage_stats": False, "prediction_counter": 0}
        (home / "config.json").write_text(json.dumps(config | {"statistics_disclaimer_shown": True}))
        arguments = {
            "input": str(folder / "ct.nii.gz"),
            "output": str(folder / "labels.nii.gz"),
            "ml": True,
            "task": self.settings.task,
            "fast": self.settings.fast,
            "roi_subset": _ROI if self.settings.task == "total" else None,
            "device": self.settings.device,
            "nr_thr_resamp": 1,
            "nr_thr_saving": 1,
            "quiet": True,
        }
        request = folder / "request.json"
        request.write_text(json.dumps({"threads": self.threads, "arguments": arguments}))
        folders = {"TOTALSEG_HOME_DIR": str(home), "TOTALSEG_WEIGHTS_PATH": str(weights), "TMPDIR": str(folder)}
        done = subprocess.run(
            [sys.executable, "-P", totalsegmentator_job.__file__, str(request)],  # -P: beside it lie modules of radgs
            env={**os.environ, **folders, **dict.fromkeys(_THREADS, str(self.threads))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not (folder / "labels.nii.gz").is_file():
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise AnatomyError(f"TotalSegmentator failed: {said[-1]}")
