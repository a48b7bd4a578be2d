"""Weights on disk: safetensors beside a card that says which network they fit."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import nn

from radgs.config import NetworkSettings
from radgs.errors import RadgsError
from radgs.images import atomic_path, read_json
from radgs.models.recm import RecM
from radgs.models.regm import RegM

_Network = TypeVar("_Network", RecM, RegM)


def write_weights(path: str | Path, network: nn.Module) -> None:
    """Write a network's weights as safetensors, atomically."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as part:
        safetensors.torch.save_file(state, part)


def load_recm(folder: str | Path) -> RecM:
    """RecM with the weights of a models folder, in evaluation mode, on the CPU.

    Raises:
        RadgsError: the card or the weights are missing, damaged, or do not fit each other.
    """
    return _load(RecM, Path(folder), "recm.safetensors")


def load_regm(folder: str | Path) -> RegM:
    """RegM with the weights of a models folder, in evaluation mode, on the CPU.

    Raises:
        RadgsError: the card or the weights are missing, damaged, or do not fit each other.
    """
    return _load(RegM, Path(folder), "regm.safetensors")


def _load(kind: type[_Network], folder: Path, name: str) -> _Network:
    card = read_json(folder / "card.json")
    try:
        network = kind(NetworkSettings.model_validate(card["network"]), float(card["crop_mm"]))
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise RadgsError(f"{folder / 'card.json'}: says no network settings ({type(error).__name__})") from None
    if not (folder / name).is_file():
        raise RadgsError(f"{folder / name}: no such file; train the stage that makes it first")
    try:
        network.load_state_dict(safetensors.torch.load_file(folder / name))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RadgsError(f"{folder / name}: not the weights of the network in card.json ({reason})") from None
    if not all(weight.isfinite().all() for weight in network.state_dict().values()):
        raise RadgsError(f"{folder / name}: holds NaN or infinite weights; train again")
    return network.eval()
