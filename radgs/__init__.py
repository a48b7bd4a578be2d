"""radgs: where a single vertebra is, from a CT and two calibrated X-rays."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radgs.case import Outcome, register

# PyTorch and Numba each keep a pool of OpenMP threads. A pool that spins while it waits for work takes the cores
# from the other: drawing training pairs is 3 to 6 times slower then. It must be said before either is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["Outcome", "__version__", "register"]


def __getattr__(name: str) -> Any:
    """``radgs.register`` and its result, imported when asked for: PyTorch alone takes more than a second."""
    if name in ("Outcome", "register"):
        import radgs.case

        return getattr(radgs.case, name)
    raise AttributeError(f"module 'radgs' has no attribute {name!r}")
