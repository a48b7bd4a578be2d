"""How strong each disturbance is, and the sweeps of them that the robustness page shows."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class World:
    """Strengths of everything that can go wrong; a strength of 0 (or None, False) switches it off.

    Attributes:
        quanta_per_mm2: X-ray quanta that an open detector would catch.
        polyenergetic: a tube's spectrum with beam hardening; else one energy.
        scatter_to_primary: median over the body, at the detector.
        glare: share of the light that spreads over the detector's cover, some centimetres far.
        lag: share of the previous frame, 15 mm off, in this one.
        blur_mm: standard deviation of the detector's blur.
        electronic_noise: standard deviation, quanta a pixel.
        screws: levels that carry a pair of pedicle screws.
        wires: K-wires across the field, through the levels.
        open_field: width of the collimator's opening, of the detector's; None: open.
        calibration_mm: the believed principal point is off by up to this along u and v, mm on the detector.
        calibration_deg: the believed view is turned by up to this about each axis through the isocentre.
        neighbour_deg: every joint is bent by exactly this against the CT, about an axis of its own.
        neighbour_mm: and shifted by exactly this.
        turn_deg: the patient is turned by up to this about each axis.
        move_mm: and moved by up to this along each axis.
        between_mm: the patient moves by exactly this, in any direction, after the first image.
        i0_known: the images come with their I0.
    """

    quanta_per_mm2: float = 2e5
    polyenergetic: bool = True
    scatter_to_primary: float = 0.5
    glare: float = 0.05
    lag: float = 0.04
    blur_mm: float = 0.25
    electronic_noise: float = 3.0
    screws: int = 0
    wires: int = 0
    open_field: float | None = None
    calibration_mm: float = 0.0
    calibration_deg: float = 0.0
    neighbour_deg: float = 3.0
    neighbour_mm: float = 1.5
    turn_deg: float = 20.0
    move_mm: float = 50.0
    between_mm: float = 0.0
    i0_known: bool = True


BASE = World()
PIXEL_MM = 0.388  # of the detector that issue and publication speak of, so "1 pixel"

_CALIBRATION = {"calibration_mm": PIXEL_MM, "calibration_deg": 0.3}
_METAL = {"screws": 2, "wires": 3}

#: By name; the order is that of the table. Strengths grow within a group of names that begin alike.
CASES: dict[str, World] = {
    "usual": BASE,
    "nothing disturbs": replace(
        BASE, polyenergetic=False, scatter_to_primary=0.0, glare=0.0, lag=0.0, electronic_noise=0.0, quanta_per_mm2=2e7
    ),
    "quanta / 3": replace(BASE, quanta_per_mm2=2e5 / 3),
    "quanta / 10": replace(BASE, quanta_per_mm2=2e4),
    "quanta / 30": replace(BASE, quanta_per_mm2=2e5 / 30),
    "scatter x 2": replace(BASE, scatter_to_primary=1.0),
    "scatter x 4": replace(BASE, scatter_to_primary=2.0),
    "glare x 4, lag x 4": replace(BASE, glare=0.2, lag=0.16),
    "wires": replace(BASE, wires=3),
    "wires and screws": replace(BASE, **_METAL),
    "collimator open to 60 %": replace(BASE, open_field=0.6),
    "collimator open to 45 %": replace(BASE, open_field=0.45),
    "calibration 0.5 pixel, 0.15 degree": replace(BASE, calibration_mm=PIXEL_MM / 2, calibration_deg=0.15),
    "calibration 1 pixel, 0.3 degree": replace(BASE, **_CALIBRATION),
    "calibration 2 pixels, 0.6 degree": replace(BASE, calibration_mm=PIXEL_MM * 2, calibration_deg=0.6),
    "neighbours 6 degrees, 3 mm": replace(BASE, neighbour_deg=6.0, neighbour_mm=3.0),
    "neighbours 10 degrees, 6 mm": replace(BASE, neighbour_deg=10.0, neighbour_mm=6.0),
    "I0 not given": replace(BASE, i0_known=False),
    "all at once": replace(BASE, **_CALIBRATION, **_METAL, quanta_per_mm2=2e4),
}

#: Two images of a patient in two places have no one true pose: these ask the verdict, and are counted apart.
MOVING: dict[str, World] = {
    f"patient moves {mm} mm between the images": replace(BASE, between_mm=float(mm)) for mm in (2, 4, 8)
}

#: Those that the project has goals for.
GOALS = (
    "usual",
    "quanta / 10",
    "wires and screws",
    "calibration 1 pixel, 0.3 degree",
    "neighbours 10 degrees, 6 mm",
    "all at once",
)
