"""How far a training is and how long it still takes, in lines for people."""

from __future__ import annotations

import sys
import time

from radgs.training.checkpoint import Progress

_LINE_SECONDS = 10.0
_TERMINAL_SECONDS = 0.5
_FIRST_SECONDS = 1.0  # of steps that an estimate needs


class Clock:
    """Prints now and then; on a terminal one line that changes.

    The first step of a process compiles and loads, so the time left is reckoned from those after it, and never more
    than the time limit leaves.
    """

    def __init__(self, name: str, steps: int, score: str, max_seconds: float | None, silent: bool = False) -> None:
        self.name, self.steps, self.score, self.max_seconds, self.silent = name, steps, score, max_seconds, silent
        self.terminal = sys.stdout.isatty()
        self.first: tuple[int, float] | None = None
        self.spoke = float("-inf")

    def begin(self, samples: int, batch: int, place: str) -> None:
        """Say what is about to be done."""
        self._write(f"{self.name}: {self.steps} steps of {batch} of {samples} samples on {place}", end="\n")

    def tick(self, progress: Progress, loss: float) -> None:
        """After a step: say how far it is, if it is time to."""
        now = time.monotonic()
        if self.first is None:
            self.first = progress.step, now
        left = self.left(progress, now)
        pause = _TERMINAL_SECONDS if self.terminal else _LINE_SECONDS
        done = progress.step >= self.steps
        if not done and (left is None or now - self.spoke < pause):
            return
        self.spoke = now
        held_out = f", held-out {self.score} {progress.history[-1][self.score]:.2f}" if progress.history else ""
        remaining = "" if left is None else f", {spoken(left)} left"
        line = f"{self.name}: step {progress.step} of {self.steps}, loss {loss:.3f}{held_out}{remaining}"
        self._write(line, end="\n" if done or not self.terminal else "")

    def end(self, why: str) -> None:
        """Say why it ended before the last step."""
        self._write(f"{self.name}: {why}", end="\n")

    def left(self, progress: Progress, now: float) -> float | None:
        """Seconds still to go, None as long as nobody can know."""
        if self.first is None or (now - self.first[1] < _FIRST_SECONDS and progress.step < self.steps):
            return None
        speed = (now - self.first[1]) / max(progress.step - self.first[0], 1)
        left = speed * (self.steps - progress.step)
        return left if self.max_seconds is None else max(min(left, self.max_seconds - progress.seconds), 0.0)

    def _write(self, line: str, end: str) -> None:
        if not self.silent:
            sys.stdout.write((f"\r{line:<100}" if self.terminal else line) + end)
            sys.stdout.flush()


def spoken(seconds: float) -> str:
    """A duration in the unit that people would use."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
