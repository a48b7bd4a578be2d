"""The same radiograph from ITK-RTK, which knows nothing of this package's conventions."""

import itk
import numpy as np
import pytest
import torch
from itk import RTK

from radgs.geometry import Camera, RigidTransform
from radgs.images import Volume
from radgs.projection import project

PIXEL_MM, SDD = 2.5, 1100.0


def _phantom():
    """Smooth blobs without any symmetry, on an oblique and anisotropic grid."""
    rotation = RigidTransform.nearest(
        np.array([[0.95, -0.2, 0.1, 0], [0.22, 0.96, -0.05, 0], [-0.1, 0.08, 1, 0], [0, 0, 0, 1]])
    ).rotation
    affine = np.eye(4)
    affine[:3, :3] = rotation * [1.8, 2.2, 2.6]
    shape = (46, 52, 60)
    affine[:3, 3] = np.array([6.0, -9.0, 4.0]) - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    z, y, x = np.indices(shape)
    points = np.stack([x, y, z], -1) @ affine[:3, :3].T + affine[:3, 3]
    values = np.zeros(shape)
    for centre, width, mu in (((25, -5, 10), 9.0, 0.03), ((-20, 15, -15), 6.0, 0.05), ((0, -25, 20), 5.0, 0.04)):
        values += mu * np.exp(-((points - centre) ** 2).sum(-1) / (2 * width**2))
    return Volume(values.astype(np.float32), affine)


def _camera():
    rotation = RigidTransform.nearest(
        np.array([[0.3, 0.9, 0.1, 0], [0.05, 0.1, -1, 0], [-0.92, 0.33, 0.05, 0], [0, 0, 0, 1.0]])
    ).rotation
    focal = SDD / PIXEL_MM
    k = np.array([[focal, 0, 38.0], [0, focal, 27.5], [0, 0, 1]])
    return Camera(k, RigidTransform.from_rotation_translation(rotation, [8.0, -5.0, 720.0]), 72, 60)


def _rtk_image(volume, camera):
    """Joseph's forward projection; RTK wants u x v towards the source, so v is turned upward and back."""
    r = camera.camera_from_world.rotation
    cx, cy = camera.K[0, 2], camera.K[1, 2]
    geometry = RTK.ThreeDCircularProjectionGeometry.New()
    detector = camera.source + SDD * r[2]
    assert geometry.AddProjection(camera.source.tolist(), detector.tolist(), r[0].tolist(), (-r[1]).tolist())
    kind = itk.Image[itk.F, 3]
    stack = itk.image_from_array(np.zeros((1, camera.height, camera.width), np.float32))
    stack.SetSpacing([PIXEL_MM, PIXEL_MM, 1.0])
    stack.SetOrigin([-cx * PIXEL_MM, (cy - (camera.height - 1)) * PIXEL_MM, 0.0])
    ct = itk.image_from_array(np.ascontiguousarray(volume.array))
    ct.SetSpacing(volume.spacing.tolist())
    ct.SetOrigin(volume.lps_from_index[:3, 3].tolist())
    ct.SetDirection(itk.matrix_from_array(volume.lps_from_index[:3, :3] / volume.spacing))
    joseph = RTK.JosephForwardProjectionImageFilter[kind, kind].New()
    joseph.SetInput(0, stack)
    joseph.SetInput(1, ct)
    joseph.SetGeometry(geometry)
    joseph.Update()
    return itk.array_from_image(joseph.GetOutput())[0, ::-1].copy()


@pytest.mark.parametrize("method", ["trilinear", "siddon"])
def test_projection_agrees_with_rtk_and_no_mirror_image_does(method):
    volume, camera = _phantom(), _camera()
    peer = _rtk_image(volume, camera)
    image = project(
        torch.from_numpy(volume.array),
        torch.from_numpy(volume.index_from_lps),
        torch.from_numpy(camera.K.copy())[None],
        camera.camera_from_world.tensor()[None],
        (camera.height, camera.width),
        method=method,
        step_mm=0.5,
    )[0].numpy()
    assert np.linalg.norm(image - peer) < (0.003 if method == "trilinear" else 0.03) * np.linalg.norm(peer)
    for wrong in (image[::-1], image[:, ::-1], image[::-1, ::-1]):
        assert np.linalg.norm(wrong - peer) > 0.3 * np.linalg.norm(peer)
