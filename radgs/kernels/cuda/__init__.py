"""The hot loops in CUDA C++, compiled at run time."""
