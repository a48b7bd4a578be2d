"""Boxes as users bring them: the project's own JSON, COCO, YOLO text."""

import json

import pytest

from radgs.anatomy import ProvidedBoxes
from radgs.errors import AnatomyError

IMAGES = {"AP": "scans/frontal.png", "LA": "scans/side.png"}
SIZES = {"AP": (200, 100), "LA": (400, 100)}
COCO = {
    "images": [{"id": 1, "file_name": "frontal.png"}, {"id": 2, "file_name": "some/side.png"}],
    "categories": [{"id": 5, "name": "T12"}, {"id": 6, "name": "L1"}],
    "annotations": [
        {"image_id": 1, "category_id": 5, "bbox": [10, 20, 30, 40]},
        {"image_id": 1, "category_id": 6, "bbox": [10, 60, 30, 40], "score": 0.5},
        {"image_id": 2, "category_id": 5, "bbox": [50, 20, 30, 40]},
    ],
}


def read(folder, content, **options):
    (folder / "boxes.json").write_text(json.dumps(content))
    return ProvidedBoxes(folder / "boxes.json", IMAGES, SIZES, **options).detect().boxes


def yolo(folder, names="T12\nL1\n", **files):
    (folder / "classes.txt").write_text(names)
    for stem, text in files.items():
        (folder / f"{stem}.txt").write_text(text)
    return ProvidedBoxes(folder, IMAGES, SIZES)


def test_coco_boxes_start_at_the_edge_of_the_first_pixel(tmp_path):
    boxes = read(tmp_path, COCO)
    assert boxes["AP"]["T12"].edges == (9.5, 19.5, 39.5, 59.5)
    assert boxes["AP"]["L1"].score == 0.5
    assert set(boxes["LA"]) == {"T12"}


def test_yolo_text_is_in_fractions_of_the_image(tmp_path):
    boxes = (
        yolo(tmp_path, frontal="0 0.5 0.5 0.1 0.2\n1 0.5 0.8 0.1 0.2 0.7\n", side="0 0.25 0.5 0.1 0.2\n").detect().boxes
    )
    assert boxes["AP"]["T12"].edges == pytest.approx((89.5, 39.5, 109.5, 59.5))
    assert boxes["AP"]["L1"].score == 0.7
    assert boxes["LA"]["T12"].edges == pytest.approx((79.5, 39.5, 119.5, 59.5))


def test_files_may_be_named_like_the_views(tmp_path):
    boxes = yolo(tmp_path, AP="0 0.5 0.5 0.1 0.2\n", LA="0 0.25 0.5 0.1 0.2\n").detect().boxes
    assert set(boxes) == {"AP", "LA"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"image_id": 9, "category_id": 5, "bbox": [1, 2, 3, 4]}]}, "not complete COCO"),
        ({"annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 3]}]}, "not complete COCO"),
        ({"annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, -3, 4]}]}, "is no box"),
        ({"annotations": COCO["annotations"] + COCO["annotations"][:1]}, "T12 stands twice"),
        ({"categories": [{"id": 5, "name": "disc"}, {"id": 6, "name": "L1"}]}, "'disc' is no vertebra"),
        ({"images": [{"id": 1, "file_name": "x.png"}, {"id": 2, "file_name": "y.png"}]}, "named like frontal or side"),
        ({"annotations": 3}, "not complete COCO"),
    ],
)
def test_coco_that_cannot_be_used_is_refused(tmp_path, change, message):
    with pytest.raises(AnatomyError, match=message):
        read(tmp_path, COCO | change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 0.5 0.5 0.1 0.2\n", "with a class of classes.txt"),
        ("0 0.5 0.5 0.1\n", "is not 'class x y width height'"),
        ("T12 0.5 0.5 0.1 0.2\n", "is not 'class x y width height'"),
        ("0 0.5 0.5 0 0.2\n", "is no box"),
        ("0 nan 0.5 0.1 0.2\n", "is no box"),
        ("0 .5 .5 .1 .2\n0 .5 .5 .1 .2\n", "T12 stands twice"),
    ],
)
def test_yolo_text_that_cannot_be_used_is_refused(tmp_path, text, message):
    with pytest.raises(AnatomyError, match=message):
        yolo(tmp_path, frontal=text).detect()


def test_yolo_text_without_classes_or_files_is_refused(tmp_path):
    with pytest.raises(AnatomyError, match=r"classes.txt: no such file"):
        ProvidedBoxes(tmp_path, IMAGES, SIZES).detect()
    with pytest.raises(AnatomyError, match="named like frontal or side"):
        yolo(tmp_path).detect()
