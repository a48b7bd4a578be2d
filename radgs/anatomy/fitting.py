"""The CT's spine laid on the X-rays: what a detector found, made sharp and checked by the images themselves.

A detector says where something like L1 is, to some mm. The patient's CT says what L1 looks like from there. So every
level is drawn as it faces and compared with the images; the most probable spine goes through where the levels fit,
and from those that fit to those that do not yet; the spine named one level higher or lower must fit worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from radgs.anatomy.matching import Match, Matcher, off_cost, vertex
from radgs.anatomy.placing import Seen, place_spine
from radgs.geometry import RigidTransform

_FOUND_MM, _LEAST_SCORE = 2.0, 0.2  # how well a detector finds a level, an axis, at score 1; 1 / score as badly below
_FITTED_MM, _LEAST_FIT = 0.8, 0.4  # how well a level is known that fits with 1 or more, an axis; below, 1 / square
_FACINGS_DEG = (-15.0, 0.0, 15.0)  # turns about the patient's long axis that are tried
_TURNS_DEG = np.arange(-18.0, 18.1, 3.0)  # among which the best is guessed
_JOINT_DEG = 4.0  # of which neighbours' turns differ
_FACING_WEIGHT = 8.0  # of a level's correlation against half a squared difference of neighbours
_TILT_DEG = 8.0  # turns tried
_FAR_MM, _NEAR_MM = 12.0, 9.0  # how far is searched first and later
_OFF_MM, _LEFT_MM = 8.0, 4.0  # how far off levels may well be before and after the first search
_GOOD, _SETTLED = 0.65, 0.8  # fits of a level that others may be placed by, and of one that is looked for no more
_WEAK = 0.2  # least correlation in a view of a level that others may be placed by
_FEWEST = 2  # levels by which others are placed
_PLAIN = 0.65  # mean fit from which on nothing else is tried
_HERE_MM = 3.0  # how far is searched for how well a level fits where it lies
_COMPARED = 4  # levels, the best fitting ones, on which other names are tried


@dataclass(frozen=True)
class Spine:
    """The CT's spine: ``levels`` from head to foot, ``centres`` by level (mm); how the patient lies in the world."""

    levels: Sequence[str]
    centres: Mapping[str, NDArray[np.float64]]
    world_from_patient: NDArray[np.float64]

    def placed(self, found: Mapping[str, Seen]) -> dict[str, RigidTransform]:
        """The most probable pose of every level."""
        return place_spine(found, self.levels, self.centres, self.world_from_patient)

    def shifted(self, level: str, by: int) -> str | None:
        """The level so many further down."""
        row = self.levels.index(level) + by
        return self.levels[row] if 0 <= row < len(self.levels) else None


@dataclass(frozen=True)
class Fitted:
    """A spine on the images.

    Attributes:
        poses: by level, world_from_ct.
        fits: by level that both images show, its correlation summed over the views.
        lead: by how much the levels that fit best fit better, on average, than with the names of their neighbours.
    """

    poses: dict[str, RigidTransform]
    fits: dict[str, float]
    lead: float = 0.0


def fit_spine(
    matchers: Iterable[Matcher], spine: Spine, points: Mapping[str, NDArray[np.float64]], scores: Mapping[str, float]
) -> Fitted:
    """Sharpen and check what a detector found.

    Where levels fit badly at the finest detail, the spine is also laid by what is coarser, and the one is taken that
    fits best at all of them.

    Args:
        matchers: of the shot, from the finest detail on; those after the first are asked for where they are needed.
        spine: of the patient.
        points: by level found, ``[3]`` world, mm.
        scores: by level found, 0 to 1.
    """
    found = {k: Seen(point, _FOUND_MM / max(scores[k], _LEAST_SCORE)) for k, point in points.items()}
    first = _State(spine.placed(found), found, {}, {})
    matchers = iter(matchers)
    finest = next(matchers)
    best = _laid(finest, spine, first)
    if np.mean(list(best.fits.values()) or [0]) < _PLAIN:
        others = list(matchers)
        laid = [best, *(_rated(finest, spine, _laid(one, spine, first)) for one in others)]
        best = max(laid, key=lambda at: sum(_worth(one, spine, at) for one in (finest, *others)))
    return Fitted(best.poses, best.fits, _lead(finest, spine, best))


def _laid(matcher: Matcher, spine: Spine, at: _State) -> _State:
    """The spine laid on the images, from what a detector found."""
    at = _faced(matcher, spine, at)
    at = _searched(matcher, spine, at, _in_view(matcher, spine, at), tilt=False)
    at = _searched(matcher, spine, at, _loose(matcher, spine, at), tilt=True)
    return _grown(matcher, spine, at)


def _rated(matcher: Matcher, spine: Spine, at: _State) -> _State:
    """The same poses with the fits that a matcher of other detail finds."""
    levels = _in_view(matcher, spine, at)
    matches = matcher.match(at.poses, levels, _HERE_MM, _LEFT_MM)
    fits, weakest = {k: m.fit for k, m in matches.items()}, {k: m.weakest for k, m in matches.items()}
    seen = {k: at.seen[k] for k in levels if k in at.seen}
    return _State(at.poses, seen, fits, weakest)


def _worth(matcher: Matcher, spine: Spine, at: _State) -> float:
    """What all levels in view are worth where they lie, give or take some millimetres."""
    return sum(m.worth for m in matcher.match(at.poses, _in_view(matcher, spine, at), _HERE_MM, _LEFT_MM).values())


@dataclass(frozen=True)
class _State:
    """Poses, the points they come from, and how well levels in view fit."""

    poses: dict[str, RigidTransform]
    seen: dict[str, Seen]
    fits: dict[str, float]
    weakest: dict[str, float]


def _in_view(matcher: Matcher, spine: Spine, at: _State) -> list[str]:
    return [k for k in spine.levels if matcher.sees(at.poses[k].apply(spine.centres[k]))]


def _loose(matcher: Matcher, spine: Spine, at: _State) -> list[str]:
    return [k for k in _in_view(matcher, spine, at) if at.fits.get(k, 0) < _SETTLED]


def _faced(matcher: Matcher, spine: Spine, at: _State) -> _State:
    """Every level turned about the patient's long axis as it fits best: boxes say nothing of that."""
    levels = _in_view(matcher, spine, at)
    if not levels:
        return at
    tried = [
        matcher.match(_turned(spine, at.poses, dict.fromkeys(levels, angle)), levels, _FAR_MM, _OFF_MM)
        for angle in _FACINGS_DEG
    ]
    facing = _facings(np.array([[matches[k].worth for matches in tried] for k in levels]))
    nearest = np.abs(np.subtract.outer(facing, _FACINGS_DEG)).argmin(axis=1)
    best = {k: tried[which][k] for k, which in zip(levels, nearest, strict=True)}
    turned = _turned(spine, at.poses, dict(zip(levels, facing, strict=True)))
    return _taken(spine, replace(at, poses=turned, seen={}), levels, best)


def _searched(matcher: Matcher, spine: Spine, at: _State, levels: Sequence[str], tilt: bool) -> _State:
    """Levels looked for again around their poses."""
    matches = matcher.match(at.poses, levels, _NEAR_MM, _LEFT_MM)
    if not matches:
        return at
    poses = at.poses
    if tilt:
        poses, matches = _tilted(matcher, spine, poses, matches)
    return _taken(spine, replace(at, poses=poses), _in_view(matcher, spine, at), matches)


def _grown(matcher: Matcher, spine: Spine, at: _State) -> _State:
    """Levels that fit badly looked for again, one after the other, from the nearest that fit well.

    Joints bend: what the next level but one is placed by is the next one, not those further on.
    """
    good = [at.fits.get(k, 0) >= _GOOD and at.weakest.get(k, 0) >= _WEAK for k in spine.levels]
    if not any(good):
        return at
    best = spine.levels.index(max(at.fits, key=lambda k: at.fits[k] if good[spine.levels.index(k)] else -1.0))
    first = last = best
    while first > 0 and good[first - 1]:
        first -= 1
    while last + 1 < len(good) and good[last + 1]:
        last += 1
    if last + 1 - first < _FEWEST:
        return at
    before, at = at, _among(spine, at, spine.levels[first : last + 1])
    while first > 0 or last + 1 < len(good):
        first, last = first - 1, last + 1
        ring = [spine.levels[row] for row in (first, last) if 0 <= row < len(good)]
        ring = [k for k in ring if matcher.sees(at.poses[k].apply(spine.centres[k]))]
        if ring:
            matches = matcher.match(at.poses, ring, _NEAR_MM, _LEFT_MM)
            poses, matches = _tilted(matcher, spine, at.poses, matches)
            for k in [k for k in ring if k in before.seen]:
                poses[k], matches[k] = _better(spine, k, at, before, poses[k], matches[k])
            at = _taken(spine, replace(at, poses=poses), [*at.seen, *ring], matches)
        first, last = max(first, 0), min(last, len(good) - 1)
    return at


def _better(
    spine: Spine, level: str, at: _State, before: _State, pose: RigidTransform, match: Match
) -> tuple[RigidTransform, Match]:
    """A level's pose and match, or those of before if they are worth more so far from where it is placed now."""
    seen, centre = before.seen[level], spine.centres[level]
    off = seen.point - at.poses[level].apply(centre)
    worth = before.fits[level] - off_cost(float(off @ off), _LEFT_MM)
    if seen.rotation is None or worth <= match.worth:
        return pose, match
    back = RigidTransform.from_rotation_translation(seen.rotation, seen.point - seen.rotation @ centre)
    return back, Match(np.zeros(3), before.fits[level], worth, before.weakest[level])


def _among(spine: Spine, at: _State, levels: Sequence[str]) -> _State:
    """What is known of some levels alone."""
    seen = {k: at.seen[k] for k in levels}
    fits, weakest = {k: at.fits[k] for k in levels}, {k: at.weakest[k] for k in levels}
    return _State(spine.placed(seen), seen, fits, weakest)


def _taken(spine: Spine, at: _State, in_view: Iterable[str], matches: Mapping[str, Match]) -> _State:
    """What was matched replaces what was known of it; what is out of view is forgotten."""
    fits = at.fits | {k: match.fit for k, match in matches.items()}
    seen = at.seen | {
        k: Seen(
            at.poses[k].apply(spine.centres[k]) + match.shift,
            _FITTED_MM / float(np.clip(match.fit, _LEAST_FIT, 1)) ** 2,
            at.poses[k].rotation,
        )
        for k, match in matches.items()
    }
    weakest = at.weakest | {k: match.weakest for k, match in matches.items()}
    kept = [k for k in in_view if k in seen]
    if not kept:
        return _State(at.poses, {}, {}, {})
    return _among(spine, _State(at.poses, seen, fits, weakest), kept)


def _turned(
    spine: Spine, poses: Mapping[str, RigidTransform], by_deg: Mapping[str, float], axis: int = 2
) -> dict[str, RigidTransform]:
    """Levels turned about an axis of the patient (left, posterior, superior), each about its own centre."""
    out = dict(poses)
    for level, angle in by_deg.items():
        turn = spine.world_from_patient[:, axis] * np.deg2rad(angle)
        out[level] = RigidTransform.about(poses[level].apply(spine.centres[level]), turn) @ poses[level]
    return out


def _tilted(
    matcher: Matcher, spine: Spine, poses: dict[str, RigidTransform], matches: Mapping[str, Match]
) -> tuple[dict[str, RigidTransform], dict[str, Match]]:
    """Levels turned about each axis as they fit best: a bent spine's joints do more than its middle line shows."""
    best, untilted = dict(matches), poses
    for axis in (0, 1, 2):
        turned = [_turned(spine, untilted, dict.fromkeys(matches, side * _TILT_DEG), axis) for side in (-1, 1)]
        low, high = (matcher.match(one, list(matches), _NEAR_MM, _LEFT_MM) for one in turned)
        tilts = {k: vertex(low[k].worth, matches[k].worth, high[k].worth) * _TILT_DEG for k in matches}
        poses = _turned(spine, poses, tilts, axis)
        best = {k: max(best[k], low[k], high[k], key=lambda match: match.worth) for k in matches}
    again = matcher.match(poses, list(matches), _NEAR_MM, _LEFT_MM)
    return poses, {k: max(best[k], again[k], key=lambda match: match.worth) for k in matches}


def _facings(worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The most probable turn of each level (degrees), neighbours turned alike: dynamic programming.

    Args:
        worth: ``[L, 3]`` of each of the turns tried, from head to foot; a parabola lies between them.
    """
    low, mid, high = worth.T[:, :, None]
    at = _TURNS_DEG / _FACINGS_DEG[-1]
    value = _FACING_WEIGHT * (mid + (high - low) / 2 * at + ((high + low) / 2 - mid) * at**2)
    apart = -0.5 * ((_TURNS_DEG[:, None] - _TURNS_DEG) / _JOINT_DEG) ** 2
    total, sources = value[0], []
    for own in value[1:]:
        step = total[:, None] + apart
        sources.append(step.argmax(axis=0))
        total = step.max(axis=0) + own
    chosen = [int(total.argmax())]
    for source in reversed(sources):
        chosen.append(int(source[chosen[-1]]))
    turns: NDArray[np.float64] = _TURNS_DEG[chosen[::-1]]
    return turns


def _lead(matcher: Matcher, spine: Spine, at: _State) -> float:
    """How much better the names fit than those of the neighbours above or below."""
    best = sorted(at.fits, key=lambda k: -at.fits[k])[:_COMPARED]
    leads = []
    for by in (-1, 1):
        renamed = {name: seen for k, seen in at.seen.items() if (name := spine.shifted(k, by))}
        was = {name: k for k in best if (name := spine.shifted(k, by))}
        if was:
            other = matcher.match(spine.placed(renamed), list(was), _NEAR_MM, _OFF_MM)
            leads.append(float(np.mean([at.fits[k] - other[name].fit for name, k in was.items()])))
    return min(leads, default=0.0)
