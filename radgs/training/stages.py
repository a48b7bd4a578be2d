"""One function a rule: train RecM, RegM, both, or pass weights on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from radgs.config import Config, TrainingSettings
from radgs.errors import ConfigError
from radgs.images import write_json
from radgs.models import RecM, RegM, load_recm, load_regm, read_population, write_weights
from radgs.simulation import SimulatedPairs
from radgs.training.data import Vertebrae, fingerprint, read_pairs, read_vertebrae
from radgs.training.loop import Outcome, Stage, train_stage
from radgs.training.machine import rank_zero_only
from radgs.training.recm_stage import RecMStage
from radgs.training.regm_stage import JointStage, RegMStage, reconstructed

Paths = Mapping[str, str | Path]
_Network = TypeVar("_Network", RecM, RegM)


def train_recm(
    pairs: str | Path,
    crops: Paths,
    anchors: Paths,
    initial: str | Path | None,
    output_folder: str | Path,
    config: Config,
) -> None:
    """Train RecM on simulated pairs and write a models folder.

    Args:
        pairs: HDF5 of pairs.
        crops: by level, NIfTI of the vertebra's excess.
        anchors: by level, PLY of Gaussians fitted to the crop.
        initial: models folder to start from; None starts from random weights. Its RegM is passed on.
        output_folder: gets ``recm.safetensors``, ``card.json``, ``log.csv``.
        config: settings.

    Raises:
        RadgsError: files that cannot be used or do not fit each other.
        TrainingError: the loss is not finite, or there are too few pairs.
    """
    vertebrae, data = _read(pairs, crops, anchors, config)
    recm = _recm(initial, config)
    regm = _regm(initial, config) if _has_regm(initial) else None
    stage = RecMStage(recm, vertebrae, config.training.losses)
    outcome = _train("recm", stage, data.fields, config.training.recm, pairs, initial, output_folder, config)
    _write(output_folder, config, "recm", recm, regm, _trained_card(pairs, data, outcome))


def train_regm(
    pairs: str | Path,
    crops: Paths,
    anchors: Paths,
    recm_folder: str | Path,
    initial: str | Path | None,
    output_folder: str | Path,
    config: Config,
) -> None:
    """Train RegM on what RecM makes of the pairs; RecM's weights are passed on unchanged.

    Arguments and errors as in :func:`train_recm`; ``recm_folder`` holds the RecM, ``initial`` the RegM to start from.
    """
    vertebrae, data = _read(pairs, crops, anchors, config)
    recm = _recm(recm_folder, config)
    regm = _regm(initial, config)
    count = config.training.regm.pairs or len(data)
    fields = {name: values[-count:] for name, values in data.fields.items()}
    made = reconstructed(recm, fields, vertebrae, config.network.anchors)
    stage = RegMStage(regm, vertebrae, config.training.losses)
    outcome = _train("regm", stage, made, config.training.regm, pairs, recm_folder, output_folder, config)
    _write(output_folder, config, "regm", recm, regm, _trained_card(pairs, data, outcome))


def train_joint(
    pairs: str | Path,
    crops: Paths,
    anchors: Paths,
    recm_folder: str | Path,
    regm_folder: str | Path,
    output_folder: str | Path,
    config: Config,
) -> None:
    """Train RecM and RegM together; arguments and errors as in :func:`train_recm`."""
    vertebrae, data = _read(pairs, crops, anchors, config)
    recm, regm = _recm(recm_folder, config), _regm(regm_folder, config)
    stage = JointStage(recm, regm, vertebrae, config.training.losses, config.network.anchors)
    outcome = _train("joint", stage, data.fields, config.training.joint, pairs, regm_folder, output_folder, config)
    _write(output_folder, config, "joint", recm, regm, _trained_card(pairs, data, outcome))


def pass_on(initial: str | Path | None, output_folder: str | Path, config: Config, stage: str, reason: str) -> None:
    """A stage without data: the weights go on unchanged, and the card says that nothing was trained and why.

    A network that ``initial`` does not have starts fresh; a fresh RegM corrects nothing.
    """
    torch.manual_seed(config.seed)
    recm = _recm(initial, config)
    regm = _regm(initial if _has_regm(initial) else None, config)
    _write(output_folder, config, stage, recm, regm, {"trained": False, "reason": reason})


def _read(pairs: str | Path, crops: Paths, anchors: Paths, config: Config) -> tuple[Vertebrae, SimulatedPairs]:
    torch.manual_seed(config.seed)
    vertebrae = read_vertebrae(crops, anchors, config.network.volume_voxels)
    return vertebrae, read_pairs(pairs, vertebrae)


def _train(
    name: str,
    stage: Stage,
    fields: Mapping[str, torch.Tensor],
    settings: TrainingSettings,
    pairs: str | Path,
    initial: str | Path | None,
    folder: str | Path,
    config: Config,
) -> Outcome:
    weights = sorted(Path(initial).glob("*.safetensors")) if initial else []
    parts = [name, fingerprint(pairs), *(fingerprint(path) for path in weights), version("radgs")]
    used = config.model_dump_json(include={"network", "training", "crop", "seed"})
    identity = hashlib.sha256(json.dumps([*parts, used]).encode()).hexdigest()
    return train_stage(
        stage, fields, settings, folder, name=name, seed=config.seed, identity=identity, machine=config.machine
    )


def _has_regm(folder: str | Path | None) -> bool:
    return folder is not None and (Path(folder) / "regm.safetensors").is_file()


def _recm(folder: str | Path | None, config: Config) -> RecM:
    if folder is not None:
        return _same(load_recm(folder), folder, config)
    recm = RecM(config.network, config.crop.size_mm)
    if recm.population is not None and config.anchors.population is not None:
        recm.population.fill(read_population(config.anchors.population))
    return recm


def _regm(folder: str | Path | None, config: Config) -> RegM:
    return RegM(config.network, config.crop.size_mm) if folder is None else _same(load_regm(folder), folder, config)


def _same(network: _Network, folder: str | Path, config: Config) -> _Network:
    if network.settings != config.network or network.crop_mm != config.crop.size_mm:
        raise ConfigError(
            f"{Path(folder) / 'card.json'}: weights of another network; make network and crop.size_mm in the config "
            "equal to the card's, or start without these weights"
        )
    return network


def _trained_card(pairs: str | Path, data: SimulatedPairs, outcome: Outcome) -> dict[str, Any]:
    return {
        "trained": True,
        "data": {"sha256": fingerprint(pairs), "pairs": len(data), "patient": str(data.attributes.get("patient", ""))},
        "metrics": outcome.best,
        "metrics_last": outcome.last,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "complete": outcome.complete,
        "stopped_early": outcome.stopped_early,
    }


@rank_zero_only
def _write(
    folder: str | Path, config: Config, stage: str, recm: RecM, regm: RegM | None, facts: Mapping[str, Any]
) -> None:
    """Weights first, the card last: a folder with a card is whole."""
    folder = Path(folder)
    write_weights(folder / "recm.safetensors", recm)
    if regm is not None:
        write_weights(folder / "regm.safetensors", regm)
    card = {
        "stage": stage,
        **facts,
        "anchors": config.network.anchors,
        "network": config.network.model_dump(mode="json"),
        "crop_mm": config.crop.size_mm,
        "code": {"radgs": version("radgs"), "torch": torch.__version__},
        "config": config.model_dump(mode="json", include={"training", "simulation", "levels", "seed"}),
    }
    write_json(folder / "card.json", card)
