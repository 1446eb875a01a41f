"""Captions of photos: what is taken of a model's words, who writes them, what an edit does.

The truths: sentences with what must and must not survive, written out; a captioner that says what the test tells it;
the tiny random Qwen3-VL from the local Hub, whose gibberish must never reach a caption; the drawn world's own scenes;
and the keys of the stages.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_qwen
from album import SMALL
from caption_sentences import BAD, GOOD
from hub_server import HubServer
from magicid_cli import config, pipeline, plan
from magicid_cli.config import PhotoSettings, RewardSettings, Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.catalog import JUDGES, VIDEO_MODELS
from magicid_cli.prompts import captions, describe, drawn, edited
from magicid_cli.prompts.captions import Caption, checked, template
from magicid_cli.prompts.edited import Origin
from magicid_cli.workspace import Workspace, read_lines, write_lines

START = "a photo of a woman"


# What is taken of an answer.


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        (
            " wearing a red sweater, in a forest, soft light, smiling",
            " wearing a red sweater, in a forest, soft light, smiling",
        ),
        (", in a black T-shirt, on a street at night.", ", in a black t-shirt, on a street at night"),
        (" in a blue coat. She has green eyes. Lovely!", " in a blue coat"),
        (" in a blue coat\nand more", " in a blue coat"),
        (" in a blue coat, with blonde hair and a hat, in a library", " in a blue coat, in a library"),
        (" with freckles, in a striped shirt; warm light", ", in a striped shirt, warm light"),
        (" in a striped shirt, about 30 years old, smiling", " in a striped shirt, smiling"),
        (" in a suit, an Asian market behind her", " in a suit"),
        (" in a suit, a thirty-year-old look, laughing", " in a suit, laughing"),
        (" in a suit, beautiful, calm, calm", " in a suit, calm"),
        (" in a Nike hoodie, in a gym", ", in a gym"),
        (" in a hoodie, next to a man, in a gym", " in a hoodie, in a gym"),
        (" in a hoodie, the woman is laughing", " in a hoodie, the woman is laughing"),
        (" in a hoodie, <b>smiling</b>, 微笑, #nice, in a café", " in a hoodie, in a café"),
    ],
)
def test_what_a_caption_must_not_say_is_left_out(answer: str, caption: str) -> None:
    assert checked(START + answer, "woman") == Caption(START + caption)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "does not begin"),
        ("A woman in a red sweater", "does not begin"),
        ("a photo of a womanly figure", "does not begin"),
        (START, "says nothing"),
        (START + ".", "says nothing"),
        (START + " with beautiful green eyes", "beautiful"),
        (START + " named Alice Smith", "Alice"),
        (START + ", Amber in a forest", "Amber"),
        (START + " in a forest with River", "River"),
        (START + " in a" + " red and blue" * 20 + " shirt", "too much"),
        (START + " in a zorkish blouse", "'zorkish' is not known"),
        (START + " pale", "'pale' alone may be said of the person"),
        (START + " standing tall", "'tall' may be said of the person"),
        (START + " who looks like taylor swift", "like ('looks like')"),
        (START + "ÿ# <|x|>", "does not begin"),
        (START + " ÿ#", "no plain text"),
    ],
)
def test_an_answer_without_anything_usable_becomes_the_template(answer: str, why: str) -> None:
    caption = checked(answer, "woman")
    assert caption.text == template("woman")
    assert why in caption.note


@pytest.mark.parametrize("text", GOOD)
def test_clothes_place_light_and_expression_are_taken(text: str) -> None:
    assert checked(f"{START} {text}", "woman") == Caption(f"{START} {text}".lower())


@pytest.mark.parametrize("text", BAD)
def test_nothing_else_is_taken(text: str) -> None:
    assert checked(f"{START} {text}", "woman").text == template("woman")
    assert checked(f"{START} in a red sweater, {text}, smiling", "woman") == Caption(
        f"{START} in a red sweater, smiling"
    )


@pytest.mark.parametrize("word", ["man", "person"])
def test_colour_is_of_clothes_and_never_of_somebody(word: str) -> None:
    """What is an adjective of a thing there must not be one of the person, in whatever sentence."""
    start = f"a photo of a {word}"
    for colour in ("black", "white", "brown", "pale", "light", "dark", "tan"):
        for said in (
            colour,
            f"the {word} is {colour}",
            f"{colour} and smiling",
            f"very {colour}",
            f"a {colour} {word}",
        ):
            kept = checked(f"{start} in a coat, {said}", word).text
            assert kept == f"{start} in a coat" or (colour, said) == ("light", "light and smiling"), said
        assert (
            checked(f"{start} in a {colour} coat, {colour} wall", word).text
            == f"{start} in a {colour} coat, {colour} wall"
        )


def test_a_long_caption_loses_its_end() -> None:
    colours = ("red", "blue", "green", "black", "white", "grey", "pink", "brown")
    clauses = [f"in a {word} coat with many buttons" for word in colours]
    caption = checked(f"{START} {', '.join(clauses)}", "woman")
    assert not caption.note and caption.text.startswith(f"{START} {clauses[0]}, {clauses[1]}")
    assert captions.LONGEST - 7 < len(caption.text.split()) <= captions.LONGEST


def test_what_is_asked_names_no_identity_and_begins_like_the_template() -> None:
    for word in ("man", "woman", "person"):
        assert template(word).startswith(captions.beginning(word))
        assert checked(template(word), word) == Caption(template(word)), "the template keeps its own rules"
    assert "{beginning}" in captions.QUESTION
    assert "lower case" not in captions.QUESTION, "capitals tell names from words"


# The lines of captions.jsonl.


class Told:
    """Says what it is told to, and remembers for how many photos it was asked."""

    at_once = 9

    def __init__(self, made_by: str, *texts: str, note: str = "") -> None:
        self.made_by, self._texts, self._note, self.asked = made_by, texts, note, list[int]()

    def captions(self, crops: Sequence[np.ndarray]) -> list[Caption]:
        self.asked.append(len(crops))
        return [Caption(text, self._note) for text in self._texts[: len(crops)]]

    def close(self) -> None:
        """Nothing."""


CROPS = {"000.png": b"first", "001.png": b"second"}


def rows(
    old: list[dict[str, Any]], captioner: Told, crops: dict[str, bytes] = CROPS, events: Events | None = None
) -> list[dict[str, Any]]:
    pictures = {name: np.zeros((4, 4, 3), np.uint8) for name in crops}
    origins = {name: Origin(f"photo of {name}", hashlib.sha256(crop).hexdigest()) for name, crop in crops.items()}
    edits, _ = edited.assigned([row for row in old if edited.is_edited(row)], origins)
    return captions.rows(old, edits, origins, pictures, captioner, events or Events(), "ingest")


def test_every_crop_gets_its_line() -> None:
    lines = rows([], Told("model 1", "a photo of a man, one", "a photo of a man, two"))
    assert [(line["crop"], line["caption"], line["made_by"]) for line in lines] == [
        ("000.png", "a photo of a man, one", "model 1"),
        ("001.png", "a photo of a man, two", "model 1"),
    ]
    assert json.loads(json.dumps(lines)) == lines


def test_photos_are_given_in_groups_and_progress_is_told() -> None:
    heard: list[Event] = []
    told = Told("model 1", "a photo of a man")
    told.at_once = 1
    lines = rows([], told, events=Events(heard.append))
    assert told.asked == [1, 1] and len(lines) == 2
    steps = [(event.data["part"], event.data["step"], event.data["of"]) for event in heard if event.kind == "step"]
    assert steps == [("captions", 1, 2), ("captions", 2, 2)]


def test_nobody_is_asked_twice_for_the_same_photo() -> None:
    first = rows([], Told("model 1", "one", "two"))
    again = Told("model 1", "other")
    # Another photo comes first: crops are called otherwise, and only the new one is looked at.
    lines = rows(first, again, {"000.png": b"new", "001.png": b"second", "002.png": b"first"})
    assert again.asked == [1]
    assert {line["crop"]: line["caption"] for line in lines} == {"000.png": "other", "001.png": "two", "002.png": "one"}


def test_another_captioner_writes_anew_and_leaves_what_was_edited() -> None:
    first = rows([], Told("model 1", "one", "two"))
    first[1]["caption"] = "a photo of a man with a red hat"
    other = Told("template", "plain")
    lines = rows(first, other)
    assert other.asked == [1], "an edited photo is not looked at again"
    assert [line["caption"] for line in lines] == ["plain", "a photo of a man with a red hat"]
    back = rows(lines, Told("model 1", "one"))
    assert [line["caption"] for line in back] == ["one", "a photo of a man with a red hat"]


@pytest.mark.parametrize("damage", [{"caption": ""}, {"caption": 7}, {"sha256": None}])
def test_a_line_that_is_none_is_written_anew(damage: dict[str, Any]) -> None:
    first = rows([], Told("model 1", "one", "two"))
    lines = rows([{**first[0], **damage}, first[1]], Told("model 1", "anew"))
    assert [line["caption"] for line in lines] == ["anew", "two"]


def test_a_fallback_is_told_and_recorded() -> None:
    heard: list[Event] = []
    lines = rows([], Told("model 1", "one", "two", note="it speaks of eyes"), events=Events(heard.append))
    assert [line["note"] for line in lines] == ["it speaks of eyes"] * 2
    (told,) = [event.data["message"] for event in heard if event.kind == "fallback"]
    assert "2 of 2" in told and "it speaks of eyes" in told


# Who writes.


def settings(who: str = "vlm", vlm: str = "auto", word: str = "woman") -> tuple[PhotoSettings, RewardSettings]:
    return replace(PhotoSettings(), captions=who, class_word=word), replace(RewardSettings(), vlm=vlm)


def captioner(model: str, **values: str) -> captions.Captioner:
    photos, rewards = settings(**values)
    return describe.open_captioner(photos, rewards, VIDEO_MODELS[model], device="cpu", offline=False, events=Events())


def test_the_template_is_the_default_and_needs_nothing() -> None:
    assert Settings().photos.captions == "template"
    crops = [np.zeros((8, 8, 3), np.uint8)] * 2
    assert captioner("hunyuan-video", who="template").captions(crops) == [Caption(template("woman"))] * 2
    assert captioner("mini", who="template").captions(crops) == [Caption(drawn.photo_caption("woman"))] * 2


@pytest.mark.parametrize(
    ("model", "vlm", "code"),
    [
        ("hunyuan-video", "clip-vit-b-32", "settings-invalid"),
        ("hunyuan-video", "drawn", "settings-invalid"),
        ("tiny", "auto", "settings-invalid"),
        ("mini", "qwen3-vl-2b", "settings-invalid"),
        ("mini", "gpt", "settings-unknown"),
    ],
)
def test_a_judge_that_cannot_write_is_refused_before_anything_is_looked_at(model: str, vlm: str, code: str) -> None:
    with pytest.raises(MagicIDError) as caught:
        captioner(model, vlm=vlm)
    assert caught.value.code == code and "--vlm" in caught.value.hint
    resolved = config.resolve({"model.name": model, "photos.captions": "vlm", "rewards.vlm": vlm}).settings
    with pytest.raises(MagicIDError) as caught:
        pipeline.stage("ingest").check(resolved)
    assert caught.value.code == code


@pytest.fixture
def served(hub: HubServer, tmp_path: Path) -> HubServer:
    source = JUDGES["qwen3-vl-2b"].source
    hub.add(source.repo, tiny_qwen.build(tmp_path / "qwen"), source.revision)
    return hub


def test_the_model_is_shown_the_photo_and_its_answer_is_checked(
    served: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = captioner("hunyuan-video", vlm="qwen3-vl-2b")
    assert isinstance(looking, describe.Looking)
    crops = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8) for seed in range(5)]
    found = looking.captions(crops)
    assert len(found) == 5
    for caption in found:  # a random model says nothing that could be used, or what passes every rule
        assert checked(caption.text, "woman").text == caption.text
        assert (caption.text == template("woman")) == bool(caption.note)
    assert looking.captions(crops) == found

    asked: list[Any] = []

    def write(questions: Sequence[Any], *, tokens: int) -> list[str]:
        asked.extend(questions)
        return [f"{question.answer} in a suit, with brown eyes, smiling." for question in questions]

    monkeypatch.setattr(looking._qwen, "write", write)
    assert looking.captions(crops) == [Caption("a photo of a woman in a suit, smiling")] * 5
    for question, crop in zip(asked, crops, strict=True):
        assert np.array_equal(np.asarray(question.parts[0]), crop)
        assert question.answer == "a photo of a woman"
    assert JUDGES["qwen3-vl-2b"].source.revision in looking.made_by and "woman" in looking.made_by


@pytest.fixture(scope="module")
def drawn_crops() -> list[tuple[Any, np.ndarray]]:
    """Scenes of people who were never trained on, with the crop that ingest cuts out of them."""
    from magicid_cli.faces import open_faces
    from magicid_cli.framing import head_and_shoulders
    from magicid_cli.world import clips

    faces = open_faces(RewardSettings(), VIDEO_MODELS["mini"], offline=True, events=Events())
    found = []
    for seed in range(24):
        what = replace(clips.scene(seed, people=range(1000)), action="turn")
        photo = clips.render(what, size=192, frames=2).frames[0]
        boxes = faces.detector.find(photo)
        if boxes:
            found.append((what, head_and_shoulders(photo, boxes[0].box, 48, 48)))
    return found


def test_drawn_photos_are_captioned_with_what_they_show(drawn_crops: list[tuple[Any, np.ndarray]]) -> None:
    from magicid_cli.world.captions import wish, words

    assert len(drawn_crops) >= 16
    found = captioner("mini").captions([crop for _, crop in drawn_crops])
    named = [
        (said, getattr(what, part))
        for (what, _), caption in zip(drawn_crops, found, strict=True)
        for part in ("place", "outfit")
        if (said := getattr(wish(caption.text), part)) is not None
    ]
    assert len(named) >= len(drawn_crops) / 2, "something is named"
    assert sum(said == true for said, true in named) >= 0.9 * len(named)
    for caption in found:
        assert wish(caption.text).action == "still" and caption.text.startswith("A woman ")
        assert {word.lower() for word in caption.text.strip(".").split()} <= {word.lower() for word in words()}


def test_what_the_reader_is_not_sure_of_is_not_named() -> None:
    places, outfits = {"beach": 0.95, "forest": 0.05}, {"black suit": 0.6, "white coat": 0.4}
    said = drawn.seen_caption("man", {"place": places, "outfit": outfits})
    assert said == "A man stands still on a sunny beach."
    sure = drawn.seen_caption("man", {"place": {"beach": 0.5}, "outfit": {"black suit": 0.97}})
    assert sure == "A man in a black suit stands still."
    assert drawn.seen_caption("man", {"place": {"beach": 0.5}, "outfit": {"black suit": 0.5}}) == drawn.photo_caption(
        "man"
    )


def test_the_plan_counts_the_writers_weights() -> None:
    model, repo = VIDEO_MODELS["hunyuan-video"], JUDGES["qwen3-vl-4b"].source.repo
    for who in ("template", "vlm"):
        resolved = config.resolve({"photos.captions": who}).settings
        assert (repo in plan.downloads(resolved, model, {"ingest"})) == (who == "vlm")
        assert repo in plan.downloads(resolved, model, {"score"})


# What re-runs what.


def test_an_edit_re_runs_what_reads_captions_and_a_change_of_captioner_keeps_it(
    alice: Path, served: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With captions by a model: ingest stays fresh under an edit, and keeps the edit when it is run again."""
    colours = ("red", "blue", "green", "black", "white")
    said = iter(f" in a {one} and {other} coat" for one in colours for other in colours)

    def write(_: Any, questions: Sequence[Any], *, tokens: int) -> list[str]:
        return [question.answer + next(said) for question in questions]

    monkeypatch.setattr("magicid_cli.rewards.qwen.Qwen.write", write)
    monkeypatch.setitem(VIDEO_MODELS, "tiny", replace(VIDEO_MODELS["tiny"], vlm="qwen3-vl-2b"))
    workspace, photos = Workspace("alice"), sorted((alice / "photos").glob("*.png"))
    values = {**SMALL, "photos.captions": "vlm"}
    chosen = config.resolve(values, project=alice).settings
    ingest = pipeline.stage("ingest")

    def states(settings: Settings) -> dict[str, str]:
        return {one.name: one.state for one in pipeline.states(workspace, settings, photos)}

    def look(settings: Settings) -> list[str]:
        pipeline.run_stage("ingest", workspace, settings, photos, Events())
        return [row["caption"] for row in read_lines(workspace.references / "captions.jsonl")]

    assert states(chosen)["ingest"] == "todo"
    first = look(chosen)
    assert len(set(first)) == len(photos) and "red and red coat" in first[0]
    assert states(chosen)["ingest"] == "cached" and states(chosen)["reconstruct"] == "todo"

    path = workspace.references / "captions.jsonl"
    lines = read_lines(path)
    write_lines(path, [{**lines[0], "caption": "a photo of a person in a kilt"}, *lines[1:]])
    assert states(chosen)["ingest"] == "cached"
    template_settings = config.resolve(SMALL, project=alice).settings
    assert look(template_settings) == ["a photo of a person in a kilt"] + [template("person")] * (len(photos) - 1)
    assert look(chosen)[0] == "a photo of a person in a kilt"
    assert ingest.outputs(workspace)["captions"] is True


def test_the_judge_makes_ingest_stale_only_where_it_writes_captions(alice: Path) -> None:
    workspace, photos = Workspace("alice"), sorted((alice / "photos").glob("*.png"))

    def key(**values: Any) -> str:
        given = {name.replace("__", "."): value for name, value in values.items()}
        return pipeline.key_of("ingest", workspace, config.resolve({**SMALL, **given}, project=alice).settings, photos)

    assert key() == key(rewards__vlm="qwen3-vl-2b")
    assert key(photos__captions="vlm") != key()
    assert key(photos__captions="vlm") != key(photos__captions="vlm", rewards__vlm="qwen3-vl-2b")
