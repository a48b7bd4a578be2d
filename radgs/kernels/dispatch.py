"""Who computes: Numba on the CPU, plain PyTorch anywhere."""

from typing import Literal

import torch

from radgs.errors import RadgsError

Backend = Literal["auto", "numba", "reference"]


def resolve_backend(backend: str, *tensors: torch.Tensor) -> Literal["numba", "reference"]:
    """The backend to use for these tensors; ``auto`` is Numba for tensors on the CPU, else PyTorch.

    Raises:
        RadgsError: an unknown backend, or one that cannot take these devices or types.
    """
    if backend not in ("auto", "numba", "reference"):
        raise RadgsError(f"backend must be 'auto', 'numba' or 'reference', got {backend!r}")
    on_cpu = all(t.device.type == "cpu" for t in tensors)
    if backend == "reference" or (backend == "auto" and not on_cpu):
        return "reference"
    if not on_cpu:
        raise RadgsError("backend 'numba' needs tensors on the CPU; move them there or use backend='reference'")
    if any(t.dtype != torch.float32 for t in tensors):
        found = ", ".join(sorted({str(t.dtype) for t in tensors}))
        raise RadgsError(f"the fast kernels need float32, got {found}; convert, or use backend='reference'")
    return "numba"
