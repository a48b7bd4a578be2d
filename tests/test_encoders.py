"""Encoders by name: what they return, that all of them trains, and that weights of the default networks still fit."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch

from radgs.config import NetworkSettings, load_config
from radgs.errors import ConfigError
from radgs.models import RecM, RegM, build_encoder

NAMES = ("resnet18", "resnet50", "densenet121", "vit")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two pools of threads that wait for each other on a busy machine cost far more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(count: int, dims: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images or volumes with one bright place each, and where it is."""
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij"))
    place = torch.rand(count, dims, generator=torch.Generator().manual_seed(1)) - 0.5
    return torch.exp(-8 * (grid - place.view(count, dims, *[1] * dims)).square().sum(1))[:, None], place


@pytest.mark.parametrize(("dims", "size"), [(2, 64), (3, 16)])
@pytest.mark.parametrize("name", NAMES)
def test_encoders_keep_a_quarter_of_the_size_and_gradients_reach_every_weight(name, dims, size):
    torch.manual_seed(0)
    encoder = build_encoder(name, dims, 2, 5, 4, size)
    out = encoder(torch.rand(2, 2, *(size,) * dims))
    assert out.shape == (2, 5, *(size // 4,) * dims)
    (out * torch.rand_like(out)).sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == []


@pytest.mark.parametrize(("dims", "size"), [(2, 16), (3, 16)])
@pytest.mark.parametrize("name", NAMES)
def test_encoders_learn_where_a_few_blobs_are(name, dims, size):
    torch.manual_seed(0)
    size = 8 if (name, dims) == ("vit", 3) else size
    encoder, head = build_encoder(name, dims, 1, 8, 4, size), torch.nn.Linear(8, dims)
    pictures, places = blobs(4, dims, size)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)
    ignorance = float((places - places.mean(0)).square().mean())  # of whoever always answers the mean
    for _ in range(250):
        optimizer.zero_grad()
        # a mean over the map: where the blob is must be in the features themselves
        error = (head(encoder(pictures).flatten(2).mean(-1)) - places).square().mean()
        if float(error.detach()) < 0.1 * ignorance:
            return
        error.backward()
        optimizer.step()
    pytest.fail(f"{name} in {dims}D learnt nothing: {float(error):.4f} of {ignorance:.4f}")


def test_a_vit_of_large_images_has_no_more_tokens_and_still_a_quarter_of_the_size():
    encoder = build_encoder("vit", 2, 1, 4, 1, 128)
    assert encoder.backbone.patch_embedding.n_patches == 16 * 16
    assert encoder(torch.rand(1, 1, 128, 128)).shape == (1, 4, 32, 32)


def test_sizes_are_those_published_under_the_names():
    """Parameters in millions of the papers, less the classifier that is not here."""
    for name, published, classifier in (
        ("resnet18", 11.69, 0.513),
        ("resnet50", 25.56, 2.049),
        ("densenet121", 7.98, 1.025),
        ("vit", 86.57, 0.769),
    ):
        encoder = build_encoder(name, 2, 3, 1, 64, 64)
        count = sum(p.numel() for p in encoder.backbone.parameters()) / 1e6
        assert count == pytest.approx(published - classifier, rel=0.01), name


def test_a_vit_refuses_sizes_that_its_patches_do_not_fill():
    with pytest.raises(ConfigError, match="multiple of 16"):
        build_encoder("vit", 2, 1, 4, 4, 70)


def test_an_unknown_encoder_is_named():
    with pytest.raises(ConfigError, match="resnet18, resnet50, densenet121, vit"):
        build_encoder("vgg", 2, 1, 8, 4, 32)
    with pytest.raises(ConfigError, match="encoder"):
        load_config({"network": {"encoder": "vgg"}})


def test_bfloat16_is_for_training_and_for_the_encoder_alone():
    torch.manual_seed(0)
    encoder, x = build_encoder("resnet18", 2, 1, 4, 4, 32), torch.rand(2, 1, 32, 32)
    exact = encoder(x).detach()
    encoder.compute = torch.bfloat16
    rounded = encoder(x)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05 * float(exact.abs().max()))
    used = encoder.eval()(x)
    encoder.compute = torch.float32
    assert torch.equal(encoder(x), used)


def test_weights_of_the_default_networks_keep_their_names_and_shapes():
    """Trained weights are files of users: a change here makes all of them useless."""
    for kind, expected in ((RecM, "0048f4771d73cdc1"), (RegM, "8e04077b5d90bc59")):
        names = [f"{name} {tuple(w.shape)}" for name, w in kind(NetworkSettings()).state_dict().items()]
        assert hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] == expected


def test_importing_the_networks_does_not_import_monai():
    code = "import sys, radgs.models, radgs.training; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("width", "heads"), [(4, 3), (16, 3), (32, 6), (64, 12)])
def test_a_vit_has_as_many_heads_as_those_published(width, heads):
    """Widths 16, 32 and 64 are DeiT-Ti, DeiT-S and ViT-Base: 192, 384 and 768 channels, 64 a head."""
    blocks = build_encoder("vit", 2, 1, 4, width, 32).backbone.blocks
    assert {block.attn.num_heads for block in blocks} == {heads}
