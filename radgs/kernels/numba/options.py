"""How the loops are compiled."""

from typing import Any

_FAST = {"contract", "nsz", "arcp", "reassoc"}

# A parallel loop nest; `numba.get_num_threads()` is not usable inside a cached kernel, so counts are passed in.
PARALLEL: dict[str, Any] = {"parallel": True, "fastmath": _FAST, "error_model": "numpy", "cache": True}
# An inner loop: a function of its own over contiguous memory is what LLVM vectorises.
INNER: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy", "cache": True}
# Float64 set-up of rays, where infinities and signs of zero are meant.
EXACT: dict[str, Any] = {"error_model": "numpy", "cache": True}
