"""The bank of fixed draws on the real classes: its errors against those of the same draws, measured directly."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from album import SMALL
from magicid_cli import adapters, config, models, preference, training
from magicid_cli.config import Settings
from magicid_cli.events import Event, Events
from magicid_cli.models.base import Family
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.preference import Bank, Pair
from magicid_cli.randomness import derived_seed
from magicid_cli.stages import prefer
from magicid_cli.workspace import Workspace, read_lines, write_lines

pytestmark = pytest.mark.xdist_group("finished")

DRAWS, SEED = 3, 11
Ready = tuple[Family, list[Pair], Settings]


@pytest.fixture
def ready(alice: Path) -> Ready:
    """The tiny model, the stage-1 adapter as reference and a shaken copy of it as policy, and the training pairs."""
    settings = config.resolve(SMALL, project=alice).settings
    workspace = Workspace("alice")
    family = models.open_family(settings.model, Events())
    pairs, _ = prefer.load_pairs(workspace, family, Events())
    tensors, spec = adapters.load(workspace.reconstruct / "adapter.safetensors")
    family.load("transformer")
    shake = torch.Generator().manual_seed(1)
    for name, size in (("reference", 0.0), ("policy", 0.05)):
        adapters.attach(family.transformer, name, spec, seed=0)
        shaken = {key: t + size * torch.randn(t.shape, generator=shake) for key, t in tensors.items()}
        adapters.load_tensors(family.transformer, name, shaken)
    adapters.select(family.transformer, "policy", trainable=True)
    return family, pairs, settings


@contextmanager
def forwards(family: Any) -> Iterator[list[bool]]:
    """Of every prediction, whether it has a graph: the policy's do, the reference's do not."""
    seen: list[bool] = []
    real = family.predict

    def predict(*arguments: Any) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return real(*arguments)

    family.predict = predict
    yield seen
    del family.predict


def met(ready: Ready, bank: Bank, item: int, seed: int) -> preference.Draw:
    family, pairs, settings = ready
    return bank.draw(family, pairs, item, torch.Generator().manual_seed(seed), settings)


def test_a_draw_that_is_met_again_costs_no_reference_and_is_the_same(ready: Ready, tmp_path: Path) -> None:
    """To the bit what is measured directly at that time and noise, the first time and the second."""
    family, pairs, settings = ready
    bank = Bank(DRAWS, SEED, tmp_path / "bank.jsonl", "key")
    number = int(torch.randint(DRAWS, (1,), generator=torch.Generator().manual_seed(0)))
    own = torch.Generator().manual_seed(derived_seed(SEED, "bank", "1", str(number)))
    direct = preference.draw(family, pairs[1], own, settings)
    for calls in ([False, False], []):
        with forwards(family) as seen:
            drawn = met(ready, bank, 1, 0)
        assert seen == calls
        assert float(drawn.winner_reference) == float(direct.winner_reference) > 0
        assert float(drawn.rejected_reference) == float(direct.rejected_reference) > 0
        assert drawn.t == direct.t
        assert float(drawn.winner().detach()) == float(direct.winner().detach()) != float(direct.winner_reference)
        assert float(drawn.rejected().detach()) == float(direct.rejected().detach())
    trainable = {name for name, p in family.transformer.named_parameters() if p.requires_grad}
    assert trainable and all(".policy." in name for name in trainable)


def test_a_step_at_a_known_draw_has_the_same_gradient_for_half_the_forwards(ready: Ready, tmp_path: Path) -> None:
    family, pairs, settings = ready
    bank, found = Bank(DRAWS, SEED, tmp_path / "bank.jsonl", "key"), []
    for calls in ([False, False, True, True], [True, True]):
        batch = training.Batch(0, (0,), torch.Generator().manual_seed(0))
        with forwards(family) as seen:
            metrics = prefer.accumulate(family, pairs, batch, settings, 50.0, bank)
        parameters = adapters.parameters(family.transformer, "policy").values()
        found.append((metrics, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])))
        assert seen == calls
    (metrics, gradient), (metrics_again, gradient_again) = found
    assert metrics == metrics_again and torch.equal(gradient, gradient_again)
    assert gradient.abs().max() > 0 and metrics["margin"] != 0


def test_a_pair_has_so_many_draws_of_its_own_and_all_are_met(ready: Ready, tmp_path: Path) -> None:
    times = {}
    for seed in (SEED, SEED + 1):
        bank = Bank(DRAWS, seed, tmp_path / f"{seed}.jsonl", "key")
        times[seed] = [{met(ready, bank, item, number).t for number in range(24)} for item in (0, 1)]
    everything = [t for of_seed in times.values() for of_pair in of_seed for t in of_pair]
    assert [len(of_pair) for of_seed in times.values() for of_pair in of_seed] == [DRAWS] * 4
    assert max(Counter(everything).values()) == 1, "neither pairs nor seeds share a draw"


def test_errors_are_kept_for_the_run_they_belong_to(ready: Ready, tmp_path: Path) -> None:
    """A bank that is opened again measures nothing again; one of another key everything; a cut line is a lost draw."""
    family, path = ready[0], tmp_path / "bank.jsonl"

    def opened(key: str) -> tuple[int, float]:
        with forwards(family) as seen:
            drawn = met(ready, Bank(1, SEED, path, key), 0, 0)
        return len(seen), float(drawn.winner_reference)

    first = opened("key")
    assert first[0] == 2 and opened("key") == (0, first[1])
    (row,) = read_lines(path)
    path.write_text(json.dumps(row)[:-9])
    assert opened("key") == first
    assert opened("another") == first
    assert [row["key"] for row in read_lines(path)] == ["another"]


def test_a_larger_bank_has_the_draws_of_a_smaller_one(ready: Ready, tmp_path: Path) -> None:
    """Of its four draws of a pair two are known; met again, they are those that were measured."""
    path, met_by = tmp_path / "bank.jsonl", {}
    for draws, anew in ((2, 2), (4, 2), (2, 0)):
        bank = Bank(draws, SEED, path, "key")
        with forwards(ready[0]) as seen:
            met_by[draws] = {
                (drawn.t, float(drawn.winner_reference)) for drawn in [met(ready, bank, 0, n) for n in range(32)]
            }
        assert len(seen) == 2 * anew and len(met_by[draws]) == draws
    assert met_by[2] < met_by[4]


def test_known_errors_count_until_something_changes_that_they_depend_on(alice: Path) -> None:
    workspace = Workspace("alice")

    def key(dtype: torch.dtype = torch.float32, commit: str = "commit", **changes: object) -> str:
        values = {name.replace("__", "."): value for name, value in changes.items()}
        settings = config.resolve({**SMALL, **values}, project=alice).settings
        family: Any = SimpleNamespace(commit=commit, dtype=dtype)
        return prefer.bank_key_of(workspace, settings, family)

    trained_otherwise = [
        key(prefer__bank=5),
        key(prefer__learning_rate=1e-3),
        key(prefer__winner_guard=0.5),
        key(prefer__anchor=0.5),
        key(prefer__held_out_every=2),
        key(prefer__steps=9, prefer__probe_steps=9, prefer__batch=2, prefer__beta=3.0),
    ]
    assert set(trained_otherwise) == {key()}
    others = [
        key(dtype=torch.bfloat16),
        key(commit="another"),
        key(model__base="fp8"),
        key(seed=8),
        key(training__guidance=7.5),
        key(training__timesteps="uniform"),
        key(prefer__noise="independent"),
        key(prefer__reference="base"),
    ]
    workspace.start.write_bytes(b"another adapter")
    others.append(key())
    write_lines(workspace.pairs, read_lines(workspace.pairs)[::-1])
    others.append(key())
    assert len({key(), *others}) == len(others), "the last one is what is there now"
    assert not set(others) & set(trained_otherwise)


def test_training_measures_the_reference_only_at_draws_that_it_has_not_met(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same run without a bank: two forwards a step; with it, two for every draw that is met first."""
    workspace = Workspace("alice")
    path, real = workspace.prefer / "bank.jsonl", Hunyuan.predict
    measured: list[int] = []
    of_probe: list[int] = []

    def predict(family: Hunyuan, *arguments: Any) -> torch.Tensor:
        measured.append(not torch.is_grad_enabled())
        return real(family, *arguments)

    def found(event: Event) -> None:
        if event.kind == "notice" and event.data["message"].startswith("beta = "):
            measured.clear()
            of_probe.append(len(read_lines(path)))

    monkeypatch.setattr(Hunyuan, "predict", predict)
    references, adapter = {}, {}
    for draws in (0, 2):
        # No held-out pair and no guard: what has no graph is the reference.
        changes = {"prefer.bank": draws, "prefer.steps": 5, "prefer.guards": False, "prefer.held_out_every": 100}
        shutil.rmtree(workspace.prefer)
        prefer.run(workspace, config.resolve({**SMALL, **changes}, project=alice).settings, Events(found))
        references[draws] = sum(measured)
        adapter[draws] = (workspace.prefer / "adapter.safetensors").read_bytes()
    known = len(read_lines(path))
    assert of_probe[0] == 0 < of_probe[1] < known
    assert references[0] == 2 * 5 > references[2] == 2 * (known - of_probe[1])
    assert adapter[0] != adapter[2]


def test_a_cut_run_with_a_bank_ends_with_the_bits_of_an_uncut_one(alice: Path) -> None:
    """Probe and training share the bank; no draw is measured twice, before or after the cut."""
    workspace = Workspace("alice")
    changes = {"prefer.bank": 2, "prefer.steps": 5, "prefer.guards": False}
    settings = config.resolve({**SMALL, **changes}, project=alice).settings
    prefer.run(workspace, settings, Events())
    uncut = (workspace.prefer / "adapter.safetensors").read_bytes()
    rows = read_lines(workspace.prefer / "bank.jsonl")
    draws = [(row["pair"], row["draw"]) for row in rows]
    assert 0 < len(set(draws)) == len(draws) < 5 + settings.prefer.probe_steps
    shutil.rmtree(workspace.prefer)
    events = Events()

    def stop(event: Event) -> None:
        if event.kind == "step" and event.data["of"] == 5 and event.data["step"] == 2:
            events.request_stop()

    events.listen(stop)
    with pytest.raises(KeyboardInterrupt):
        prefer.run(workspace, settings, events)
    assert len(read_lines(workspace.prefer / "bank.jsonl")) <= len(rows)
    prefer.run(workspace, settings, Events())
    assert (workspace.prefer / "adapter.safetensors").read_bytes() == uncut
    assert read_lines(workspace.prefer / "bank.jsonl") == rows
