"""The miniature from photos to exports, and the prompts of its drawn world.

Truth: the grammar of that world (`world.captions`), counting, a second process, plain diffusers as the model card says
to use it, and the command line's contract. The weights are random; faces and prompts are judged by stand-ins.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magicid_cli import config, generation, models, plan
from magicid_cli.cli.app import main
from magicid_cli.config import MODEL_DEFAULTS, ModelSettings
from magicid_cli.errors import CODES, MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.base import Shape
from magicid_cli.plan.machine import Machine
from magicid_cli.prompts import choose, drawn
from magicid_cli.stages import sample
from magicid_cli.workspace import Workspace, read_lines
from magicid_cli.world import captions, clips

pytestmark = pytest.mark.xdist_group("mini")

STAND_INS = ["--face-detector", "stand-in", "--face-model", "stand-in", "--vlm", "stand-in"]
SMALL = [
    *("--reconstruct-steps", "3", "--reconstruct-batch", "1", "--prompt-count", "4", "--tuned", "6", "--initial", "4"),
    *("--sample-steps", "2", "--pair-count", "4", "--held-out", "1", "--prefer-steps", "3", "--prefer-batch", "1"),
    *("--probe-steps", "4"),
]


# ---------------------------------------------------------------------------------------------- prompts and captions


@pytest.mark.parametrize("seed", [0, 7, 2**31])
def test_actions_places_and_outfits_take_turns(seed: int) -> None:
    prompts = drawn.pick(56, seed, "woman")
    wishes = [captions.wish(prompt) for prompt in prompts]
    assert Counter(wish.action for wish in wishes) == dict.fromkeys(captions.ACTION_PHRASES, 8)
    assert Counter(wish.place for wish in wishes) == dict.fromkeys(captions.PLACE_PHRASES, 7)
    assert Counter(wish.outfit for wish in wishes) == dict.fromkeys(captions.OUTFIT_PHRASES, 7)
    assert len({(wish.action, wish.place) for wish in wishes}) == 56
    assert len({(wish.place, wish.outfit) for wish in wishes}) > 40, "no place always comes with one outfit"
    assert {wish.action for wish in wishes[:7]} == set(captions.ACTION_PHRASES)
    assert all(light in " ".join(prompts) for light in captions.LIGHT_PHRASES.values())
    assert all(mood in " ".join(prompts) for mood in captions.MOODS)


def test_prompts_are_captions_of_the_grammar_for_the_class_word() -> None:
    known = set(captions.words())
    for class_word in ("man", "woman", "person"):
        for prompt in drawn.pick(20, 3, class_word):
            assert re.match(rf"A {class_word}\b.*\.$", prompt)
            assert set(re.findall(r"\w+", prompt)) <= known, prompt


def test_the_choice_depends_on_the_seed_alone() -> None:
    twenty = drawn.pick(20, 7, "woman")
    assert drawn.pick(10, 7, "woman") == twenty[:10]
    assert drawn.pick(20, 8, "woman") != twenty
    program = (
        "import json, sys; from magicid_cli.prompts import drawn; json.dump(drawn.pick(20, 7, 'woman'), sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == twenty


def test_there_are_as_many_prompts_as_combinations() -> None:
    prompts = drawn.pick(448, 1, "man")
    assert len({tuple(vars(captions.wish(prompt)).values()) for prompt in prompts}) == 448 == 7 * 8 * 8
    with pytest.raises(MagicIDError) as caught:
        drawn.pick(449, 1, "man")
    assert (caught.value.code, CODES[caught.value.code].exit_code) == ("prompts-too-few", 2)
    assert "448" in caught.value.message and "--prompt-count 448" in caught.value.hint


def test_a_photo_s_caption_says_stillness_in_the_grammar_s_words() -> None:
    for class_word in ("man", "woman", "person"):
        caption = drawn.photo_caption(class_word)
        assert set(re.findall(r"\w+", caption)) <= set(captions.words())
        assert captions.wish(caption) == captions.Wish("still", None, None)
        assert class_word in caption


@pytest.mark.parametrize(
    ("prompt", "lacking"),
    [
        ("a woman plays the guitar", "no action and no place"),
        ("a woman dances on the moon", "no place"),
        ("a woman sings in a garden", "no action"),
        ("A woman WAVES at the Beach", None),
        ("a woman walks along a beach at sunset", None),
    ],
)
def test_what_the_world_lacks_is_told_with_what_it_has(prompt: str, lacking: str | None) -> None:
    told = drawn.advice([drawn.pick(1, 0, "woman")[0], prompt])
    if lacking is None:
        assert told is None
        return
    assert told is not None and told.startswith(f"'{prompt}' names {lacking} that the drawn world has.")
    for tables in (captions.ACTION_PHRASES, captions.PLACE_PHRASES, captions.OUTFIT_PHRASES):
        assert all(phrases[0] in told for phrases in tables.values())


def test_examples_are_understood() -> None:
    example = drawn.EXAMPLE.format(name="alice")
    assert drawn.advice([example]) is None and example.startswith("alice ")


def test_a_prompt_begins_as_the_captions_do() -> None:
    assert drawn.spelled("a woman in a garden") == "A woman in a garden"
    assert (drawn.spelled("A man"), drawn.spelled("")) == ("A man", "")


def test_prompts_are_of_the_world_that_the_model_knows(tmp_path: Path) -> None:
    """The shipped list for every other model; a file's prompts are spelled as captions and not doubled."""
    flags = {"model.name": "mini", "seed": 5, "photos.class_word": "man", "repository.prompts": 9}
    assert sample.chosen_prompts(config.resolve(flags).settings) == drawn.pick(9, 5, "man")
    other = config.resolve({**flags, "model.name": "tiny"}).settings
    assert sample.chosen_prompts(other) == choose.pick(9, 5, "man")
    file = tmp_path / "prompts.txt"
    file.write_text("a {person} dances in a desert\nA {person} dances in a desert\n")
    flags |= {"repository.prompts_file": str(file)}
    assert sample.chosen_prompts(config.resolve(flags).settings) == ["A man dances in a desert"]
    other = config.resolve({**flags, "model.name": "tiny"}).settings
    assert sample.chosen_prompts(other) == ["a man dances in a desert", "A man dances in a desert"]


@pytest.mark.parametrize(("line", "told"), [("a {person} flies", 1), ("a {person} nods in a desert", 0)])
def test_a_prompts_file_of_another_world_is_told_before_the_first_stage(
    mini_here: Path, tmp_path: Path, line: str, told: int
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(line)
    seen: list[Event] = []
    events = Events()
    events.listen(seen.append)
    sample.prepare(config.resolve({"model.name": "mini", "repository.prompts_file": str(file)}).settings, events)
    notices = [event.data["message"] for event in seen if event.kind == "notice"]
    assert len(notices) == told and all("drawn world" in notice for notice in notices)


# ---------------------------------------------------------------------------------------------- settings and plan


def test_the_plan_of_a_default_run_is_minutes_and_of_the_paper_s_less_than_hours() -> None:
    machine = Machine(gpu=None, gpu_memory_gb=0, rates=None, ram_gb=4, data_disk_gb=20)
    found = {}
    for preset in ("default", "paper"):
        settings = config.resolve({"model.name": "mini"}, preset=preset).settings
        estimate = plan.estimate(
            settings,
            machine=machine,
            model=models.catalog.video_model("mini"),
            photos=10,
            todo=plan.STAGES,
            downloads=plan.downloads(settings, models.catalog.video_model("mini"), plan.STAGES),
        )
        assert plan.check(estimate) == [] and estimate.downloads == {}
        assert estimate.as_dict()["tokens"] == 108 and estimate.memory_gb < 0.5
        assert estimate.seconds is not None
        found[preset] = estimate.seconds
    assert 60 < found["default"] < 300
    assert 10 * found["default"] < found["paper"] < 3 * 3600


def test_the_miniature_s_shape_is_that_of_the_clips_it_was_trained_on() -> None:
    settings = config.resolve({"model.name": "mini"}).settings
    for shape in (settings.shape, settings.generate):
        assert (shape.size, shape.frames, shape.fps) == (f"{clips.SIZE}x{clips.SIZE}", clips.FRAMES, clips.FPS)


def test_the_paper_s_preset_on_the_miniature_keeps_its_shape() -> None:
    settings = config.resolve({"model.name": "mini"}, preset="paper").settings
    assert (settings.shape.size, settings.shape.frames, settings.shape.fps) == ("48x48", 9, 8)
    assert settings.generate.size == "48x48"
    assert (settings.reconstruct.steps, settings.prefer.steps) == (1000, 5000)
    assert settings.adapter.rank == MODEL_DEFAULTS["mini"]["adapter.rank"]


# ---------------------------------------------------------------------------------------------- from photos to exports


@pytest.fixture(scope="module")
def finished(random_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with one finished identity of the miniature, `alice`."""
    home = tmp_path_factory.mktemp("mini-home")
    (home / "photos").mkdir()
    for number in range(3):
        frame = clips.render(clips.scene(number, people=range(7, 8)), size=256, frames=1).frames[0]
        Image.fromarray(frame).save(home / "photos" / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAGICID_HOME", str(home))
        use(random_mini, patch)
        flags = ["--model", "mini", "--class-word", "woman", "--seed", "7", "--consent", "--yes", "-q", *STAND_INS]
        photos = ["--min-sharpness", "0", "--keep-duplicates", "--force"]
        assert main(["customize", str(home / "photos"), "--name", "alice", *flags, *SMALL, *photos]) == 0
    yield home


def use(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put a checkpoint in the place of the packaged one."""
    from dataclasses import replace

    facts = models.catalog.video_model("mini")
    patch.setitem(models.catalog.VIDEO_MODELS, "mini", replace(facts, packaged=str(folder)))


@pytest.fixture
def alice(finished: Path, mini_here: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("MAGICID_HOME", str(finished))
    return Workspace("alice")


def test_photos_are_captioned_and_videos_prompted_in_the_world_s_words(alice: Workspace) -> None:
    rows = read_lines(alice.references / "captions.jsonl")
    assert [row["caption"] for row in rows] == [drawn.photo_caption("woman")] * 3
    videos = read_lines(alice.repository / "videos.jsonl")
    prompts = {row["prompt"] for row in videos if row["origin"] != "static"}
    assert prompts == set(drawn.pick(4, 7, "woman"))
    assert {row["made_by"]["commit"] for row in videos} == {models.open_family(ModelSettings("mini"), Events()).commit}
    assert {row["made_by"]["shape"] for row in videos} == {"9x48x48"}


def test_generate_names_the_person_and_spells_as_the_captions_do(
    alice: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--prompt", "alice waves a hand on a sunny beach", "--seed", "1"]) == 0
    captured = capsys.readouterr()
    assert Path(captured.out.strip()).is_file()
    assert "drawn world" not in captured.err
    assert read_lines(alice.videos / "videos.jsonl")[-1]["prompt"] == "A woman waves a hand on a sunny beach"
    assert main(["generate", "--prompt", "alice plays the guitar", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "'a woman plays the guitar' names no action and no place" in captured.err
    assert "A woman plays the guitar" in captured.out
    assert main(["generate", "--prompt", "somebody dances in a desert", "--dry-run"]) == 0
    assert '--prompt "alice waves a hand on a sunny beach"' in capsys.readouterr().err


PLAIN = """
pipe.set_progress_bar_config(disable=True)
import numpy as np, sys
latents = pipe({prompt!r}, height=48, width=48, num_frames=9, num_inference_steps=3, guidance_scale=3.0,
               generator=torch.Generator("cpu").manual_seed(3), output_type="latent").frames
np.save({out!r}, latents[0].numpy())
"""


@pytest.mark.parametrize("kind", ["diffusers", "merged", "comfyui"])
def test_exports_load_as_their_card_says(alice: Workspace, tmp_path: Path, kind: str) -> None:
    folder, out = tmp_path / kind, tmp_path / "latents.npy"
    assert main(["export", "alice", "--format", kind, "--output", str(folder), "-q"]) == 0
    card = (folder / "README.md").read_text()
    assert "# A woman for the mini model" in card and "of a drawn person of the miniature world" in card
    assert "Apache-2.0" in card and "real person. Use it only" not in card and "consent" not in card
    assert "base_model" not in card, "the Hub has no such repository"
    if kind == "comfyui":
        return
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found is not None and str(Path("hunyuan-mini")) in found[1]
    code = found[1].replace("torch.bfloat16", "torch.float32").replace("path/to/this/folder", str(folder))
    prompt = "A woman nods in a garden."
    script = tmp_path / "plain.py"
    script.write_text(code + PLAIN.format(prompt=prompt, out=str(out)))
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True, env=dict(os.environ))
    family = models.open_family(ModelSettings("mini", device="cpu"), Events())
    family.load("text")
    text = family.encode_text(prompt)
    generation.load_adapted(family, generation.adapter_of(alice))
    ours = family.sample(text, Shape(9, 48, 48), steps=3, guidance=3.0, seed=3)
    assert np.abs(np.load(out) - ours.numpy()).max() < 1e-5


def test_prepare_and_doctor_say_where_the_weights_are(mini_here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--model", "mini", *STAND_INS]) == 0
    captured = capsys.readouterr()
    assert re.search(r"video model\s+mini\s+comes with magicid\s+-\s+Apache-2.0", captured.err)
    assert str(mini_here) in captured.out
    assert main(["prepare", "--model", "mini", "--json", "--dry-run"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert [(one["name"], one["source"], one["packaged"]) for one in data["weights"]] == [
        ("mini", None, True),
        *[("drawn", None, True)] * 3,
    ]
    assert main(["doctor"]) == 0
    assert re.search(r"mini\s+\d+(\.\d+)? MB, with magicid", capsys.readouterr().out)


def test_doctor_tells_if_the_weights_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(tmp_path / "nowhere", monkeypatch)
    assert main(["doctor"]) == 0
    assert re.search(r"mini\s+The weights of the model 'mini' come with magicid, and they are", capsys.readouterr().out)
