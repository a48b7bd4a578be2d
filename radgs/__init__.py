"""radgs: where a single vertebra is, from a CT and two calibrated X-rays."""

import os

# PyTorch and Numba each keep a pool of OpenMP threads. A pool that spins while it waits for work takes the cores
# from the other: drawing training pairs is 3 to 6 times slower then. It must be said before either is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
