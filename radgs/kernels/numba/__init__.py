"""Hot loops for the CPU, compiled by Numba and kept on disk between processes."""
