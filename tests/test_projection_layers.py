"""Bent volumes drawn in layers: against the plain projection, known places and the definition in float64."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from radgs.errors import GeometryError, ImageError, RadgsError
from radgs.geometry import RigidTransform
from radgs.projection import project, project_layers

SHAPE, CENTRE = (36, 30, 32), np.array([15.5, 14.5, 17.5])  # CT: 3 mm voxels around the origin, turned a little
K = torch.tensor([[400.0, 3.0, 36.2], [0, 420.0, 40.7], [0, 0, 1]], dtype=torch.float64)
SIZE = (80, 70)
ENDS = (460.0, 540.0)


def turned(rotvec, translation):
    angle = np.linalg.norm(rotvec)
    x, y, z = np.asarray(rotvec) / max(angle, 1e-300)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return RigidTransform.from_rotation_translation(rotation, translation)


def grid(rotvec=(0.2, -0.1, 0.3)):
    """index_from_ct of voxels of 3 mm whose middle is the origin."""
    matrix = np.eye(4)
    matrix[:3, :3] = turned(rotvec, np.zeros(3)).matrix[:3, :3] / 3
    matrix[:3, 3] = CENTRE
    return torch.from_numpy(matrix)


FROM_THE_FRONT = RigidTransform.from_rotation_translation([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.zeros(3))
CAMERA = turned((0.2, -0.15, 0.1), [4.0, -3.0, 500.0]) @ FROM_THE_FRONT
UP = np.array([0.1, -0.97, -0.1])  # along the patient, about, in the camera's frame


def blob(seed=0):
    """A smooth volume, empty towards its border."""
    volume = torch.zeros(SHAPE)
    inner = (slice(8, -8),) * 3
    volume[inner] = torch.rand(volume[inner].shape, generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(ndimage.gaussian_filter(volume.numpy(), 1.5, mode="constant", radius=6))


def bead(place, index_from_ct):
    """A volume with a smooth dense point (CT mm)."""
    at = index_from_ct.numpy()[:3] @ [*place, 1.0]
    z, y, x = np.indices(SHAPE)
    square = (x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2
    return torch.from_numpy(np.exp(-square).astype(np.float32))


def heights_of(motions, places):
    return torch.tensor([UP @ m.apply(np.asarray(p, float)) for m, p in zip(motions, places, strict=True)])


def draw(volume, index_from_ct, motions, heights, layers=2, step_mm=1.0, ends=ENDS, **more):
    poses = torch.stack([m.tensor() for m in motions])
    axis, heights = torch.from_numpy(UP), torch.as_tensor(heights, dtype=torch.float64)
    how = {"ends": ends, "layers": layers, "step_mm": step_mm}
    return project_layers(volume, index_from_ct, K, poses, axis, heights, SIZE, **how, **more)


def middle(image):
    """(u, v) of its centre of mass."""
    v, u = np.indices(image.shape)
    return np.array([np.average(u, weights=image.numpy()), np.average(v, weights=image.numpy())])


def pinhole(point):
    u, v, w = K.numpy() @ point
    return np.array([u / w, v / w])


@pytest.mark.parametrize("layers", [2, 3, 7])
def test_layers_of_one_motion_add_up_to_the_plain_projection(layers):
    volume = blob()
    whole = project(volume, grid(), K[None], CAMERA.tensor()[None], SIZE, step_mm=0.5)[0]
    found = draw(volume, grid(), [CAMERA], [0.0], layers, step_mm=0.5)
    assert found.shape == (layers, *SIZE)
    assert (found >= 0).all()
    assert (found.sum(dim=0) - whole).abs().max() < 2e-3 * whole.max()


@pytest.mark.parametrize("where", ["volume", "heights"])
def test_motions_that_are_all_the_same_bend_nothing(where):
    volume = blob()
    straight = draw(volume, grid(), [CAMERA], [0.0], 3)
    spread = {"volume": [-30.0, 0.0, 30.0], "heights": [-1e4, -5e3, 1e4]}[where]
    bent = draw(volume, grid(), [CAMERA] * 3, spread, 3)
    assert (bent - straight).abs().max() < 1e-4 * straight.max()


@pytest.mark.parametrize(
    ("depth", "shares"),
    [
        (430, (1, 0, 0)),
        (470, (0.75, 0.25, 0)),
        (490, (0.25, 0.75, 0)),
        (520, (0, 0.5, 0.5)),
        (532, (0, 0.2, 0.8)),
        (565, (0, 0, 1)),
    ],
)
def test_a_point_is_shared_between_the_two_layers_that_its_depth_lies_between(depth, shares):
    volume = torch.zeros(SHAPE)
    volume[18, 14, 16] = 1.0
    index = grid((0, 0, 0))
    at = torch.linalg.inv(index).numpy()[:3] @ [16, 14, 18, 1]
    there = RigidTransform.from_rotation_translation(np.eye(3), np.array([0, 0, depth]) - at)
    mass = draw(volume, index, [there], [0.0], 3, step_mm=0.1).sum(dim=(1, 2))
    assert mass.sum() > 1
    assert (mass / mass.sum()).numpy() == pytest.approx(shares, abs=2e-3)


def place_of(point, motions, heights):
    """Where a point of the CT comes to lie (camera, mm), by turns: mix the ways back at its height, go on."""
    back, low = [m.inverse() for m in motions], np.asarray(heights, float)
    place = motions[0].apply(point)
    for _ in range(200):
        at = np.clip(np.interp(UP @ place, low, np.arange(len(low))), 0, len(low) - 1)
        k = min(int(at), len(low) - 2)
        came = (1 - (at - k)) * back[k].apply(place) + (at - k) * back[k + 1].apply(place)
        place = place + 0.7 * motions[k].matrix[:3, :3] @ (point - came)
    assert came == pytest.approx(point, abs=1e-9)
    return place


def test_between_two_heights_a_bead_lies_in_the_middle_of_where_both_motions_take_it():
    across = np.cross(UP, [0, 0, 1.0])  # so that heights stay as they are
    other = RigidTransform.from_rotation_translation(np.eye(3), 14 * across) @ CAMERA
    up = CAMERA.matrix[:3, :3].T @ UP / (UP @ UP)
    heights = heights_of([CAMERA, other], [-24 * up, 24 * up])
    for height, share in ((-32, 0.0), (-12, 0.25), (0, 0.5), (12, 0.75), (32, 1.0)):
        point = height * up + [3.0, -2.0, 4.0] - up * (UP @ CAMERA.matrix[:3, :3] @ [3.0, -2.0, 4.0])
        seen = middle(draw(bead(point, grid()), grid(), [CAMERA, other], heights, step_mm=0.5).sum(dim=0))
        first, second = pinhole(CAMERA.apply(point)), pinhole(other.apply(point))
        assert np.linalg.norm(first - second) > 8
        assert seen == pytest.approx((1 - share) * first + share * second, abs=0.1)


def bent():
    """Three vertebrae that have turned and moved, each its own way, with the heights where they are now."""
    places = [(2.0, 3.0, -27.0), (0.0, 0.0, 0.0), (-3.0, 2.0, 27.0)]
    motions = [
        CAMERA @ turned((0.0, 0.12, 0.25), [7.0, -6.0, -2.0]),
        CAMERA,
        CAMERA @ turned((-0.2, 0.1, -0.08), [-9.0, 5.0, 3.0]),
    ]
    return motions, heights_of(motions, places)


@pytest.mark.parametrize(
    "point", [(5, 4, -37), (-2, 3, -19), (6, -5, -12), (7, 1, 8), (-8, 3, 14), (-3, 2, 19), (4, 4, 37)], ids=str
)
def test_a_bead_among_turned_vertebrae_is_seen_at_its_place_and_depth(point):
    motions, heights = bent()
    place = place_of(np.array(point, float), motions, heights)
    layers = draw(bead(point, grid()), grid(), motions, heights, step_mm=0.5)
    assert middle(layers.sum(dim=0)) == pytest.approx(pinhole(place), abs=0.15)
    farther = float(layers[1].sum() / layers.sum())
    assert ENDS[0] + farther * (ENDS[1] - ENDS[0]) == pytest.approx(place[2], abs=0.3)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("farther", [-250.0, 250.0])
def test_a_bead_is_seen_though_at_another_height_the_volume_is_elsewhere(above, farther):
    away = RigidTransform.from_rotation_translation(np.eye(3), [0, 0, farther]) @ CAMERA
    height = 30.0 if above else -30.0
    motions, volume = [away, CAMERA] if above else [CAMERA, away], bead((5.0, 2.0, height), grid())
    middle_height = float(UP @ CAMERA.translation)
    alone = draw(volume, grid(), [CAMERA], [0.0], step_mm=0.5).sum(dim=0)
    both = draw(volume, grid(), motions, [middle_height - 5, middle_height + 5], step_mm=0.5).sum(dim=0)
    assert (both - alone).abs().max() < 0.02 * alone.max()


def by_definition(volume, index_from_ct, motions, heights, layers, pixels, step):
    """Layers at some pixels (u, v) from the words of the docstring, in float64: ``[layers, n]``."""
    depth = np.arange(350.0, 650.0, step) + step / 2
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K.numpy()).T
    points = rays[:, None] * depth[:, None]
    came = np.stack([m.inverse().apply(points) for m in motions])
    weights = np.stack([np.interp(points @ UP, heights.numpy(), unit) for unit in np.eye(len(motions))])
    index = (weights[..., None] * came).sum(0) @ index_from_ct.numpy()[:3, :3].T + index_from_ct.numpy()[:3, 3]
    values = ndimage.map_coordinates(volume.double().numpy(), np.moveaxis(index[..., ::-1], -1, 0), order=1)
    of_layer = np.stack([np.interp(depth, np.linspace(*ENDS, layers), unit) for unit in np.eye(layers)])
    return (values @ of_layer.T).T * step * np.linalg.norm(rays, axis=1)


def test_many_motions_and_layers_are_as_defined():
    motions, heights = bent()
    volume, layers = blob(), 4
    pixels = np.stack(np.meshgrid(np.arange(3, 50, 4), np.arange(2, 46, 5)), axis=-1).reshape(-1, 2)
    truth = by_definition(volume, grid(), motions, heights, layers, pixels, 0.25)
    found = draw(volume, grid(), motions, heights, layers, step_mm=0.25)[:, pixels[:, 1], pixels[:, 0]]
    assert (truth.sum(axis=1) > 0.02 * truth.sum()).all()  # each layer has its say
    assert found.numpy() == pytest.approx(truth, abs=2e-3 * truth.max())


def test_pixels_that_are_not_wanted_are_empty_and_the_others_as_ever():
    motions, heights = bent()
    wanted = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) < 0.4
    whole, part = (draw(blob(), grid(), motions, heights, 3, wanted=w) for w in (None, wanted))
    assert part.abs().sum(dim=0)[wanted].sum() > 0
    assert torch.equal(part, whole * wanted)


@pytest.mark.parametrize("behind", [False, True])
def test_a_source_inside_the_volume_sees_only_what_is_before_it(behind):
    """Of 40 mm, half; what is moved behind the source at one height casts nothing there."""
    volume, index = torch.full((41, 41, 41), 0.01), torch.eye(4, dtype=torch.float64)
    index[:3, 3] = 20.0
    here, away = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    away[2, 3] = -25.0
    k = torch.tensor([[50.0, 0, 0], [0, 50.0, 4], [0, 0, 1]], dtype=torch.float64)
    poses = torch.stack([here, away]) if behind else here[None]
    heights = torch.tensor([0.0, 1e-4][: len(poses)], dtype=torch.float64)
    axis = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    how = {"ends": (-30.0, 30.0), "layers": 2, "step_mm": 0.01}
    column = project_layers(volume, index, k, poses, axis, heights, (9, 1), **how).sum(dim=0)[:, 0]
    slant = torch.tensor([math.hypot(1, (v - 4) / 50) for v in range(9)])
    expected = 0.2 * slant
    if behind:  # below the source's height all has gone to where nothing is seen
        expected[5:] = 0
    assert column.numpy() == pytest.approx(expected.numpy(), abs=2e-3)
    poses[:, 2, 3] = -100.0
    assert not project_layers(volume, index, k, poses, axis, heights, (9, 1), **how).any()


def test_one_thread_and_two_give_the_same_bits():
    import numba

    motions, heights = bent()
    results, before = [], numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            results.append(draw(blob(), grid(), motions, heights, 3))
    finally:
        numba.set_num_threads(before)
    assert torch.equal(*results)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"heights": [3.0, -3.0]}, GeometryError, "ascending order"),
        ({"heights": [3.0, 3.0]}, GeometryError, "ascending order"),
        ({"heights": [0.0]}, GeometryError, "one height"),
        ({"heights": [0.0, 1.0, 2.0]}, GeometryError, "one height"),
        ({"heights": [0.0, NAN]}, GeometryError, "one height"),
        ({"heights": [-INF, 0.0]}, GeometryError, "one height"),
        ({"heights": [[0.0, 1.0]]}, GeometryError, "one height"),
        ({"heights": [], "camera_from_ct": torch.zeros(0, 4, 4)}, GeometryError, "one height"),
        ({"camera_from_ct": torch.eye(4)}, GeometryError, "camera_from_ct"),
        ({"camera_from_ct": torch.eye(4).repeat(2, 1, 1) * NAN}, GeometryError, "NaN"),
        ({"camera_from_ct": torch.eye(4).repeat(2, 1, 1) * 2}, GeometryError, "rigid"),
        ({"K": K * NAN}, GeometryError, "K holds NaN"),
        ({"K": K.expand(2, 3, 3)}, GeometryError, "one K"),
        ({"K": torch.eye(2)}, GeometryError, "one K"),
        ({"axis": torch.tensor([0.0, NAN, 1.0])}, GeometryError, "axis"),
        ({"axis": torch.tensor([0.0, 1.0])}, GeometryError, "axis"),
        ({"layers": 1}, GeometryError, "at least two"),
        ({"ends": (5.0, 5.0)}, GeometryError, "ascending depths"),
        ({"ends": (6.0, 5.0)}, GeometryError, "ascending depths"),
        ({"ends": (NAN, 5.0)}, GeometryError, "ascending depths"),
        ({"ends": (0.0, INF)}, GeometryError, "ascending depths"),
        ({"step_mm": 0.0}, RadgsError, "positive"),
        ({"step_mm": NAN}, RadgsError, "positive"),
        ({"size": (0, 4)}, GeometryError, "pixel"),
        ({"index_from_ct": torch.zeros(4, 4)}, GeometryError, "singular"),
        ({"volume": torch.zeros(4, 4)}, ImageError, "D, H, W"),
        ({"volume": torch.zeros(4, 4, 4, dtype=torch.float64)}, RadgsError, "float32"),
        ({"wanted": torch.ones(3, 3, dtype=torch.bool)}, GeometryError, "wanted"),
        ({"wanted": torch.ones(4, 5)}, GeometryError, "wanted"),
    ],
)
def test_impossible_input_is_refused_in_a_sentence(change, error, words):
    arguments = {
        "volume": torch.zeros(4, 4, 4),
        "index_from_ct": torch.eye(4),
        "K": K,
        "camera_from_ct": torch.eye(4).repeat(2, 1, 1),
        "axis": torch.tensor([0.0, 1.0, 0.0]),
        "heights": [-3.0, 3.0],
        "size": (4, 5),
        "ends": (1.0, 9.0),
        "layers": 2,
    } | change
    arguments["heights"] = torch.tensor(arguments["heights"], dtype=torch.float64)
    with pytest.raises(error, match=words):
        project_layers(**arguments)
