"""Write docs/detection.md from what benchmarks/detection.py measured.

python benchmarks/detection_page.py docs/detection.json docs/detection.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from performance_page import line

PAGE = """# Finding the levels

Measured by `python benchmarks/detection.py --json {source}` with the detector that `make demo` trains; this page is
written from that file by `benchmarks/detection_page.py`. **The X-rays are simulated**, from the demo patient's CT
and by the simulator that made the detector's training images (other seeds): an upper bound of what real ones allow.
Each shot has photon noise, scatter, views turned by up to 15 degrees, a patient turned by up to 20 degrees and
moved by up to 50 mm on each axis, every joint bent (up to 6 degrees) and shifted (up to 3 mm), and in half of the
shots up to four screws and wires. Images go through `prepare_xrays` as a user's do: metal and collimators are
masked by what is found in the image.

A network finds boxes and names, the decoder makes a spine of them, and the CT's vertebrae are drawn and compared with
the images (`radgs.anatomy.fitting`). Because these images are drawn from the same CT, it fits better than it will fit
real ones. What is certain was calibrated on development shots (seeds 710000 and 720000), not on these.

A level is *visible* if half of it was measured in both images, whichever level it is; it is *named right* if it is
located nearer to its own true centre than to any other's and within 15 mm of it; *certain* is what carries no
doubt. The centre's error is that of levels named right. A goal that was missed says so.

| | measured | goal | |
|---|---|---|---|
{rows}
Machine: {cpu}, {cores} cores, {about}

By level, of the first case: {levels}.
"""


def page(source: Path, content: dict[str, Any], about: str) -> str:
    """The page's text."""
    by_level = content["visible_and_right_by_level"].items()
    return PAGE.format(
        source=source,
        rows="".join(line(row) for row in content["rows"]),
        cpu=content["machine"]["cpu"],
        cores=content["machine"]["cores"],
        about=about,
        levels=", ".join(f"{level} {right} of {count}" for level, (count, right) in by_level),
    )


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    content = json.loads(source.read_text())
    target.write_text(page(source, content, content.get("about", "nothing else on it.")))
