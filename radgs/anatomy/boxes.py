"""Boxes around vertebrae in X-rays: from whoever finds them, and as users bring them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np

from radgs.anatomy.levels import LEVELS
from radgs.errors import AnatomyError
from radgs.images import read_json

_CLASSES = "classes.txt"
_EXPECTED = '{"views": {"AP": {"L1": {"box": [u0, v0, u1, v1]}}}}'


@dataclass(frozen=True)
class Box:
    """A level found in one view: pixel edges (u0, v0, u1, v1), 0 being the middle of the first pixel; score 0 to 1."""

    edges: tuple[float, float, float, float]
    score: float

    @property
    def centre(self) -> np.ndarray:
        """``[2]`` (u, v), pixels."""
        u0, v0, u1, v1 = self.edges
        return np.array([(u0 + u1) / 2, (v0 + v1) / 2])

    def outside(self, width: int, height: int) -> bool:
        """Whether no part of it is inside an image of so many pixels."""
        u0, v0, u1, v1 = self.edges
        return u1 < -0.5 or v1 < -0.5 or u0 > width - 0.5 or v0 > height - 0.5


@dataclass(frozen=True)
class Detections:
    """What was found in the views of a shot: boxes by view and level."""

    boxes: dict[str, dict[str, Box]]


class LevelDetector(Protocol):
    """Anything that finds vertebrae in the X-rays of a shot."""

    def detect(self) -> Detections:
        """Boxes by view and level."""
        ...


class ProvidedBoxes:
    """Boxes that the user brings, whose names are taken at their word.

    - JSON of this project: ``{"views": {"AP": {"L1": {"box": [u0, v0, u1, v1], "score": 1.0}}}}``;
    - COCO JSON: categories are levels, images are told by their file names;
    - a folder of YOLO text: ``classes.txt`` with a level a line, and a file a view, named like the view or its image.

    Args:
        path: the file or folder.
        images: by view, its image file; needed for COCO and YOLO text where images are not named like views.
        sizes: by view, width and height in pixels; YOLO text needs them, without them its boxes are fractions.
    """

    def __init__(
        self,
        path: str | Path,
        images: Mapping[str, str] | None = None,
        sizes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.path, self.images, self.sizes = Path(path), dict(images or {}), dict(sizes or {})

    def detect(self) -> Detections:
        """Read and check the boxes.

        Raises:
            AnatomyError: not such a file, an unknown level, a level twice in a view, or edges that make no box.
        """
        if self.path.is_dir():
            return Detections(self._yolo_text())
        content = read_json(self.path)
        if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
            return Detections(self._coco(content))
        views = content.get("views") if isinstance(content, dict) else None
        if not isinstance(views, dict) or not views:
            raise AnatomyError(f"{self.path}: expected {_EXPECTED}, or COCO's images, annotations and categories")
        for view, found in views.items():
            if not isinstance(found, dict):
                raise AnatomyError(f"{self.path}: view {view}: expected boxes by level, got {found!r}")
        return Detections({v: {lv: self._own(v, lv, e) for lv, e in found.items()} for v, found in views.items()})

    def _own(self, view: str, level: str, entry: Any) -> Box:
        try:
            edges, score = [float(x) for x in entry["box"]], float(entry.get("score", 1.0))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise AnatomyError(f"{self.path}: view {view}, {level}: needs box [u0, v0, u1, v1] in pixels") from None
        return self._box(view, level, edges, score)

    def _coco(self, content: Mapping[str, Any]) -> dict[str, dict[str, Box]]:
        boxes: dict[str, dict[str, Box]] = {}
        try:
            names = {category["id"]: str(category["name"]) for category in content["categories"]}
            files = {image["id"]: str(image["file_name"]) for image in content["images"]}
            for one in content["annotations"]:
                view, level = self._view(files[one["image_id"]]), names[one["category_id"]]
                if view is not None:
                    x, y, width, height = (float(value) for value in one["bbox"])
                    edges = [x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5]
                    self._add(boxes, view, level, self._box(view, level, edges, float(one.get("score", 1.0))))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AnatomyError(
                f"{self.path}: not complete COCO annotations ({type(error).__name__}: {error})"
            ) from None
        if not boxes:
            raise AnatomyError(f"{self.path}: no annotated image is named like {' or '.join(self._known())}")
        return boxes

    def _yolo_text(self) -> dict[str, dict[str, Box]]:
        boxes: dict[str, dict[str, Box]] = {}
        names = self._lines(self.path / _CLASSES)
        for file in sorted(self.path.glob("*.txt")):
            view = self._view(file.name)
            if file.name == _CLASSES or view is None:
                continue
            width, height = self.sizes.get(view, (1, 1))
            for line in self._lines(file):
                try:
                    number, x, y, w, h, score = (*(float(value) for value in line.split()), 1.0)[:6]
                    level = names[int(number)]
                except (ValueError, IndexError):
                    raise AnatomyError(
                        f"{file}: {line[:60]!r} is not 'class x y width height' with a class of {_CLASSES}"
                    ) from None
                low, high = (x - w / 2, y - h / 2), (x + w / 2, y + h / 2)
                edges = [low[0] * width, low[1] * height, high[0] * width, high[1] * height]
                self._add(boxes, view, level, self._box(view, level, [edge - 0.5 for edge in edges], score))
        if not boxes:
            raise AnatomyError(f"{self.path}: holds no boxes in files named like {' or '.join(self._known())}")
        return boxes

    def _lines(self, file: Path) -> list[str]:
        try:
            return [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
        except FileNotFoundError:
            raise AnatomyError(f"{file}: no such file; it names the levels, one a line") from None
        except (OSError, UnicodeDecodeError) as error:
            raise AnatomyError(f"{file}: cannot be read as text ({error})") from None

    def _known(self) -> list[str]:
        return [PurePath(image).stem for image in self.images.values()] or ["AP", "LA"]

    def _view(self, name: str) -> str | None:
        """The view of an image or text file: the view is its stem, or its image has the same stem."""
        stem = PurePath(name).stem
        by_image = {PurePath(image).stem: view for view, image in self.images.items()}
        if stem in by_image:
            return by_image[stem]
        return stem if stem in self.images or (not self.images and stem.isupper()) else None

    def _add(self, boxes: dict[str, dict[str, Box]], view: str, level: str, box: Box) -> None:
        if level in boxes.setdefault(view, {}):
            raise AnatomyError(f"{self.path}: view {view}: {level} stands twice")
        boxes[view][level] = box

    def _box(self, view: str, level: str, edges: list[float], score: float) -> Box:
        if level not in LEVELS:
            raise AnatomyError(f"{self.path}: view {view}: {level!r} is no vertebra")
        if len(edges) != 4:
            raise AnatomyError(f"{self.path}: view {view}, {level}: needs box [u0, v0, u1, v1] in pixels")
        u0, v0, u1, v1 = edges
        if not (np.isfinite(edges).all() and u1 > u0 and v1 > v0 and 0 <= score <= 1):
            raise AnatomyError(f"{self.path}: view {view}, {level}: {edges} with score {score} is no box")
        return Box((u0, v0, u1, v1), score)
