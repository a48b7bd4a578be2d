"""A population's pairs, read from its shards when a batch needs them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from radgs.errors import ImageError

VERTEBRA_TABLES = ("level", "volumes", "points", "means", "scales", "quaternions", "densities")
_SMALL = ("K", "camera_from_crop", "crop_from_vertebra", "level", "vertebra")
_LARGE = ("images", "targets")


class ShardedField:
    """One field of many files, as long as all of them together; indexing it reads.

    Index it with a slice or with a tensor of rows, as one would a tensor.
    """

    def __init__(self, files: Sequence[h5py.File], name: str) -> None:
        self._sets = [file[name] for file in files]
        self._ends = list(accumulate(len(one) for one in self._sets))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        chosen = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        values = torch.from_numpy(np.stack([self._row(row) for row in chosen]))
        return values.float() if values.dtype == torch.float16 else values

    def _row(self, row: int) -> np.ndarray:
        shard = bisect_right(self._ends, row)
        return np.asarray(self._sets[shard][row - (self._ends[shard - 1] if shard else 0)])


class ShardedPairs:
    """The pairs of several shards as one, and the tables of all their vertebrae.

    Attributes:
        fields: as of :class:`radgs.simulation.SimulatedPairs`, with ``vertebra``: the row in ``vertebrae``.
        vertebrae: tables (:func:`radgs.simulation.population.vertebra_tables`) of all shards in a row.
        levels_of: by subject, its levels and those left out.

    Raises:
        ImageError: there is no shard, or a file is none.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        if not paths:
            raise ImageError("a population needs at least one shard")
        files, tables, small, offset = [], [], [], 0
        self.levels_of: dict[str, dict[str, str]] = {}
        for path in paths:
            try:
                file = h5py.File(path, "r")
                tables.append({name: torch.from_numpy(file["vertebrae"][name][...]) for name in VERTEBRA_TABLES})
                small.append({name: torch.from_numpy(file[name][...]) for name in _SMALL})
                known = {name: str(file.attrs[name]) for name in ("subject", "levels", "leave_out")}
            except (OSError, KeyError) as error:
                raise ImageError(f"{path}: not a shard of a population ({error})") from None
            small[-1]["vertebra"] += offset
            offset += len(tables[-1]["level"])
            files.append(file)
            self.levels_of[known["subject"]] = {"levels": known["levels"], "leave_out": known["leave_out"]}
        self.vertebrae = {name: torch.cat([table[name] for table in tables]) for name in VERTEBRA_TABLES}
        self.fields: Mapping[str, Tensor | ShardedField] = {
            **{name: torch.cat([one[name] for one in small]) for name in _SMALL},
            **{name: ShardedField(files, name) for name in _LARGE},
        }

    def __len__(self) -> int:
        return len(self.fields["level"])
