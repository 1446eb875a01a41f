"""Prompts against the contract: what is shipped, how it is chosen, what a name in a prompt means.

The truths are the command line's contract (names, possessives, refusals), English grammar for the three class words,
written-out examples, and a second process for everything that must not depend on the process.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from magicid_cli.errors import CODES, MagicIDError
from magicid_cli.prompts import captions, choose, names

KNOWN = {"alice": "woman", "james": "man", "ann-": "woman", "ann": "person", "rose": "woman"}


def refused(code: str, exit_code: int) -> "pytest.RaisesExc[MagicIDError]":
    return pytest.RaisesExc(MagicIDError, check=lambda error: error.code == code and CODES[code].exit_code == exit_code)


# The shipped list.


def test_there_are_enough_and_no_two_are_alike() -> None:
    prompts = choose.shipped()
    assert len(prompts) >= 120
    assert len({prompt.split(".")[0] for prompt in prompts}) == len(prompts)
    assert len({" ".join(prompt.split()[:6]) for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("class_word", ["man", "woman", "person"])
def test_every_prompt_reads_right_for_the_class_word(class_word: str) -> None:
    pronouns = {"man": ("his", "him"), "woman": ("her", "her"), "person": ("their", "them")}
    possessive, object_form = pronouns[class_word]
    strangers = {"man", "woman", "person", "his", "him", "her", "their", "them"} - {class_word, possessive, object_form}
    strangers |= {"he", "she", "they", "hers", "theirs", "himself", "herself", "themselves", "i", "my", "you", "we"}
    for template in choose.shipped():
        prompt = choose.fill(template, class_word)
        words = re.findall(r"[a-z]+", prompt.lower())
        assert class_word in words, prompt
        assert possessive in words, prompt
        assert not strangers & set(words), prompt
        assert not re.search(r"[{}]", prompt), prompt
        assert not re.search(r"(?<![.] )(?<!^)\b(His|Her|Their)\b", prompt), prompt
        assert not re.search(r"\b[Aa] [aeio]", prompt), prompt
        assert 25 <= len(prompt.split()) < 60, prompt


def test_every_prompt_moves_the_camera_and_shows_the_face() -> None:
    face = r"face|eyes|smil|grin|laugh|brow|gaze|expression|mouth|jaw|glance|lips|tongue|shout|stare"
    for template in choose.shipped():
        assert re.search(r"camera|lens", template), template
        assert re.search(face, template), template


def test_nobody_real_and_nobody_else_is_named() -> None:
    # A name or a place would be a capital inside a sentence.
    for template in choose.shipped():
        assert not re.search(r"(?<![.!?] )(?<!^)\b[A-Z]", re.sub(r"[{}]", "", template)), template
        assert not re.search(r"\b(child|boy|girl|teen|kid|baby|couple|friends|crowd|lover)\b", template), template


# The choice.


def test_the_choice_is_without_replacement_and_nested() -> None:
    twenty = choose.pick(20, 7, "woman")
    assert len(set(twenty)) == 20
    assert choose.pick(10, 7, "woman") == twenty[:10]
    everything = choose.pick(len(choose.shipped()), 7, "woman")
    assert sorted(everything) == sorted(choose.fill(template, "woman") for template in choose.shipped())


def test_the_seed_matters_and_the_class_word_does_not_change_the_choice() -> None:
    assert choose.pick(20, 1, "man") != choose.pick(20, 2, "man")
    templates = {choose.fill(template, "man"): template for template in choose.shipped()}
    chosen = [templates[prompt] for prompt in choose.pick(20, 1, "man")]
    assert choose.pick(20, 1, "person") == [choose.fill(template, "person") for template in chosen]


def test_the_choice_is_the_same_in_another_process() -> None:
    code = "import json; from magicid_cli.prompts.choose import pick; print(json.dumps(pick(20, 11, 'person')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "123"}
    )
    assert json.loads(done.stdout) == choose.pick(20, 11, "person")


def test_choosing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from magicid_cli.prompts import captions, choose, names; choose.pick(2, 0, 'man'); "
        "print([m for m in ('torch', 'numpy', 'diffusers', 'transformers', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_more_than_there_are_is_refused_with_the_number() -> None:
    available = len(choose.shipped())
    with refused("prompts-too-few", 2) as caught:
        choose.pick(available + 1, 0, "man")
    assert str(available) in caught.value.message


def test_pronouns_follow_the_class_word() -> None:
    template = "A {person} waves {their} hat. {Their} dog follows {them}, {not} far."
    assert choose.fill(template, "man") == "A man waves his hat. His dog follows him, {not} far."
    assert choose.fill(template, "woman") == "A woman waves her hat. Her dog follows her, {not} far."
    assert choose.fill(template, "person") == "A person waves their hat. Their dog follows them, {not} far."


# The user's file.


def test_a_file_with_everything_that_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    text = "\ufeff# mine\r\n\r\n  A {person} lifts {their} {cup}. \r\nUne femme court à la plage, 100 %\n   # end"
    file.write_bytes(text.encode())
    assert choose.from_file(file, "man") == ["A man lifts his {cup}.", "Une femme court à la plage, 100 %"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no prompt"),
        (b"# only\n\n   \n", "no prompt"),
        (b"\xff\xfea\x00 \x00", "not UTF-8"),
        ("Café".encode("latin-1"), "not UTF-8"),
        (b"a man\x00 walks", "not UTF-8"),
        (b"a man walks\n" * 1001, "1001 prompts"),
        (b"a" * 1001, "1001 characters"),
        (b"a man walks\n" * 1_000_000, "too large"),
    ],
)
def test_a_file_that_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with refused("prompts-file", 4) as caught:
        choose.from_file(file, "man")
    assert reason in caught.value.message
    assert "prompts.txt" in caught.value.message


def test_the_limits_themselves_are_allowed(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(["a" * 1000] * 1000 + ["# not a prompt"] * 5))
    assert choose.from_file(file, "man") == ["a" * 1000] * 1000


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with refused("prompts-file", 4) as caught:
        choose.from_file(tmp_path / "none.txt", "man")
    assert "does not exist" in caught.value.message
    with refused("prompts-file", 4) as caught:
        choose.from_file(tmp_path, "man")
    assert "not a file" in caught.value.message


# Captions.


@pytest.mark.parametrize("class_word", ["man", "woman", "person"])
def test_a_caption_names_the_class_word_and_nothing_private(class_word: str) -> None:
    caption = captions.template(class_word)
    assert caption.startswith(f"a photo of a {class_word}")
    assert len({captions.template(word) for word in ("man", "woman", "person")}) == 3


# The name in a prompt.


@pytest.mark.parametrize(
    ("prompt", "identity", "text"),
    [
        ("Alice runs.", "alice", "A woman runs."),
        ("alice runs", "alice", "a woman runs"),
        ("ALICE runs", "alice", "A woman runs"),
        ("In Paris Alice runs", "alice", "In Paris a woman runs"),
        ("Rain. Alice runs and Alice laughs", "alice", "Rain. A woman runs and the woman laughs"),
        ("Alice runs. Alice laughs. Then Alice", "alice", "A woman runs. The woman laughs. Then the woman"),
        ("Alice's dog", "alice", "A woman's dog"),
        ("alice’s dog follows alice", "alice", "a woman’s dog follows the woman"),
        ("alice waves alice's hat", "alice", "a woman waves the woman's hat"),
        ("James' hat and james's shoes", "james", "A man's hat and the man's shoes"),
        ("'James' is written in the sand", "james", "'A man' is written in the sand"),
        ("portrait of the Alice", "alice", "portrait of a woman"),
        ("A rose", "rose", "A woman"),
        ("(alice), dancing", "alice", "(a woman), dancing"),
        ("“Alice” sings", "alice", "“A woman” sings"),
        ("ann- walks", "ann-", "a woman walks"),
        ("ann walks", "ann", "a person walks"),
        ("ann--the cook--walks", "ann", "a person--the cook--walks"),
    ],
)
def test_a_name_becomes_the_phrase_that_was_trained(prompt: str, identity: str, text: str) -> None:
    assert names.resolve(prompt, KNOWN, None) == names.Named(identity, text)
    assert names.resolve(prompt, KNOWN, identity) == names.Named(identity, text)


@pytest.mark.parametrize(
    "prompt",
    ["malice", "alices dog", "alice_2 walks", "alice-like", "un-alice", "alice2", "Éalice", "al\u0130ce", "jame\u017f"],
)
def test_a_part_of_a_word_does_not_count(prompt: str) -> None:
    assert names.resolve(prompt, {"alice": "woman", "james": "man"}, "james") == names.Named("james", prompt)
    with refused("identity-ambiguous", 2):
        names.resolve(prompt, {"alice": "woman", "james": "man"}, None)


def test_a_prompt_without_a_name_stays_as_it_is() -> None:
    prompt = "  The  Eiffel tower\tat night "
    assert names.resolve(prompt, {"alice": "woman"}, None) == names.Named("alice", prompt)
    assert names.resolve(prompt, KNOWN, "rose") == names.Named("rose", prompt)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("alice runs", True),
        ("a Woman's dog", True),
        ("a dog runs", False),
        ("womanly grace", False),
        ("malice", False),
        ("two women", False),
    ],
)
def test_whether_a_prompt_asks_for_the_person(prompt: str, said: bool) -> None:
    assert names.says(names.resolve(prompt, {"alice": "woman"}, None).text, "woman") is said


def test_who_is_meant_must_be_clear() -> None:
    with refused("identity-missing", 2):
        names.resolve("a woman runs", {}, None)
    with refused("identity-missing", 2) as caught:
        names.resolve("a woman runs", KNOWN, "bob")
    assert "alice" in caught.value.hint
    with refused("identity-ambiguous", 2):
        names.resolve("a woman runs", KNOWN, None)
    with refused("identity-ambiguous", 2) as caught:
        names.resolve("Alice and James dance", KNOWN, None)
    assert "alice" in caught.value.message
    assert "james" in caught.value.message
    with refused("identity-ambiguous", 2):
        names.resolve("Alice and James dance", KNOWN, "alice")
    with refused("identity-ambiguous", 2) as caught:
        names.resolve("Alice dances", KNOWN, "james")
    assert "--name alice" in caught.value.hint


@pytest.mark.parametrize("prompt", ["", "  \n\t "])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with refused("prompt-empty", 2):
        names.resolve(prompt, KNOWN, "alice")


def test_everyday_words_are_known_in_any_case() -> None:
    warned: Sequence[str] = ("rose", "Grace", "WILL", "mark", "art", "may", "hope", "red", "woman", "dog", "run")
    assert all(names.everyday(name) for name in warned)
    assert not any(names.everyday(name) for name in ("alice", "james", "rose-2", "mr_green", "zoe", "x7"))
