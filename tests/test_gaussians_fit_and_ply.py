"""Fitting Gaussians to an analytic shape, and keeping them in files."""

import math

import pytest
import torch

from radgs.errors import ImageError, RadgsError
from radgs.gaussians import Grid, RadiativeGaussians, fit_to_volume, read_ply, voxelize, write_ply

GRID = Grid.centred(64.0, 32)


def _vertebra_like(grid):
    """A bright-shelled body, an arch and processes; nothing symmetric front to back."""
    axes = [grid.origin[a] + grid.spacing_mm * torch.arange(grid.shape[2 - a]) for a in range(3)]
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    scale = grid.spacing_mm * grid.shape[0] / 64.0
    x, y, z = x / scale, y / scale, z / scale

    def solid(distance):
        return (0.5 - distance).clamp(0, 1)

    body = torch.maximum((x**2 + ((y + 10) * 1.3) ** 2).sqrt() - 17, z.abs() - 11)
    shell = solid(body) - 0.6 * solid(body + 2)
    arch = solid((((x**2 + (y - 8) ** 2).sqrt() - 10).abs() - 2.5).maximum(z.abs() - 5))
    spinous = solid(torch.maximum(x.abs() - 2.5, torch.maximum((y - 21).abs() - 7, (z + 3).abs() - 5)))
    transverse = solid(torch.maximum(x.abs() - 27, ((y - 4) ** 2 + (z - 2) ** 2).sqrt() - 3))
    return 0.03 * torch.stack([shell, arch, spinous, transverse]).amax(0)


def _psnr(a, b):
    return (10 * torch.log10(b.max() ** 2 / (a - b).square().mean())).item()


def test_fit_explains_a_vertebra_like_shape():
    volume = _vertebra_like(GRID)
    fitted = fit_to_volume(volume, GRID, 600, steps=150, seed=1)
    assert fitted.count == 600
    assert fitted.densities.min() >= 0
    assert not fitted.means.requires_grad
    assert _psnr(voxelize(fitted, GRID), volume) > 26
    start = fit_to_volume(volume, GRID, 600, steps=0, seed=1)
    assert _psnr(voxelize(fitted, GRID), volume) > _psnr(voxelize(start, GRID), volume) + 5


def test_splitting_leaves_hardly_any_gaussian_without_use_and_explains_more(monkeypatch):
    volume = _vertebra_like(GRID)
    moved = fit_to_volume(volume, GRID, 600, steps=150, seed=1)
    monkeypatch.setattr("radgs.gaussians.fit._MOVES", ())
    kept = fit_to_volume(volume, GRID, 600, steps=150, seed=1)
    useless = [int((g.densities < 0.01 * volume.max()).sum()) for g in (moved, kept)]
    assert useless[0] < useless[1] / 3
    assert _psnr(voxelize(moved, GRID), volume) > _psnr(voxelize(kept, GRID), volume)


def test_fit_finds_one_gaussian():
    truth = RadiativeGaussians(
        torch.tensor([[3.0, -5.0, 4.0]]), torch.full((1, 3), 6.0), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0.02])
    )
    fitted = fit_to_volume(voxelize(truth, GRID), GRID, 1, steps=200)
    torch.testing.assert_close(fitted.means, truth.means, rtol=0, atol=0.1)
    torch.testing.assert_close(fitted.scales, truth.scales, rtol=0.05, atol=0)
    torch.testing.assert_close(fitted.densities, truth.densities, rtol=0.05, atol=0)


def test_fit_repeats_itself_for_a_seed():
    volume = _vertebra_like(GRID)
    first, second, other = (fit_to_volume(volume, GRID, 50, steps=5, seed=s) for s in (3, 3, 4))
    assert torch.equal(first.means, second.means)
    assert not torch.equal(first.means, other.means)


def test_fit_refuses_what_cannot_be_fitted():
    with pytest.raises(ImageError, match="shape"):
        fit_to_volume(torch.ones(3, 3, 3), GRID, 5)
    with pytest.raises(ImageError, match="above 0"):
        fit_to_volume(torch.zeros(GRID.shape), GRID, 5)
    with pytest.raises(ImageError, match="finite"):
        fit_to_volume(torch.full(GRID.shape, math.nan), GRID, 5)
    with pytest.raises(RadgsError, match="at least one"):
        fit_to_volume(torch.ones(GRID.shape), GRID, 0)
    for wrong in ({"count": 2.5}, {"count": 5, "steps": -1}, {"count": 5, "seed": -1}):
        with pytest.raises(RadgsError, match="whole numbers"):
            fit_to_volume(torch.ones(GRID.shape), GRID, **wrong)


def test_fit_works_where_gradients_are_switched_off():
    volume = _vertebra_like(GRID)
    expected = fit_to_volume(volume, GRID, 50, steps=5)
    with torch.no_grad():
        assert torch.equal(fit_to_volume(volume, GRID, 50, steps=5).means, expected.means)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fit_runs_where_the_volume_is():
    fitted = fit_to_volume(_vertebra_like(GRID).cuda(), GRID, 200, steps=60)
    assert fitted.means.device.type == "cuda"
    volume = _vertebra_like(GRID)
    assert (voxelize(fitted, GRID).cpu() - volume).norm() < 0.5 * volume.norm()


def _random(dtype):
    g = torch.Generator().manual_seed(0)
    return RadiativeGaussians(
        torch.randn(7, 3, generator=g).to(dtype),
        torch.rand(7, 3, generator=g).to(dtype) + 0.1,
        torch.randn(7, 4, generator=g).to(dtype),
        torch.rand(7, generator=g).to(dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ply_keeps_every_bit(tmp_path, dtype):
    gaussians = _random(dtype)
    write_ply(tmp_path / "a.ply", gaussians)
    again = read_ply(tmp_path / "a.ply")
    for name in ("means", "scales", "quaternions", "densities"):
        assert torch.equal(getattr(again, name), getattr(gaussians, name))
        assert getattr(again, name).dtype == dtype


def test_ply_of_another_program_with_other_order_and_further_properties_is_read(tmp_path):
    import struct

    names = ["density", "z", "y", "x", "rot_3", "rot_2", "rot_1", "rot_0", "scale_2", "scale_1", "scale_0"]
    header = ["ply", "format binary_little_endian 1.0", "comment made elsewhere", "element vertex 1"]
    header += ["property uchar red", *(f"property float {n}" for n in names), "element face 0"]
    header += ["property list uchar int vertex_indices", "end_header\n"]
    values = [0.5, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0, 6.0, 5.0, 4.0]
    (tmp_path / "b.ply").write_bytes("\n".join(header).encode() + struct.pack("<B11f", 255, *values))
    g = read_ply(tmp_path / "b.ply")
    assert g.means.tolist() == [[1.0, 2.0, 3.0]]
    assert g.scales.tolist() == [[4.0, 5.0, 6.0]]
    assert g.quaternions.tolist() == [[1.0, 0, 0, 0]]
    assert g.densities.tolist() == [0.5]


def test_broken_ply_is_refused_with_its_name(tmp_path):
    good, bad = tmp_path / "good.ply", tmp_path / "bad.ply"
    write_ply(good, _random(torch.float32))
    content = good.read_bytes()
    for broken, words in (
        (content[:-1], "only"),
        (b"nonsense", "not a PLY"),
        (content.replace(b"binary_little_endian", b"ascii"), "little-endian"),
        (content.replace(b"property float density", b"property float opacity"), "lacks density"),
        (content.replace(b"element vertex 7", b"element vertex x"), "vertices"),
        (content.replace(b"property float x", b"property half x"), "half"),
    ):
        bad.write_bytes(broken)
        with pytest.raises(RadgsError, match=rf"bad\.ply.*{words}"):
            read_ply(bad)
    with pytest.raises(RadgsError, match="no such file"):
        read_ply(tmp_path / "none.ply")
    g = _random(torch.float32)
    batch = RadiativeGaussians(g.means[None], g.scales[None], g.quaternions[None], g.densities[None])
    with pytest.raises(RadgsError, match="batch"):
        write_ply(bad, batch)
