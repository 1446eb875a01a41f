"""Captions of photos: the template, what a model that writes them is asked, and what is taken of its answer.

A caption names what is *not* the person, so that training binds the face to the class word and not the shirt: clothes,
place, light, expression. It never says who somebody is or what the face is like.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from magicid_cli.events import Events
from magicid_cli.prompts import clauses
from magicid_cli.prompts.edited import Origin
from magicid_cli.prompts.wording import FACE, OTHERS, WHO, compared, named, plain, unwanted

if TYPE_CHECKING:
    import numpy as np

LONGEST = 40
"""Most words of a caption."""

QUESTION = (
    "Finish the caption of this photo, which begins with: {beginning}\n"
    "Name in plain words, with commas between: the clothes, the place, the light, the expression. One sentence of at "
    "most 30 words. Say nothing of the face, the eyes, the hair, the skin, the age, the origin, the body or how good "
    "somebody looks or whom they are like, nothing of other people, no names and no text that is written anywhere."
)
_WORDING = hashlib.sha256(f"{QUESTION}\n{clauses.VOCABULARY}".encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Caption:
    """What a photo shows.

    Attributes:
        text: the caption.
        note: why it is only the template although a model was asked; else empty.
    """

    text: str
    note: str = ""


class Captioner(Protocol):
    """Who writes captions.

    Attributes:
        made_by: what decides the captions besides the photo; a photo is captioned again when it changes.
        at_once: how many photos it is best given together.
    """

    made_by: str
    at_once: int

    def captions(self, crops: "Sequence[np.ndarray]") -> list[Caption]:
        """A caption for each crop, uint8 RGB `(H, W, 3)`."""

    def close(self) -> None:
        """Give back what was loaded."""


def template(class_word: str) -> str:
    """The caption of a head-and-shoulders photo that only names the class word; needs no model.

    "A photo of" is there on purpose: stage 1 repeats a photo to a motionless clip, and words that name the
    stillness let it settle on them instead of on the person.

    Args:
        class_word: what the person is called: `man`, `woman` or `person`.
    """
    return f"{beginning(class_word)}, head and shoulders"


def beginning(class_word: str) -> str:
    """How every caption begins."""
    return f"a photo of a {class_word}"


def wording(class_word: str) -> str:
    """The version of what is asked and of what may be answered, for `made_by`."""
    return f"caption {_WORDING} {class_word}"


def checked(answer: str, class_word: str) -> Caption:
    """What is taken of a model's answer: its first sentence, without the clauses that say what a caption must not.

    Args:
        answer: begins with `beginning(class_word)`.
        class_word: what the person is called.

    Returns:
        The caption; the template, with the reason as its note, if nothing usable is left.
    """
    start = beginning(class_word)
    lines = answer.strip().splitlines() or [""]
    sentence = re.split(r"[.!?](?:\s|$)", " ".join(lines[0].split()))[0].replace(";", ",")
    if not re.match(rf"{re.escape(start)}(?:[ ,]|$)", sentence, re.IGNORECASE):
        return Caption(template(class_word), f"it does not begin with '{start}'")
    attached, *others = (clause.strip() for clause in sentence[len(start) :].split(","))
    found = {clause: _fault(clause, class_word) for clause in (attached, *others) if clause}
    kept = [clause for clause, fault in found.items() if not fault]
    while kept and len(f"{start} {' '.join(kept)}".split()) > LONGEST:
        kept.pop()
    if not kept:
        faults = [fault for fault in found.values() if fault]
        return Caption(template(class_word), faults[0] if faults else "it says nothing, or too much at once")
    joint = " " if kept[0] == attached else ", "
    # "T-shirt" in the spelling of the rest.
    return Caption((start + joint + ", ".join(kept)).lower())


def _fault(clause: str, class_word: str) -> str:
    """Why a part of a caption cannot be used; empty if it can."""
    if not plain(clause):
        return "it is no plain text"
    if name := named(f", {clause}"):  # it begins no sentence, so no capital belongs there
        return f"it may name somebody or something ('{name}')"
    if word := unwanted(clause, FACE | WHO):
        return f"it speaks of the face or of who it is ('{word}')"
    if words := compared(clause):
        return f"it says who somebody is like ('{words}')"
    if word := unwanted(clause, OTHERS, frozenset({class_word})):
        return f"it speaks of other people ('{word}')"
    return clauses.fault(clause, class_word)


def rows(
    old: Sequence[Mapping[str, Any]],
    edits: Mapping[str, Mapping[str, Any]],
    origins: Mapping[str, Origin],
    pictures: "Mapping[str, np.ndarray]",
    captioner: Captioner,
    events: Events,
    stage: str,
) -> list[dict[str, Any]]:
    """The lines of `captions.jsonl`: a caption for every crop.

    `offered` in a row is the caption that was written for the crop: one that differs from it was edited. Nobody is
    asked about a crop whose caption was edited, nor again about one that has a caption by the same maker.

    Args:
        old: the lines that are there.
        edits: file name → the edited line of the crop's photo; see `edited.assigned`.
        origins: file name → where the crop comes from.
        pictures: file name → the crop's pixels.
        captioner: who writes what is missing.
        events: told how far it is, and where only the template could be used.
        stage: the stage that asks.
    """
    known = {row.get("sha256"): row for row in old if _stays(row, captioner.made_by)}
    kept = {name: known[origin.crop] for name, origin in origins.items() if origin.crop in known} | dict(edits)
    missing = [name for name in origins if name not in kept]
    written: dict[str, Caption] = {}
    for first in range(0, len(missing), captioner.at_once):
        names = missing[first : first + captioner.at_once]
        written.update(zip(names, captioner.captions([pictures[name] for name in names]), strict=True))
        events.emit("step", stage=stage, part="captions", step=len(written), of=len(missing))
    _tell(written, events, stage)
    lines = []
    for name, origin in origins.items():
        whose = {"sha256": origin.crop, "photo": origin.photo}
        if name in kept:
            lines.append({**kept[name], "crop": name, **whose})
            continue
        caption = written[name]
        text = {"crop": name, "caption": caption.text, "offered": caption.text}
        lines.append({**text, "made_by": captioner.made_by, "note": caption.note, **whose})
    return lines


def _stays(row: Mapping[str, Any], made_by: str) -> bool:
    """Whether the same maker would write the line's caption again for the same crop."""
    caption = row.get("caption")
    whole = isinstance(caption, str) and bool(caption.strip()) and isinstance(row.get("sha256"), str)
    return whole and caption == row.get("offered") and row.get("made_by") == made_by


def _tell(written: Mapping[str, Caption], events: Events, stage: str) -> None:
    failed = {name: caption.note for name, caption in written.items() if caption.note}
    if failed:
        name, why = next(iter(failed.items()))
        first = f"what was written for {name} cannot be used: {why}"
        message = f"{len(failed)} of {len(written)} photos keep the caption of the template; {first}."
        events.emit("fallback", message=message, stage=stage)
