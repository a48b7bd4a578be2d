"""X-rays: counts to line integrals and back, cameras.json, and images that are no counts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from radgs.errors import GeometryError, ImageError, RadgsError
from radgs.images import (
    Xray,
    prepare_xrays,
    read_cameras,
    read_counts,
    read_view_specs,
    read_xrays,
    to_line_integrals,
    write_xrays,
)


def counts_image(height=30, width=40) -> np.ndarray:
    return np.random.default_rng(1).integers(100, 60000, (height, width)).astype(np.uint16)


@given(p=arrays(np.float32, (3, 4), elements=st.floats(0, 8, width=32)), i0=st.floats(5e3, 1e6))
def test_line_integrals_undo_the_law_of_beer_and_lambert(p, i0):
    found, used, origin = to_line_integrals((i0 * np.exp(-p.astype(np.float64))).astype(np.float32), i0)
    np.testing.assert_allclose(found, p, atol=2e-5)
    assert (used, origin) == (i0, "given")


def test_i0_is_estimated_from_the_brightest_pixels_and_says_so():
    counts = np.full((100, 100), 1000.0, np.float32)
    counts[:10] = 20000.0  # beside the patient
    found, i0, origin = to_line_integrals(counts)
    assert (i0, origin) == (20000.0, "estimated")
    assert found[50, 50] == pytest.approx(np.log(20))
    assert found[0, 0] == pytest.approx(0, abs=1e-6)


def test_a_pixel_without_counts_stays_finite():
    found, _, _ = to_line_integrals(np.array([[0.0, 100.0]], np.float32), 100.0)
    assert found[0, 0] == pytest.approx(np.log(100))


@pytest.mark.parametrize("i0", [0.0, -5.0, float("nan"), float("inf")])
def test_impossible_i0_is_refused(i0):
    with pytest.raises(ImageError, match="I0"):
        to_line_integrals(np.ones((2, 2), np.float32), i0)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_are_read_exactly(tmp_path, name):
    counts = counts_image()
    counts[0, 0], counts[0, 1] = 0, 65535
    Image.fromarray(counts).save(tmp_path / name)
    found = read_counts(tmp_path / name)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, counts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_float_tiff_with_impossible_counts_is_refused(tmp_path, value):
    counts = counts_image().astype(np.float32)
    counts[3, 4] = value
    Image.fromarray(counts).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match=r"x\.tif"):
        read_counts(tmp_path / "x.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_colour_palette_and_black_and_white_are_refused(tmp_path, mode):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).convert(mode).save(
        tmp_path / "x.png"
    )
    with pytest.raises(ImageError, match=r"x\.png: one grey image"):
        read_counts(tmp_path / "x.png")


def test_a_film_of_several_images_is_refused(tmp_path):
    frames = [Image.fromarray(counts_image()) for _ in range(3)]
    frames[0].save(tmp_path / "x.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="3 of mode"):
        read_counts(tmp_path / "x.tif")


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_an_image_that_was_cut_off_is_refused(tmp_path, name):
    Image.fromarray(counts_image(200, 200)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="complete"):
        read_counts(tmp_path / name)


def test_an_empty_exposure_is_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 500, np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="500 to 500"):
        read_counts(tmp_path / "x.png")


def test_views_of_different_sizes_survive_the_files(tmp_path, ap_camera, la_camera):
    rng = np.random.default_rng(0)
    ap = Xray("AP", rng.random((30, 40), np.float32), replace(ap_camera, width=40, height=30), "a.png", 5e4)
    la = Xray(
        "LA", rng.random((50, 20), np.float32), replace(la_camera, width=20, height=50), "b.png", 1.0, "estimated"
    )
    la.line_integrals[4, 5] = np.nan  # not measured
    write_xrays(tmp_path / "xrays.nii.gz", tmp_path / "cameras.json", {"AP": ap, "LA": la})

    found = read_xrays(tmp_path / "xrays.nii.gz", tmp_path / "cameras.json")

    assert list(found) == ["AP", "LA"]
    for written in (ap, la):
        read = found[written.view]
        np.testing.assert_array_equal(read.line_integrals, written.line_integrals)
        np.testing.assert_array_equal(read.camera.K, written.camera.K)
        np.testing.assert_allclose(
            read.camera.camera_from_world.matrix, written.camera.camera_from_world.matrix, atol=1e-12
        )
        assert (read.camera.width, read.camera.height) == (written.camera.width, written.camera.height)
        assert (read.source_file, read.i0, read.i0_origin) == (written.source_file, written.i0, written.i0_origin)


def test_a_view_shows_points_only_where_it_measured_them(ap_camera):
    """One pixel of the camera is 0.35 mm wide at the origin, which it sees at (500, 400)."""
    line_integrals = np.zeros((801, 1001), np.float32)
    line_integrals[:, :500] = np.nan  # behind a blade
    xray = Xray("AP", line_integrals, ap_camera)
    points = np.array([[0.0, 0, 0], [-0.3, 0, 0], [0.3, 0, 0], [175.1, 0, 0], [300, 0, 0], [0, -701, 0]])
    assert xray.shows(points).tolist() == [True, False, True, True, False, False]
    even = Xray("AP", line_integrals[:, :-1], replace(ap_camera, width=1000))  # its edge is at 999.5, half a pixel
    edge = np.array([[499.5 * 0.35, 0.0, 0.0]])
    assert even.camera.project(edge)[0, 0] == 999.5
    assert even.shows(edge).tolist() == [True]


def test_a_stack_that_does_not_fit_its_cameras_is_refused(tmp_path, ap_camera):
    small = replace(ap_camera, width=40, height=30)
    xray = Xray("AP", np.zeros((30, 40), np.float32), small)
    for views in (["AP"], ["AP", "LA"]):
        write_xrays(tmp_path / f"{len(views)}.nii.gz", tmp_path / f"{len(views)}.json", dict.fromkeys(views, xray))
    with pytest.raises(ImageError, match="does not hold the 2 views"):
        read_xrays(tmp_path / "1.nii.gz", tmp_path / "2.json")
    cameras = json.loads((tmp_path / "1.json").read_text())
    cameras["views"]["AP"]["size"] = [41, 30]
    (tmp_path / "1.json").write_text(json.dumps(cameras))
    with pytest.raises(ImageError, match="smaller"):
        read_xrays(tmp_path / "1.nii.gz", tmp_path / "1.json")


def counts_of(view):
    return counts_image() if view == "AP" else np.ascontiguousarray(counts_image()[::-1, ::-1])


@pytest.fixture
def shot(tmp_path, ap_camera, la_camera):
    """Two images of counts and one cameras.json, as a hospital hands them over."""
    views = {}
    for name, camera in {"AP": ap_camera, "LA": la_camera}.items():
        Image.fromarray(counts_of(name)).save(tmp_path / f"{name}.png")
        views[name] = {
            "size": [40, 30],
            "K": camera.K.tolist(),
            "camera_from_world": camera.camera_from_world.matrix.tolist(),
        }
    (tmp_path / "geometry.json").write_text(json.dumps({"views": views}))
    return tmp_path


def prepare(shot, views=("AP", "LA")):
    prepare_xrays(
        {v: shot / f"{v}.png" for v in views},
        dict.fromkeys(views, shot / "geometry.json"),
        shot / "out" / "xrays.nii.gz",
        shot / "out" / "cameras.json",
    )


def edit(shot, change):
    content = json.loads((shot / "geometry.json").read_text())
    change(content["views"])
    (shot / "geometry.json").write_text(json.dumps(content))


def test_prepared_views_hold_line_integrals_and_say_where_i0_is_from(shot):
    edit(shot, lambda views: views["LA"].update(i0=60000))
    prepare(shot)
    found = read_xrays(shot / "out" / "xrays.nii.gz", shot / "out" / "cameras.json")
    assert (found["AP"].i0_origin, found["LA"].i0_origin, found["LA"].i0) == ("estimated", "given", 60000.0)
    np.testing.assert_allclose(found["LA"].line_integrals, np.log(60000 / counts_of("LA").astype(float)), atol=1e-5)
    assert found["AP"].source_file == "AP.png"
    assert list(read_cameras(shot / "out" / "cameras.json")) == ["AP", "LA"]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda v: v.pop("LA"), GeometryError, "no view LA"),
        (lambda v: v["LA"].pop("K"), GeometryError, "view LA: lacks K"),
        (lambda v: v["LA"].pop("camera_from_world"), GeometryError, "lacks camera_from_world"),
        (lambda v: v["LA"].update(size=[30, 40]), GeometryError, "size"),
        (lambda v: v["LA"].update(size=40), GeometryError, "size"),
        (lambda v: v["LA"].update(K=[[1, 2], [3, 4]]), GeometryError, "view LA"),
        (lambda v: v["LA"].update(K="none"), GeometryError, "view LA"),
        (lambda v: v["LA"].update(camera_from_world=np.diag([2.0, 2, 2, 1]).tolist()), GeometryError, "not a rotation"),
        (lambda v: v["LA"].update(i0=-3), ImageError, "i0"),
        (lambda v: v["LA"].update(i0="many"), ImageError, "i0"),
        (lambda v: v.update(LA=[]), RadgsError, "expected"),
    ],
)
def test_wrong_geometry_is_one_clear_line_and_nothing_is_written(shot, change, kind, message):
    edit(shot, change)
    with pytest.raises(kind, match=message) as error:
        prepare(shot)
    assert "geometry.json" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (shot / "out").exists()


def test_a_bad_image_is_one_clear_line_and_nothing_is_written(shot):
    counts = counts_image().astype(np.float32)
    counts[0, 0] = np.nan
    Image.fromarray(counts).save(shot / "LA.tif")
    (shot / "LA.tif").rename(shot / "LA.png")  # the content counts, not the name
    with pytest.raises(ImageError, match=r"LA\.png: holds NaN"):
        prepare(shot)
    assert not (shot / "out").exists()


@pytest.mark.parametrize("i0", [None, 64000])
def test_one_image_for_two_views_is_refused_at_whatever_i0(shot, i0):
    Image.fromarray(counts_of("AP")).save(shot / "LA.png")
    edit(shot, lambda views: views["LA"].update({"i0": i0} if i0 else {}))
    with pytest.raises(ImageError, match="views AP and LA have the same pixels"):
        prepare(shot)
    assert not (shot / "out").exists()


def test_one_view_is_no_shot(shot):
    with pytest.raises(GeometryError, match="two or more"):
        prepare(shot, views=("AP",))


@pytest.mark.parametrize("size", [None, [40], ["40", "30"], 7])
def test_cameras_need_a_size_when_no_image_tells_it(shot, size):
    edit(shot, lambda views: views["AP"].update(size=size))
    with pytest.raises(GeometryError, match="view AP: size"):
        read_cameras(shot / "geometry.json")


def test_a_file_without_views_is_refused(tmp_path):
    (tmp_path / "c.json").write_text('{"cameras": []}')
    with pytest.raises(RadgsError, match=r"c\.json: expected"):
        read_view_specs(tmp_path / "c.json")
