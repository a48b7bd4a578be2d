"""The loop: resuming, stopping, choosing, refusing."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import Tensor, nn

from radgs.config import TrainingSettings
from radgs.errors import RadgsError
from radgs.training import TrainingError, loop, train_stage
from radgs.training.checkpoint import read_checkpoint

FIELDS = {"x": torch.linspace(-1, 1, 44)[:, None].repeat(1, 3), "level": torch.full((44,), 20)}
SETTINGS = TrainingSettings(epochs=3, batch=8, learning_rate=0.05, validation_fraction=0.1)


class Toy(loop.Stage):
    """A noisy regression with batch statistics: everything that resuming could get wrong."""

    def __init__(self, fail_at: int = -1, poison: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.calls, self.fail_at, self.poison = 0, fail_at, poison

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.fail_at:
            torch.rand(7)  # what was drawn in a lost step must not matter
            if not self.poison:
                raise KeyboardInterrupt
        x = batch["x"] + 0.1 * torch.randn_like(batch["x"])
        error = (self.net(x)[:, 0] - batch["x"].sum(1)).square().mean()
        bad = float("nan") if self.poison and self.calls == self.fail_at else 1.0
        return {"fit": error, "size": self.net[0].weight.square().mean() * 0.01 * bad}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        error = (self.net(batch["x"])[:, 0] - batch["x"].sum(1)).abs()
        return {"mtre_mm": error, "start_mtre_mm": batch["x"].sum(1).abs()}


def run(stage: Toy, folder, settings=SETTINGS, identity="a"):
    return train_stage(stage, FIELDS, settings, folder, name="toy", seed=11, identity=identity)


@pytest.mark.parametrize("fail_at", [3, 6, 13])
def test_a_stopped_and_resumed_training_equals_an_unstopped_one_bit_for_bit(tmp_path, monkeypatch, fail_at):
    whole = Toy()
    outcome = run(whole, tmp_path / "whole")
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(Toy(fail_at=fail_at), tmp_path / "stopped")
    assert (tmp_path / "stopped" / "checkpoint.pt").is_file()
    torch.manual_seed(99)
    resumed = Toy()
    again = run(resumed, tmp_path / "stopped")
    assert resumed.calls == outcome.steps - (fail_at - 1)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert again.best == outcome.best
    assert again.last == outcome.last
    assert not (tmp_path / "stopped" / "checkpoint.pt").exists()


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(Toy(fail_at=6), tmp_path)
    stage = Toy()
    assert run(stage, tmp_path, identity="b").steps == stage.calls == 15


def test_a_checkpoint_that_needs_pickle_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"identity": "a", "x": tmp_path}, path)
    optimizer = torch.optim.AdamW(Toy().parameters())
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    with pytest.raises(RadgsError, match=r"checkpoint\.pt: not a readable checkpoint"):
        read_checkpoint(path, "a", Toy(), optimizer, scheduler)


def test_nan_stops_with_step_and_term(tmp_path):
    with pytest.raises(TrainingError, match=r"toy: the term size is nan at step 4"):
        run(Toy(fail_at=4, poison=True), tmp_path)


def test_too_few_pairs_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="too few"):
        run(Toy(), tmp_path, SETTINGS.model_copy(update={"batch": 64}))


def test_the_best_weights_are_kept_and_the_log_has_a_row_an_epoch(tmp_path):
    stage = Toy()
    outcome = run(stage, tmp_path)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 5, 10, 15]
    assert outcome.best["mtre_mean_mm"] == min(float(row["mtre_mean_mm"]) for row in rows)
    held = {key: value[-4:] for key, value in FIELDS.items()}
    with torch.no_grad():
        error = stage.validate(held)["mtre_mm"]
    assert float(error.mean()) == pytest.approx(outcome.best["mtre_mean_mm"])


def test_held_out_samples_are_never_trained_on(tmp_path):
    seen: list[Tensor] = []

    class Spy(Toy):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.append(batch["x"][:, 0])
            return super().forward(batch)

    run(Spy(), tmp_path)
    trained = torch.cat(seen).unique()
    assert len(trained) == 40
    assert not torch.isin(FIELDS["x"][-4:, 0], trained).any()


def test_the_time_limit_ends_the_training_and_says_so(tmp_path):
    outcome = run(Toy(), tmp_path, SETTINGS.model_copy(update={"max_seconds": 1e-6}))
    assert outcome.steps == 1
    assert not outcome.complete


def test_training_that_makes_it_worse_keeps_the_weights_it_began_with(tmp_path):
    before = Toy().state_dict()

    class Worse(Toy):
        def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            away = (self.net[0].weight - before["net.0.weight"]).abs().sum().expand(len(batch["x"]))
            return {"mtre_mm": away, "start_mtre_mm": away}

    stage = Worse()
    outcome = run(stage, tmp_path)
    assert outcome.best["mtre_mean_mm"] == 0 < outcome.last["mtre_mean_mm"]
    assert all(torch.equal(before[name], value) for name, value in stage.state_dict().items())


class Late(Toy):
    """Best at first: its weights get worse with every step, and all is taught from half of the steps on."""

    whole_from = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append(self.progress)
        return {"fit": sum(p.square().sum() for p in self.net.parameters())}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        size = 100.0 if not self.seen else float(len(self.seen))
        return {"mtre_mm": torch.full((len(batch["x"]),), size), "start_mtre_mm": batch["x"][:, 0]}


def test_weights_from_before_all_was_taught_are_not_the_best(tmp_path):
    stage = Late()
    outcome = run(stage, tmp_path, SETTINGS.model_copy(update={"epochs": 4}))
    per_epoch = outcome.steps // 4
    assert outcome.best["mtre_mean_mm"] == 3 * per_epoch  # of the third epoch, though the first was better
    assert stage.seen == [step / outcome.steps for step in range(outcome.steps)]


def test_a_time_limit_leaves_time_for_all_that_is_taught(tmp_path, monkeypatch):
    moments = iter(range(0, 10_000, 1))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(moments)))
    stage = Late()
    run(stage, tmp_path, SETTINGS.model_copy(update={"epochs": 1000, "max_seconds": 60.0}))
    assert max(stage.seen) > 0.9
    assert len(stage.seen) < 60
