"""Radiative Gaussians: their images, their volume, fits and files."""

from radgs.gaussians.fit import fit_to_volume
from radgs.gaussians.gaussians import RadiativeGaussians
from radgs.gaussians.ply import read_ply, write_ply
from radgs.gaussians.rasterize import rasterize
from radgs.gaussians.voxelize import Grid, voxelize

__all__ = ["Grid", "RadiativeGaussians", "fit_to_volume", "rasterize", "read_ply", "voxelize", "write_ply"]
