"""Line integrals by ITK-RTK, from cameras that are given to it as a source, a detector and its two axes."""

from __future__ import annotations

import itk
import numpy as np
from itk import RTK
from numpy.typing import NDArray

from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume


def projection_geometry(camera: Camera, world_from_ct: RigidTransform, detector_mm: float):
    """RTK's geometry of a camera, in the CT's frame, for a detector ``detector_mm`` from the source.

    RTK wants u x v to point to the source, and a camera's v runs down, so v is turned upward here and the image back.
    """
    camera_from_ct = camera.camera_from_world @ world_from_ct
    right, down, away = camera_from_ct.rotation
    source = camera_from_ct.inverse().translation
    geometry = RTK.ThreeDCircularProjectionGeometry.New()
    if not geometry.AddProjection(
        source.tolist(), (source + detector_mm * away).tolist(), right.tolist(), (-down).tolist()
    ):
        raise ValueError("RTK takes no such camera")
    return geometry


def to_itk(volume: Volume):
    """An ITK image of floats."""
    image = itk.image_from_array(np.ascontiguousarray(volume.array, dtype=np.float32))
    image.SetSpacing(volume.spacing.tolist())
    image.SetOrigin(volume.lps_from_index[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(volume.lps_from_index[:3, :3] / volume.spacing))
    return image


def project(volume, camera: Camera, world_from_ct: RigidTransform, detector_mm: float) -> NDArray[np.float32]:
    """Joseph's line integrals of a volume.

    Args:
        volume: of :func:`to_itk`; values in 1/mm, its frame is ``ct``.
        camera: square pixels without skew.
        world_from_ct: rigid.
        detector_mm: from the source to the detector; any that lies behind the volume gives the same image.

    Returns:
        ``[H, W]``, no unit.
    """
    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(1)
    pixel = detector_mm / camera.K[0, 0]
    detector = itk.image_from_array(np.zeros((1, camera.height, camera.width), np.float32))
    detector.SetSpacing([pixel, pixel, 1.0])
    detector.SetOrigin([-camera.K[0, 2] * pixel, (camera.K[1, 2] - (camera.height - 1)) * pixel, 0.0])
    kind = itk.Image[itk.F, 3]
    joseph = RTK.JosephForwardProjectionImageFilter[kind, kind].New()
    joseph.SetInput(0, detector)
    joseph.SetInput(1, volume)
    joseph.SetGeometry(projection_geometry(camera, world_from_ct, detector_mm))
    joseph.Update()
    return itk.array_from_image(joseph.GetOutput())[0, ::-1].copy()
