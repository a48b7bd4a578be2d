"""What every part of the config has in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema, model_validator

_LEVEL = r"^(C[1-7]|T([1-9]|1[0-3])|L[1-6])$"


def _vertebra(name: str) -> str:
    if not re.match(_LEVEL, name):
        hint = "; several are separated by spaces" if "," in name or ";" in name else ""
        raise ValueError(f"{name!r} is no vertebra (C1-C7, T1-T13, L1-L6){hint}")
    return name


Level = Annotated[str, AfterValidator(_vertebra), WithJsonSchema({"type": "string", "pattern": _LEVEL})]


class Section(BaseModel):
    """A part of the config: unknown keys are errors, values do not change after reading.

    What a part leaves out has the value that it has where the part stands, not the one of the part's class:
    ``training: {regm: {epochs: 1}}`` keeps RegM's batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_what_is_not_given(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        defaults = {
            name: field.default.model_dump(exclude_unset=True)
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Section) and isinstance(given.get(name), Mapping)
        }
        return {**given, **{name: merged(value, given[name]) for name, value in defaults.items()}}


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others on top, part by part."""
    both = {k: merged(settings[k], v) for k, v in changes.items() if isinstance(v, Mapping) and _part(settings, k)}
    return {**settings, **changes, **both}


def _part(settings: Mapping[str, Any], name: str) -> bool:
    return isinstance(settings.get(name), Mapping)
