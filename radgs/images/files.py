"""Files that are either whole or absent, and the JSON formats shared between rules."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from radgs.errors import GeometryError, RadgsError
from radgs.geometry import RigidTransform


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well, and vanishes when not.

    Raises:
        RadgsError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix="-" + path.name)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RadgsError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON with an indent, atomically."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        RadgsError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise RadgsError(f"{path}: no such file") from None
    except OSError as error:
        raise RadgsError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RadgsError(f"{path}: not valid JSON ({error})") from None


def write_transforms(path: str | Path, world_from_ct: Mapping[str, RigidTransform], **about: Any) -> None:
    """Write ``{"world_from_ct": {level: 4x4}}`` with further facts beside it."""
    matrices = {level: transform.matrix.tolist() for level, transform in world_from_ct.items()}
    write_json(path, {**about, "world_from_ct": matrices})


def read_transforms(path: str | Path) -> dict[str, RigidTransform]:
    """Read poses a level; ``{"world_from_ct": {level: 4x4}}`` or ``{level: 4x4}``.

    Raises:
        RadgsError: not such a file.
        GeometryError: a matrix is not rigid.
    """
    content = read_json(path)
    poses = content.get("world_from_ct", content) if isinstance(content, dict) else None
    if not isinstance(poses, dict) or not poses:
        raise RadgsError(f'{path}: expected {{"world_from_ct": {{"L1": 4x4 matrix, ...}}}}')
    out = {}
    for level, matrix in poses.items():
        try:
            out[level] = RigidTransform(matrix)
        except (GeometryError, ValueError, TypeError) as error:
            raise GeometryError(f"{path}: world_from_ct of {level}: {error}") from None
    return out
