"""CUDA C++ compiled at run time by NVRTC, and launched on PyTorch's current stream.

Nobody needs a compiler to install: NVRTC is a library on the package index, and it works without a GPU.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from cuda.core import Device, Kernel, LaunchConfig, ObjectCode, Program, ProgramOptions, launch
from torch import Tensor

from radgs.errors import RadgsError

Argument: TypeAlias = Tensor | float | np.number
_SOURCES = Path(__file__).parent


def source_names() -> list[str]:
    """Names of the sources, without the ending."""
    return sorted(path.stem for path in _SOURCES.glob("*.cu"))


def source_path(name: str) -> Path:
    """Where a source lies."""
    return _SOURCES / f"{name}.cu"


def compile_source(name: str, architecture: str) -> tuple[ObjectCode, str]:
    """Machine code of one source for, say, ``sm_90``, and what the assembler says of its registers.

    Raises:
        RadgsError: NVRTC is missing or refuses the source; its own words follow.
    """
    log = io.StringIO()
    # Numbers too small for float32's full precision become 0: keeping them costs instructions at each root and power.
    options = ProgramOptions(
        name=f"{name}.cu", arch=architecture, std="c++17", ftz=True, include_path=str(_SOURCES), ptxas_options=["-v"]
    )
    try:
        source = source_path(name).read_text(encoding="utf-8")
        return Program(source, "c++", options).compile("cubin", logs=log), log.getvalue()
    # A missing library and a refused source are errors of different libraries without a common class.
    except Exception as error:
        raise RadgsError(
            f"NVRTC could not compile {name}.cu for {architecture}: {error}; "
            "pip install 'radgs[cuda]' brings NVRTC, backend='reference' does without"
        ) from error


@cache
def _compiled(name: str, architecture: str) -> ObjectCode:
    return compile_source(name, architecture)[0]


@cache
def _kernel(source: str, name: str, architecture: str) -> Kernel:
    return _compiled(source, architecture).get_kernel(name)


def run(
    source: str,
    kernel: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    *arguments: Tensor | int | float | np.number,
) -> None:
    """Queue a kernel on the current stream of the device of its tensors; no blocks, no launch.

    Args:
        source: name of the ``.cu`` file.
        kernel: name of the function in it.
        grid: blocks.
        block: threads of a block.
        arguments: tensors go as pointers, ``int`` as 32 bits, ``float`` as float32, NumPy scalars as what they are.
    """
    if 0 in grid:
        return
    where = next(a.device for a in arguments if isinstance(a, Tensor))
    with torch.cuda.device(where):
        device = Device(where.index)
        device.set_current()
        major, minor = torch.cuda.get_device_capability(where)
        function = _kernel(source, kernel, f"sm_{major}{minor}")
        stream = device.create_stream(torch.cuda.current_stream(where))
        launch(stream, LaunchConfig(grid=grid, block=block), function, *(_argument(a) for a in arguments))


def _argument(value: Argument) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        return value.data_ptr()
    if isinstance(value, np.number):
        return value
    return np.int32(value) if isinstance(value, int) else np.float32(value)
