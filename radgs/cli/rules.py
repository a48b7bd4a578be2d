"""What the workflow's scripts share: settings, threads and log of a rule, one clear line when something is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from radgs.config import Config, load_config
from radgs.errors import RadgsError

# What a user can mend: bad input, a full disk, a file that may not be read, too little memory.
MENDABLE = (RadgsError, OSError, MemoryError)


def line_of(error: BaseException) -> str:
    """An error that a user can mend, as one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return "not enough memory" if isinstance(error, MemoryError) else str(error)


def by_level(config: Config, paths: Iterable[str]) -> dict[str, str]:
    """Files of a rule in the order of the configured levels, by level."""
    return dict(zip(config.levels, paths, strict=True))


class _Tee:
    """Writes to the terminal and to a rule's log."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def isatty(self) -> bool:
        return False


def run_rule(snakemake: Any, action: Callable[[Config], object]) -> None:
    """Run one rule's library call with its config, threads and log; a :class:`RadgsError` becomes one line.

    Args:
        snakemake: the object that Snakemake gives to a script; its params ``levels`` (the patient's) and
            ``changes`` (of the settings) are taken over, if there.
        action: takes the config and calls the library.

    Raises:
        SystemExit: with code 2 after a :class:`RadgsError`.
    """
    import numba
    import torch

    torch.set_num_threads(snakemake.threads)
    numba.set_num_threads(min(snakemake.threads, numba.get_num_threads()))
    helper = os.environ.get("LOCAL_RANK", "0") != "0"  # started by a training on several devices, for one of them
    with Path(snakemake.log[0]).open("a" if helper else "w") as log:
        sys.stdout = _Tee(sys.__stdout__ or sys.stdout, log)
        try:
            config = load_config(snakemake.config).changed(snakemake.params.get("changes") or {})
            levels = snakemake.params.get("levels")
            action(config.with_levels(levels) if levels else config)
        except MENDABLE as error:
            log.write(f"{line_of(error)}\n")
            sys.__stderr__ and print(f"radgs: {line_of(error)}", file=sys.__stderr__)
            raise SystemExit(2) from None
        finally:
            sys.stdout = sys.__stdout__ or sys.stdout
