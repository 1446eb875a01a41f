"""Other methods on an identity, against: MagicID's own stage 1 gone on with, the uninterrupted run, the weights before,
a plain computation of the masked error, and the identity's results, which nothing may touch.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from album import SMALL, drawn_photos
from magicid_cli import competition, conditioning, config, generation, keywords, methods, models, pipeline
from magicid_cli import plan as planning
from magicid_cli.baselines import dreambooth, environments, magic_me, untrained
from magicid_cli.baselines.person_mask import at_latents, masked_error, outline
from magicid_cli.baselines.registry import METHODS
from magicid_cli.cli.app import main
from magicid_cli.conditioning import load_tensors, references
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.catalog import video_model
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.plan import running
from magicid_cli.training import Batch
from magicid_cli.workspace import Workspace, append_line, file_digest, read_lines, write_lines

pytestmark = pytest.mark.xdist_group("finished")

STEPS = 16  # of SMALL's two stages


def resolved(home: Path, **changes: Any) -> config.Resolved:
    return config.resolve({**SMALL, **changes}, project=home)


def run(home: Path, name: str, events: Any = None, **changes: Any) -> pipeline.CustomizeResult:
    return methods.run(Workspace("alice"), name, resolved(home, **changes), None, events or Events())


def everything(workspace: Workspace) -> dict[str, str]:
    """Content of all that is the identity's own."""
    apart = ("methods", "lock", "events.jsonl", "evaluation", "compare")
    files = (path for path in workspace.path.rglob("*") if path.is_file())
    named = {str(path.relative_to(workspace.path)): path for path in files}
    return {name: file_digest(path) for name, path in named.items() if name.partition("/")[0] not in apart}


class Stop:
    """Asks for a stop once training has done some steps."""

    def __init__(self, after: int) -> None:
        self.events, self.after = Events(self.hear), after

    def hear(self, event: Event) -> None:
        if event.kind == "step" and event.data.get("step") == self.after and "loss" in event.data:
            self.events.request_stop()


# --------------------------------------------------------------------------------------------------------- dreambooth


def test_dreambooth_is_stage_1_gone_on_with(alice: Path, tmp_path: Path) -> None:
    """Bit for bit the adapter of `customize --reconstruct-steps <all> --prefer-steps 0`; the identity stays."""
    workspace = Workspace("alice")
    before = everything(workspace)
    done = run(alice, "dreambooth")
    assert everything(workspace) == before
    assert [one.state for one in pipeline.states(workspace, resolved(alice).settings, photos(alice))] == ["cached"] * 6
    alone = resolved(alice, **{"reconstruct.steps": STEPS, "prefer.steps": 0})
    longer = pipeline.run(workspace, alone, photos(alice), Events())
    assert file_digest(longer.adapter) == file_digest(done.adapter)
    metrics = read_lines(workspace.of_method("dreambooth").reconstruct / "metrics.jsonl")
    assert len(metrics) == STEPS and "class_loss" not in metrics[0]
    assert run(alice, "dreambooth").stages_run == []


def photos(home: Path) -> list[Path]:
    return sorted((home / "photos").glob("*.png"))


def test_a_class_clip_adds_its_own_error_times_its_weight(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is that of photo error + weight * class error, each computed alone with the same draws."""
    settings = resolved(alice, **{"dreambooth.class_clips": 1, "dreambooth.class_weight": 0.25}).settings
    space, kept = Workspace("alice").of_method("dreambooth"), dict[str, Any]()
    real = dreambooth._accumulate

    def spy(family: Any, clips: Any, class_clips: Any, batch: Batch, given: Any) -> dict[str, float]:
        kept.update(family=family, clips=clips, class_clips=class_clips)
        raise KeyboardInterrupt

    monkeypatch.setattr(dreambooth, "_accumulate", spy)
    with pytest.raises(KeyboardInterrupt):
        dreambooth.run(space, settings, Events())
    family, clips, others = (kept[name] for name in ("family", "clips", "class_clips"))
    from magicid_cli import adapters
    from magicid_cli.reconstruction import error

    own = adapters.parameters(family.transformer, "policy")

    def gradient() -> dict[str, torch.Tensor]:
        found = {name: p.grad.clone() for name, p in own.items() if p.grad is not None}
        for parameter in own.values():
            parameter.grad = None
        return found

    metrics = real(family, clips, others, Batch(0, (1,), torch.Generator().manual_seed(3)), settings)
    whole = gradient()
    generator = torch.Generator().manual_seed(3)
    first, _ = error(family, clips[1], generator, settings)
    torch.randint(1, (1,), generator=generator)
    second, _ = error(family, others[0], generator, settings)
    (first + 0.25 * second).backward()
    plain = gradient()
    assert metrics["class_loss"] == pytest.approx(second.item())
    assert metrics["loss"] == pytest.approx(first.item())
    assert whole.keys() == plain.keys() and len(whole) > 0
    for name, value in plain.items():
        torch.testing.assert_close(whole[name], value, rtol=1e-4, atol=1e-7, msg=name)
    # The class clip is one that the untouched model made for a caption, and is there for the next run.
    (file,) = (space.path / "class-clips").iterdir()
    assert torch.equal(load_tensors(file)["latents"], others[0][0])


def test_another_stored_base_makes_other_class_clips_arranged_before_they_are_sampled(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips of the base in full stay, those in int8 lie beside them; the model that made them is gone afterwards."""
    space, told = Workspace("alice").of_method("dreambooth"), list[str]()
    for name in ("arrange", "sample", "unload"):
        real = getattr(Hunyuan, name)

        def watched(self: Any, *given: Any, real: Any = real, name: str = name, **more: Any) -> Any:
            told.append(name)
            return real(self, *given, **more)

        monkeypatch.setattr(Hunyuan, name, watched)

    def made(**changes: Any) -> set[str]:
        settings = resolved(alice, **{"dreambooth.class_clips": 2, **changes}).settings
        family = models.open_family(settings.model, Events(), running.held(settings, "reconstruct")[1])
        captions = [photo.caption for photo in references(space)]
        conditioning.encode_texts(family, space.path / "texts", captions, Events(), "dreambooth")
        told.clear()
        dreambooth._class_clips(space, settings, family, Events())
        assert not hasattr(family, "transformer")
        return {file.name for file in (space.path / "class-clips").iterdir()}

    full = made()
    assert len(full) == 2 and told == ["arrange", "sample", "sample", "unload"]
    both = made(**{"model.base": "int8"})
    assert full < both and len(both) == 4
    assert made() == both and told == ["unload"]


@pytest.mark.parametrize("name", ["dreambooth", "magic-me"])
def test_another_stored_base_is_another_training(alice: Path, name: str) -> None:
    changed = resolved(alice, **{"model.base": "nf4"}).settings
    module = {"dreambooth": dreambooth, "magic-me": magic_me}[name]
    assert config.subset(changed, module.READS) != config.subset(resolved(alice).settings, module.READS)


# ----------------------------------------------------------------------------------------------------------- magic-me


@pytest.mark.parametrize("kind", keywords.KINDS)
def test_magic_me_cut_and_gone_on_with_ends_as_the_uninterrupted_run(alice: Path, kind: str) -> None:
    about: dict[str, Any] = {"magic_me.kind": kind, "magic_me.learning_rate": 1e-2}
    workspace = Workspace("alice")
    before = everything(workspace)
    stop = Stop(5)
    with pytest.raises(KeyboardInterrupt):
        run(alice, "magic-me", stop.events, **about)
    with pytest.raises(MagicIDError, match="not customized by 'magic-me'"):
        generation.require(workspace.of_method("magic-me"), resolved(alice).settings, "x", output=None, force=False)
    gone_on = file_digest(run(alice, "magic-me", **about).adapter)
    space = workspace.of_method("magic-me")
    rows = [row["step"] for row in read_lines(space.reconstruct / "metrics.jsonl")]
    assert rows == list(range(1, STEPS + 1))
    for path in sorted(space.path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert file_digest(run(alice, "magic-me", **about).adapter) == gone_on
    assert everything(workspace) == before


def test_only_the_keywords_move_and_the_models_stay_in_every_bit(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights in memory after training against the checkpoint's; each row moved, away from the class word's."""
    kept = dict[str, Any]()
    real, closing = magic_me.accumulate, Hunyuan.unload

    def spy(family: Any, latents: Any, masks: Any, prompted: Any, rows: Any, *rest: Any) -> dict[str, float]:
        kept.update(family=family, prompted=prompted, masks=masks)
        return real(family, latents, masks, prompted, rows, *rest)

    def unload(self: Hunyuan, part: Any) -> None:
        if part == "transformer" and hasattr(self, "transformer"):
            kept["after"] = {name: value.clone() for name, value in self.transformer.state_dict().items()}
        closing(self, part)

    opened = keywords.open_encoder
    monkeypatch.setattr(magic_me, "accumulate", spy)
    monkeypatch.setattr(Hunyuan, "unload", unload)
    monkeypatch.setattr(keywords, "open_encoder", lambda *a, **k: kept.setdefault("encoder", opened(*a, **k)))
    done = run(alice, "magic-me")
    family, encoder = kept["family"], kept["encoder"]
    fresh = opened(family)
    family.load("transformer")
    for now, then in (
        (kept["after"], family.transformer.state_dict()),
        (encoder.llama.state_dict(), fresh.llama.state_dict()),
        (encoder.clip.state_dict(), fresh.clip.state_dict()),
    ):
        assert now.keys() == then.keys() and all(torch.equal(now[name], then[name]) for name in then)
    assert not any(parameter.grad is not None for parameter in encoder.llama.parameters())
    trained = keywords.load(done.adapter)
    start = keywords.beginning(fresh, "input", [], "person", 4)
    assert (trained.rows - start).abs().amax(1).min() > 0
    # What was trained, read back, encodes a caption as training last saw it.
    captions = [photo.caption for photo in references(Workspace("alice"))]
    loaded, _ = keywords.encode(fresh, captions[1], trained)
    seen = kept["prompted"](1, trained.rows)
    torch.testing.assert_close(loaded["prompt_embeds"], seen["prompt_embeds"].detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(loaded["pooled_prompt_embeds"], seen["pooled_prompt_embeds"])
    assert all(mask is not None and 0 < float(mask.mean()) < 1 for mask in kept["masks"])


def test_weight_decay_pulls_the_keywords_back_to_where_they_began(alice: Path) -> None:
    """Two steps with the same draws: what decay adds in the second is -rate * decay * the movement of the first."""
    rate, decay = 0.1, 0.5

    def rows(steps: int, weight_decay: float) -> torch.Tensor:
        about = {"magic_me.learning_rate": rate, "magic_me.weight_decay": weight_decay, "prefer.steps": 0}
        return keywords.load(run(alice, "magic-me", **about, **{"reconstruct.steps": steps}).adapter).rows

    family = models.open_family(resolved(alice).settings.model, Events())
    start = keywords.beginning(keywords.open_encoder(family), "input", [], "person", 4)
    first = rows(1, decay)
    assert (first - start).abs().amax(1).min() > 0
    torch.testing.assert_close(rows(2, decay) - rows(2, 0.0), -rate * decay * (first - start), rtol=1e-3, atol=1e-7)


def test_a_share_of_the_samples_is_not_masked(alice: Path) -> None:
    """All of them at 1, none at 0; in between the draw decides, and 8 steps at 0.5 have some of both."""
    for share, wanted in ((0.0, {1.0}), (1.0, {0.0}), (0.5, {0.0, 1.0})):
        run(alice, "magic-me", **{"magic_me.unmasked": share, "magic_me.kind": "output", "prefer.steps": 0})
        rows = read_lines(Workspace("alice").of_method("magic-me").reconstruct / "metrics.jsonl")
        assert {row["masked"] for row in rows} == wanted


def test_the_masked_error_against_a_plain_computation() -> None:
    draw = np.random.default_rng(0)
    target, found = draw.normal(size=(2, 3, 2, 4, 5))
    mask = draw.random((4, 5))
    plain = [
        [mask[y, x] * (target[c, f, y, x] - found[c, f, y, x]) ** 2 for y in range(4) for x in range(5)]
        for c in range(3)
        for f in range(2)
    ]
    expected = np.sum(plain) / (mask.sum() * 6)
    given = [torch.from_numpy(value) for value in (target, found, mask)]
    assert float(masked_error(*given)) == pytest.approx(expected)
    assert float(masked_error(given[0], given[1], None)) == pytest.approx(np.mean((target - found) ** 2))
    everywhere = masked_error(given[0], given[1], torch.full((4, 5), 0.3, dtype=torch.float64))
    assert float(everywhere) == pytest.approx(float(masked_error(given[0], given[1], None)))


def test_the_outline_has_the_face_and_the_shoulders_and_not_the_corners() -> None:
    """A face box in the middle of a picture: points by hand; moved, the outline moves with it."""
    mask = outline(100, 120, (50, 30, 20, 20))
    assert mask.shape == (100, 120) and set(np.unique(mask)) == {0.0, 1.0}
    inside = [(40, 60), (24, 60), (35, 52), (52, 60), (70, 60), (95, 40), (95, 80)]
    outside = [(5, 60), (40, 20), (40, 100), (15, 40), (95, 10), (51, 76)]
    assert all(mask[y, x] == 1 for y, x in inside) and all(mask[y, x] == 0 for y, x in outside)
    assert np.array_equal(mask[:-5, :-10], outline(100, 120, (60, 35, 20, 20))[5:, 10:])
    assert np.array_equal(mask[:, 1:60], mask[:, 60:119][:, ::-1])


def test_a_mask_at_the_latents_is_the_share_of_their_pixels() -> None:
    mask = np.zeros((16, 24), np.float32)
    mask[:8, :12] = 1
    mask[8:, :4] = 1
    assert at_latents(mask, 2, 3).tolist() == [[1.0, 0.5, 0.0], [0.5, 0.0, 0.0]]


# ---------------------------------------------------------------------------------------------------- plan and refusal


def test_other_photos_or_settings_are_refused_and_the_same_are_not(alice: Path) -> None:
    workspace = Workspace("alice")
    same = methods.states(workspace, "dreambooth", resolved(alice).settings, photos(alice))
    assert [(one.name, one.state) for one in same] == [("ingest", "cached"), ("dreambooth", "todo")]
    for given, changes in ((photos(alice)[:2], {}), (photos(alice), {"shape.size": "32x32"})):
        with pytest.raises(MagicIDError) as caught:
            methods.states(workspace, "dreambooth", resolved(alice, **changes).settings, given)
        assert caught.value.code == "identity-other-photos"


def test_the_plan_counts_all_of_magicids_steps_and_what_is_in_memory_beside(alice: Path) -> None:
    workspace, wanted = Workspace("alice"), {"rounds": 2, "dreambooth.class_clips": 3}
    rows = methods.plan(workspace, "dreambooth", resolved(alice, **wanted), None).estimate.rows
    assert [(row.stage, row.items) for row in rows] == [("dreambooth", 8 + 2 * 8)] and "3 class clips" in rows[0].note
    large = config.resolve({"model.name": "hunyuan-video", "model.device": "cpu"}, project=alice).settings
    memory = [
        methods.estimate_of(workspace, "magic-me", config.with_values(large, {"magic_me.kind": kind}), 0, ["magic-me"])
        for kind in keywords.KINDS
    ]
    # 7.07 billion values of Llama that are used and 0.12 of CLIP, four bytes each on a CPU.
    assert memory[0].memory_gb - memory[1].memory_gb == pytest.approx(4 * 7.192, abs=0.01)


def test_a_step_with_class_clips_takes_twice_the_time_in_the_same_memory(alice: Path) -> None:
    workspace, settings = Workspace("alice"), resolved(alice).settings
    wanted = settings, config.with_values(settings, {"dreambooth.class_clips": 3})
    one, other = (methods.estimate_of(workspace, "dreambooth", now, 0, ["dreambooth"]) for now in wanted)
    clips = planning.for_run(
        config.with_values(settings, {"repository.tuned": 3, "repository.initial": 0}),
        photos=0,
        todo={"sample"},
        home=workspace.path / "none",
    )
    assert one.seconds and other.seconds and clips.seconds
    assert other.seconds == pytest.approx(2 * one.seconds + clips.seconds)
    assert other.memory_gb == one.memory_gb


def test_a_method_can_begin_an_identity(tmp_path: Path) -> None:
    """Photos are looked at first; then MagicID's own run finds them looked at."""
    workspace, given = Workspace("bob"), drawn_photos(tmp_path / "photos")
    wanted = config.resolve({**SMALL, "prefer.steps": 0, "reconstruct.steps": 2}, project=tmp_path)
    done = methods.run(workspace, "dreambooth", wanted, given, Events())
    assert done.stages_run == ["ingest", "dreambooth"]
    assert workspace.manifest()["class_word"] == "person" and workspace.of_method("dreambooth").manifest()["licence"]
    assert pipeline.states(workspace, wanted.settings, given)[0].state == "cached"
    assert workspace.methods()[0].method == "dreambooth"


def test_what_is_told_after_a_methods_run_is_in_no_manifest_of_it(alice: Path) -> None:
    """Of several methods with one stream of events, each keeps its own."""
    events, space = Events(), Workspace("alice").of_method("dreambooth")
    run(alice, "dreambooth", events, **{"prefer.steps": 0, "reconstruct.steps": 1})
    assert events.path is None
    known = read_lines(space.events)
    events.emit("fallback", message="of the next method", stage="magic-me")
    assert "of the next method" not in space.manifest()["fallbacks"]
    assert read_lines(space.events) == known


# ------------------------------------------------------------------------------------------------ commands and compare


def test_methods_are_generated_with_compared_and_removed(alice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One pass through the commands: the same prompts and seeds for all, nothing made twice, one table, one page."""
    workspace = Workspace("alice")
    before = everything(workspace)
    asked = ["compare", "alice", "--methods", "magicid,dreambooth,magic-me", "--test-prompts", "2", "--json"]
    assert main(asked) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["trained"] == ["dreambooth", "magic-me"] and data["videos_made"] == 6
    rows = {
        name: read_lines(methods.folder(workspace, name).videos / "videos.jsonl")
        for name in ("magicid", "dreambooth", "magic-me")
    }
    told = {name: [(row["prompt"], row["seed"]) for row in found] for name, found in rows.items()}
    assert told["magicid"] == told["dreambooth"] == told["magic-me"] and len(told["magicid"]) == 2
    practised = {row["text"] for row in read_lines(workspace.repository / "prompts.jsonl")}
    assert not practised & {prompt for prompt, _ in told["magicid"]}
    words = keywords.load(workspace.of_method("magic-me").reconstruct / "keywords.safetensors")
    assert words.spec.count == 4
    assert {row["method"] for row in rows["magic-me"]} == {"magic-me"} and "method" not in rows["magicid"][0]
    assert {row["keywords"] for row in rows["magic-me"]} == {
        file_digest(magic_me.path_of(workspace.of_method("magic-me")))
    }
    assert list(data["evaluations"]) == ["MagicID", "DreamBooth-LoRA", "Magic-Me"]
    page = (workspace.path / "compare" / "videos.html").read_text()
    assert page.count("<video ") == 6 and "Magic-Me" in page and str(alice) not in page
    for ending in ("csv", "md", "tex", "json"):
        assert "Magic-Me" in (workspace.path / "compare" / f"table.{ending}").read_text()
    changed = {name for name, content in everything(workspace).items() if before.get(name) != content}
    assert {name.partition("/")[0] for name in changed} == {"videos"}
    assert main(asked) == 0
    again = json.loads(capsys.readouterr().out)["data"]
    assert again["trained"] == [] and again["videos_made"] == 0 and again["videos"] == data["videos"]
    assert again["estimate"]["stages"] == []
    assert main(["rm", "alice", "--method", "magic-me", "--yes", "-q"]) == 0
    assert [space.method for space in workspace.methods()] == ["dreambooth"] and workspace.exists


def test_licences_are_told_before_generate_downloads_anything(
    alice: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a method that trains, too, whose video model may be gone from the cache; not where all is here."""
    said = list[str]()

    def generate(*given: Any, **more: Any) -> list[Any]:
        said.append(capsys.readouterr().err)
        return []

    for module, name in ((methods, "require"), (planning, "require")):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(methods, "generate", generate)
    for model in ("hunyuan-video", "tiny"):
        asked = ["generate", "--name", "alice", "--prompt", "alice waves", "--method", "dreambooth", "--model", model]
        assert main([*asked, "--device", "cpu", "--yes"]) == 0
    source = video_model("hunyuan-video").source
    assert source and f"Video model {source.repo}: {source.licence}." in said[0]
    assert "DreamBooth-LoRA (arXiv 2208.12242)" in said[0] and "DreamBooth" not in said[1]


def test_a_video_of_a_method_with_its_own_model_counts_while_its_photo_and_its_settings_are_there(alice: Path) -> None:
    """Made by a stand-in for the models, with the method's real record."""

    class Still:
        facts: Mapping[str, Any] = {}
        held: Mapping[str, Any] = {}

        def frames(self, prompt: str, seed: int, on_step: Any) -> np.ndarray:
            return np.zeros((3, 64, 64, 3), np.uint8)

    identity, name = Workspace("alice"), "id-animator"
    now = {"compare.prompts": 1, "model.device": "cpu"}
    asked = resolved(alice, **now, seed=config.Settings().compare.test_seed)
    own, prompt = asked.settings.id_animator, competition.wanted(identity, asked.settings)[0].prompt
    space, events = identity.of_method(name), Events()
    wanted = generation.asked(prompt, asked.settings)
    (made,) = untrained.generate(
        space, asked.settings, wanted, METHODS[name], own, lambda _: Still(), output=None, force=False, events=events
    )

    def found(**changes: Any) -> list[Path | None]:
        return competition.made_before(identity, name, resolved(alice, **now, **changes).settings)

    assert found() == [made.path]
    assert found(**{"id_animator.fps": own.fps + 1}) == [None], "it would play at another rate"
    assert found(**{"id_animator.photo_scale": 0.1}) == [None]
    (row,) = read_lines(space.videos / "videos.jsonl")
    lines = [one for one in read_lines(identity.references / "captions.jsonl") if one["crop"] != row["photo"]["file"]]
    write_lines(identity.references / "captions.jsonl", lines)
    (identity.references / row["photo"]["file"]).unlink()
    assert found() == [None], "its photo is gone"


def test_the_plan_tells_before_any_training_what_a_later_method_lacks(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another environment, here; and what every method's figures take for granted stays said."""
    monkeypatch.setattr(environments, "is_ready", lambda name: False)
    monkeypatch.setattr(environments, "python_of", _missing)
    identity, asked = Workspace("alice"), resolved(alice, **{"compare.prompts": 1, "model.device": "cpu"})
    found, problems = competition.plan(identity, ["dreambooth", "consisid"], asked)
    assert "baseline-missing" in [problem.code for problem in problems]
    alone, _ = competition.plan(identity, ["dreambooth"], asked)
    assert found.assumptions == alone.assumptions != ()


def _missing(name: str) -> Path:
    raise MagicIDError("baseline-missing", f"{name} is not installed.", f"magicid baseline install {name}")


def test_what_was_practised_is_what_the_repositories_keep(alice: Path) -> None:
    """Whatever became of the file of prompts; those of a later round count, too."""
    identity, now = Workspace("alice"), {"compare.prompts": 2, "repository.prompts_file": str(alice / "moved.txt")}
    settings = resolved(alice, **now).settings

    def asked() -> list[str]:
        return list(dict.fromkeys(one.prompt for one in competition.wanted(identity, settings)))

    first, second = asked()
    kept = identity.repository / "prompts.jsonl"
    append_line(kept, {"id": len(read_lines(kept)), "text": first})
    assert asked()[0] == second
    identity.update(settings={"values": {"rounds": 2}, "origins": {}})
    write_lines(identity.round(2).repository / "prompts.jsonl", [{"id": 0, "text": second}])
    assert not {first, second} & set(asked())
    kept.unlink()
    (identity.round(2).repository / "prompts.jsonl").unlink()
    with pytest.raises(MagicIDError) as caught:
        asked()
    assert caught.value.code == "prompts-file"


def test_videos_of_another_stored_base_do_not_count(alice: Path) -> None:
    """By the record that generating leaves: one without a base is one of the base in full."""
    identity, now = Workspace("alice"), {"compare.prompts": 1}
    settings = resolved(alice, **now).settings
    (asked,) = competition.wanted(identity, settings)
    video = alice / "video.mp4"
    video.touch()
    row = {**competition._made_with(identity, "magicid", settings), "prompt": asked.prompt, "seed": asked.seed}
    del row["base"]
    append_line(identity.videos / "videos.jsonl", {**row, "file": str(video)})

    def found(**changes: Any) -> list[Path | None]:
        return competition.made_before(identity, "magicid", resolved(alice, **now, **changes).settings)

    assert found() == [video]
    assert found(**{"model.base": "int8"}) == [None]


def test_keywords_that_were_trained_anew_make_videos_anew(alice: Path) -> None:
    """A video counts only for the very keywords that made it."""
    workspace, short = Workspace("alice"), {"compare.prompts": 1, "prefer.steps": 0, "reconstruct.steps": 1}
    first = resolved(alice, **short)
    run(alice, "magic-me", **short)
    assert competition.made_before(workspace, "magic-me", first.settings) == [None]
    made = methods.generate(
        workspace,
        "magic-me",
        resolved(alice, **short, **{"seed": 1}),
        competition.wanted(workspace, first.settings)[0].prompt,
        output=None,
        force=False,
        events=Events(),
    )
    assert competition.made_before(workspace, "magic-me", first.settings) == [made[0].path]
    other = resolved(alice, **short, **{"magic_me.learning_rate": 0.5})
    assert competition.made_before(workspace, "magic-me", other.settings) == [None]
    methods.run(workspace, "magic-me", other, None, Events())
    assert competition.made_before(workspace, "magic-me", other.settings) == [None]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["customize", "{photos}", "--name", "alice", "--method", "nobody"], "settings-unknown"),
        (["customize", "{photos}", "--name", "alice", "--method", "consisid"], "settings-invalid"),
        (["generate", "--prompt", "alice runs", "--method", "dreambooth"], "identity-unfinished"),
        (["rm", "alice", "--method", "dreambooth", "--yes"], "identity-unfinished"),
        (["rm", "alice", "--method", "magicid", "--yes"], "settings-invalid"),
        (["compare", "alice", "--methods", ","], "usage"),
    ],
)
def test_what_cannot_be_done_is_refused(
    alice: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
) -> None:
    given = [argument.format(photos=alice / "photos") for argument in arguments]
    assert main([*given, "--json"]) != 0
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_the_untouched_model_is_not_a_method_s(alice: Path) -> None:
    run(alice, "dreambooth", **{"prefer.steps": 0, "reconstruct.steps": 1})
    space = Workspace("alice").of_method("dreambooth")
    with pytest.raises(MagicIDError, match="is of MagicID"):
        generation.chosen_adapter(space, resolved(alice, **{"generate.adapter": "none"}).settings)


# ------------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("kind", keywords.KINDS)
def test_the_card_s_program_encodes_a_prompt_as_we_do(
    alice: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The function on the card of exported keywords, run on plain diffusers' pipeline, against our own encoding."""
    run(alice, "magic-me", **{"prefer.steps": 0, "reconstruct.steps": 2, "magic_me.kind": kind})
    assert main(["export", "alice", "--method", "magic-me", "--json"]) == 0
    folder = Path(json.loads(capsys.readouterr().out)["data"]["folder"])
    assert folder.name == "alice-magic-me-diffusers"
    text = (folder / "README.md").read_text()
    assert "alice" not in text and "2402.09368" in text
    program = text[text.index("def spoken(") : text.index("\n\n\nvideo = ")]
    family = models.open_family(resolved(alice).settings.model, Events())
    assert isinstance(family, Hunyuan)
    family.load("text")
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

    own = keywords.load(folder / "keywords.safetensors")
    names = {
        "re": re,
        "torch": torch,
        "pipe": family._text,
        "keywords": own.rows,
        "DEFAULT_PROMPT_TEMPLATE": DEFAULT_PROMPT_TEMPLATE,
    }
    exec(program, names)  # what a reader of the card would do
    encoder = keywords.open_encoder(family)
    # In "woman" there is "man", and a sentence may begin with the word: both must be taken as `generate` takes them.
    for word, prompt in (("person", "A person walks"), ("man", "A woman hugs a man."), ("man", "Man on a horse")):
        spec = replace(own.spec, class_word=word)
        spoken: dict[str, torch.Tensor] = names["spoken"](prompt, word)
        ours, placed = keywords.encode(encoder, prompt, keywords.Keywords(own.rows, spec))
        assert placed.place is not None
        for name, value in ours.items():
            torch.testing.assert_close(spoken[name][0], value, rtol=1e-4, atol=1e-5, msg=f"{name} of {prompt}")
    assert main(["export", "alice", "--method", "magic-me", "--format", "comfyui", "--json"]) == 2
    assert "no weights of the video model" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_method_s_adapter_is_exported_under_its_own_name(alice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(alice, "dreambooth", **{"prefer.steps": 0, "reconstruct.steps": 1})
    assert main(["export", "alice", "--method", "dreambooth", "--json"]) == 0
    folder = Path(json.loads(capsys.readouterr().out)["data"]["folder"])
    card = (folder / "README.md").read_text()
    assert (folder / "pytorch_lora_weights.safetensors").is_file()
    assert "DreamBooth-LoRA, arXiv 2208.12242" in card and "## Scores" not in card
