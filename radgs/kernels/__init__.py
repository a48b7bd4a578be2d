"""The hot loops and nothing else: Numba on the CPU, and plain PyTorch twins."""

from radgs.kernels.dispatch import Backend, resolve_backend
from radgs.kernels.line_integrals import Method, depth_integrals

__all__ = ["Backend", "Method", "depth_integrals", "resolve_backend"]
