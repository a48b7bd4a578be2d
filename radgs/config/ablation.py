"""The rows of the ablation: files that say how each differs from the run's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from radgs.config.read import Config, read_yaml
from radgs.errors import ConfigError

_MAY_CHANGE = ("network", "pretrained", "training")
# Pairs and anchors are made once, for all rows.
_SHARED = ("image_px", "volume_voxels", "gaussians")
_PARTS = ("recm", "regm", "joint")


@dataclass(frozen=True)
class AblationRow:
    """One row.

    Attributes:
        about: the first line of its file, what it leaves out.
        changes: of the run's settings, epochs scaled.
        config: the result.
    """

    about: str
    changes: Mapping[str, Any]
    config: Config


def ablation_rows(config: Config) -> dict[str, AblationRow]:
    """By name of its file (without ``.yaml``), every row of the folder ``ablation.rows``; it may be absent.

    Raises:
        ConfigError: a row has no comment or changes what all rows share.
    """
    rows = {}
    for path in sorted(config.ablation.rows.glob("*.yaml")):
        changes, lines = read_yaml(path), path.read_text().splitlines()
        other = sorted(set(changes) - set(_MAY_CHANGE)) or sorted(set(changes.get("network") or {}) & set(_SHARED))
        if other:
            raise ConfigError(f"{path}: may not change {', '.join(other)}, for which all rows share their pairs")
        if not lines or not lines[0].startswith("#"):
            raise ConfigError(f"{path}: its first line must be a comment that says what the row leaves out")
        changed = config.changed(changes)
        epochs = {part: {"epochs": getattr(changed.training, part).epochs * config.ablation.scale} for part in _PARTS}
        scaled = changed.changed({"training": epochs})
        rows[path.stem] = AblationRow(lines[0].lstrip("# ").strip(), _of(scaled, config), scaled)
    return rows


def _of(changed: Config, config: Config) -> dict[str, Any]:
    """The sections of a config that differ from those of another."""
    dumped, before = (one.model_dump(mode="json", exclude_unset=True) for one in (changed, config))
    return {name: dumped.get(name) for name in _MAY_CHANGE if dumped.get(name) != before.get(name)}
