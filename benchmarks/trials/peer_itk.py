"""itk-twoprojectionregistration: Powell's search for the largest correlation of intensities in two views (Wu 2010).

It knows a linear accelerator: a source that turns about one axis, at a distance from an isocentre, and detectors that
stand upright to that axis. Any two views are such a pair: the axis is normal to both directions, and an X-ray can be
resampled on the upright plane through the isocentre.
"""

from __future__ import annotations

from dataclasses import dataclass

import itk
import numpy as np
from numpy.typing import NDArray

from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume, Xray
from trials.chain import Shot
from trials.peers import PIXEL_MM, PIXELS, cube, sampled
from trials.place import Place

_KIND = itk.Image[itk.F, 3]


@dataclass(frozen=True)
class Gantry:
    """The room: x, y (where the first view looks) and z (the axis), from the isocentre.

    Attributes:
        axes: ``[3, 3]`` room_from_world, rows.
        isocentre: ``[3]`` world, mm.
    """

    axes: NDArray[np.float64]
    isocentre: NDArray[np.float64]

    @classmethod
    def of(cls, first: Camera, second: Camera, isocentre: NDArray[np.float64]) -> Gantry:
        """Of two views."""
        y, other = first.camera_from_world.rotation[2], second.camera_from_world.rotation[2]
        z = np.cross(y, other)
        z *= -np.sign(z @ first.camera_from_world.rotation[1]) / np.linalg.norm(z)
        return cls(np.stack([np.cross(y, z), y, z]), isocentre)

    def angle(self, camera: Camera) -> float:
        """Of a view, radians."""
        x, y, _ = self.axes @ camera.camera_from_world.rotation[2]
        return float(np.arctan2(-x, y))

    def room(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """World to room, mm."""
        return self.axes @ (point - self.isocentre)

    def image(self, xray: Xray, at: NDArray[np.float64]):
        """The X-ray on the package's plane, around where ``at`` (world, mm) is seen."""
        angle, distance = self.angle(xray.camera), self.distance(xray.camera)
        across, up = np.array([np.cos(angle), np.sin(angle), 0]), np.array([0, 0, 1.0])
        away = np.cross(up, across)
        point = self.room(at)
        magnified = distance / (distance + point @ away)
        steps = (np.arange(PIXELS) - (PIXELS - 1) / 2) * PIXEL_MM
        x, y = (point @ axis * magnified + steps for axis in (across, up))
        room = x[None, :, None] * across + y[:, None, None] * up
        image = itk.image_from_array(sampled(xray, self.isocentre + room @ self.axes, at)[None])
        image.SetSpacing([PIXEL_MM, PIXEL_MM, 1.0])
        image.SetOrigin([float(x[0]), float(y[0]), -distance])
        return image

    def distance(self, camera: Camera) -> float:
        """From the source to the isocentre, mm."""
        return float(np.linalg.norm(camera.source - self.isocentre))


def itk_two_projections(place: Place, shot: Shot, start: RigidTransform) -> dict[str, RigidTransform]:
    """By level, world_from_ct."""
    return {level: _one(place, shot, start, level) for level in place.levels}


def _one(place: Place, shot: Shot, start: RigidTransform, level: str) -> RigidTransform:
    volume, centre = cube(place, level), place.hospital.body.centres[level]
    first, second = shot.xrays.values()
    gantry = Gantry.of(first.camera, second.camera, shot.scene.isocentre)
    transform = itk.Euler3DTransform[itk.D].New()
    transform.SetComputeZYX(True)
    # it takes the corner of the first voxel for the origin, whatever the image says, and the centre for the isocentre
    transform.SetCenter((centre - volume.points([-0.5, -0.5, -0.5])).tolist())
    transform.SetMatrix(itk.matrix_from_array(gantry.axes @ start.rotation))
    at = start.apply(centre)
    transform.SetTranslation(gantry.room(at).tolist())
    method = itk.TwoProjectionImageRegistrationMethod[_KIND, _KIND].New()
    for number, xray in enumerate((first, second), 1):
        image = gantry.image(xray, at)
        getattr(method, f"SetFixedImage{number}")(image)
        getattr(method, f"SetFixedImageRegion{number}")(image.GetBufferedRegion())
        getattr(method, f"SetInterpolator{number}")(caster(gantry, xray.camera, transform))
    metric = itk.NormalizedCorrelationTwoImageToOneImageMetric[_KIND, _KIND].New()
    metric.ComputeGradientOff()
    metric.SetSubtractMean(True)
    method.SetMovingImage(moving_image(volume))
    method.SetMetric(metric)
    method.SetOptimizer(_powell())
    method.SetTransform(transform)
    method.SetInitialTransformParameters(transform.GetParameters())
    method.Update()
    transform.SetParameters(method.GetLastTransformParameters())
    rotation = gantry.axes.T @ itk.array_from_matrix(transform.GetMatrix())
    there = gantry.isocentre + gantry.axes.T @ np.array(list(transform.GetTranslation()))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, there - rotation @ centre
    return RigidTransform.nearest(matrix)


def moving_image(volume: Volume):
    """HU; what is below 0, its threshold, is not drawn, so that bone is what it sees."""
    image = itk.image_from_array(np.ascontiguousarray(volume.array, np.float32))
    image.SetSpacing(volume.spacing.tolist())
    return image


def caster(gantry: Gantry, camera: Camera, transform):
    """Its projector for one view."""
    rays = itk.SiddonJacobsRayCastInterpolateImageFunction[_KIND, itk.D].New()
    rays.SetProjectionAngle(gantry.angle(camera))
    rays.SetFocalPointToIsocenterDistance(gantry.distance(camera))
    rays.SetThreshold(0.0)
    rays.SetTransform(transform)
    rays.Initialize()
    return rays


def _powell():
    """As in the package's own example."""
    optimizer = itk.PowellOptimizer.New()
    optimizer.SetMaximize(False)
    optimizer.SetMaximumIteration(10)
    optimizer.SetMaximumLineIteration(4)
    optimizer.SetStepLength(4.0)
    optimizer.SetStepTolerance(0.02)
    optimizer.SetValueTolerance(0.001)
    optimizer.SetScales([180 / np.pi] * 3 + [1.0] * 3)
    return optimizer
