"""New prompts in the manner of the shipped ones, written by the vision-language model and checked one by one."""

import hashlib
from collections.abc import Callable, Sequence

from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.prompts.choose import fill, shipped
from magicid_cli.prompts.names import says
from magicid_cli.prompts.wording import OTHERS, WHO, compared, named, plain, unwanted, words

SHORTEST, LONGEST = 25, 60
"""Words of a prompt: from, to; the shipped ones lie between."""
AT_ONCE = 8
TRIES = 4
"""So many prompts are written for each one that is wanted before the search is given up."""

_EXAMPLES = 3
_ALIKE = 0.6  # two prompts that share more of their different words are one
_PRONOUNS = {
    "man": frozenset(["she", "her", "hers", "herself", "they", "their", "them", "theirs"]),
    "woman": frozenset(["he", "him", "his", "himself", "they", "their", "them", "theirs"]),
    "person": frozenset(["he", "him", "his", "himself", "she", "her", "hers", "herself"]),
}
_REQUEST = (
    "Each of these lines describes a short video of one {class_word}:\n\n{examples}\n\n"
    "Write one new line of the same kind, about something quite different: two sentences, 30 to 50 words. It names the "
    "clothes, the place, an action with much movement, the expression and how the camera moves. There is nobody else "
    "in it, nobody is named, and nothing is said of age, origin or beauty. Write the line and nothing else."
)

Writer = Callable[[Sequence[tuple[str, str]], int], list[str]]
"""(question, how the answer begins) of each of several, and a seed → the answers."""


def invent(count: int, class_word: str, *, seed: int, write: Writer, events: Events) -> list[str]:
    """Write new prompts until there are enough, or too many were tried.

    Args:
        count: how many.
        class_word: `man`, `woman` or `person`.
        seed: chooses the examples that are shown and samples the answers.
        write: the model.
        events: told of each try, and of a list that came out shorter.

    Returns:
        At most `count` prompts, at least one.

    Raises:
        MagicIDError: `prompts-not-written` if nothing that was written can be used.
    """
    known = [fill(template, class_word) for template in shipped()]
    found: list[str] = []
    faults: list[str] = []
    for first in range(0, TRIES * count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, TRIES * count))
        beginning = f"A {class_word} in"
        questions = [(request(known, class_word, seed, number), beginning) for number in numbers]
        for answer in write(questions, seed + first):
            prompt = tidy(answer)
            fault = problem(prompt, class_word, [*known, *found])
            if fault is None and len(found) < count:
                found.append(prompt)
            elif fault is not None:
                faults.append(fault)
        events.emit("step", stage="prepare", part="prompts", step=len(found), of=count)
        if len(found) == count:
            return found
    common = max(sorted(set(faults)), key=faults.count)
    if not found:
        raise MagicIDError(
            "prompts-not-written",
            f"None of {len(faults)} prompts that were written can be used; most often: {common}.",
            "Try another --seed or a larger --vlm, or write a file of prompts yourself.",
        )
    events.notice(
        f"Only {len(found)} of {count} prompts can be used; the rest was refused, most often because {common}."
    )
    return found


def request(known: Sequence[str], class_word: str, seed: int, number: int) -> str:
    """What the model is asked for its prompt of that number: some of the known ones are its examples."""
    order = sorted(known, key=lambda text: hashlib.sha256(f"{seed}\n{number}\n{text}".encode()).digest())
    return _REQUEST.format(class_word=class_word, examples="\n".join(order[:_EXAMPLES]))


def tidy(answer: str) -> str:
    """The first line of an answer, up to its last full sentence."""
    lines = answer.strip().splitlines() or [""]
    line = " ".join(lines[0].split()).replace("\u2019", "'")
    end = max(line.rfind(mark) for mark in ".!?")
    return line[: end + 1]


def problem(prompt: str, class_word: str, others: Sequence[str]) -> str | None:
    """Why a prompt cannot be used; None if it can.

    Args:
        prompt: what was written.
        class_word: whom it must be about.
        others: prompts that it must not repeat.
    """
    count = len(prompt.split())
    if not SHORTEST <= count <= LONGEST:
        return f"it has not between {SHORTEST} and {LONGEST} words"
    if not plain(prompt):
        return "it is no plain text"
    if not says(prompt, class_word):
        return f"it does not say '{class_word}'"
    if named(prompt):
        return "it may name somebody or something"
    if unwanted(prompt, WHO) or compared(prompt):
        return "it says who somebody is"
    if unwanted(prompt, OTHERS, frozenset({class_word})) or unwanted(prompt, _PRONOUNS[class_word]):
        return "it speaks of somebody else"
    if not (says(prompt, "camera") or says(prompt, "lens")):
        return "it does not say how the camera moves"
    if any(_alike(prompt, other) for other in others):
        return "it repeats another prompt"
    return None


def _alike(first: str, second: str) -> bool:
    one, two = words(first), words(second)
    shared = len(set(one) & set(two))
    return one[:6] == two[:6] or shared > _ALIKE * min(len(set(one)), len(set(two)))


def listing(prompts: Sequence[str], comments: Sequence[str]) -> str:
    """The text of a file for `--prompts`."""
    return "".join(f"# {comment}\n" for comment in comments) + "\n" + "".join(f"{prompt}\n" for prompt in prompts)
