"""Prompts and captions for a model that knows the drawn world alone: words of that world's grammar and no others."""

from collections.abc import Mapping

from magicid_cli.errors import MagicIDError

# Of the grammar, for hints that say what to type next.
EXAMPLE = "{name} waves a hand on a sunny beach"

_PURPOSE = 31


def require(count: int, flag: str) -> None:
    """Refuse more prompts than the grammar has.

    Args:
        count: how many are wanted.
        flag: with which fewer are asked for.

    Raises:
        MagicIDError: `prompts-too-few`.
    """
    from magicid_cli.world import captions

    most = len(captions.ACTION_PHRASES) * len(captions.PLACE_PHRASES) * len(captions.OUTFIT_PHRASES)
    if count > most:
        raise MagicIDError(
            "prompts-too-few",
            f"{count} prompts are wanted, and the drawn world has {most} combinations of action, place and outfit.",
            f"Use {flag} {most} or fewer.",
        )


def pick(count: int, seed: int, class_word: str) -> list[str]:
    """Choose `count` prompts of the grammar, no two of which agree in action, place and outfit.

    The actions take turns, and so do the places and the outfits, each in an order that the seed decides; light, mood
    and wording are drawn. The choice of 10 is the beginning of the choice of 20.

    Args:
        count: how many.
        seed: decides everything.
        class_word: who acts: `man`, `woman` or `person`.

    Raises:
        MagicIDError: `prompts-too-few`.
    """
    import numpy as np

    from magicid_cli.world import captions

    require(count, "--prompt-count")
    tables = (captions.ACTION_PHRASES, captions.PLACE_PHRASES, captions.OUTFIT_PHRASES)
    draw = np.random.Generator(np.random.PCG64([_PURPOSE, seed]))
    actions, places, outfits = ([list(table)[index] for index in draw.permutation(len(table))] for table in tables)
    lights, prompts = list(captions.LIGHT_PHRASES), []
    for number in range(count):
        draw = np.random.Generator(np.random.PCG64([_PURPOSE, seed, number]))
        rounds = number // len(places)
        text = captions.caption(
            draw,
            subject=f"A {class_word}",
            action=actions[number % len(actions)],
            place=places[number % len(places)],
            # One further each round, or a place would always come with the same outfit.
            outfit=outfits[(number + rounds) % len(outfits)],
            light=lights[int(draw.integers(len(lights)))],
            mood=captions.MOODS[int(draw.integers(len(captions.MOODS)))],
        )
        prompts.append(text)
    return prompts


def photo_caption(class_word: str) -> str:
    """The caption of a photo: that world's words for not moving take the stillness, as "a photo of" does elsewhere."""
    from magicid_cli.world.captions import ACTION_PHRASES

    return f"A {class_word} {ACTION_PHRASES['still'][0]}."


# How probable a place or an outfit must be before a caption names it: what is wrong would be learned with the face. In
# 240 photos of 40 people who were never trained on, 83 % of the places and 99 % of the outfits are named, all rightly.
SURE = 0.8


def seen_caption(class_word: str, found: Mapping[str, Mapping[str, float]]) -> str:
    """The caption of a drawn photo in which somebody looked for place and outfit.

    Args:
        class_word: who stands there.
        found: probabilities by `place` and `outfit`, the drawn world's names for them.
    """
    from magicid_cli.world.captions import ACTION_PHRASES, OUTFIT_PHRASES, PLACE_PHRASES

    words = [f"A {class_word}"]
    outfit, place = (max(found[part], key=found[part].__getitem__) for part in ("outfit", "place"))
    if found["outfit"][outfit] >= SURE:
        words.append(OUTFIT_PHRASES[outfit][0])
    words.append(ACTION_PHRASES["still"][0])
    if found["place"][place] >= SURE:
        words.append(PLACE_PHRASES[place][0])
    return " ".join(words) + "."


def spelled(prompt: str) -> str:
    """A prompt with its first letter as the captions have it: to the tokenizer "a" there is another word than "A"."""
    return prompt[:1].upper() + prompt[1:]


def advice(prompts: list[str]) -> str | None:
    """What to tell someone whose prompts ask for what the drawn world lacks; None if every prompt names what it has.

    Args:
        prompts: one or more, as the user wrote them.
    """
    from magicid_cli.world import captions

    for prompt in prompts:
        wish = captions.wish(prompt)
        lacking = [name for name, found in (("action", wish.action), ("place", wish.place)) if found is None]
        if lacking:
            return (
                f"'{_short(prompt)}' names no {' and no '.join(lacking)} that the drawn world has. "
                f"A person there {_listed(captions.ACTION_PHRASES)}; {_listed(captions.PLACE_PHRASES)}; "
                f"{_listed(captions.OUTFIT_PHRASES)}. Other words mean nothing to this model."
            )
    return None


def _listed(phrases: dict[str, tuple[str, ...]]) -> str:
    first = [wordings[0] for wordings in phrases.values()]
    return f"{', '.join(first[:-1])} or {first[-1]}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
