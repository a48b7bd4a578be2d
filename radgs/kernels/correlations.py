"""How alike drawn and seen images are near each of several parts: what refinement looks at most often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from radgs.errors import ImageError
from radgs.kernels.dispatch import operations, resolve_backend


@dataclass(frozen=True)
class Correlations:
    """Of P parts along u and v, and one minus each as least squares in six parameters a part.

    Attributes:
        value: ``[P, 2]``, -1 to 1; 0 of parts that are compared nowhere.
        gradient: ``[P, 2, 6 P]`` of one minus the correlation.
        hessian: ``[P, 2, 6 P, 6 P]``, Gauss-Newton.
        jacobian: by part, ``[2, 6, n]`` of the normalised moving image by the part's own parameters.
        residual: by part, ``[2, n]`` of the normalised still image: what no change of the moving one's scale explains.
    """

    value: Float64[Tensor, "P 2"]
    gradient: Float64[Tensor, "P 2 p"]
    hessian: Float64[Tensor, "P 2 p p"]
    jacobian: list[Float[Tensor, "2 6 n"]]
    residual: list[Float[Tensor, "2 n"]]


@torch.no_grad()
def correlations(
    drawn: Sequence[Float[Tensor, "7 2 h w"]],
    windows: Sequence[tuple[int, int, int, int]],
    seen: Float[Tensor, "k 2 H W"],
    pixels: Sequence[Int64[Tensor, "n 2"]],
) -> Correlations:
    """Correlate the sum of what is drawn with what is seen, near each part by itself.

    Nuisances and means are taken out, and pixels that differ more than others count less; the definition is
    `radgs.kernels.correlation_reference`.

    Args:
        drawn: by part, float32, CPU: gradients along u and v of its image and of the image's six derivatives.
        windows: by part, rows from, to, columns from, to, in the X-ray; what lies outside is 0.
        seen: of the X-ray and of the nuisances.
        pixels: by part, where it is compared, row and column in the X-ray; none: nowhere.

    Raises:
        ImageError: images that do not fill their windows, or windows or pixels beyond the X-ray.
        RadgsError: they are not float32 on the CPU.
    """
    resolve_backend("numba", seen, *drawn)
    height, width = seen.shape[-2:]
    for image, (y0, y1, x0, x1), at in zip(drawn, windows, pixels, strict=True):
        if image.shape != (7, 2, y1 - y0, x1 - x0) or min(y0, x0) < 0 or y1 > height or x1 > width:
            raise ImageError(f"an image {tuple(image.shape)} is not [7, 2, h, w] of its window {(y0, y1, x0, x1)}")
        if len(at) and not (int(at.min()) >= 0 and int(at[:, 0].max()) < height and int(at[:, 1].max()) < width):
            raise ImageError(f"pixels are compared beyond the {height} x {width} pixels of the X-ray")
    ends = np.cumsum([0, *map(len, pixels)])
    value, gradient, hessian, jacobian, residual = operations("numba").correlations(drawn, windows, seen, pixels, ends)
    between = list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    return Correlations(
        value, gradient, hessian, [jacobian[..., a:b] for a, b in between], [residual[..., a:b] for a, b in between]
    )
