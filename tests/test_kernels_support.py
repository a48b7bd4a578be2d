"""Empty margins of a volume are skipped, and nothing but the time changes."""

import numpy as np
import pytest
import torch

from radgs.kernels.numba.support import support
from radgs.projection import project

INDEX_FROM_CT = torch.eye(4, dtype=torch.float64)
K = torch.tensor([[[300.0, 0, 15], [0, 300.0, 14], [0, 0, 1]]], dtype=torch.float64)
SIZE = (30, 32)


def _box(volume):
    box = np.empty((2, 3), np.int64)
    support(volume, box)
    return box.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_support_is_the_box_of_what_is_not_zero(seed):
    rng = np.random.default_rng(seed)
    volume = (rng.random((9, 8, 7)) > 0.99).astype(np.float32) * rng.choice([-1.0, np.nan, 2.0])
    where = np.argwhere(volume != 0)[:, ::-1]
    expected = [where.min(0).tolist(), (where.max(0) + 1).tolist()] if len(where) else [[0] * 3, [0] * 3]
    assert _box(volume.astype(np.float32)) == expected


def test_a_volume_without_margins_is_all_support():
    assert _box(np.ones((3, 4, 5), np.float32)) == [[0, 0, 0], [5, 4, 3]]


def _inner_volume():
    volume = torch.zeros(20, 24, 26)
    volume[6:13, 5:20, 9:17] = torch.rand(7, 15, 8, generator=torch.Generator().manual_seed(0))
    return volume


def _pose(requires_grad=False):
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([-12.0, -11, 250])
    angle = torch.tensor(0.4, dtype=torch.float64)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    return pose[None].requires_grad_(requires_grad)


@pytest.mark.parametrize("method", ["trilinear", "siddon"])
def test_skipping_margins_changes_neither_values_nor_gradients(method, monkeypatch):
    results = []
    for skip in (True, False):
        if not skip:

            def everything(volume, box):
                box[0], box[1] = 0, volume.shape[::-1]

            monkeypatch.setattr("radgs.kernels.numba.operations.support", everything)
        volume, pose = _inner_volume().requires_grad_(), _pose(requires_grad=True)
        image = project(volume, INDEX_FROM_CT, K, pose, SIZE, method=method)
        weights = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(1))
        results.append([image.detach(), *torch.autograd.grad((image * weights).sum(), [volume, pose])])
    assert results[0][0].max() > 1
    for skipped, full in zip(*results):
        torch.testing.assert_close(skipped, full, rtol=1e-5, atol=1e-5 * float(full.abs().max()))


@pytest.mark.parametrize("method", ["trilinear", "siddon"])
def test_an_empty_volume_gives_zeros_and_a_gradient_to_its_voxels(method):
    volume, pose = torch.zeros(5, 6, 7, requires_grad=True), _pose(requires_grad=True)
    image = project(volume, INDEX_FROM_CT, K, pose, SIZE, method=method)
    to_volume, to_pose = torch.autograd.grad(image.sum(), [volume, pose])
    assert not image.any()
    assert not to_pose.any()
    assert to_volume.max() > 0
