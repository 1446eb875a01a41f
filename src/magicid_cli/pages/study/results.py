"""Raters' answer files and the study's key → win rates with intervals, and agreement."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magicid_cli.errors import MagicIDError
from magicid_cli.pages.study import statistics
from magicid_cli.pages.study.build import FORMAT, KEY
from magicid_cli.pages.study.questions import NEITHER, QUESTIONS

ANSWERS = "magicid study answers"
_FEW = 5  # raters or sets, below which an interval promises too much


@dataclass(frozen=True)
class Rate:
    """How often a method was chosen as the answer to a question.

    Attributes:
        question: its name, `Question.id`.
        method: whose videos.
        rate: share of answers, 0 to 1; where somebody saw no difference, every method gets the same share.
        low: lower end of the 95 % interval.
        high: upper end.
        answers: that were given to the question.
    """

    question: str
    method: str
    rate: float
    low: float
    high: float
    answers: int


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    Attributes:
        title: of the study.
        methods: that were compared.
        raters: whose answers count.
        sets: of the study.
        rates: for every question and method.
        agreement: Krippendorff's alpha by question; None where it is not defined.
        notes: files and answers that were left out, and what the figures do not allow, a sentence each.
    """

    title: str
    methods: tuple[str, ...]
    raters: int
    sets: int
    rates: tuple[Rate, ...]
    agreement: dict[str, float | None]
    notes: tuple[str, ...]


def results(paths: Sequence[Path]) -> Outcome:
    """Read a study's key and its raters' answers, in any order, and count.

    Raises:
        MagicIDError: `answers-unusable` without a key or an answer, with two keys, or for a file that cannot be read.
    """
    read = [(path, _read(path)) for path in paths]
    keys = {data["study"]: data for _, data in read if data["kind"] == KEY}
    if len(keys) != 1:
        which = "none of the files is the study's key" if not keys else "the files are keys of several studies"
        raise _unusable(
            f"Nobody can tell whose the videos are: {which}.",
            "Add the file that `magicid study build` wrote beside the folder: magicid study results "
            "FOLDER.key.json ANSWERS.json",
        )
    (key,) = keys.values()
    raters, notes = _raters([(path, data) for path, data in read if data["kind"] == ANSWERS], key["study"])
    if not raters:
        raise _unusable(f"There is no answer to the study '{key['title']}'.", "Give the files that raters have saved.")
    owners = {one["id"]: {name: video["method"] for name, video in one["videos"].items()} for one in key["sets"]}
    given, strange = _given(raters, owners)
    if strange:
        notes.append(f"{strange} answers name a set, a question or a video that the study does not have.")
    if min(len(raters), len(owners)) < _FEW:
        notes.append("With so few raters or sets, the intervals are narrower than they should be.")
    methods = tuple(key["methods"])
    rates: list[Rate] = []
    agreement: dict[str, float | None] = {}
    for question in QUESTIONS:
        of_question = given[question.id]
        agreement[question.id] = statistics.krippendorff_alpha([list(one.values()) for one in of_question.values()])
        rates += _rates(question.id, of_question, sorted(raters), methods)
    return Outcome(key["title"], methods, len(raters), len(owners), tuple(rates), agreement, tuple(notes))


Given = dict[str, dict[str, dict[str, str]]]
"""Question → set → rater → the method that was chosen, or `NEITHER`."""


def _given(raters: dict[str, dict[str, Any]], owners: dict[str, dict[str, str]]) -> tuple[Given, int]:
    """Answers by question, set and rater; and how many fit nothing."""
    found: Given = {question.id: {one: {} for one in owners} for question in QUESTIONS}
    strange = 0
    for rater, data in raters.items():
        for answer in data["answers"]:
            name, question = str(answer.get("set")), str(answer.get("question"))
            chosen = {**owners.get(name, {}), NEITHER: NEITHER}.get(str(answer.get("choice")))
            if chosen is None or question not in found or name not in owners:
                strange += 1
            else:
                found[question][name][rater] = chosen
    return found, strange


def _rates(
    question: str, given: dict[str, dict[str, str]], raters: Sequence[str], methods: Sequence[str]
) -> list[Rate]:
    shares = np.full((len(raters), len(given), len(methods)), np.nan)
    for column, of_set in enumerate(given.values()):
        for rater, chosen in of_set.items():
            same = np.full(len(methods), 1 / len(methods))
            one = np.array([method == chosen for method in methods], dtype=float)
            shares[raters.index(rater), column] = same if chosen == NEITHER else one
    number = int(np.isfinite(shares[:, :, 0]).sum())
    if not number:
        return []
    found = zip(methods, statistics.win_rates(shares), statistics.intervals(shares), strict=True)
    return [Rate(question, method, float(rate), float(low), float(high), number) for method, rate, (low, high) in found]


def _raters(files: Sequence[tuple[Path, dict[str, Any]]], study: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Answers by rater, the newest file of each; and notes on what was left out."""
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for path, data in files:
        before = found.get(data["rater"]["id"])
        if data["study"] != study:
            notes.append(f"{path.name} answers another study and is left out.")
        elif before is None or before["saved"] < data["saved"]:
            found[data["rater"]["id"]] = data
        if data["study"] == study and before is not None:
            notes.append(f"{path.name} is of a rater who saved more than once: the newest file counts.")
    return found, notes


def _read(path: Path) -> dict[str, Any]:
    """A key or an answer file, checked."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}.", "Check its name and its permissions.") from error
    except ValueError as error:
        raise _unusable(f"{path} is no JSON.", _AGAIN) from error
    try:
        known = data["format"] == FORMAT and isinstance(data["study"], str)
        if data["kind"] == ANSWERS:
            known = known and isinstance(data["rater"]["id"], str) and isinstance(data["saved"], str)
            known = known and all(isinstance(answer, dict) for answer in data["answers"])
        elif data["kind"] == KEY:
            known = known and all(video["method"] for one in data["sets"] for video in one["videos"].values())
            known = known and all(isinstance(one["id"], str) for one in data["sets"])
            known = known and bool(data["methods"]) and isinstance(data["title"], str)
        else:
            known = False
    except (TypeError, KeyError, AttributeError):
        known = False
    if not known:
        raise _unusable(f"{path} is neither answers to a study nor a study's key.", _AGAIN)
    return dict(data)


_AGAIN = "Ask the rater for the file once more: the study's last page saves it."


def _unusable(message: str, hint: str) -> MagicIDError:
    return MagicIDError("answers-unusable", message, hint)
