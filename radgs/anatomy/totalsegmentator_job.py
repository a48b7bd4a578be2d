"""Runs TotalSegmentator from a JSON request, in a process of its own: ``python totalsegmentator_job.py request.json``.

A process, because TotalSegmentator reads its folders from the environment and nnU-Net spawns workers that import the
main program again. It imports nothing of radgs, so that the workers start fast.
"""

import json
import multiprocessing
import sys
from pathlib import Path


def main(request: dict) -> None:
    """Run one segmentation with the arguments of ``totalsegmentator.python_api.totalsegmentator``."""
    # On the CPU TotalSegmentator gives PyTorch as many threads as there are cores (nnunet.py, nnUNetv2_predict).
    multiprocessing.cpu_count = lambda: request["threads"]
    from totalsegmentator import python_api

    # It would fetch all five parts of `total`, where only that of the vertebrae is used.
    python_api.download_pretrained_weights = lambda _: None
    python_api.totalsegmentator(**request["arguments"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
