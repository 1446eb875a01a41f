"""`magicid mini train`: the order of the parts, what is made again, the folder, the command.

Truth: the layout that the package has; the contract of the command line. The parts are replaced by quick ones, which
note what they find.
"""

import fcntl
import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from fake_run import outcome
from magicid_cli.cli import mini
from magicid_cli.cli.app import main
from magicid_cli.cli.output import Terminal
from magicid_cli.cli.progress import spoken
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.workspace import write_text
from magicid_cli.world.training import base, origins, recipe

# the parts


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts that only note that they were made; `base` can be told to fail."""
    names: list[str] = []
    calls = itertools.count()

    def part(name: str) -> Callable[[Any], None]:
        def make(run: Any) -> None:
            names.append(name)
            for folder in recipe.PARTS[name].folders:
                origins.begin(run.folder, folder, run.events)
                write_text(run.folder / folder / "weights.safetensors", f"call {next(calls)}")
            write_text(run.folder / "weights" / (recipe.PARTS[name].result or "a"), "weights")

        return make

    quick = {name: replace(one, make=part(name)) for name, one in recipe.PARTS.items()}
    monkeypatch.setattr(recipe, "PARTS", quick)
    return names


def train(folder: Path, only: str | None = None, scale: float = 1.0, events: Events | None = None) -> recipe.Trained:
    return recipe.train(folder, device="cpu", only=only, scale=scale, events=events or Events())


def test_parts_are_made_in_order_and_each_once(tmp_path: Path, made: list[str]) -> None:
    told: list[tuple[str, str]] = []

    def listen(event: Event) -> None:
        told.append((event.data["stage"], event.data["state"]))

    done = train(tmp_path / "new" / "mini", events=Events(listen))
    assert made == ["codec", "base", "finder", "encoder", "judge", "scorer", "pack"]
    judged = ("face_encoder", "face_finder", "face_judge", "prompt_scorer")
    assert [path.name for path in done.files] == ["a", *(f"{name}.safetensors" for name in judged)]
    assert {path.parent for path in done.files} == {tmp_path / "new" / "mini" / "weights"}
    assert told == [(name, state) for name in made for state in ("started", "finished")]
    told.clear()
    train(tmp_path / "new" / "mini", events=Events(listen))
    assert made[7:] == ["pack"]
    assert told[:6] == [(name, "cached") for name in made[:6]]


def test_one_part_needs_what_comes_before_it(tmp_path: Path, made: list[str]) -> None:
    for only, first in (("base", "codec"), ("finder", "codec"), ("pack", "codec")):
        with pytest.raises(MagicIDError, match=f"'{only}' is made with what '{first}' leaves") as refused:
            train(tmp_path, only)
        assert refused.value.code == "training-order"
        assert refused.value.hint.endswith(f"mini train {tmp_path} --only {first} --scale 1.0 --device cpu")
        assert list(tmp_path.iterdir()) == []
    train(tmp_path, "codec")
    train(tmp_path, "scorer")
    with pytest.raises(MagicIDError, match="'pack' is made with what 'base' leaves"):
        train(tmp_path, "pack")
    assert made == ["codec", "scorer"]


JUDGES = ["finder", "encoder", "judge", "scorer"]


def test_what_was_made_with_another_autoencoder_is_made_again(tmp_path: Path, made: list[str]) -> None:
    train(tmp_path)
    shutil.rmtree(tmp_path / "codec")
    made.clear()
    assert recipe.seconds_left(tmp_path, only=None, scale=1.0) == sum(one.cpu_s for one in recipe.PARTS.values())
    train(tmp_path)
    assert made == ["codec", "base", *JUDGES, "pack"]
    made.clear()
    train(tmp_path)
    assert made == ["pack"]
    shutil.rmtree(tmp_path / "codec")
    train(tmp_path, "codec")
    with pytest.raises(MagicIDError, match="'pack' is made with what 'base' leaves, and that is .* out of date"):
        train(tmp_path, "pack")


def test_a_judge_whose_result_is_gone_is_made_again(tmp_path: Path, made: list[str]) -> None:
    train(tmp_path)
    shutil.rmtree(tmp_path / "weights")
    made.clear()
    assert len(train(tmp_path).files) == 5
    assert made == [*JUDGES, "pack"]


def test_a_folder_made_with_something_else_is_cleared_and_that_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    events = Events(lambda event: told.append(event.data["message"]))
    write_text(tmp_path / "codec" / "weights.safetensors", "one")
    origins.begin(tmp_path, "base", events)
    write_text(tmp_path / "base" / "state.pt", "half of the steps")
    origins.begin(tmp_path, "base", events)
    assert (tmp_path / "base" / "state.pt").is_file()
    assert told == []
    write_text(tmp_path / "codec" / "weights.safetensors", "two")
    origins.begin(tmp_path, "base", events)
    assert not (tmp_path / "base" / "state.pt").exists()
    assert told == [f"{tmp_path / 'base'} begins anew: it was not made with the present codec."]


@pytest.fixture
def base_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The part `base` in `tmp_path` with loops and latents that only note what they find: what has begun anew."""

    class Task:
        def __init__(self, *_: Any, teacher: nn.Module | None = None, **__: Any) -> None:
            self.name = "guided" if teacher else "base"
            self.model = nn.Linear(1, 1)

    def latents(vae: nn.Module, folder: Path, *_: Any) -> torch.Tensor:
        if not (folder / "000000.pt").exists():
            begun.append("latents")
        write_text(folder / "000000.pt", "")
        return torch.arange(32.0)

    def quick(task: Task, folder: Path, _: Events) -> None:
        path = folder / task.name / "state.pt"
        if path.exists():
            task.model.load_state_dict(torch.load(path))
        else:
            begun.append(task.name)
            path.parent.mkdir(exist_ok=True)
            torch.save(task.model.state_dict(), path)

    begun: list[str] = []
    monkeypatch.setattr(recipe.mini, "vae", lambda: nn.Linear(1, 1))
    monkeypatch.setattr(recipe, "fit", quick)
    for name, stand_in in (("latents", latents), ("encoded", lambda *_: None), ("Base", Task)):
        monkeypatch.setattr(base, name, stand_in)
    run = recipe._Run(tmp_path, "cpu", 1.0, Events())

    def make() -> list[str]:
        begun.clear()
        recipe.PARTS["base"].make(run)
        return begun

    run.keep("codec", nn.Linear(1, 1))
    return make


def test_the_flow_begins_anew_with_its_latents_and_takes_its_guidance_along(
    tmp_path: Path, base_alone: Callable[[], list[str]]
) -> None:
    assert base_alone() == ["latents", "base", "guided"]
    assert recipe.PARTS["base"].made(tmp_path)
    assert base_alone() == []
    shutil.rmtree(tmp_path / "guided")
    assert base_alone() == ["guided"]
    shutil.rmtree(tmp_path / "base")
    assert base_alone() == ["base", "guided"]
    recipe._Run(tmp_path, "cpu", 1.0, Events()).keep("codec", nn.Linear(1, 1))
    assert not recipe.PARTS["base"].made(tmp_path)
    assert base_alone() == ["latents", "base", "guided"]


def test_a_folder_keeps_to_its_scale(tmp_path: Path, made: list[str]) -> None:
    train(tmp_path, "codec", scale=0.5)
    with pytest.raises(MagicIDError, match="was begun with --scale 0.5") as refused:
        train(tmp_path, "base", scale=1.0)
    assert refused.value.code == "settings-invalid"
    assert made == ["codec"]
    doses = json.loads((tmp_path / "recipe.json").read_text())["doses"]
    assert doses["codec"]["steps"] == round(0.5 * recipe.DOSE.steps)


def test_the_hint_of_a_refused_part_is_a_command_that_works(
    tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a b"
    given = ["--scale", "0.123456789", "--device", "cpu"]
    assert main(["mini", "train", str(folder), "--only", "base", *given]) == 2
    assert not folder.exists()
    command = capsys.readouterr().err.partition("First: magicid ")[2]
    assert main(shlex.split(command)) == 0
    assert made == ["codec"]
    assert main(["mini", "train", str(folder), "--only", "base", *given]) == 0


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, made: list[str]) -> None:
    write_text(tmp_path / "thesis.tex", "years of work")
    with pytest.raises(MagicIDError, match="holds thesis.tex and no recipe.json") as refused:
        train(tmp_path)
    assert refused.value.code == "output-exists"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "lock").touch()  # of a call that was killed before it wrote anything else
    train(tmp_path, "codec")
    assert made == ["codec"]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path, made: list[str]) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MagicIDError) as refused:
            train(tmp_path)
    assert refused.value.code == "folder-busy"
    assert made == []
    assert train(tmp_path).files


def test_the_time_that_is_left_counts_what_is_not_done(tmp_path: Path, made: list[str]) -> None:
    whole = recipe.seconds_left(tmp_path, only=None, scale=1.0)
    assert recipe.seconds_left(tmp_path, only=None, scale=0.5) == whole / 2
    train(tmp_path, "codec")
    assert recipe.seconds_left(tmp_path, only="codec", scale=1.0) == 0
    assert recipe.seconds_left(tmp_path, only=None, scale=1.0) == whole - recipe.PARTS["codec"].cpu_s


def test_the_last_figures_of_every_part_are_told(tmp_path: Path, made: list[str]) -> None:
    logs: dict[str, list[dict[str, float]]] = {
        "codec": [{"step": 5, "db": 20.0}, {"step": 9, "db": 28.0}],
        "base": [{"step": 5, "loss": 1.0}],
    }
    write_text(tmp_path / "recipe.json", '{"scale": 1.0}')
    for name, rows in logs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = train(tmp_path)
    assert done.figures == {"codec": {"step": 9, "db": 28.0}}
    assert json.loads((tmp_path / "figures.json").read_text()) == done.figures


# the command


def test_help_and_how_to_do_not_say_that_the_shipped_weights_come_of_this_recipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["mini", "train", "--help"]) == 0
    guide = Path(__file__).parents[1] / "docs" / "how-to" / "train-the-miniature.md"
    for text in (capsys.readouterr().out, guide.read_text()):
        assert "trained in parts by earlier forms of this recipe, which was never run in one go" in " ".join(
            text.split()
        )


def test_the_command_offers_the_parts_there_are() -> None:
    assert get_args(mini.PartName) == tuple(recipe.PARTS)


def test_the_command_trains_and_prints_the_folder_of_the_weights(
    tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["mini", "train", str(out), "--scale", "0.5", "--device", "cpu", "--json"]) == 0
    data = outcome(capsys)["data"]
    assert (data["weights"], data["files"]["a"], data["device"]) == (str(out / "weights"), 7, "cpu")
    assert json.loads((out / "recipe.json").read_text())["scale"] == 0.5
    assert main(["mini", "train", str(out), "--scale", "0.5", "-q"]) == 0
    assert tuple(capsys.readouterr()) == (f"{out / 'weights'}\n", "")
    assert main(["mini", "train", str(out), "--only", "pack"]) == 2
    assert "was begun with --scale 0.5" in capsys.readouterr().err


def test_hours_are_asked_for_on_a_terminal(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(Terminal, "interactive", True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["mini", "train", str(out), "--device", "cpu"]) == 1
    expected = spoken(recipe.seconds_left(out, only=None, scale=1.0))
    assert f"The training takes about {expected} on one core" in capsys.readouterr().err
    assert made == []
    assert main(["mini", "train", str(out), "--device", "cpu", "--yes"]) == 0
    assert made[0] == "codec"


def test_a_trial_is_said_to_take_longer_than_its_share(
    tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for scale, expected in ((0.01, "at least 5 min"), (2.0, "about 15 h 59 min")):
        assert main(["mini", "train", str(tmp_path / str(scale)), "--scale", str(scale), "--device", "cpu"]) == 0
        assert f"The training takes {expected} on one core" in capsys.readouterr().err


def test_the_how_to_has_every_part_and_its_folders() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "how-to" / "train-the-miniature.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in guide.splitlines() if line.startswith("| `")]
    folders = {name.strip("`"): set(re.findall(r"`(\w+)/`", cell)) for name, cell in rows}
    for name, part in recipe.PARTS.items():
        assert set(part.folders) <= folders[name]
    assert folders["base"] == {"latents", "words", "base", "guided"}


@pytest.mark.parametrize(
    "wrong", [("--only", "vae"), ("--scale", "0"), ("--scale", "11"), ("--device", "tpu"), ("surplus",)]
)
def test_what_cannot_be_understood_is_a_usage_error(wrong: tuple[str, ...], tmp_path: Path) -> None:
    assert main(["mini", "train", str(tmp_path), *wrong]) == 2


# damage


def test_a_damaged_recipe_says_what_belongs_into_it(
    tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a b"
    given = ["mini", "train", str(out), "--only", "codec", "--scale", "0.5", "--device", "cpu"]
    assert main(given) == 0
    for damaged in ('{"scale": 0.', "{}", "[1]", '{"scale": null}', ""):
        (out / "recipe.json").write_text(damaged)
        capsys.readouterr()
        assert main(given) == 1
        told = capsys.readouterr().err
        assert f"error: {out / 'recipe.json'} is damaged" in told
        subprocess.run(told.partition("If that was 0.5: ")[2], shell=True, check=True)
        assert main(given) == 0
    assert made == ["codec"]


def test_a_cut_autoencoder_throws_nothing_away_and_is_finished_again(
    tmp_path: Path, base_alone: Callable[[], list[str]]
) -> None:
    base_alone()
    path = tmp_path / "codec" / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(MagicIDError, match="weights.safetensors is damaged") as refused:
        base_alone()
    assert refused.value.hint == f"Delete it, and 'codec' is finished again from its last state: rm {path}"
    path.write_bytes(whole)
    assert base_alone() == []


def test_a_cut_record_is_named(tmp_path: Path, base_alone: Callable[[], list[str]]) -> None:
    base_alone()
    (tmp_path / "guided" / "made-of.json").write_text("{")
    with pytest.raises(MagicIDError, match="made-of.json is damaged") as refused:
        recipe.PARTS["base"].made(tmp_path)
    assert refused.value.code == "training-damaged"


def test_a_cut_scaling_is_written_again(tmp_path: Path, base_alone: Callable[[], list[str]]) -> None:
    base_alone()
    path = tmp_path / "guided" / "scaling.json"
    path.write_text("")
    run = recipe._Run(tmp_path, "cpu", 1.0, Events())
    with pytest.raises(MagicIDError, match="scaling.json is damaged") as refused:
        recipe.PARTS["pack"].make(run)
    subprocess.run(refused.value.hint.partition(": ")[2], shell=True, check=True)
    assert not recipe.PARTS["base"].made(tmp_path)
    assert base_alone() == []
    assert float(path.read_text()) > 0


@pytest.mark.parametrize("name", ["file", "file/sub", "file/sub/sub"])
def test_a_file_in_the_way_is_named(
    tmp_path: Path, made: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    assert main(["mini", "train", str(tmp_path / name), "--device", "cpu", "--json"]) == 2
    error = outcome(capsys)["error"]
    assert (error["code"], made) == ("output-invalid", [])
    assert error["message"].startswith(f"{tmp_path / 'file'} is no folder")
