"""New prompts: what is taken of what a model writes, and the file that comes of it.

The truths: the shipped prompts, which must pass their own rules; sentences with one fault each, written out; a writer
that says what the test tells it; the reader of prompt files; the tiny random Qwen3-VL from the local Hub.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny_qwen
from hub_server import HubServer
from magicid_cli.cli.app import main
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.catalog import JUDGES
from magicid_cli.prompts import choose, invent
from magicid_cli.world.captions import wish

GOOD = (
    "A woman in a turquoise apron juggles glowing lemons on a rooftop at dusk, spinning twice and catching the last "
    "one behind her back. Her eyes crinkle with glee as the camera swings low around the chimney."
)


# The rules.


@pytest.mark.parametrize("word", ["man", "woman", "person"])
def test_the_shipped_prompts_keep_the_rules(word: str) -> None:
    prompts = [choose.fill(template, word) for template in choose.shipped()]
    faults = {prompt: invent.problem(prompt, word, []) for prompt in prompts}
    kept = [prompt for prompt, fault in faults.items() if fault is None]
    assert len(kept) >= 0.9 * len(prompts), [item for item in faults.items() if item[1]][:5]


def test_no_shipped_prompt_is_new_and_a_new_one_is() -> None:
    known = [choose.fill(template, "woman") for template in choose.shipped()]
    assert invent.problem(GOOD, "woman", known) is None
    for prompt in known[::10]:
        assert invent.problem(prompt, "woman", known) == "it repeats another prompt"


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("A woman in a coat runs as the camera follows.", "words"),
        (GOOD + " " + GOOD, "words"),
        (GOOD.replace("woman", "lady"), "does not say 'woman'"),
        (GOOD.replace("rooftop", "rooftop in Paris"), "name"),
        (GOOD.replace("A woman", "With Alice, a woman"), "name"),
        (GOOD.replace("A woman", "A young woman"), "who somebody is"),
        (GOOD.replace("A woman", "A slim woman"), "who somebody is"),
        (GOOD.replace("A woman", "A woman who looks like emma watson"), "who somebody is"),
        (GOOD.replace("A woman", "A woman known as the swan"), "who somebody is"),
        (GOOD.replace("lemons", "lemons with a friend"), "somebody else"),
        (GOOD.replace("her back", "his back"), "somebody else"),
        (GOOD.replace("the camera", "a drone"), "camera"),
        (GOOD.replace("juggles", "jüggles 🍋"), "plain"),
        (GOOD.replace("glee", "<|im_end|>"), "plain"),
        (GOOD.replace("turquoise", "green"), "repeats"),
        (GOOD.upper(), "name"),
    ],
)
def test_one_fault_is_enough(prompt: str, why: str) -> None:
    fault = invent.problem(prompt, "woman", [GOOD] if why == "repeats" else [])
    assert fault is not None and why in fault


def test_an_answer_is_cut_to_whole_sentences_of_its_first_line() -> None:
    assert invent.tidy("  A man runs.  He  jumps.\nAnd more.") == "A man runs. He jumps."
    assert invent.tidy("A man runs. He jumps over the") == "A man runs."
    assert invent.tidy("A man") == "" == invent.tidy("")


# The search.


class Writer:
    """Says what it is told to; remembers what it was asked."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[list[tuple[str, str]], int]] = []

    def __call__(self, asked: Sequence[tuple[str, str]], seed: int) -> list[str]:
        self.calls.append((list(asked), seed))
        return [self._answers.pop(0) if self._answers else "" for _ in asked]


def numbered(count: int) -> list[str]:
    """Prompts that share few words."""
    made = []
    for number in range(count):
        words = " ".join(f"{'abcdefghijklmnop'[number]}{letter}thing" for letter in "abcdefghijklmnopqrstuvwxyz")
        made.append(f"A man in {words} camera.")
    return made


def test_enough_good_ones_end_the_search() -> None:
    bad = "A man."
    writer = Writer(*numbered(3), bad, *numbered(3)[:1], *numbered(16)[3:])
    found = invent.invent(5, "man", seed=3, write=writer, events=Events())
    assert found == numbered(5)
    assert len(writer.calls) == 1 and len(writer.calls[0][0]) == invent.AT_ONCE
    assert all(start == "A man in" for _, start in writer.calls[0][0])


def test_a_short_list_is_told_and_the_search_is_bounded() -> None:
    heard: list[Event] = []
    writer = Writer(*numbered(2))
    found = invent.invent(5, "man", seed=3, write=writer, events=Events(heard.append))
    assert found == numbered(2)
    assert sum(len(asked) for asked, _ in writer.calls) == invent.TRIES * 5
    (told,) = [event.data["message"] for event in heard if event.kind == "notice"]
    assert "2 of 5" in told and "words" in told


def test_nothing_usable_is_an_error_that_says_why() -> None:
    with pytest.raises(MagicIDError) as caught:
        invent.invent(2, "man", seed=3, write=Writer(), events=Events())
    assert caught.value.code == "prompts-not-written"
    assert "words" in caught.value.message and "--seed" in caught.value.hint


def test_every_try_has_its_own_examples_and_the_seed_decides_them() -> None:
    def asked(seed: int) -> list[str]:
        writer = Writer()
        with pytest.raises(MagicIDError):
            invent.invent(6, "woman", seed=seed, write=writer, events=Events())
        return [question for call, _ in writer.calls for question, _ in call]

    first = asked(1)
    assert len(set(first)) == len(first) == 6 * invent.TRIES
    assert asked(1) == first and not set(asked(2)) & set(first)
    known = [choose.fill(template, "woman") for template in choose.shipped()]
    assert all(sum(prompt in question for prompt in known) == 3 for question in first)


# The file, at the command line.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


WRITE = ("prepare", "--model", "mini", "--write-prompts", "5", "--seed", "7", "--class-word", "woman")


def test_the_file_is_one_that_prompts_reads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WRITE, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["data"]["prompts"]
    assert made["path"] == "prompts-woman.txt" and made["seed"] == 7
    assert choose.from_file(here / made["path"], "woman") == made["prompts"]
    assert len(made["prompts"]) == 5 and all(wish(prompt).action for prompt in made["prompts"])
    assert "seed 7" in (here / made["path"]).read_text().splitlines()[0]


def test_no_file_is_ever_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "prompts-woman.txt").write_text("mine")
    assert main([*WRITE, "-q"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "prompts-woman-2.txt"
    (here / "own.txt").write_text("mine")
    assert main([*WRITE, "--output", "own.txt"]) == 2
    assert "own.txt exists already" in capsys.readouterr().err
    assert (here / "prompts-woman.txt").read_text() == (here / "own.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([*WRITE, "--output", "file/x.txt"], "output-invalid", "Nothing can be written"),
        (["prepare", "--model", "mini", "--output", "x.txt"], "usage", "--write-prompts"),
        ([*WRITE[:3], "--write-prompts", "1000"], "prompts-too-few", "Use --write-prompts 448 or fewer."),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_done(
    here: Path,
    words: list[str],
    code: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "file").write_text("mine")
    monkeypatch.setattr("magicid_cli.cli.prepare._fetch", lambda *_: pytest.fail("something was fetched"))
    assert main([*words, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code and said in f"{error['message']} {error['hint']}"
    assert [path.name for path in here.iterdir()] == ["file"]


def test_a_missing_folder_is_made_for_the_file(here: Path) -> None:
    assert main([*WRITE, "--output", "new/folder/x.txt", "-q"]) == 0
    assert len(choose.from_file(here / "new/folder/x.txt", "woman")) == 5


def test_a_judge_that_cannot_write_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--model", "tiny", "--write-prompts", "5"]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_a_model_from_the_hub_writes_them(
    here: Path, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The random model's own words are refused; those put into its mouth arrive in the file."""
    source = JUDGES["qwen3-vl-2b"].source
    hub.add(source.repo, tiny_qwen.build(tmp_path / "qwen"), source.revision)
    words = ["prepare", "--model", "tiny", "--vlm", "qwen3-vl-2b", "--write-prompts", "2", "--class-word", "man"]
    assert main([*words, "--seed", "1"]) == 1
    assert "None of 8 prompts" in capsys.readouterr().err
    assert not list(here.iterdir())

    seeds: list[Any] = []

    def write(_: Any, questions: Sequence[Any], *, tokens: int, seed: int) -> list[str]:
        seeds.append(seed)
        return numbered(len(questions))

    monkeypatch.setattr("magicid_cli.rewards.qwen.Qwen.write", write)
    assert main([*words, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["data"]["prompts"]
    assert choose.from_file(here / "prompts-man.txt", "man") == numbered(2) == made["prompts"]
    assert source.revision in made["made_by"] and seeds == [made["seed"]], "a drawn seed is recorded"
