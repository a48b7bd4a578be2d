"""The CT's vertebrae laid on images that were drawn from them: where they are, which they are, and what shows it."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from radgs.anatomy import fitting
from radgs.anatomy.doubts import fit_doubts, missed_doubts
from radgs.anatomy.fitting import Fitted, Spine, _facings, fit_spine
from radgs.anatomy.matching import BANDS, Matcher, canvases, vertex
from radgs.anatomy.placing import Seen
from radgs.config import YoloSettings
from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume, Xray
from radgs.projection import MovingParts, project_part

NOMINAL = {"AP": [[1, 0, 0], [0, 0, -1], [0, 1, 0]], "LA": [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]}
LEVELS = ["T9", "T10", "T11", "T12", "L1", "L2", "L3"]
CENTRES = {level: np.array([0.2 * n**2, 1.5 * n, -28.0 * n]) for n, level in enumerate(LEVELS)}
MIDDLE = CENTRES["T12"]
TURN = Rotation.from_rotvec(np.radians([4, -5, 11])).as_matrix()
WORLD_FROM_CT = RigidTransform.from_rotation_translation(TURN, -TURN @ MIDDLE + [5, -8, 6])
SPINE = Spine(LEVELS, CENTRES, np.eye(3))


def bone(n):
    """Lumps of the size of pedicles in a box of the size of a vertebra, other ones for each level."""
    rng = np.random.default_rng(n)
    lumps = ndimage.gaussian_filter(rng.normal(size=(14, 24, 24)), (1.0, 1.3, 1.3))
    array = np.zeros((18, 28, 28), np.float32)
    array[2:-2, 2:-2, 2:-2] = np.maximum(0.02 + 0.03 * lumps / lumps.std(), 0)
    frame = np.diag([2.0, 2.0, 2.0, 1.0])
    frame[:3, 3] = CENTRES[LEVELS[n]] - [27, 27, 17]
    return Volume(array, frame)


BONES = {level: bone(n) for n, level in enumerate(LEVELS)}


def camera(view):
    pose = RigidTransform.from_rotation_translation(np.array(NOMINAL[view], float), [0, 0, 700])
    return Camera(np.array([[1400.0, 0, 149.5], [0, 1400, 149.5], [0, 0, 1]]), pose, 300, 300)


@pytest.fixture(scope="module")
def views():
    """Bone, soft tissue with a strong edge, noise, and a stripe that was not measured."""
    rng, views = np.random.default_rng(5), {}
    v, u = np.mgrid[:300, :300]
    for view in NOMINAL:
        image = sum(project_part(part, camera(view), WORLD_FROM_CT, 1.0) for part in BONES.values())
        image = image + 3 + 1.5 * np.tanh((u + 0.3 * v - 220) / 6) + rng.normal(0, 0.03, image.shape)
        image[:, 130:136] = np.nan
        views[view] = Xray(view, image.astype(np.float32), camera(view))
    return views


def matcher_of(views, band=BANDS[0]):
    return Matcher(canvases(views, np.zeros(3)), MovingParts(list(BONES.values())), CENTRES, band)


@pytest.fixture(scope="module")
def matcher(views):
    return matcher_of(views)


def found(levels, named=0, off_mm=4.0):
    """What a detector says of levels, each ``off_mm`` off, with the names of those ``named`` further down."""
    rng = np.random.default_rng(1)
    points = {}
    for level in levels:
        away = rng.normal(size=3)
        name = LEVELS[LEVELS.index(level) + named]
        points[name] = WORLD_FROM_CT.apply(CENTRES[level]) + off_mm * away / np.linalg.norm(away)
    return points, dict.fromkeys(points, 0.6)


def test_what_a_detector_found_is_brought_to_two_millimetres(matcher):
    fitted = fit_spine([matcher], SPINE, *found(["T10", "T11", "T12", "L1", "L2"]))
    for level in ("T10", "T11", "T12", "L1", "L2"):
        centre = CENTRES[level]
        assert np.linalg.norm(fitted.poses[level].apply(centre) - WORLD_FROM_CT.apply(centre)) < 2
        assert fitted.fits[level] > 0.8
    assert fitted.lead > 0.2


def test_a_level_that_the_detector_missed_or_misplaced_is_found_from_its_neighbours(matcher):
    points, scores = found(["T10", "T11", "L1", "L2"])
    points["L2"] = points["L2"] + [6.0, -8, 12]
    fitted = fit_spine([matcher], SPINE, points, scores)
    for level in ("T12", "L2"):
        assert np.linalg.norm(fitted.poses[level].apply(CENTRES[level]) - WORLD_FROM_CT.apply(CENTRES[level])) < 2
        assert fitted.fits[level] > 0.7


def test_a_chain_that_the_detector_bent_away_is_found_level_by_level_from_what_fits(matcher):
    points, scores = found(["T10", "T11", "T12", "L1", "L2"])
    for level, off in {"T10": 24.0, "T11": 16.0}.items():
        points[level] = points[level] + [off, 0, 0]
    fitted = fit_spine([matcher], SPINE, points, scores)
    for level in ("T10", "T11"):
        assert np.linalg.norm(fitted.poses[level].apply(CENTRES[level]) - WORLD_FROM_CT.apply(CENTRES[level])) < 2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_level_is_turned_back_about_each_axis(matcher, axis):
    centre = WORLD_FROM_CT.apply(CENTRES["T12"])
    turn = RigidTransform.about(centre, np.radians(7.0) * np.eye(3)[axis])
    poses = dict.fromkeys(LEVELS, turn @ WORLD_FROM_CT)
    turned, _ = fitting._tilted(matcher, SPINE, poses, matcher.match(poses, ["T12"], 9.0, 4.0))
    left = turned["T12"].rotation @ WORLD_FROM_CT.rotation.T
    assert np.degrees(Rotation.from_matrix(left).magnitude()) < 3.5


def test_coarser_detail_is_asked_for_only_where_levels_fit_badly(matcher):
    def matchers():
        yield matcher
        pytest.fail("asked for more")

    assert fit_spine(matchers(), SPINE, *found(["T10", "T11", "T12", "L1", "L2"])).lead > 0.2


@pytest.mark.parametrize("band", BANDS)
def test_every_band_of_detail_finds_where_a_level_is(views, band):
    poses = dict.fromkeys(LEVELS, RigidTransform.from_rotation_translation(np.eye(3), [3, -4, 2]) @ WORLD_FROM_CT)
    fits = matcher_of(views, band).match(poses, ["T11", "L1"], 8.0, 8.0)
    for match in fits.values():
        assert match.shift == pytest.approx([-3, 4, -2], abs=0.7)
        assert match.fit > 0.8


def test_the_spine_is_taken_that_fits_best_whichever_detail_laid_it(matcher, views, monkeypatch):
    """The finest detail lays it a level off, the coarser one where it is, and the other way round."""
    coarse = matcher_of(views, BANDS[1])
    scored = found(["T10", "T11", "T12", "L1", "L2"])
    right = fit_spine([matcher], SPINE, *scored)
    laid = {}
    for name, named in (("right", 0), ("wrong", 1)):
        points, _ = found(["T10", "T11", "T12", "L1", "L2"], named)
        seen = {level: Seen(point, 2.0) for level, point in points.items()}
        laid[name] = fitting._laid(matcher, SPINE, fitting._State(SPINE.placed(seen), seen, {}, {}))
    monkeypatch.setattr(fitting, "_PLAIN", 9.0)  # never fits well enough
    for first, other in (("right", "wrong"), ("wrong", "right")):
        monkeypatch.setattr(fitting, "_laid", lambda m, *_, f=first, o=other: laid[f if m is matcher else o])
        fitted = fit_spine([matcher, coarse], SPINE, *scored)
        assert fitted.poses == laid["right"].poses
        assert fitted.lead == pytest.approx(right.lead, rel=0.15)
        for level in ("T10", "T11", "T12", "L1", "L2"):
            assert fitted.fits[level] == pytest.approx(right.fits[level], abs=0.1)


@pytest.mark.parametrize("named", [-1, 1])
def test_names_one_level_off_do_not_fit(matcher, named):
    right = fit_spine([matcher], SPINE, *found(["T10", "T11", "T12", "L1", "L2"]))
    wrong = fit_spine([matcher], SPINE, *found(["T10", "T11", "T12", "L1", "L2"], named))
    assert np.median(list(wrong.fits.values())) < 0.6 * np.median(list(right.fits.values()))
    assert wrong.lead < 0.5 * right.lead


def test_levels_outside_the_images_are_not_compared(matcher):
    points, scores = found(["T10", "T11", "T12"])
    far = {level: point + np.array([0, 0, 400]) for level, point in points.items()}
    assert fit_spine([matcher], SPINE, far, scores).fits == {}


def test_a_level_behind_the_source_fits_nothing_and_the_others_fit(matcher):
    behind = RigidTransform.from_rotation_translation(np.eye(3), [0, -900, 0])
    poses = dict.fromkeys(LEVELS, WORLD_FROM_CT) | {"L1": behind @ WORLD_FROM_CT}
    fits = matcher.match(poses, ["T11", "L1"], 3.0, 4.0)
    assert fits["L1"].fit < 0.2
    assert fits["T11"].fit > 0.8
    assert np.linalg.norm(fits["T11"].shift) < 1


def test_neighbours_turn_alike():
    """All have their best turn at 6 degrees; one that hardly prefers -12 follows its neighbours."""
    angles = np.array([-15, 0, 15])
    worth = np.tile(1 - ((angles - 6) / 15.0) ** 2, (7, 1))
    assert _facings(worth) == pytest.approx(np.full(7, 6))
    worth[3] = 1 - 0.1 * ((angles + 12) / 15.0) ** 2
    assert _facings(worth)[3] > 0


@pytest.mark.parametrize(("at", "highest"), [(0.5, 0.5), (-0.25, -0.25), (3, 1)])
def test_the_vertex_of_a_parabola(at, highest):
    assert vertex(*(1 - (x - at) ** 2 for x in (-1, 0, 1))) == pytest.approx(highest)


def doubts(fits, lead=0.4):
    return fit_doubts(Fitted({}, dict(zip(LEVELS, fits, strict=False)), lead), LEVELS, YoloSettings())


def test_a_spine_that_fits_is_not_doubted_and_levels_out_of_view_are():
    found = doubts([0.7, 0.9, 1.0, 0.8])
    assert [level for level in LEVELS if found[level]] == ["L2", "L3"]  # L1 has a neighbour that fits


def test_levels_beyond_joints_where_nothing_fits_are_doubted_though_they_fit():
    found = doubts([0.9, 0.5, 0.3, 0.3, 0.5, 1.1, 1.0])
    assert [level for level in LEVELS if not found[level]] == ["L1", "L2", "L3"]
    assert "fits the images badly" in found["T9"][0]


def test_a_single_level_that_fits_badly_among_good_ones_is_not_doubted():
    """Metal may hide it; its place comes from its neighbours."""
    assert not any(doubts([0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.9]).values())


def test_names_that_fit_no_better_than_others_are_all_doubted():
    assert all("one level up or down" in why[0] for why in doubts([1.0] * 7, lead=0.1).values())
    assert all(why for why in doubts([]).values())


def test_a_missed_level_needs_a_fit_of_its_own():
    fitted = Fitted({}, {"T10": 0.9, "T11": 0.2, "T12": 0.9}, 0.4)
    assert list(missed_doubts(fitted, ["T10", "T11", "L1"], YoloSettings())) == ["T11", "L1"]
