"""One kernel at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_LOCK = threading.Lock()


def launch(kernel: Callable[..., None], *arguments: Any) -> None:
    """Run a kernel, which uses all of Numba's threads itself.

    Without OpenMP or TBB on the system Numba falls back to a layer that ends the process when two Python threads enter
    it at once; with them, two kernels at once would only fight for the same cores.
    """
    with _LOCK:
        kernel(*arguments)
