"""Who computes: Numba on the CPU, CUDA C++ on a GPU, plain PyTorch anywhere."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

import torch

from radgs.errors import RadgsError

Backend = Literal["auto", "numba", "cuda", "reference"]


def resolve_backend(backend: str, *tensors: torch.Tensor) -> Literal["numba", "cuda", "reference"]:
    """The backend to use for these tensors.

    ``auto`` is Numba for tensors on the CPU, CUDA for tensors on an NVIDIA GPU where the package cuda-core is
    installed, else PyTorch.

    Raises:
        RadgsError: an unknown backend, or one that cannot take these devices or types.
    """
    if backend not in ("auto", "numba", "cuda", "reference"):
        raise RadgsError(f"backend must be 'auto', 'numba', 'cuda' or 'reference', got {backend!r}")
    on_cpu = all(t.device.type == "cpu" for t in tensors)
    on_gpu = all(t.device.type == "cuda" for t in tensors) and torch.version.hip is None
    fast: Literal["numba", "cuda"] = "cuda" if backend == "cuda" or (backend == "auto" and not on_cpu) else "numba"
    if backend == "reference" or (backend == "auto" and fast == "cuda" and not (on_gpu and _has_cuda_core())):
        return "reference"
    if fast == "numba" and not on_cpu:
        raise RadgsError("backend 'numba' needs tensors on the CPU; move them there or use backend='reference'")
    if fast == "cuda" and not on_gpu:
        raise RadgsError("backend 'cuda' needs tensors on an NVIDIA GPU; move them there or use backend='auto'")
    if fast == "cuda" and not _has_cuda_core():
        raise RadgsError("backend 'cuda' needs cuda-core: pip install 'radgs[cuda]', or use backend='reference'")
    if any(t.dtype != torch.float32 for t in tensors):
        found = ", ".join(sorted({str(t.dtype) for t in tensors}))
        raise RadgsError(f"the fast kernels need float32, got {found}; convert, or use backend='reference'")
    return fast


def operations(backend: Literal["numba", "cuda"]) -> ModuleType:
    """The operations of a fast backend; CUDA's are imported only when first asked for."""
    return import_module(f"radgs.kernels.{backend}.operations")


@cache
def _has_cuda_core() -> bool:
    return find_spec("cuda") is not None and find_spec("cuda.core") is not None
