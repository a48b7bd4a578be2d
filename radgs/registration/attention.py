"""Where RecM looked: its attention maps and the windows they belong to, as a file beside a registration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from radgs.errors import ImageError
from radgs.images import atomic_path


@dataclass(frozen=True)
class ViewAttention:
    """One view's part.

    Attributes:
        window: ``[H, W]`` line integrals around the vertebra, as the network saw them.
        maps: ``[M, h, w]`` over the whole window, each of mean 1.
        size_mm: of the window, at the depth of the vertebra.
    """

    window: NDArray[np.float32]
    maps: NDArray[np.float32]
    size_mm: float


def write_attention(path: str | Path, views: dict[str, ViewAttention]) -> None:
    """Write HDF5: a group a view, with ``window``, ``maps`` and the attribute ``size_mm``."""
    with atomic_path(path) as part, h5py.File(part, "w") as file:
        for name, view in views.items():
            group = file.create_group(name)
            group.create_dataset("window", data=view.window, compression="gzip")
            group.create_dataset("maps", data=view.maps, compression="gzip")
            group.attrs["size_mm"] = view.size_mm


def read_attention(path: str | Path) -> dict[str, ViewAttention]:
    """Read what :func:`write_attention` wrote, by view.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        with h5py.File(path, "r") as file:
            return {
                name: ViewAttention(group["window"][...], group["maps"][...], float(group.attrs["size_mm"]))
                for name, group in file.items()
            }
    except (OSError, KeyError) as error:
        raise ImageError(f"{path}: not a file of attention maps ({error})") from None
