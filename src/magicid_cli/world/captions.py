"""Prompts of the drawn world, written like those of the paper, and the way back from a prompt to what it asks for."""

import re
from dataclasses import dataclass

import numpy as np

from magicid_cli.world.people import EYE_COLOURS, HAIR_COLOURS, Person

ACTION_PHRASES: dict[str, tuple[str, ...]] = {
    "still": ("stands still", "stands motionless"),
    "turn": ("turns the head", "slowly turns the head from side to side"),
    "nod": ("nods", "nods the head up and down"),
    "walk": ("walks across", "walks across the scene"),
    "wave": ("waves a hand", "waves a hand in greeting"),
    "dance": ("dances", "dances with both arms"),
    "approach": ("comes closer", "comes closer to the camera"),
}
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "beach": ("on a sunny beach", "at the beach"),
    "forest": ("in a deep forest", "among the trees of a forest"),
    "mountains": ("in snowy mountains", "in front of snowy mountains"),
    "desert": ("in a desert", "among the dunes of a desert"),
    "street": ("on a city street at night", "on a street with lit windows"),
    "library": ("in a library", "in front of the shelves of a library"),
    "kitchen": ("in a kitchen", "in a bright kitchen"),
    "garden": ("in a garden", "in a garden full of flowers"),
}
OUTFIT_PHRASES: dict[str, tuple[str, ...]] = {
    name: (f"in a {name}", f"wearing a {name}")
    for name in (
        "red sweater",
        "denim jacket",
        "black suit",
        "yellow raincoat",
        "green hoodie",
        "white coat",
        "striped shirt",
        "purple dress",
    )
}
LIGHT_PHRASES: dict[str, str] = {"clear": "in clear light", "golden": "in golden light", "dim": "in dim light"}
MOODS = ("serious", "smiling", "surprised")

# One word each that no other phrase has: a prompt asks for what its word says, whatever stands around it.
_ACTION_WORDS = {
    "still": r"stand(?:s|ing)?|motionless",
    "turn": r"turn(?:s|ing)?",
    "nod": r"nod(?:s|ding)?",
    "walk": r"walk(?:s|ing)?",
    "wave": r"wav(?:es?|ing)",
    "dance": r"danc(?:es?|ing)",
    "approach": r"closer",
}
_PLACE_WORDS = {
    "beach": "beach",
    "forest": "forest",
    "mountains": "mountains?",
    "desert": "desert",
    "street": "street",
    "library": "library",
    "kitchen": "kitchen",
    "garden": "garden",
}


@dataclass(frozen=True)
class Wish:
    """What a prompt asks for; None where it says nothing that the drawn world has."""

    action: str | None
    place: str | None
    outfit: str | None


def wish(prompt: str) -> Wish:
    """Read the action, the place and the outfit out of any text: the first of each that it names."""
    return Wish(
        action=_first(prompt, _ACTION_WORDS),
        place=_first(prompt, _PLACE_WORDS),
        outfit=_first(prompt, {name: name for name in OUTFIT_PHRASES}),
    )


def caption(
    draw: np.random.Generator,
    *,
    subject: str,
    action: str,
    place: str,
    outfit: str,
    light: str,
    mood: str,
) -> str:
    """One sentence in one of the wordings of the grammar.

    Args:
        draw: chooses the wording.
        subject: the one who acts, for example "A woman".
        action: a key of `ACTION_PHRASES`.
        place: a key of `PLACE_PHRASES`.
        outfit: a key of `OUTFIT_PHRASES`.
        light: a key of `LIGHT_PHRASES`.
        mood: one of `MOODS`.
    """
    clothes = _one(draw, OUTFIT_PHRASES[outfit])
    does = _one(draw, ACTION_PHRASES[action])
    where = _one(draw, PLACE_PHRASES[place])
    mien = f", {mood}" if draw.random() < 0.7 else ""
    if draw.random() < 0.5:
        return f"{subject} {clothes} {does} {where}{mien}, {LIGHT_PHRASES[light]}."
    return f"{subject} {does} {where}, {clothes}{mien}, {LIGHT_PHRASES[light]}."


def described(draw: np.random.Generator, person: Person) -> str:
    """Who acts, for a caption: a man or a woman, now and then with hair, glasses or beard; never which one."""
    subject = "A person" if draw.random() < 0.1 else f"A {person.kind}"
    traits = []
    if draw.random() < 0.3:
        traits.append("a bald head" if person.style == "bald" else f"{person.style} {person.hair_name} hair")
    if person.glasses != "none" and draw.random() < 0.3:
        traits.append("glasses")
    if person.beard != "none" and draw.random() < 0.3:
        traits.append("a moustache" if person.beard == "moustache" else "a beard")
    return subject + (" with " + " and ".join(traits) if traits else "")


def looks(person: Person) -> str:
    """All that words can say of a drawn person: "a woman with long red hair, green eyes and round glasses"."""
    hair = "a bald head" if person.style == "bald" else f"{person.hair_name} hair in a {person.style}"
    if person.style not in {"bald", "bob", "bun"}:
        hair = f"{person.style} {person.hair_name} hair"
    traits = [hair, f"{EYE_COLOURS[person.iris]} eyes"]
    if person.beard != "none":
        traits.append({"moustache": "a moustache", "goatee": "a goatee", "full": "a full beard"}[person.beard])
    if person.glasses != "none":
        traits.append(f"{person.glasses} glasses")
    return f"a {person.kind} with {', '.join(traits[:-1])} and {traits[-1]}"


def words() -> list[str]:
    """Every word of the grammar, for the tokenizer."""
    tables = (ACTION_PHRASES, PLACE_PHRASES, OUTFIT_PHRASES)
    texts = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    texts += [*LIGHT_PHRASES.values(), *MOODS, *HAIR_COLOURS, "A man woman person with and"]
    texts += ["a bald head short spiky curly bob long bun hair glasses moustache beard"]
    return sorted({word for text in texts for word in re.findall(r"\w+", text)})


def _first(text: str, table: dict[str, str]) -> str | None:
    found = {name: re.search(rf"\b(?:{pattern})\b", text, re.IGNORECASE) for name, pattern in table.items()}
    places = {name: match.start() for name, match in found.items() if match}
    return min(places, key=places.__getitem__) if places else None


def _one(draw: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(draw.integers(len(choices)))]
