"""Write docs/results.md from what benchmarks/reconstruction.py measured and from what was tried (benchmarks/tried.md).

python benchmarks/results_page.py docs/reconstruction.json docs/results.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from performance_page import line

HEAD = """# Reconstruction and pose of the networks

Measured by `python benchmarks/reconstruction.py --json {source}`; this page is written from that file and from
`benchmarks/tried.md` by `benchmarks/results_page.py`. **The X-rays are simulated** by the simulator that made the
training pairs, from patients and levels that no stage before P3 has seen: an upper bound. They lie turned by up to 20
degrees and moved by up to 50 mm an axis, and a level is located as a detector would (edges of its boxes off by up to
6 mm); the line "before any network" says how far off that leaves the vertebra. X-ray-only reconstructions are
made without the patient's CT, CT-assisted ones begin with Gaussians fitted to it: two tasks, never one number. After P3
the networks have learned from this patient's CT, and remember it: what X-rays alone say is in the lines "P1 only". SSIM
and PSNR are of volumes in 1/mm with a range of 0.03; bone is what lies 0.004/mm above soft tissue; volumes are compared
on 1.75 mm voxels. Values are medians over all pairs ± half the distance between the quartiles. A goal that was missed
says so.

Patients: P1 {p1}; P3 {p3}; {pairs} pairs of each. Machine: {machine}.

| | measured | goal | |
|---|---|---|---|
"""


def main(source: Path, page: Path) -> None:
    """Read the measurements, write the page."""
    measured = json.loads(source.read_text())
    m, patients = measured["machine"], measured["patients"]
    text = HEAD.format(
        source=source.as_posix(),
        machine=f"{m['cpu']}, {m['cores']} cores, {m['gpu'] or 'no GPU'}; PyTorch {m['torch']}",
        pairs=measured["pairs_of_each"],
        **{stage: ", ".join(names) or "none, not run" for stage, names in patients.items()},
    )
    text += "".join(map(line, measured["rows"]))
    page.write_text(f"{text}\n{Path(__file__).with_name('tried.md').read_text()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
