"""A drawn person: a seed decides what they look like. Nobody here exists."""

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

HELD_OUT = range(1000)
"""Seeds of the people whom no miniature model was trained on: for albums, tests and measurements."""
TRAINED = range(1000, 1_000_000)
"""Seeds of the people whom the miniature models were trained on."""

SKINS: tuple[Colour, ...] = (
    (255, 224, 196),
    (244, 204, 168),
    (226, 178, 136),
    (198, 144, 102),
    (160, 108, 72),
    (122, 80, 54),
    (88, 58, 42),
)
HAIR_COLOURS: dict[str, Colour] = {
    "black": (34, 28, 30),
    "brown": (96, 58, 34),
    "blond": (228, 190, 96),
    "red": (186, 74, 30),
    "grey": (158, 158, 162),
    "white": (236, 236, 232),
    "blue": (52, 92, 190),
    "pink": (232, 110, 168),
}
HAIR_STYLES = ("bald", "short", "spiky", "curly", "bob", "long", "bun")
BEARDS = ("none", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square")
EYE_COLOURS: dict[Colour, str] = {
    (60, 40, 26): "brown",
    (50, 104, 168): "blue",
    (58, 128, 74): "green",
    (120, 120, 128): "grey",
}
FRAMES: tuple[Colour, ...] = ((24, 24, 28), (170, 40, 44), (40, 76, 150))

# How often each comes: women and men differ in hair and beard, or a class word would mean nothing.
_STYLE_ODDS = {"woman": (0.02, 0.13, 0.06, 0.19, 0.21, 0.25, 0.14), "man": (0.17, 0.34, 0.2, 0.17, 0.05, 0.07, 0.0)}
_BEARD_ODDS = {"woman": (1.0, 0.0, 0.0, 0.0), "man": (0.4, 0.2, 0.15, 0.25)}
_HAIR_ODDS = (0.2, 0.2, 0.16, 0.14, 0.1, 0.08, 0.06, 0.06)


@dataclass(frozen=True)
class Person:
    """What a drawn person looks like; lengths are in units of the head's height.

    Attributes:
        seed: the person.
        kind: `man` or `woman`.
        skin, hair, iris, frames, lips: colours, RGB 0-255.
        hair_name: the hair colour's word.
        style: of the hair, one of `HAIR_STYLES`.
        beard: one of `BEARDS`.
        glasses: one of `GLASSES`.
        width: of the face.
        jaw: 0 (pointed) to 1 (square).
        eye_gap: distance of each eye from the middle.
        eye_size: half-width of an eye.
        brow: thickness of the brows.
        brow_tilt: slope of the brows, positive is stern.
        nose: length of the nose.
        nose_width: half-width of the nose.
        mouth: half-width of the mouth.
        build: width of the shoulders.
    """

    seed: int
    kind: str
    skin: Colour
    hair: Colour
    hair_name: str
    style: str
    beard: str
    glasses: str
    iris: Colour
    frames: Colour
    lips: Colour
    width: float
    jaw: float
    eye_gap: float
    eye_size: float
    brow: float
    brow_tilt: float
    nose: float
    nose_width: float
    mouth: float
    build: float


def person(seed: int) -> Person:
    """The person of that seed, the same on every machine.

    Args:
        seed: not negative.
    """
    draw = np.random.Generator(np.random.PCG64([17, seed]))
    kind = "woman" if draw.random() < 0.5 else "man"
    skin = _between(SKINS, draw.random())
    hair_name = list(HAIR_COLOURS)[_pick(draw, _HAIR_ODDS)]
    hair = _jitter(draw, HAIR_COLOURS[hair_name], 12)
    style = HAIR_STYLES[_pick(draw, _STYLE_ODDS[kind])]
    beard = BEARDS[_pick(draw, _BEARD_ODDS[kind])]
    glasses = GLASSES[_pick(draw, (0.6, 0.2, 0.2))]
    redness = draw.uniform(0.1, 0.75 if kind == "woman" else 0.3)
    lips = _mix(skin, (178, 34, 52), redness)
    slim = kind == "woman"
    return Person(
        seed=seed,
        kind=kind,
        skin=skin,
        hair=hair,
        hair_name=hair_name,
        style=style,
        beard=beard,
        glasses=glasses,
        iris=list(EYE_COLOURS)[int(draw.integers(len(EYE_COLOURS)))],
        frames=FRAMES[int(draw.integers(len(FRAMES)))],
        lips=lips,
        width=draw.uniform(0.66, 0.86),
        jaw=draw.uniform(0.0, 0.6 if slim else 1.0),
        eye_gap=draw.uniform(0.135, 0.19),
        eye_size=draw.uniform(0.062, 0.1),
        brow=draw.uniform(0.02, 0.04 if slim else 0.065),
        brow_tilt=draw.uniform(-0.25, 0.3),
        nose=draw.uniform(0.1, 0.19),
        nose_width=draw.uniform(0.035, 0.075),
        mouth=draw.uniform(0.1, 0.18),
        build=draw.uniform(1.45, 1.75) if slim else draw.uniform(1.65, 2.05),
    )


def _pick(draw: np.random.Generator, odds: tuple[float, ...]) -> int:
    return int(draw.choice(len(odds), p=np.array(odds) / sum(odds)))


def _between(colours: tuple[Colour, ...], share: float) -> Colour:
    """A colour along the list, 0 its first and 1 its last."""
    place = share * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    return _mix(colours[low], colours[low + 1], place - low)


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _jitter(draw: np.random.Generator, colour: Colour, by: float) -> Colour:
    red, green, blue = (int(np.clip(round(part + draw.uniform(-by, by)), 0, 255)) for part in colour)
    return red, green, blue
