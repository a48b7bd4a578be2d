"""What the DICOM readers share: telling DICOM from other files, and headers without the patient.

Only the tags that a reader names are ever read, so no name, id or date of a patient can reach a file or a message.
For the same reason pydicom's own warnings and error texts, which quote header values, are dropped.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.pixels import pixel_array
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from radgs.errors import ImageError

_PREAMBLE_BYTES = 128
_PIXELS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)


def is_dicom(path: str | Path) -> bool:
    """Whether a file carries DICOM's mark after its preamble (PS3.10, 7.1)."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] == b"DICM"


def read_header(path: Path, keywords: Sequence[str]) -> pydicom.Dataset:
    """The named top-level elements of a DICOM file, and no others; empty ones are left out.

    Raises:
        ImageError: the file is damaged.
    """
    return _read(path, (*keywords, *_PIXELS), without_pixels=True)


def read_pixels(path: Path, frame: int | None = None) -> NDArray[Any]:
    """Stored values, decompressed but not rescaled: ``[H, W]`` of one frame (0 is the first), else all that there are.

    Raises:
        ImageError: the file is cut off or damaged, in colour, or compressed in a way that cannot be undone.
    """
    header = _read(path, _PIXELS, without_pixels=False)
    if header.get("SamplesPerPixel", 1) != 1 or "PixelData" not in header:
        raise ImageError(f"{path}: one grey image is needed; it is in colour, cut off or holds no pixels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bytes too many; too few are an error
            return pixel_array(header, index=frame)
    except Exception as error:  # each decoder raises its own kinds
        syntax = getattr(header.file_meta.get("TransferSyntaxUID"), "name", "unknown")
        raise ImageError(
            f"{path}: its pixels ({syntax}) cannot be read, is it complete? ({type(error).__name__})"
        ) from None


def _read(path: Path, keywords: Sequence[str], *, without_pixels: bool) -> pydicom.Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, specific_tags=list(keywords), stop_before_pixels=without_pixels)
            for element in list(header):  # converts every value now, where an error can be named
                if element.is_empty:
                    del header[element.tag]
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Exception as error:  # a damaged file can fail anywhere in pydicom
        raise ImageError(f"{path}: cannot be read as DICOM, is it complete? ({type(error).__name__})") from None
    return header


def derived_uid(kind: str, *contents: bytes) -> str:
    """A UID that is always the same for the same contents; ``kind`` tells one use from another."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return str(generate_uid(entropy_srcs=["radgs", kind, digest.hexdigest()]))


def named(keyword: str) -> str:
    """An element as a message shows it: ``Distance Source to Detector (0018,1110)``."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    return f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"
