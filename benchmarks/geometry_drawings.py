"""Draw what docs/your-data.md says of geometry; every arrow is computed by the library.

    python benchmarks/geometry_drawings.py docs/images

Writes geometry_camera.png and geometry_angles.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, Rectangle
from numpy.typing import NDArray

from radgs.config import CArmSettings
from radgs.geometry import Camera
from radgs.geometry.positioner import positioner_pose
from radgs.simulation import CArm

ABOVE = np.array([[1.0, 0, 0], [0, -1, 0]])  # left to the right of the picture, front up: as axial slices are shown
FROM_RIGHT = np.array([[0.0, -1, 0], [0, 0, 1]])  # front to the right, head up
GREY = "0.35"


def arrow(axes: Axes, start: NDArray[np.float64], end: NDArray[np.float64], text: str, colour: str = "k") -> None:
    """An arrow with a name at its tip."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6})
    name_at = end + 22 * (end - start) / np.linalg.norm(end - start)
    axes.text(*name_at, text, color=colour, ha="center", va="center", fontsize=9)


def station(axes: Axes, plane: NDArray[np.float64], camera: Camera, s: CArmSettings, name: str, mark: bool) -> None:
    """A source, its detector, its beam and, if ``mark``, the camera's axes, seen in a plane ``[2, 3]`` of LPS."""
    world_from_camera = camera.camera_from_world.inverse()
    half = s.detector_px * s.pixel_mm / 2
    corners = np.array([[x, y, s.source_to_detector_mm] for x in (-half, half) for y in (-half, half)])
    source, detector = plane @ camera.source, (plane @ world_from_camera.apply(corners).T).T
    ends = (
        detector[[0, 3]]
        if np.ptp(detector[[0, 3]], axis=0).max() >= np.ptp(detector[[1, 2]], axis=0).max()
        else (detector[[1, 2]])
    )
    axes.fill(*np.stack([source, *ends]).T, color="0.9", zorder=0)
    axes.plot(*ends.T, color="k", lw=4, solid_capstyle="butt")
    axes.plot(*source, "o", color="k")
    middle = ends.mean(axis=0)
    outwards = (middle - source) / np.linalg.norm(middle - source)
    axes.text(*(middle + 125 * outwards), name, ha="center", va="center", fontsize=9)
    if mark:
        for axis, text in zip(np.eye(3), ("x", "y", "z"), strict=True):
            tip = plane @ world_from_camera.apply(150 * axis)
            if np.linalg.norm(tip - source) > 60:  # the others point out of the picture
                arrow(axes, source, tip, text, "tab:blue")


def patient(axes: Axes, plane: NDArray[np.float64], size: tuple[float, float], names: tuple[str, str]) -> None:
    """A trunk about the isocentre, with the axes of the patient that lie in the picture."""
    axes.add_patch(Ellipse((0, 0), *size, facecolor="0.75", edgecolor=GREY))
    for axis, text in zip(np.eye(3), ("left (x)", "back (y)", "head (z)"), strict=True):
        tip = plane @ (axis * 85)
        if np.linalg.norm(tip) > 60:
            arrow(axes, np.zeros(2), tip, text, "tab:red")
    axes.set_title(names[0], fontsize=10)
    axes.set_xlabel(names[1], fontsize=9)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def picture(axes: Axes, settings: CArmSettings) -> None:
    """The image of the frontal view: pixels, principal point, focal length."""
    n = settings.detector_px
    axes.add_patch(Rectangle((-0.5, -0.5), n, n, facecolor="0.92", edgecolor="k"))
    axes.plot(0, 0, "s", color="k")
    axes.annotate("pixel (0, 0): its centre", (0, 0), (60, 95), fontsize=9, arrowprops={"arrowstyle": "-"})
    arrow(axes, np.array([0.0, -60]), np.array([330.0, -60]), "u", "tab:blue")
    arrow(axes, np.array([-60.0, 0]), np.array([-60.0, 330]), "v", "tab:blue")
    c = (n - 1) / 2
    axes.plot(c, c, "+", color="k", ms=14)
    axes.text(c, c + 90, f"principal point\n(K[0][2], K[1][2]) = ({c:g}, {c:g})", ha="center", va="center", fontsize=9)
    focal = settings.source_to_detector_mm / settings.pixel_mm
    axes.text(
        c, n + 90,
        f"K[0][0] = K[1][1] = source to detector / pixel = {settings.source_to_detector_mm:g} / {settings.pixel_mm:g}"
        f" = {focal:.1f}", ha="center", fontsize=9,
    )  # fmt: skip
    axes.text(c, n - 60, "towards the feet", ha="center", fontsize=9)
    axes.text(c, 300, "towards the head", ha="center", fontsize=9)
    axes.set(xlim=(-150, n + 50), ylim=(n + 130, -130), aspect="equal")
    axes.axis("off")
    axes.set_title("The image, as stored", fontsize=10)


def draw_camera(target: Path) -> None:
    """Both views of a shot, from the feet, and what an image's numbers are."""
    settings = CArmSettings()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 6), gridspec_kw={"width_ratios": [1.25, 1]})
    for view in ("AP", "LA"):
        station(left, ABOVE, CArm(settings).camera(view), settings, f"detector of {view}", True)
    patient(
        left,
        ABOVE,
        (330, 220),
        ("Two views, seen from the feet", "y of both cameras points to the feet, out of the picture"),
    )
    left.text(
        20, 730, "source of AP: camera_from_world maps points to its axes x, y, z", fontsize=9, va="bottom", ha="center"
    )
    left.text(700, 60, "source of LA", fontsize=9, ha="center")
    left.set(xlim=(-640, 830), ylim=(-640, 830))
    picture(right, settings)
    figure.tight_layout()
    figure.savefig(target, dpi=80)


def draw_angles(target: Path) -> None:
    """Positioner angles of DICOM."""
    s = CArmSettings(source_to_isocentre_mm=500, source_to_detector_mm=800, detector_px=600)
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.8))
    around = [(0, 0, "primary 0"), (60, 0, "primary +60\n(LAO)"), (-90, 0, "primary -90\n(RAO)")]
    along = [(0, 35, "secondary +35\n(CRA)"), (0, -35, "secondary -35\n(CAU)")]
    of_primary = (
        "positioner_primary_angle_deg, seen from the feet",
        "180: detector behind, which is the view named AP",
    )
    of_secondary = (
        "positioner_secondary_angle_deg, seen from the patient's right",
        "both with primary 0: detector in front",
    )
    for plane, angles, axes, size, names in (
        (ABOVE, around, panels[0], (330, 220), of_primary),
        (FROM_RIGHT, along, panels[1], (220, 560), of_secondary),
    ):
        for primary, secondary, name in angles:
            pose = positioner_pose(np.deg2rad(primary), np.deg2rad(secondary), s.source_to_isocentre_mm)
            camera = Camera(CArm(s).camera("AP").K, pose, s.detector_px, s.detector_px)
            station(axes, plane, camera, s, name, False)
        patient(axes, plane, size, names)
        axes.set(xlim=(-640, 640), ylim=(-640, 640))
    figure.tight_layout()
    figure.savefig(target, dpi=80)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    draw_camera(folder / "geometry_camera.png")
    draw_angles(folder / "geometry_angles.png")
