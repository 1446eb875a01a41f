"""A guarded training, against the uninterrupted one: cut anywhere, it ends at the same step with the same adapter.

The model is a weight that grows step by step with noise; its "videos" lose likeness as it grows, so that the guard ends
the training in the middle and chooses a checkpoint that is not the last.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from magicid_cli import guards
from magicid_cli.events import Event, Events
from magicid_cli.guards import Guard, Looking, Verdict
from magicid_cli.guards.rules import Seen
from magicid_cli.training import Batch, Schedule, train
from magicid_cli.workspace import file_digest, read_json, read_lines

STEPS, EVERY, ENDS, CHOSEN = 24, 3, 15, 6
START = b"the adapter of the start"
SCHEDULE = Schedule(
    steps=STEPS, learning_rate=0.05, weight_decay=0.0, warmup=0, batch=1, max_grad_norm=0.0, save_every=5
)
# What the watched videos show after so many steps: best at 6, far below the stage-1 model's from 12 on.
SHOWN = {0: (0.5, 4.0), 3: (0.5, 4.1), 6: (0.6, 4.4), 9: (0.55, 4.4), 12: (0.3, 4.0), 15: (0.2, 3.9), 18: (0.1, 3.0)}


class PowerCut(Exception):
    """The process ends here."""


class Run:
    """One process: a model, its guard, and a place where it is cut."""

    def __init__(self, folder: Path, cut: Callable[[str], None] | None = None, key: str = "key") -> None:
        self.folder, self.key, self.cut = folder, key, cut or (lambda where: None)
        self.weight = Parameter(torch.zeros(4))
        self.seen: list[Event] = []
        self.looked: list[int | str] = []
        self.shown = SHOWN

    def accumulate(self, batch: Batch) -> dict[str, float]:
        self.cut(f"step {batch.step}")
        noise = torch.randn(4, generator=batch.generator) + random.random() + np.random.standard_normal() * 0.1
        self.weight.grad = -1 - 0.1 * noise - 0.1 * torch.rand(4)
        shift = float(self.weight.detach().mean())
        return {"margin": -shift, "winner_shift": -shift, "rejected_shift": 0.0, "gradient_factor": 0.3}

    @property
    def step(self) -> int:
        """Finished steps, as the metrics file has them."""
        return len(read_lines(self.folder / "metrics.jsonl"))

    def policy(self) -> tuple[Seen, list[dict[str, Any]]]:
        self.cut(f"look {self.step}")
        self.looked.append(self.step)
        random.random(), np.random.rand(), torch.rand(3)  # whatever sampling draws
        return Seen(*self.shown.get(self.step, (0.5, 4.0))), [{"weight": self.weight.tolist()}]

    def stage_1(self) -> tuple[Seen, list[dict[str, Any]]]:
        self.looked.append("stage 1")
        return Seen(*SHOWN[0]), []

    def save(self, path: Path) -> None:
        self.cut(f"save {self.step}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.weight.detach().numpy().tobytes())
        self.cut(f"saved {self.step}")

    def save_start(self, path: Path) -> None:
        path.write_bytes(START)

    def go(self, *, guarded: bool = True) -> Verdict:
        events = Events(self.seen.append)
        looking = Looking(policy=self.policy, stage_1=self.stage_1, save=self.save, save_start=self.save_start)
        guard = Guard(self.folder, steps=STEPS, every=EVERY, key=self.key, looking=looking, events=events)
        result = train(
            stage="prefer",
            parameters={"weight": self.weight},
            schedule=SCHEDULE,
            items=3,
            seed=1,
            key=self.key,
            folder=self.folder,
            accumulate=self.accumulate,
            events=events,
            guard=guard if guarded else None,
        )
        if not guarded:
            self.save(self.folder / "adapter.safetensors")
            return guards.unguarded(self.folder, result.steps)
        return guard.finish(read_lines(result.metrics), self.folder / "adapter.safetensors")

    def told(self, kind: str) -> list[str]:
        return [event.data["message"] for event in self.seen if event.kind == kind]


def result_of(folder: Path) -> dict[str, Any]:
    """Everything that a guarded training leaves, without its times."""
    timeless = [
        [{name: value for name, value in row.items() if name != "seconds"} for row in read_lines(folder / name)]
        for name in ("metrics.jsonl", "looks.jsonl")
    ]
    files = {path.name: file_digest(path) for path in sorted(folder.glob("snapshots/*"))}
    adapter = file_digest(folder / "adapter.safetensors")
    return {"lines": timeless, "guards": read_json(folder / "guards.json"), "files": files, "adapter": adapter}


def cut_once(where: str) -> Callable[[str], None]:
    left = [where]

    def cut(here: str) -> None:
        if here in left:
            left.remove(here)
            raise PowerCut(here)

    return cut


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    verdict = Run(folder).go()
    assert (verdict.step, verdict.stopped) == (CHOSEN, "likeness-lost")
    return folder


def test_the_guard_ends_the_training_and_puts_its_best_checkpoint_in_place(whole: Path) -> None:
    rows, looks = (read_lines(whole / name) for name in ("metrics.jsonl", "looks.jsonl"))
    assert len(rows) == ENDS and [row["step"] for row in looks] == [0, 3, 6, 9, 12, 15]
    (weight,) = (row["videos"][0]["weight"] for row in looks if row["step"] == CHOSEN)
    assert np.frombuffer((whole / "adapter.safetensors").read_bytes(), np.float32).tolist() == weight
    assert [path.name for path in (whole / "snapshots").iterdir()] == ["step-00000006.safetensors"]
    report = read_json(whole / "guards.json")
    assert (report["step"], report["stopped"], report["qualified"], report["steps"]) == (6, "likeness-lost", True, 24)
    assert [one["signs"] for one in report["looks"]] == [[], [], [], ["likeness-lost"], ["likeness-lost"]]
    assert "after step 15 of 24" in report["why"] and "likeness +20%, motion +10%" in report["why"]


CUTS = [
    *(f"step {step}" for step in range(ENDS)),
    *(f"{what} {step}" for what in ("look", "save", "saved") for step in range(EVERY, ENDS + 1, EVERY)),
]


@pytest.mark.parametrize("where", CUTS)
def test_cut_anywhere_it_ends_at_the_same_step_with_the_same_adapter(whole: Path, tmp_path: Path, where: str) -> None:
    with pytest.raises(PowerCut):
        Run(tmp_path, cut_once(where)).go()
    again = Run(tmp_path)
    again.go()
    assert result_of(tmp_path) == result_of(whole)
    assert len(again.looked) == len(set(again.looked)), "no look is made twice"
    step = int(where.split()[1])
    assert all(isinstance(look, int) and look >= step for look in again.looked), "nor one that was recorded"


@pytest.mark.parametrize("finished", [False, True])
def test_cut_in_the_choice_it_chooses_again(whole: Path, tmp_path: Path, finished: bool) -> None:
    """Before any file of the choice is written, and after all are, before the manifest says so."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    if not finished:
        for name in ("adapter.safetensors", "guards.json"):
            (tmp_path / name).unlink()
    again = Run(tmp_path)
    again.go()
    assert result_of(tmp_path) == result_of(whole)
    assert again.looked == [] and again.told("fallback") == []


def test_a_stop_request_during_a_look_is_obeyed_at_once_and_costs_that_look_only(whole: Path, tmp_path: Path) -> None:
    run = Run(tmp_path)

    def ask(here: str) -> None:
        if here == "look 9":
            raise KeyboardInterrupt  # what request_stop does where nothing must be finished

    run.cut = ask
    with pytest.raises(KeyboardInterrupt):
        run.go()
    again = Run(tmp_path)
    again.go()
    assert again.looked[0] == 9 and result_of(tmp_path) == result_of(whole)
    assert not [event for event in again.seen if event.kind == "step" and event.data["step"] <= 9]


def test_looking_changes_nothing_of_the_training(whole: Path, tmp_path: Path) -> None:
    """A guard that never ends it leaves the policy of an unguarded run, and so do its first steps."""
    calm, alone = Run(tmp_path / "calm"), Run(tmp_path / "alone")
    for run in (calm, alone):
        run.folder.mkdir()
        run.shown = {}
    calm.go()
    verdict = alone.go(guarded=False)
    assert torch.equal(calm.weight, alone.weight) and calm.looked
    assert (verdict.step, verdict.stopped) == (STEPS, None)
    assert [path.name for path in sorted(alone.folder.iterdir())] == [
        "adapter.safetensors",
        "checkpoints",
        "metrics.jsonl",
    ]
    first = [row | {"seconds": 0} for row in read_lines(alone.folder / "metrics.jsonl")][:ENDS]
    assert first == [row | {"seconds": 0} for row in read_lines(whole / "metrics.jsonl")]


def test_without_a_guard_what_an_earlier_one_left_is_removed(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    Run(tmp_path).go(guarded=False)
    assert not [name for name in ("snapshots", "looks.jsonl", "guards.json") if (tmp_path / name).exists()]


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_a_damaged_snapshot_is_named_and_the_next_best_is_chosen(whole: Path, tmp_path: Path, harm: str) -> None:
    with pytest.raises(PowerCut):
        Run(tmp_path, cut_once("look 15")).go()
    snapshot = tmp_path / "snapshots" / "step-00000006.safetensors"
    if harm == "change":
        snapshot.write_bytes(bytes(len(snapshot.read_bytes())))
    else:
        snapshot.unlink()
    again = Run(tmp_path)
    verdict = again.go()
    assert (verdict.step, verdict.stopped) == (9, "likeness-lost")
    assert [message for message in again.told("fallback") if "snapshot of step 6 is damaged" in message]
    weight = next(row["videos"][0]["weight"] for row in read_lines(tmp_path / "looks.jsonl") if row["step"] == 9)
    assert np.frombuffer((tmp_path / "adapter.safetensors").read_bytes(), np.float32).tolist() == weight


def test_a_run_that_goes_back_behind_a_look_makes_it_again(whole: Path, tmp_path: Path) -> None:
    """Without the newest checkpoint, the look at its step is made again; without any, all but the first one are."""
    with pytest.raises(PowerCut):
        Run(tmp_path, cut_once("saved 15")).go()
    kept = sorted((tmp_path / "checkpoints").glob("step-*"))
    (kept[-1] / "manifest.json").unlink()
    again = Run(tmp_path)
    again.go()
    assert again.looked == [15] and result_of(tmp_path) == result_of(whole)
    for path in kept:
        (path / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    from_the_start = Run(tmp_path)
    from_the_start.go()
    assert from_the_start.looked == [3, 6, 9, 12, 15] and result_of(tmp_path) == result_of(whole)


def test_looks_of_another_run_are_forgotten(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    with pytest.raises(PowerCut):
        Run(tmp_path, cut_once("step 0"), key="other").go()
    left = {path.name for path in tmp_path.rglob("*")} - {"checkpoints", "adapter.safetensors", "metrics.jsonl"}
    assert left == {"looks.jsonl", "snapshots"}, "nothing that tells of the former run"
    shutil.rmtree(tmp_path)
    shutil.copytree(whole, tmp_path)
    other = Run(tmp_path, key="other")
    other.go()
    assert other.looked == ["stage 1", 3, 6, 9, 12, 15]
    assert {row["key"] for row in read_lines(tmp_path / "looks.jsonl")} == {"other"}


def test_a_training_without_a_good_checkpoint_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.shown = {step: (0.65, 3.75 - step / 100) for step in range(1, STEPS + 1)}
    verdict = run.go()
    assert (verdict.step, verdict.stopped) == (3, None)
    (warning,) = run.told("fallback")
    assert "lost likeness or motion at every look" in warning and "--prefer-steps 0" in warning
    assert read_json(tmp_path / "guards.json")["qualified"] is False


def test_a_training_that_only_did_harm_leaves_the_adapter_that_it_started_from(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.shown = {step: (0.45, 3.5 - step / 100) for step in range(1, STEPS + 1)}
    verdict = run.go()
    assert (verdict.step, verdict.stopped) == (0, None)
    assert (tmp_path / "adapter.safetensors").read_bytes() == START
    assert not list(tmp_path.glob("snapshots/*"))
    (warning,) = run.told("fallback")
    assert "the stage-1 model, which stays" in warning
    assert {name: read_json(tmp_path / "guards.json")[name] for name in ("step", "qualified")} == {
        "step": 0,
        "qualified": False,
    }


def test_the_end_and_the_choice_are_told(tmp_path: Path) -> None:
    run = Run(tmp_path)
    verdict = run.go()
    (note,) = [event for event in run.seen if event.kind == "notice"]
    assert note.data["rule"] == "likeness-lost" and "Stage 2 ends after step 15 of 24" in note.data["message"]
    (choice,) = [event for event in run.seen if event.kind == "choice"]
    assert choice.data["step"] == CHOSEN and choice.data["why"] == verdict.why
    assert [event.data["step"] for event in run.seen if event.kind == "look"] == [0, 3, 6, 9, 12, 15]
    json.dumps([event.data for event in run.seen])
