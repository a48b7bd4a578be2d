"""NIfTI without surprises.

ITK reads a NIfTI that was cut off without a word, and turns NaN into 0: an X-ray's unmeasured pixels would become
air. When the disk is full, it writes half a file and says nothing. nibabel does none of this.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from radgs.errors import ImageError
from radgs.images.files import atomic_path

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NIBABEL_ERRORS = (nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError)
_NIFTI2_HEADER_BYTES = (540).to_bytes(4, "little"), (540).to_bytes(4, "big")


def is_nifti(path: str | Path) -> bool:
    """Whether the name is that of a NIfTI in one file."""
    return str(path).lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: str | Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read ``.nii`` or ``.nii.gz`` whole.

    Returns:
        Values with the axes reversed, ``[..., z, y, x]``, of the stored type, or float32 if stored with a scale;
        and lps_from_index ``[4, 4]``, index (x, y, z) to LPS mm.

    Raises:
        ImageError: the file is missing, damaged or cut off.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
        kind: Any = nib.Nifti2Image if content[:4] in _NIFTI2_HEADER_BYTES else nib.Nifti1Image
        image = kind.from_bytes(content)
        values = np.asarray(image.dataobj)
    except (EOFError, OSError, ValueError, MemoryError, zlib.error, *_NIBABEL_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"{path}: cannot be read, is it complete? ({reason})") from None
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native.T), _LPS_FROM_RAS @ np.asarray(image.affine, dtype=np.float64)


def write_nifti(path: str | Path, array: NDArray[np.generic], lps_from_index: NDArray[np.float64]) -> None:
    """Write ``[..., z, y, x]`` whole or not at all; arguments as :func:`read_nifti` returns them.

    Raises:
        RadgsError: the file cannot be written.
    """
    stored = array.astype(np.int32) if array.dtype in (np.int64, np.bool_) else array
    image = nib.Nifti1Image(stored.T, _LPS_FROM_RAS @ lps_from_index)
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as part:
        nib.save(image, part)
