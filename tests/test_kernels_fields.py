"""Normal equations of bilinear fields against products of the whole Jacobian."""

import pytest
import torch

from radgs.errors import ImageError
from radgs.kernels import field_equations

NODES = (4, 5)


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    derivatives, residual = (torch.randn(s, generator=generator) for s in ((3, 2, 30, 41), (2, 30, 41)))
    weights = torch.rand(2, 30, 41, generator=generator)
    weights[:, 7:13, 20:] = 0
    rows, columns = (torch.arange(30) + 0.5) / 10.3, (torch.arange(41) + 0.5) / 10.3
    return derivatives, residual, weights, rows, columns


def test_they_are_the_products_of_the_dense_jacobian(problem):
    derivatives, residual, weights, rows, columns = (x.double() for x in problem)
    hats = [
        (1 - (at - torch.arange(n)[:, None]).abs()).clamp_min(0) for at, n in zip((rows, columns), NODES, strict=True)
    ]
    jacobian = torch.einsum("cdyx,jy,ix->cjidyx", derivatives, *hats).flatten(3)
    weighted = jacobian * weights.flatten()
    curvature, pull = field_equations(*problem, NODES)
    expected = torch.einsum("abcn,defn->abcdef", weighted, jacobian)
    assert torch.allclose(curvature, expected, atol=1e-5 * float(expected.max()))
    assert torch.allclose(pull, weighted @ residual.flatten(), atol=1e-4)


def test_pixels_without_weight_may_hold_anything(problem):
    derivatives, residual, weights, rows, columns = problem
    expected = field_equations(derivatives, residual, weights, rows, columns, NODES)
    nothing = weights == 0
    spoilt = torch.where(nothing, torch.nan, residual)
    found = field_equations(torch.where(nothing, torch.nan, derivatives), spoilt, weights, rows, columns, NODES)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_what_does_not_fit_is_refused_in_a_sentence(problem):
    derivatives, residual, weights, rows, columns = problem
    with pytest.raises(ImageError, match="lattice of 3 nodes ascend from 0 or more to less than 2"):
        field_equations(derivatives, residual, weights, rows, columns, (3, 5))
    with pytest.raises(ImageError, match="lattice of 4 nodes"):
        field_equations(derivatives, residual, weights, rows.flip(0), columns, NODES)
    with pytest.raises(ImageError, match=r"residual and weights \[d, h, w\]"):
        field_equations(derivatives, residual[:1], weights, rows, columns, NODES)
