"""Gaussians as PLY files, binary little-endian, one vertex a Gaussian.

Properties: x, y, z (mm); scale_0..2 (mm, standard deviations, not logarithms); rot_0..3 (w, x, y, z); density (1/mm).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from radgs.errors import RadgsError
from radgs.gaussians.gaussians import RadiativeGaussians, check_values
from radgs.images.files import atomic_path

_NAMES = ("x", "y", "z", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "density")
_TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"}
_TYPES |= {"uchar": "u1", "uint8": "u1", "char": "i1", "int": "<i4", "int32": "<i4", "uint": "<u4"}
_LONGEST_HEADER = 65536


def write_ply(path: str | Path, gaussians: RadiativeGaussians) -> None:
    """Write Gaussians without a batch, atomically, in their own precision.

    Raises:
        RadgsError: Gaussians with a batch or impossible values.
    """
    if gaussians.batch_shape:
        raise RadgsError(f"{path}: one set of Gaussians a file, index the batch {gaussians.batch_shape} first")
    check_values(gaussians)
    g = gaussians
    table = torch.cat([g.means, g.scales, g.quaternions, g.densities[:, None]], -1).detach().cpu()
    kind, dtype = ("double", "<f8") if table.dtype == torch.float64 else ("float", "<f4")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment radiative Gaussians: mm, standard deviations in mm, quaternion w x y z, density in 1/mm",
        f"element vertex {gaussians.count}",
        *(f"property {kind} {name}" for name in _NAMES),
        "end_header\n",
    ]
    with atomic_path(path) as part:
        part.write_bytes("\n".join(header).encode("ascii") + table.numpy().astype(dtype).tobytes())


def read_ply(path: str | Path) -> RadiativeGaussians:
    """Read Gaussians; further properties of the vertices are passed over.

    Returns:
        Float64 where the file holds doubles, else float32; no batch.

    Raises:
        RadgsError: the file is missing, cut off, or no PLY of radiative Gaussians.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError:
        raise RadgsError(f"{path}: no such file") from None
    head, found, body = content.partition(b"end_header\n")
    if not content.startswith(b"ply") or not found or len(head) > _LONGEST_HEADER:
        raise RadgsError(f"{path}: not a PLY file")
    count, record = _parse_header(path, head.decode("ascii", errors="replace").splitlines())
    if len(body) < count * record.itemsize:
        raise RadgsError(f"{path}: {count} Gaussians need {count * record.itemsize} bytes, only {len(body)} are there")
    table = np.frombuffer(body, record, count)
    values = torch.from_numpy(np.stack([table[name] for name in _NAMES], -1).astype(record["x"].newbyteorder("=")))
    gaussians = _from_table(values)
    try:
        check_values(gaussians)
    except RadgsError as error:
        raise RadgsError(f"{path}: {error}") from None
    return gaussians


def _from_table(table: Float[Tensor, "N 11"]) -> RadiativeGaussians:
    means, scales, quaternions, densities = table.split([3, 3, 4, 1], dim=1)
    return RadiativeGaussians(
        means.contiguous(), scales.contiguous(), quaternions.contiguous(), densities[:, 0].contiguous()
    )


def _parse_header(path: Path, lines: list[str]) -> tuple[int, np.dtype]:
    """Number of vertices and the layout of one; the vertices must come first."""
    words = [line.split() for line in lines if line.strip() and not line.startswith(("comment", "obj_info"))]
    if len(words) < 3 or words[1] != ["format", "binary_little_endian", "1.0"]:
        raise RadgsError(f"{path}: only binary little-endian PLY is read")
    if words[2][:2] != ["element", "vertex"] or len(words[2]) != 3 or not words[2][2].isdigit():
        raise RadgsError(f"{path}: the first element of the PLY must be its vertices")
    layout = []
    for line in words[3:]:
        if line[0] != "property":
            break
        if len(line) != 3 or line[1] not in _TYPES:
            raise RadgsError(f"{path}: cannot read the PLY property {' '.join(line[1:])!r}")
        layout.append((line[2], _TYPES[line[1]]))
    missing = [name for name in _NAMES if name not in dict(layout)]
    if missing:
        raise RadgsError(f"{path}: lacks {', '.join(missing)}; not radiative Gaussians")
    return int(words[2][2]), np.dtype(layout)
