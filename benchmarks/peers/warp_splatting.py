"""Radiative Gaussians in NVIDIA Warp: one thread a (view, Gaussian), gradients by Warp's own adjoint."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

wp.config.quiet = True


@wp.kernel
def _splat(
    means: wp.array(dtype=wp.vec3),
    scales: wp.array(dtype=wp.vec3),
    quaternions: wp.array(dtype=wp.vec4),
    densities: wp.array(dtype=float),
    rotations: wp.array(dtype=wp.mat33),
    translations: wp.array(dtype=wp.vec3),
    focal: float,
    centre: float,
    cutoff: float,
    images: wp.array3d(dtype=float),
):
    view, k = wp.tid()
    w = quaternions[k]
    turn = wp.quat_to_matrix(wp.normalize(wp.quaternion(w[1], w[2], w[3], w[0])))
    own = wp.transpose(turn) * wp.transpose(rotations[view])
    s = scales[k]
    a = wp.mat33(
        own[0, 0] / s[0], own[0, 1] / s[0], own[0, 2] / s[0],
        own[1, 0] / s[1], own[1, 1] / s[1], own[1, 2] / s[1],
        own[2, 0] / s[2], own[2, 1] / s[2], own[2, 2] / s[2],
    )  # fmt: skip
    m = rotations[view] * means[k] + translations[view]
    x0 = m[0] / m[2]
    y0 = m[1] / m[2]
    a1 = wp.vec3(a[0, 0], a[1, 0], a[2, 0])
    a2 = wp.vec3(a[0, 1], a[1, 1], a[2, 1])
    w0 = a * wp.vec3(x0, y0, 1.0)
    iq = 1.0 / wp.dot(w0, w0)
    c1 = wp.cross(w0, a1)
    c2 = wp.cross(w0, a2)
    f = m[2] * m[2] * iq / (focal * focal)
    gxx = f * wp.dot(c1, c1)
    gxy = f * wp.dot(c1, c2)
    gyy = f * wp.dot(c2, c2)
    gx = wp.dot(w0, a1) * iq / focal
    gy = wp.dot(w0, a2) * iq / focal
    qxx = wp.dot(a1, a1) * iq / (focal * focal)
    qxy = wp.dot(a1, a2) * iq / (focal * focal)
    qyy = wp.dot(a2, a2) * iq / (focal * focal)
    amplitude = densities[k] * wp.sqrt(6.283185307 * iq)
    u0 = focal * x0 + centre
    v0 = focal * y0 + centre
    t2 = cutoff * cutoff
    mx = gxx - t2 * qxx
    mc = gxy - t2 * qxy
    my = gyy - t2 * qyy
    det = mx * my - mc * mc
    if det > 0.0 and mx > 0.0:
        ex = t2 * (my * gx - mc * gy) / det
        ey = t2 * (mx * gy - mc * gx) / det
        reach = t2 * (1.0 + gx * ex + gy * ey) / det
        half_x = wp.sqrt(wp.max(reach * my, 0.0))
        half_y = wp.sqrt(wp.max(reach * mx, 0.0))
        top = wp.max(int(wp.ceil(v0 + ey - half_y)), 0)
        bottom = wp.min(int(wp.floor(v0 + ey + half_y)), images.shape[1] - 1)
        left = wp.max(int(wp.ceil(u0 + ex - half_x)), 0)
        right = wp.min(int(wp.floor(u0 + ex + half_x)), images.shape[2] - 1)
        for y in range(top, bottom + 1):
            dy = float(y) - v0
            for x in range(left, right + 1):
                dx = float(x) - u0
                n = gxx * dx * dx + 2.0 * gxy * dx * dy + gyy * dy * dy
                q = 1.0 + 2.0 * (gx * dx + gy * dy) + qxx * dx * dx + 2.0 * qxy * dx * dy + qyy * dy * dy
                if n <= t2 * q:
                    ray = wp.sqrt(
                        1.0
                        + (float(x) - centre) * (float(x) - centre) / (focal * focal)
                        + (float(y) - centre) * (float(y) - centre) / (focal * focal)
                    )
                    wp.atomic_add(images, view, y, x, ray * amplitude / wp.sqrt(q) * wp.exp(-0.5 * n / q))


class Step:
    """One forward and backward pass: images of all views, gradients to all parameters and to the pose of each view."""

    def __init__(
        self, parameters: list[Tensor], K: Tensor, camera_from_frame: Tensor, size: int, cutoff: float
    ) -> None:
        wp.init()
        means, scales, quaternions, densities = (p.detach().numpy() for p in parameters)
        with wp.ScopedDevice("cpu"):
            self.inputs = [
                wp.array(means, dtype=wp.vec3, requires_grad=True),
                wp.array(scales, dtype=wp.vec3, requires_grad=True),
                wp.array(quaternions, dtype=wp.vec4, requires_grad=True),
                wp.array(densities, dtype=float, requires_grad=True),
                wp.array(camera_from_frame[:, :3, :3].float().numpy(), dtype=wp.mat33, requires_grad=True),
                wp.array(camera_from_frame[:, :3, 3].float().numpy(), dtype=wp.vec3, requires_grad=True),
            ]
        self.numbers = [float(K[0, 0, 0]), float(K[0, 0, 2]), cutoff]
        self.shape = (len(K), size, size)
        self.count = len(parameters[0])

    def forward(self) -> Tensor:
        """Images only."""
        images = wp.zeros(self.shape, dtype=float, device="cpu", requires_grad=True)
        wp.launch(_splat, (self.shape[0], self.count), [*self.inputs, *self.numbers], [images], device="cpu")
        return wp.to_torch(images)

    def __call__(self, to_images: Tensor) -> list[Tensor]:
        """Gradients to means, scales, quaternions, densities, rotations, translations."""
        images = wp.zeros(self.shape, dtype=float, device="cpu", requires_grad=True)
        with wp.Tape() as tape:
            wp.launch(_splat, (self.shape[0], self.count), [*self.inputs, *self.numbers], [images], device="cpu")
        tape.backward(grads={images: wp.from_torch(to_images.contiguous())})
        gradients = [wp.to_torch(x.grad).clone() for x in self.inputs]
        tape.zero()
        return gradients


def agrees(step: Step, expected: Tensor) -> bool:
    """Whether Warp draws the same images, so that the same work is timed."""
    return bool(torch.allclose(step.forward(), expected, rtol=1e-3, atol=1e-4 * float(expected.max())))
