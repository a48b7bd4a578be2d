"""The hot loops and nothing else: Numba on the CPU, CUDA C++ on a GPU, and plain PyTorch twins."""

from radgs.kernels.correlation_reference import LEAST_CURVATURE
from radgs.kernels.correlations import Correlations, correlations
from radgs.kernels.dispatch import Backend, resolve_backend
from radgs.kernels.fields import field_equations
from radgs.kernels.filters import gradients
from radgs.kernels.line_integrals import (
    Method,
    depth_integrals,
    depth_integrals_and_gradients,
    depth_integrals_in_layers,
)
from radgs.kernels.moving import Box, MovedRays, Packed, moved_line_integrals, pack
from radgs.kernels.reference import THINNEST
from radgs.kernels.sliding import SlidPictures, along_axes, slide
from radgs.kernels.splatting import (
    LARGEST_CUTOFF,
    rasterize_coefficients,
    rasterize_gaussians,
    voxelize_coefficients,
)

__all__ = [
    "LARGEST_CUTOFF",
    "LEAST_CURVATURE",
    "THINNEST",
    "Backend",
    "Box",
    "Correlations",
    "Method",
    "MovedRays",
    "Packed",
    "SlidPictures",
    "along_axes",
    "correlations",
    "depth_integrals",
    "depth_integrals_and_gradients",
    "depth_integrals_in_layers",
    "field_equations",
    "gradients",
    "moved_line_integrals",
    "pack",
    "rasterize_coefficients",
    "rasterize_gaussians",
    "resolve_backend",
    "slide",
    "voxelize_coefficients",
]
