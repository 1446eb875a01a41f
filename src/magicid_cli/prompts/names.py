"""The name in a prompt: `alice` stands for the person and becomes the phrase that was trained, "a woman"."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from magicid_cli.errors import MagicIDError

_SENTENCE_START = re.compile(r"(?:^|[.!?…:][\"'”’)]*\s)\s*[\"'“‘(]*$")
_LONE_APOSTROPHE = re.compile(r"['’](?=\s)")

# A name that is also a word would be replaced where the word was meant ("a rose in her hair").
_EVERYDAY_WORDS = """
a an the and or but not no yes in on at to of for from with by as is are was be do go it he she we you i they me my
man woman person boy girl men women people child baby lady guy king queen prince knight judge baker cook miller
smith hunter fisher mason porter carter cooper taylor archer shepherd red blue green white black grey gray brown
pink gold silver violet amber ruby pearl olive coral scarlet ivory azure crimson ebony hazel ginger rose lily daisy
iris ivy holly heather jasmine fern willow poppy flora basil sage rosemary berry cherry apple clementine grace hope
faith joy charity patience prudence mercy honor honour victory glory may june april august summer autumn winter
spring dawn eve season sunny misty stormy sky star sun moon rain snow river brook lake sea ocean bay cliff glen dale
heath ridge forest wood field stone rock flint clay sandy art will mark bill jack drew grant chase chance miles
frank ernest rich dean earl duke gale wade lance pierce reed ray rusty skip chip dash ace bud buddy sonny buck colt
drake robin jay wren raven phoenix dove martin crane hawk fox wolf bear bunny kitty cat dog horse bird fish bell
belle dolly penny melody harmony carol viola harp drum song dance story poet page booker face hair hand hands eye
eyes smile light dark day night time city street house home room door window car bike boat train road path park
garden beach tree flower water fire wind air mountain hill camera video photo picture walk run jump look see sit
stand play sing laugh turn fall love like wish say tell ride drive swim fly happy merry young old new big little
tall good cute true bright clear free wild noble royal christian paris london china india america florence sydney
chelsea brooklyn austin dallas jordan
"""
_EVERYDAY = frozenset(_EVERYDAY_WORDS.split())


@dataclass(frozen=True)
class Named:
    """A prompt whose person is known.

    Attributes:
        identity: the identity that the prompt is about.
        text: the prompt for the model, without the name.
    """

    identity: str
    text: str


def resolve(prompt: str, known: Mapping[str, str], chosen: str | None) -> Named:
    """Find out whom a prompt is about, and say it in the words that were trained.

    A name counts as a whole word in any case; letters, digits, `_`, and `-` between them belong to a word, so "malice"
    and "alice-like" are not alice. The first mention becomes "a woman", later ones "the woman", possessives follow
    ("Alice's" → "a woman's"). An article right before the name is replaced with it; other words before it
    ("young Alice") are not understood and stay.

    Args:
        prompt: the user's text.
        known: the identities on this machine: name → class word.
        chosen: the identity of `--name`, if it was given.

    Raises:
        MagicIDError: `prompt-empty`, `identity-missing`, `identity-ambiguous`.
    """
    if not prompt.strip():
        raise MagicIDError("prompt-empty", "The prompt is empty.", 'Describe the video: --prompt "a woman dances".')
    _check_choice(known, chosen)
    pattern = _mentions(known)
    named = {match["name"].lower() for match in pattern.finditer(prompt)}
    identity = _decide(named, known, chosen)
    return Named(identity, _replaced(prompt, pattern, known[identity]) if named else prompt)


def says(text: str, class_word: str) -> bool:
    """Whether a resolved prompt has the trained word in it, as a whole word in any case: else nobody was asked for."""
    return re.search(rf"(?<!\w){re.escape(class_word)}(?!\w)", text, re.IGNORECASE) is not None


def everyday(name: str) -> bool:
    """Whether a name is also an everyday English word, which a prompt may mean as such."""
    return name.lower() in _EVERYDAY


def _check_choice(known: Mapping[str, str], chosen: str | None) -> None:
    if not known:
        raise MagicIDError(
            "identity-missing", "There is no identity yet.", "Make one: magicid customize PHOTOS --name NAME"
        )
    if chosen is not None and chosen not in known:
        raise MagicIDError("identity-missing", f"There is no identity called '{chosen}'.", _list(known))


def _decide(named: set[str], known: Mapping[str, str], chosen: str | None) -> str:
    if len(named) > 1:
        raise MagicIDError(
            "identity-ambiguous",
            f"The prompt names {' and '.join(sorted(named))}: a video shows one person.",
            "Name one of them, and put other words for the rest.",
        )
    if named:
        (identity,) = named
        if chosen not in (None, identity):
            raise MagicIDError(
                "identity-ambiguous",
                f"The prompt names {identity}, and --name says {chosen}.",
                f"Use --name {identity}, or leave the name out of the prompt.",
            )
        return identity
    if chosen is not None:
        return chosen
    if len(known) > 1:
        raise MagicIDError(
            "identity-ambiguous", "There are several identities, and the prompt names none of them.", _list(known)
        )
    return next(iter(known))


def _list(known: Mapping[str, str]) -> str:
    return "Choose with --name: " + ", ".join(sorted(known)) + "."


def _mentions(known: Mapping[str, str]) -> re.Pattern[str]:
    # The longest name first: where "ann-" is an identity, it is not the identity "ann" before a dash. ASCII inside the
    # name: without it, Turkish and old letters that only fold to a-z would match.
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?<!\w-)(?:(?i:a|an|the)\s+)?(?P<name>(?ai:{names}))(?!\w)(?!-\w)")


def _replaced(prompt: str, pattern: re.Pattern[str], class_word: str) -> str:
    pieces, end = [], 0
    for match in pattern.finditer(prompt):
        before = prompt[: match.start()]
        phrase = f"a {class_word}" if end == 0 else f"the {class_word}"
        if match[0][0].isupper() and _SENTENCE_START.search(before):
            phrase = phrase[0].upper() + phrase[1:]
        pieces += [prompt[end : match.start()], phrase]
        end = match.end()
        # "James' hat": the lone apostrophe of a possessive, unless it closes a quotation. "Alice's" needs no help.
        if match["name"][-1] in "sS" and _LONE_APOSTROPHE.match(prompt, end) and not before.endswith(("'", "‘", "’")):
            pieces.append("'s")
            end += 1
    return "".join(pieces) + prompt[end:]
