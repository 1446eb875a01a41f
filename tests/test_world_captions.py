"""Prompts of the drawn world and the way back from them.

Truth: the grammar itself (what went in must come out), English by hand, and the rule that a caption never tells who
somebody is.
"""

import re
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicid_cli.world import captions, clips, outfits, places
from magicid_cli.world.actions import ACTIONS
from magicid_cli.world.captions import ACTION_PHRASES, LIGHT_PHRASES, MOODS, OUTFIT_PHRASES, PLACE_PHRASES, Wish, wish
from magicid_cli.world.people import EYE_COLOURS, HELD_OUT, TRAINED, Person, person

SEEN_IN_WORDS = {"kind", "hair_name", "style", "beard", "glasses"}
"""The attributes of a person that a caption may mention."""


def scene_of(seed: int) -> clips.Scene:
    return clips.scene(seed, people=TRAINED if seed % 2 else HELD_OUT)


def test_the_grammar_has_words_for_all_that_can_be_drawn() -> None:
    assert set(ACTION_PHRASES) == set(ACTIONS)
    assert set(PLACE_PHRASES) == set(places.PLACES)
    assert set(OUTFIT_PHRASES) == set(outfits.OUTFITS)


def test_thousands_of_captions_say_what_was_drawn_in_every_wording() -> None:
    used: Counter[str] = Counter()
    tables = {"action": ACTION_PHRASES, "place": PLACE_PHRASES, "outfit": OUTFIT_PHRASES}
    for seed in range(4000):
        what = scene_of(seed)
        text = what.caption()
        assert wish(text) == Wish(what.action, what.place, what.outfit), text
        assert LIGHT_PHRASES[what.light] in text
        for name, table in tables.items():
            # The longest, since "nods" is also the beginning of "nods the head up and down".
            used[max((phrase for phrase in table[getattr(what, name)] if phrase in text), key=len)] += 1
    everything = {phrase for table in tables.values() for phrases in table.values() for phrase in phrases}
    assert set(used) == everything
    assert min(used.values()) > 150  # each is one of 14 or 16 of its kind: 250 to 286 times


@pytest.mark.parametrize("order", [0, 1])
def test_every_pair_of_wordings_is_understood(order: int) -> None:
    for action, place in product(ACTION_PHRASES, PLACE_PHRASES):
        for does, where in product(ACTION_PHRASES[action], PLACE_PHRASES[place]):
            text = f"alice {does} {where}." if order else f"{where.capitalize()}, alice {does}."
            assert wish(text) == Wish(action, place, None), text


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("", (None, None, None)),
        ("alice rides a horse on Mars", (None, None, None)),
        ("ALICE DANCES IN A GARDEN, WEARING A BLACK SUIT", ("dance", "garden", "black suit")),
        ("alice walks along a beach at sunset", ("walk", "beach", None)),
        ("alice nods in a library, then walks to the kitchen", ("nod", "library", None)),
        ("two people walk, one of them turns", ("walk", None, None)),
        ("come closer, alice", ("approach", None, None)),
        ("alice waving, then nodding, then dancing", ("wave", None, None)),
        ("alice, walking", ("walk", None, None)),
        ("a standstill in the gardening club of Forester", (None, None, None)),
        ("alice in a red dress and a purple sweater", (None, None, None)),
        ("alice on a mountain", (None, "mountains", None)),
    ],
)
def test_what_a_prompt_asks_for_by_hand(prompt: str, wanted: tuple[str | None, ...]) -> None:
    assert wish(prompt) == Wish(*wanted)


@settings(deadline=None)
@given(st.text(alphabet="bxyz ,.\n", max_size=60))
def test_a_text_without_the_words_wishes_nothing(text: str) -> None:
    assert wish(text) == Wish(None, None, None)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(ACTION_PHRASES)),
    st.sampled_from(sorted(PLACE_PHRASES)),
    st.sampled_from(sorted(OUTFIT_PHRASES)),
    st.sampled_from(sorted(LIGHT_PHRASES)),
    st.sampled_from(MOODS),
    st.integers(0, 2**32),
    st.sampled_from(["A woman", "alice", "A person with a bald head and glasses", "Zoë's brother", "x"]),
)
def test_whoever_acts_the_rest_is_understood(
    action: str, place: str, outfit: str, light: str, mood: str, seed: int, subject: str
) -> None:
    draw = np.random.default_rng(seed)
    text = captions.caption(draw, subject=subject, action=action, place=place, outfit=outfit, light=light, mood=mood)
    assert text.startswith(subject + " ")
    assert text.endswith(".")
    assert wish(text) == Wish(action, place, outfit)


# who


def changed(somebody: Person, other: Person) -> Person:
    """`other`, except for what a caption may mention of `somebody`."""
    return replace(other, **{name: getattr(somebody, name) for name in SEEN_IN_WORDS})


@settings(deadline=None)
@given(st.integers(0, 9_999_999), st.integers(0, 999_999))
def test_a_caption_does_not_depend_on_who_it_is(seed: int, other: int) -> None:
    what = clips.scene(seed, people=HELD_OUT)
    hidden = changed(person(what.person), person(other))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "person", lambda seed: hidden)
        double = what.caption()
    assert double == what.caption()
    assert not re.search(r"\d", double)


def test_what_a_caption_mentions_of_a_person_is_true() -> None:
    subjects = set()
    for seed in range(3000):
        somebody = person(seed)
        text = captions.described(np.random.default_rng(seed), somebody)
        assert text.startswith(("A person", f"A {somebody.kind}"))
        assert ("glasses" not in text) or somebody.glasses != "none"
        assert ("beard" not in text) or somebody.beard in {"goatee", "full"}
        assert ("moustache" not in text) or somebody.beard == "moustache"
        assert ("bald" not in text) or somebody.style == "bald"
        assert (" hair" not in text) or f"{somebody.style} {somebody.hair_name} hair" in text
        subjects.add(re.sub(r" with.*", "", text))
    assert subjects == {"A person", "A man", "A woman"}


def test_looks_names_all_that_words_can_say() -> None:
    for seed in range(500):
        somebody = person(seed)
        text = captions.looks(somebody)
        assert text.startswith(f"a {somebody.kind} with ")
        assert f"{EYE_COLOURS[somebody.iris]} eyes" in text
        assert somebody.style in text
        assert (f"{somebody.hair_name} hair" in text) == (somebody.style != "bald")
        assert (f"{somebody.glasses} glasses" in text) == (somebody.glasses != "none")
        assert ("beard" in text) == (somebody.beard == "full")
        assert ("moustache" in text, "goatee" in text) == (somebody.beard == "moustache", somebody.beard == "goatee")


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**40))
def test_every_word_of_a_caption_is_in_the_list_for_the_tokenizer(seed: int) -> None:
    assert set(re.findall(r"\w+", scene_of(seed).caption())) <= set(captions.words())


def test_the_list_for_the_tokenizer_holds_nothing_else() -> None:
    said = {word for seed in range(20_000) for word in re.findall(r"\w+", scene_of(seed).caption())}
    assert set(captions.words()) == said
    assert captions.words() == sorted(set(captions.words()))


def test_a_scene_is_told_the_same_way_every_time_and_differently_by_another() -> None:
    texts = [scene_of(seed).caption() for seed in range(500)]
    assert texts == [scene_of(seed).caption() for seed in range(500)]
    assert len(set(texts)) > 490
