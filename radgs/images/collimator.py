"""The shadow of a collimator in an X-ray whose header does not describe it: nothing was measured there.

Blades have straight edges, irises round ones. A Hough transform of the gradients proposes both; an edge is one if along
the whole of it, from one end to the other, the image gets darker outwards within a few pixels: no anatomy does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.transform import resize

_GRID = 256  # pixels of the longer side of the picture that is searched
_BLUR = 1.2  # of its gradients, pixels
_LEAST_GRADIENT, _MOST_GRADIENT = 0.03, 0.2  # of ln counts, a pixel: weaker ones do not vote, stronger ones no louder
_SPREAD_DEG = 6  # how far off the direction of a gradient may be
_TRIED = 3  # straight edges a side
_BESIDE = (3.0, 4.5, 6.0)  # where an edge's two sides are compared, pixels from it
_BEYOND = (10.0,)  # and where it must still be darker
_LEAST_STEP = 0.08  # ln counts: counts as darker outside
_DARKER = 0.95  # of an edge
_ROUNDED = 0.15  # of its length at each end, which corners may take
_STEP, _STEEPER = 0.4, 3.0  # ln counts: median along an edge; and by how much steeper than the image beside it
_STEP_ALONE = 1.0  # of one or two blades: scatter alone lies behind them, and a body may end in a straight edge
_STEEPER_TOGETHER = 2.0  # of more: three or four blades bear each other out
_SHORTEST = 0.2  # edge, of the longer side
_SMALLEST_OPENING, _SMALLEST_SHADOW = 0.1, 0.01  # of the image
_LARGEST_SHADOW = 0.65  # of one blade, of the image
_DETAIL = (1.5, 5.0, 3.0)  # pixels: from, to, and over how many it is averaged
_CLEAR, _FLATTER = 14.0, 0.7
_ENOUGH = 3  # so many straight edges that hold together need no flat shadow: blades that leak show the body
_RADII = np.arange(40, 180, 2)  # of an iris, pixels
_COARSE = 4
_MARGIN = 2.0  # pixels of the picture that the penumbra takes


@dataclass(frozen=True)
class Blade:
    """Outside is where ``x cos(angle) + y sin(angle) > offset``."""

    angle: float
    offset: float

    def outside(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance from the edge, negative in the opening."""
        return x * np.cos(self.angle) + y * np.sin(self.angle) - self.offset

    def along(self, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points a pixel apart and the directions outwards there, ``[n, 2]`` (x, y)."""
        normal = np.array([np.cos(self.angle), np.sin(self.angle)])
        steps = np.arange(-2 * size, 2 * size)[:, None]
        points = self.offset * normal + steps * np.array([-normal[1], normal[0]])
        return points, np.broadcast_to(normal, points.shape)


@dataclass(frozen=True)
class Iris:
    """Outside is what is further than ``radius`` from (x, y)."""

    x: float
    y: float
    radius: float

    def outside(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance from the edge, negative in the opening."""
        return np.hypot(x - self.x, y - self.y) - self.radius

    def along(self, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: ARG002
        """Points a pixel apart and the directions outwards there, ``[n, 2]`` (x, y)."""
        angle = np.arange(0, 2 * np.pi, 1 / self.radius)
        normal = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return np.array([self.x, self.y]) + self.radius * normal, normal


Edge = Blade | Iris


def find_collimator(counts: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where blades or an iris kept the beam away.

    Args:
        counts: ``[H, W]``, proportional to intensity.

    Returns:
        ``[H, W]``; with the penumbra. None where no such border is found.
    """
    nowhere = np.zeros(counts.shape, dtype=bool)
    factor = _GRID / max(counts.shape)
    size = tuple(max(round(n * factor), 1) for n in counts.shape)
    if min(size) < _GRID // 8:
        return nowhere
    picture = _Picture.of(counts, size)
    edges = _iris(picture) or _blades(picture)  # tangents of an iris could pass for blades
    if not edges:
        return nowhere
    y, x = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(counts.shape, size, strict=True))
    shadow = np.max([edge.outside(*np.meshgrid(x, y)) for edge in edges], axis=0) > -_MARGIN
    return shadow if _SMALLEST_SHADOW < shadow.mean() < 1 - _SMALLEST_OPENING else nowhere


@dataclass(frozen=True)
class _Picture:
    """A small version of the image.

    Attributes:
        level: ``[h, w]`` ln counts.
        detail: ``[h, w]`` by how much ln counts vary over some pixels, noise apart.
    """

    level: NDArray[np.float64]
    detail: NDArray[np.float64]

    @classmethod
    def of(cls, counts: NDArray[np.float32], size: tuple[int, ...]) -> _Picture:
        """Of the two colours of a chessboard of pixels: noise differs between them, detail does not."""
        even = counts[: counts.shape[0] // 2 * 2, : counts.shape[1] // 2 * 2]
        halves = ((even[::2, ::2] + even[1::2, 1::2]) / 2, (even[1::2, ::2] + even[::2, 1::2]) / 2)
        shrink = max(counts.shape) > 2 * max(size)
        a, b = (
            np.log(np.maximum(resize(half, size, order=1, anti_aliasing=shrink, preserve_range=True), 1.0))
            for half in halves
        )
        fine, coarse, around = _DETAIL

        def band(image: NDArray[np.float64]) -> NDArray[np.float64]:
            return ndimage.gaussian_filter(image, fine) - ndimage.gaussian_filter(image, coarse)

        common = ndimage.gaussian_filter(band(a) * band(b), around)
        return cls((a + b) / 2, np.sqrt(np.maximum(common, 0)))

    def likely(self, edges: Sequence[Edge]) -> bool:
        """Whether edges leave a sensible opening, and less detail behind each of them if they are one or two blades."""
        y, x = np.mgrid[: self.level.shape[0], : self.level.shape[1]].astype(np.float64)
        distances = np.stack([edge.outside(x, y) for edge in edges])
        open_, far = distances.max(axis=0) < -_CLEAR, np.abs(distances).min(axis=0) > _CLEAR
        if open_.mean() < _SMALLEST_OPENING or max((d > 0).mean() for d in distances) > _LARGEST_SHADOW:
            return False
        if len(edges) >= _ENOUGH or isinstance(edges[0], Iris):
            return True
        detail = np.median(self.detail[open_]) * _FLATTER
        behind = [far & (distance > 0) for distance in distances]
        return all(np.median(self.detail[part]) < detail for part in behind if part.mean() > _SMALLEST_SHADOW)


def _darkening(picture: _Picture) -> tuple[NDArray[np.float64], ...]:
    """Of the places where the image changes: x, y, vote, and the direction in which it gets darker (radians)."""
    down, right = (ndimage.gaussian_filter(picture.level, _BLUR, order=order) for order in ((1, 0), (0, 1)))
    size = np.hypot(down, right)
    y, x = np.nonzero(size > _LEAST_GRADIENT)
    return (
        x.astype(np.float64),
        y.astype(np.float64),
        np.minimum(size[y, x], _MOST_GRADIENT),
        np.arctan2(-down[y, x], -right[y, x]),
    )


@dataclass(frozen=True)
class _Sampled:
    """An edge, and at every point of it in the picture by how much ln counts fall across it and beside it, inside."""

    edge: Edge
    points: NDArray[np.float64]
    step: NDArray[np.float64]
    beside: NDArray[np.float64]

    @classmethod
    def of(cls, picture: _Picture, edge: Edge) -> _Sampled:
        points, outwards = edge.along(max(picture.level.shape))
        size = np.array(picture.level.shape[::-1])
        near = _BESIDE[0] * outwards
        inside = np.all([(p >= 0) & (p <= size - 1) for p in (points - near, points + near)], axis=(0, 2))
        points, outwards = points[inside], outwards[inside]

        def level(distance: float) -> NDArray[np.float64]:
            at = (points + distance * outwards).T[::-1]
            return ndimage.map_coordinates(picture.level, at, order=1, mode="nearest")

        within = np.mean([level(-distance) for distance in _BESIDE], axis=0)
        without = np.max([level(distance) for distance in (*_BESIDE, *_BEYOND)], axis=0)
        return cls(edge, points, within - without, np.abs(level(-_BEYOND[0]) - level(-_BESIDE[0])))

    def holds(self, others: Sequence[Edge]) -> int:
        """At how many points it is seen, if along all of it that is in the opening that ``others`` leave; else 0."""
        x, y = self.points.T
        open_ = np.all([other.outside(x, y) < -_BESIDE[-1] for other in others] or [np.full(len(x), True)], axis=0)
        count = int(open_.sum())
        if count < _SHORTEST * _GRID:
            return 0
        middle = np.flatnonzero(open_)[int(_ROUNDED * count) : count - int(_ROUNDED * count)]
        step, beside = self.step[middle], self.beside[middle]
        together = len(others) + 1 >= _ENOUGH
        least = _STEP if together or isinstance(self.edge, Iris) else _STEP_ALONE
        least = max(least, (_STEEPER_TOGETHER if together else _STEEPER) * np.median(beside))
        return count if (step > _LEAST_STEP).mean() > _DARKER and np.median(step) > least else 0


def _blades(picture: _Picture) -> list[Edge]:
    """Straight edges, at most one a side (right, bottom, left, top), each of which holds between the others."""
    tried = [[None, *(_Sampled.of(picture, edge) for edge in side)] for side in _lines(picture)]
    best, most = [], 0
    for choice in product(*tried):
        chosen = [one for one in choice if one is not None]
        seen = [one.holds([other.edge for other in chosen if other is not one]) for one in chosen]
        if all(seen) and sum(seen) > most and picture.likely([one.edge for one in chosen]):
            best, most = [one.edge for one in chosen], sum(seen)
    return best


def _lines(picture: _Picture) -> list[list[Blade]]:
    x, y, vote, towards = _darkening(picture)
    reach = int(np.hypot(*picture.level.shape)) + 2
    votes = np.zeros((360, 2 * reach))
    nearest = np.rint(np.rad2deg(towards)).astype(int)
    for off in range(-_SPREAD_DEG, _SPREAD_DEG + 1):
        degrees = (nearest + off) % 360
        offset = x * np.cos(np.deg2rad(degrees)) + y * np.sin(np.deg2rad(degrees))
        np.add.at(votes, (degrees, np.rint(offset).astype(int) + reach), vote)
    votes = ndimage.gaussian_filter(votes, 0.7, mode=("wrap", "constant"))
    found = []
    for side in range(4):
        window = np.roll(votes, 45 - 90 * side, axis=0)[:90]
        peaks = peak_local_max(window, min_distance=4, num_peaks=_TRIED, exclude_border=False)
        found.append([Blade(np.deg2rad(float(a) - 45 + 90 * side), float(o) - reach) for a, o in peaks])
    return found


def _iris(picture: _Picture) -> list[Edge]:
    """A round edge: gradients vote for the middle that they point away from, for each radius."""
    x, y, vote, towards = _darkening(picture)
    shape = tuple(-(-n // _COARSE) for n in picture.level.shape)
    votes = np.zeros((len(_RADII), *shape))
    for layer, radius in zip(votes, _RADII, strict=True):
        u, v = (np.rint((a - radius * f(towards)) / _COARSE).astype(int) for a, f in ((x, np.cos), (y, np.sin)))
        ok = (u >= 0) & (v >= 0) & (u < shape[1]) & (v < shape[0])
        np.add.at(layer, (v[ok], u[ok]), vote[ok])
    peaks = peak_local_max(ndimage.gaussian_filter(votes, 1), min_distance=2, num_peaks=_TRIED, exclude_border=False)
    tried = [Iris(float(u * _COARSE), float(v * _COARSE), float(_RADII[r])) for r, v, u in peaks]
    sampled = [_Sampled.of(picture, _fitted(picture, iris)) for iris in tried]
    best = max(sampled, key=lambda one: one.holds([]), default=None)
    return [best.edge] if best and best.holds([]) and picture.likely([best.edge]) else []


def _fitted(picture: _Picture, iris: Iris) -> Iris:
    """The circle (least squares) through the places where the image darkens most, near each point of a coarse one."""
    points, outwards = iris.along(0)
    distances = np.arange(-_COARSE * 2, _COARSE * 2 + 1.0)
    ladder = points + distances[:, None, None] * outwards
    level = ndimage.map_coordinates(picture.level, ladder[..., ::-1].transpose(2, 0, 1), order=1, mode="nearest")
    steepest = np.argmin(np.gradient(ndimage.gaussian_filter1d(level, 1, axis=0), axis=0), axis=0)
    x, y = ladder[steepest, np.arange(len(points))].T
    (a, b, c), *_ = np.linalg.lstsq(np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1), x**2 + y**2, rcond=None)
    return Iris(float(a), float(b), float(np.sqrt(max(c + a**2 + b**2, 1.0))))
