"""One function a rule: train RecM, RegM, both, or pass weights on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from radgs.config import Config, StageSettings
from radgs.errors import ConfigError
from radgs.images import read_json, write_json
from radgs.models import RecM, RegM, load_recm, load_regm, write_weights
from radgs.training.data import TrainingData, fingerprint, mean_anchors
from radgs.training.held_out import Fields
from radgs.training.loop import Outcome, Stage, train_stage
from radgs.training.machine import device_of, rank_zero_only
from radgs.training.recm_stage import RecMStage
from radgs.training.regm_stage import JointStage, RegMStage, reconstructed

_Network = TypeVar("_Network", RecM, RegM)


def train_recm(
    data: TrainingData, initial: str | Path | None, output_folder: str | Path, config: Config, settings: StageSettings
) -> None:
    """Train RecM on simulated pairs and write a models folder.

    Args:
        data: of one patient or of a population.
        initial: models folder to start from; None starts from random weights. Its RegM is passed on.
        output_folder: gets ``recm.safetensors``, ``card.json``, ``log.csv``.
        config: settings.
        settings: those of the stage: ``config.training`` or ``config.population.training``.

    Raises:
        RadgsError: files that cannot be used or do not fit each other.
        TrainingError: the loss is not finite, or there are too few pairs.
    """
    torch.manual_seed(config.seed)
    recm = _recm(initial, config)
    regm = _regm(initial, config) if _has_regm(initial) else None
    if recm.population is not None and data.of_population:
        recm.population.fill(mean_anchors(data.vertebrae, config))
    stage = RecMStage(recm, data.vertebrae, settings.losses)
    outcome = _train("recm", stage, data, data.fields, settings, [initial], output_folder, config)
    _write(output_folder, config, "recm", recm, regm, _trained_card("recm", data, outcome, settings, [initial]))


def train_regm(
    data: TrainingData,
    recm_folder: str | Path,
    initial: str | Path | None,
    output_folder: str | Path,
    config: Config,
    settings: StageSettings,
) -> None:
    """Train RegM on what RecM makes of the pairs; RecM's weights are passed on unchanged.

    Arguments and errors as in :func:`train_recm`; ``recm_folder`` holds the RecM, ``initial`` the RegM to start from.
    """
    torch.manual_seed(config.seed)
    recm = _recm(recm_folder, config)
    regm = _regm(initial, config)
    count = settings.regm.pairs or len(data.fields["level"])
    fields = {name: values[-count:] for name, values in data.fields.items()}
    device = device_of(config.machine)
    made = reconstructed(recm.to(device), fields, data.vertebrae.to(device), config.network.anchors)
    stage = RegMStage(regm, data.vertebrae, settings.losses)
    outcome = _train("regm", stage, data, made, settings, [recm_folder, initial], output_folder, config)
    _write(
        output_folder,
        config,
        "regm",
        recm,
        regm,
        _trained_card("regm", data, outcome, settings, [recm_folder, initial]),
    )


def train_joint(
    data: TrainingData,
    recm_folder: str | Path,
    regm_folder: str | Path,
    output_folder: str | Path,
    config: Config,
    settings: StageSettings,
) -> None:
    """Train RecM and RegM together; arguments and errors as in :func:`train_recm`."""
    torch.manual_seed(config.seed)
    recm, regm = _recm(recm_folder, config), _regm(regm_folder, config)
    stage = JointStage(recm, regm, data.vertebrae, settings.losses, config.network.anchors)
    outcome = _train("joint", stage, data, data.fields, settings, [recm_folder, regm_folder], output_folder, config)
    _write(
        output_folder,
        config,
        "joint",
        recm,
        regm,
        _trained_card("joint", data, outcome, settings, [recm_folder, regm_folder]),
    )


def pass_on(initial: str | Path | None, output_folder: str | Path, config: Config, stage: str, reason: str) -> None:
    """A stage without data: the weights go on unchanged, and the card says that nothing was trained and why.

    A network that ``initial`` does not have starts fresh; a fresh RegM corrects nothing.
    """
    torch.manual_seed(config.seed)
    recm = _recm(initial, config)
    regm = _regm(initial if _has_regm(initial) else None, config)
    _write(
        output_folder,
        config,
        stage,
        recm,
        regm,
        {"trained": False, "reason": reason, "started_from": _lineage([initial])},
    )


def _train(
    name: str,
    stage: Stage,
    data: TrainingData,
    fields: Fields,
    settings: StageSettings,
    initial: Sequence[str | Path | None],
    folder: str | Path,
    config: Config,
) -> Outcome:
    weights = [path for start in initial if start for path in sorted(Path(start).glob("*.safetensors"))]
    parts = [name, data.sha256, *(fingerprint(path) for path in weights), version("radgs")]
    used = config.model_dump_json(include={"network", "crop", "seed"}) + settings.model_dump_json()
    identity = hashlib.sha256(json.dumps([*parts, used]).encode()).hexdigest()
    return train_stage(
        stage,
        fields,
        getattr(settings, name),
        folder,
        name=name,
        seed=config.seed,
        identity=identity,
        machine=config.machine,
    )


def _has_regm(folder: str | Path | None) -> bool:
    return folder is not None and (Path(folder) / "regm.safetensors").is_file()


def _recm(folder: str | Path | None, config: Config) -> RecM:
    return RecM(config.network, config.crop.size_mm) if folder is None else _same(load_recm(folder), folder, config)


def _regm(folder: str | Path | None, config: Config) -> RegM:
    return RegM(config.network, config.crop.size_mm) if folder is None else _same(load_regm(folder), folder, config)


def _same(network: _Network, folder: str | Path, config: Config) -> _Network:
    if network.settings != config.network or network.crop_mm != config.crop.size_mm:
        raise ConfigError(
            f"{Path(folder) / 'card.json'}: weights of another network; make network and crop.size_mm in the config "
            "equal to the card's, or start without these weights"
        )
    return network


def _trained_card(
    name: str, data: TrainingData, outcome: Outcome, settings: StageSettings, starts: Sequence[str | Path | None]
) -> dict[str, Any]:
    own = {"sha256": data.sha256, **data.facts}
    trained = {"trained": True} if outcome.steps else {"trained": False, "reason": f"training.{name}.epochs is 0"}
    return {
        **trained,
        "data": own,
        "started_from": [other for other in _lineage(starts) if other != own],
        "metrics": outcome.best,
        "metrics_last": outcome.last,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "complete": outcome.complete,
        "stopped_early": outcome.stopped_early,
        "settings": settings.model_dump(mode="json"),
    }


def _lineage(starts: Sequence[str | Path | None]) -> list[dict[str, Any]]:
    """What the weights that a stage starts from had learned from: each set of data once, the oldest first.

    Raises:
        ConfigError: a card of an earlier version.
    """
    found: list[dict[str, Any]] = []
    for path in (Path(start) / "card.json" for start in starts if start):
        card = read_json(path)
        before, learned = card.get("started_from") or [], card.get("data") if card.get("trained") else None
        if not isinstance(before, list):
            raise ConfigError(f"{path}: written by an earlier version of radgs; train these weights again")
        found += [one for one in [*before, *([learned] if learned else [])] if one not in found]
    return found


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
        "config": config.model_dump(mode="json", include={"simulation", "levels", "seed"}),
    }
    write_json(folder / "card.json", card)
