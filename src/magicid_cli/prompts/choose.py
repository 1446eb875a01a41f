"""Prompts of the repository: some of the shipped list, by seed, or the user's own file."""

import hashlib
import re
from importlib.resources import files
from pathlib import Path

from magicid_cli.errors import MagicIDError

LONGEST_LINE = 1000
MOST_PROMPTS = 1000
_LARGEST_FILE = 8_000_000  # bytes; more than that many of the longest lines need

_WORDS = {
    "man": {"their": "his", "them": "him"},
    "woman": {"their": "her", "them": "her"},
    "person": {"their": "their", "them": "them"},
}


def fill(template: str, class_word: str) -> str:
    """Put the class word and its pronouns where `{person}`, `{their}`, `{Their}` and `{them}` stand.

    Other braces are left alone: a user's prompt may contain them.
    """
    words = _WORDS[class_word]
    values = {"person": class_word, "Their": words["their"].capitalize(), **words}
    return re.sub(r"\{(person|their|Their|them)\}", lambda match: values[match.group(1)], template)


def shipped() -> list[str]:
    """The prompts that come with magicid, with their placeholders."""
    return _lines(files("magicid_cli.prompts").joinpath("shipped.txt").read_text(encoding="utf-8"))


def pick(count: int, seed: int, class_word: str) -> list[str]:
    """Choose `count` shipped prompts without replacement.

    The order is that of a hash of seed and text, not a random generator's, so that it is the same on every machine
    and version of Python; and the choice of 10 is the beginning of the choice of 20.

    Raises:
        MagicIDError: `prompts-too-few`.
    """
    templates = shipped()
    if count > len(templates):
        raise MagicIDError(
            "prompts-too-few",
            f"{count} prompts are wanted, and {len(templates)} are shipped with magicid.",
            f"Use --prompt-count {len(templates)} or fewer, or your own prompts with --prompts FILE.",
        )
    templates.sort(key=lambda template: hashlib.sha256(f"{seed}\n{template}".encode()).digest())
    return [fill(template, class_word) for template in templates[:count]]


def from_file(path: Path, class_word: str) -> list[str]:
    """The user's prompts: UTF-8, one a line; blank lines and lines that begin with # are skipped.

    Raises:
        MagicIDError: `prompts-file` if it cannot be read, is not text, is empty or is far too long.
    """
    prompts = _lines(_read(path))
    if not prompts:
        raise _unusable(path, "has no prompt in it")
    if len(prompts) > MOST_PROMPTS:
        raise _unusable(path, f"has {len(prompts)} prompts; at most {MOST_PROMPTS} are taken")
    for prompt in prompts:
        if len(prompt) > LONGEST_LINE:
            raise _unusable(
                path, f"has a line of {len(prompt)} characters ('{prompt[:30]}…'); at most {LONGEST_LINE} are taken"
            )
    return [fill(prompt, class_word) for prompt in prompts]


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise _unusable(path, "is not a file" if path.exists() else "does not exist")
        if path.stat().st_size > _LARGEST_FILE:
            raise _unusable(path, "is too large for a list of prompts")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8 text") from None
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    if "\0" in text:
        raise _unusable(path, "is not UTF-8 text")
    return text


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _unusable(path: Path, why: str) -> MagicIDError:
    return MagicIDError("prompts-file", f"The prompts file {path} {why}.", "Write one prompt a line, as UTF-8 text.")
