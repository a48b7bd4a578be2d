"""Several processes train what one would, stop and go on exactly, and what a user sees of it: logs and lines."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from radgs.config import MachineSettings, load_config
from radgs.errors import RadgsError
from radgs.models import build_encoder
from radgs.training import TrainingError, loop, train_stage
from radgs.training.checkpoint import Progress
from radgs.training.clock import Clock, spoken
from tests.test_training_loop import FIELDS, SETTINGS, Toy

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import os, sys, torch
from tests.test_training_loop import FIELDS, SETTINGS, Toy
from tests.test_training_machine import Plain
from radgs.config import MachineSettings
from radgs.training import loop, train_stage
folder, kind, devices, fail_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
loop._CHECKPOINT_SECONDS = 0.0
stage = Plain() if kind == "plain" else Toy(fail_at=fail_at)
train_stage(stage, FIELDS, SETTINGS, folder, name="toy", seed=11, identity="a",
            machine=MachineSettings(accelerator="cpu", devices=devices))
torch.save(stage.state_dict(), f"{folder}/weights-{os.environ.get('LOCAL_RANK', '0')}.pt")
"""


class Plain(loop.Stage):
    """A regression without noise and without batch statistics: sharing a batch out changes rounding alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.idle = nn.Linear(2, 2)  # what a step does not use must not stop the others

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"fit": (self.net(batch["x"])[:, 0] - batch["x"].sum(1)).square().mean()}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        error = (self.net(batch["x"])[:, 0] - batch["x"].sum(1)).abs()
        return {"mtre_mm": error, "start_mtre_mm": batch["x"].sum(1).abs()}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def processes(folder: Path, kind: str, devices: int, fail_at: int = -1) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(folder / "script.py"), str(folder), kind, str(devices), str(fail_at)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=900).returncode


def weights(folder: Path, rank: int = 0) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(folder / f"weights-{rank}.pt", weights_only=True)
    return found


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path):
    assert processes(tmp_path / "two", "plain", 2) == 0
    alone = Plain()
    before = {name: value.clone() for name, value in alone.state_dict().items()}
    train_stage(alone, FIELDS, SETTINGS, tmp_path / "one", name="toy", seed=11, identity="a")
    for name, value in alone.state_dict().items():
        for rank in (0, 1):
            torch.testing.assert_close(weights(tmp_path / "two", rank)[name], value, atol=1e-5, rtol=1e-4)
        assert name.startswith("idle") or not torch.equal(value, before[name])
    assert [row["step"] for row in rows_of(tmp_path / "one")] == [row["step"] for row in rows_of(tmp_path / "two")]


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_equal_two_unstopped_bit_for_bit(tmp_path):
    assert processes(tmp_path / "whole", "noisy", 2) == 0
    assert processes(tmp_path / "stopped", "noisy", 2, fail_at=7) != 0
    assert (tmp_path / "stopped" / "checkpoint.pt").is_file()
    assert processes(tmp_path / "stopped", "noisy", 2) == 0
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(tmp_path / "stopped")[name]), name
        assert torch.equal(value, weights(tmp_path / "stopped", 1)[name]), name


def test_what_the_machine_cannot_do_is_refused(tmp_path, monkeypatch):
    def run(**machine) -> None:
        train_stage(Toy(), FIELDS, SETTINGS, tmp_path, name="toy", seed=1, identity="a", machine=settings(**machine))

    def settings(**machine) -> MachineSettings:
        return load_config({"machine": machine}).machine

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RadgsError, match="2 CUDA devices are asked for, 1 are there"):
        run(accelerator="cuda", devices=2)
    with pytest.raises(RadgsError, match=r"machine: .*nonsense"):
        run(accelerator="cpu", strategy="nonsense")


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path, monkeypatch):
    class Three:
        world_size, global_rank = 3, 0

    monkeypatch.setattr(loop, "make_fabric", lambda _: Three())
    with pytest.raises(TrainingError, match="batch of 8 cannot be shared out among 3"):
        train_stage(Toy(), FIELDS, SETTINGS, tmp_path, name="toy", seed=1, identity="a")


def test_tensorboard_shows_the_numbers_of_the_csv_once_also_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train_stage(Toy(fail_at=13), FIELDS, SETTINGS, tmp_path, name="toy", seed=11, identity="a")
    train_stage(Toy(), FIELDS, SETTINGS, tmp_path, name="toy", seed=11, identity="a")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = rows_of(tmp_path)
    for tag, column in (("held-out/mtre_mean_mm", "mtre_mean_mm"), ("learning_rate", "learning_rate")):
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        assert shown == [(int(row["step"]), pytest.approx(float(row[column]), rel=1e-5)) for row in rows]
    assert [event.step for event in events.Scalars("train/fit")] == [5, 10, 15]


def test_tensorboard_can_be_left_out(tmp_path):
    machine = MachineSettings(tensorboard=False)
    train_stage(Toy(), FIELDS, SETTINGS, tmp_path, name="toy", seed=1, identity="a", machine=machine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]


def test_training_stops_when_the_held_out_score_gets_no_better(tmp_path):
    class Stuck(Toy):
        def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.asked = getattr(self, "asked", -1) + 1
            score = torch.full((len(batch["x"]),), {0: 3.0, 1: 2.0, 2: 1.0}.get(self.asked, 1.5))
            return {"mtre_mm": score, "start_mtre_mm": score}

    settings = SETTINGS.model_copy(update={"epochs": 20, "patience": 3})
    outcome = train_stage(Stuck(), FIELDS, settings, tmp_path, name="toy", seed=1, identity="a")
    assert outcome.steps == 5 * (2 + 3)
    assert outcome.stopped_early
    assert outcome.complete
    assert outcome.best["mtre_mean_mm"] == 1


def test_bfloat16_reaches_encoders_while_training_only(tmp_path):
    kinds: list[tuple[bool, torch.dtype]] = []

    class Encoding(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = build_encoder("resnet18", 2, 1, 3, 2, 16)
            self.encoder.lateral[0].register_forward_hook(
                lambda module, _, out: kinds.append((module.training, out.dtype))
            )

        def look(self, batch: dict[str, Tensor]) -> Tensor:
            seen: Tensor = self.encoder(batch["x"][:, :1, None, None].expand(-1, 1, 16, 16)).mean((2, 3))
            assert seen.dtype == torch.float32
            return self.net(batch["x"] + seen)[:, 0] - batch["x"].sum(1)

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"fit": self.look(batch).square().mean()}

        def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            error = self.look(batch).abs()
            return {"mtre_mm": error, "start_mtre_mm": error}

    machine = MachineSettings(precision="bfloat16")
    stage = Encoding()
    train_stage(stage, FIELDS, SETTINGS, tmp_path, name="toy", seed=1, identity="a", machine=machine)
    assert set(kinds) == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(weight.dtype == torch.float32 for weight in stage.parameters())


def clock_at(monkeypatch, **settings) -> tuple[Clock, list[float]]:
    now = [100.0]
    monkeypatch.setattr("radgs.training.clock.time.monotonic", lambda: now[0])
    return Clock("toy", 100, "mtre_mean_mm", settings.get("max_seconds")), now


def test_the_time_left_does_not_count_the_first_step_and_obeys_the_limit(monkeypatch, capsys):
    clock, now = clock_at(monkeypatch)
    clock.begin(2850, 32, "1 x cpu")
    now[0] += 30  # compiling
    clock.tick(Progress(step=1, seconds=30), 1.0)
    for step in range(2, 12):
        now[0] += 0.5
        clock.tick(Progress(step=step, seconds=now[0] - 100), 1.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "toy: 100 steps of 32 of 2850 samples on 1 x cpu"
    assert lines[1] == "toy: step 3 of 100, loss 1.000, 48 s left"  # as soon as a second of steps is over
    assert len(lines) == 2
    limited, now = clock_at(monkeypatch, max_seconds=40)
    limited.tick(Progress(step=1, seconds=30), 1.0)
    now[0] += 2
    limited.tick(Progress(step=2, seconds=32), 1.0)
    assert capsys.readouterr().out.splitlines() == ["toy: step 2 of 100, loss 1.000, 8 s left"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (99, "99 s"), (150, "2 min"), (9000, "2.5 h")])
def test_durations_are_in_the_unit_people_use(seconds, text):
    assert spoken(seconds) == text
