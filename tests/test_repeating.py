"""The command that a hint names, against the flags that the identity was made with and `customize`'s own options."""

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from magicid_cli import comparison, generation, methods, repeating
from magicid_cli.baselines import untrained
from magicid_cli.baselines.registry import method
from magicid_cli.cli.app import app, main
from magicid_cli.cli.identity import as_round
from magicid_cli.config import KNOBS, resolve
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.plan import running
from magicid_cli.workspace import Workspace

SHORT = ["magicid", "customize", "PHOTOS", "--name", "alice"]
FLAGS = {"model.name": "mini", "photos.class_word": "woman", "repository.initial": 12, "seed": 7}
GIVEN = ["--class-word", "woman", "--model", "mini", "--initial", "12", "--seed", "7"]


def begun(where: Workspace, **flags: Any) -> Workspace:
    """A folder that a run with some flags has described, and nothing else of it."""
    resolved = resolve({**FLAGS, **flags})
    where.create()
    settings = {"values": asdict(resolved.settings), "origins": resolved.origins}
    where.update(settings=settings, model="mini", stages={"reconstruct": {"state": "done", "begun": 1.0}})
    return where


def command_in(hint: str) -> list[str]:
    return shlex.split(hint[hint.index("magicid customize") :])


def as_declared(given: list[str]) -> list[str]:
    """Flags and their values in the order in which settings are declared."""
    flags = [str(knob.flag) for knob in KNOBS.values()]
    pairs = sorted(zip(given[::2], given[1::2], strict=True), key=lambda pair: flags.index(pair[0]))
    return [word for pair in pairs for word in pair]


def stage_1(workspace: Workspace) -> object:
    settings = resolve({"model.name": "mini", "generate.adapter": "stage-1"}).settings
    return generation.chosen_adapter(workspace, settings)


def other_weights(workspace: Workspace) -> None:
    comparison._sample(workspace, resolve(FLAGS).settings, [], Events())


REFUSALS: dict[str, Callable[[Workspace], object]] = {
    "no adapter": generation.adapter_of,
    "no adapter of stage 1": stage_1,
    "no photos for a method": lambda one: methods.states(one, "dreambooth", resolve(FLAGS).settings, None),
    "no photo for another model": lambda one: untrained.require(one, method("consisid"), resolve(FLAGS).settings),
    "other weights": other_weights,
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_names_every_flag_of_the_run(refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "open_family", lambda *args: SimpleNamespace(commit="another"))
    with pytest.raises(MagicIDError) as caught:
        REFUSALS[refusal](begun(Workspace("alice")))
    assert command_in(caught.value.hint) == [*SHORT, *as_declared(GIVEN)]


@pytest.mark.parametrize("command", ["score", "pairs", "evaluate --videos clips"])
def test_a_command_names_every_flag_of_the_run(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    Path("clips/one.mp4").touch()
    begun(Workspace("alice"))
    assert main([*command.split(), "alice", "--json"]) != 0
    error = json.loads(capsys.readouterr().out)["error"]
    assert command_in(error["hint"]) == [*SHORT, *as_declared(GIVEN)]


def test_a_round_that_is_missing_is_asked_for_once() -> None:
    with pytest.raises(MagicIDError) as caught:
        as_round(begun(Workspace("alice"), rounds=2), 3, {}, "score")
    words = command_in(caught.value.hint)
    assert words.count("--rounds") == 1 and words[words.index("--rounds") + 1] == "3" and "--model" in words


def test_another_method_is_gone_on_with_by_its_own_flags() -> None:
    identity = begun(Workspace("alice"))
    space = begun(identity.of_method("dreambooth"), **{"reconstruct.learning_rate": 1e-4})
    with pytest.raises(MagicIDError) as caught:
        generation.require_method(space, resolve(FLAGS).settings)
    words = command_in(caught.value.hint)
    assert words[-2:] == ["--method", "dreambooth"] and words[words.index("--reconstruct-lr") + 1] == "0.0001"


def test_where_nothing_was_run_the_short_form_is_named() -> None:
    assert shlex.split(repeating.customize(Workspace("alice"))) == SHORT


def test_customize_takes_every_flag_that_is_named() -> None:
    values = asdict(resolve({}).settings)
    words = shlex.split(repeating.command("alice", {"values": values, "origins": dict.fromkeys(KNOBS, "config.toml")}))
    program: Any = typer.main.get_command(app)
    taken = {option for one in program.commands["customize"].params for option in (*one.opts, *one.secondary_opts)}
    named = {word for word in words if word.startswith("--")}
    assert named <= taken and len(named) > 50
