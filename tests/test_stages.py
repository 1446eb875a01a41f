"""The stages against a finished run: what a file's removal, a slip of the editor, a full disk or a full GPU does, and
that the same command then ends with the very adapter of the undisturbed run.
"""

import errno
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from album import SMALL
from magicid_cli import checkpoints, conditioning, config, models, pipeline, training
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models.base import Shape
from magicid_cli.photos import decode
from magicid_cli.stages import reconstruct, sample, score
from magicid_cli.workspace import Workspace, file_digest, read_lines, write_lines

pytestmark = pytest.mark.xdist_group("finished")


def photos_of(home: Path) -> list[Path]:
    return sorted((home / "photos").glob("*.png"))


def run(home: Path, **changes: Any) -> pipeline.CustomizeResult:
    resolved = config.resolve({**SMALL, **changes}, project=home)
    return pipeline.run(Workspace("alice"), resolved, photos_of(home), Events())


def stale(home: Path) -> list[str]:
    settings = config.resolve(SMALL, project=home).settings
    found = pipeline.states(Workspace("alice"), settings, photos_of(home))
    return [stage.name for stage in found if stage.state != "cached"]


def results(workspace: Workspace) -> dict[str, str]:
    """Content of everything that a finished run has and that later work reads."""
    patterns = ("references/*", "reconstruct/adapter*", "repository/latents/*", "repository/clips/*", "prefer/adapter*")
    files = [path for pattern in patterns for path in workspace.path.glob(pattern)]
    files += [workspace.pairs, workspace.path / "pairs.json", workspace.repository / "prompts.jsonl"]
    return {str(path.relative_to(workspace.path)): file_digest(path) for path in files}


FIRST_TO_RUN = {
    "references/captions.jsonl": "ingest",
    "references/photos.jsonl": "ingest",
    "references/embeddings.safetensors": "ingest",
    "references/000.png": "ingest",
    "reconstruct/adapter.safetensors": "reconstruct",
    "repository/videos.jsonl": "sample",
    "repository/prompts.jsonl": "sample",
    "repository/clips/static-001.mp4": "sample",
    "repository/latents/static-002.safetensors": "sample",
    "repository/latents/tuned-000-0.safetensors": "sample",
    "scores.jsonl": "score",
    "pairs.jsonl": "select",
    "pairs.json": "select",
    "prefer/adapter.safetensors": "prefer",
    # Only what makes something else needs these; they are made again when it is.
    "reconstruct/static": None,
    "texts": None,
    "prefer/beta.json": None,
    "prefer/checkpoints": None,
    "reconstruct/checkpoints": None,
}


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize(("name", "first"), FIRST_TO_RUN.items())
def test_a_removed_file_is_missed_by_the_stage_that_makes_it(alice: Path, name: str, first: str | None) -> None:
    remove(Workspace("alice").path / name)
    assert stale(alice)[:1] == ([first] if first else [])


def test_whatever_was_removed_comes_back_as_it_was(alice: Path) -> None:
    """All of it but the stage-1 adapter's checkpoints: every stage runs, and ends where it was."""
    workspace = Workspace("alice")
    before = results(workspace)
    for name in FIRST_TO_RUN:
        if name != "reconstruct/checkpoints":
            remove(workspace.path / name)
    assert run(alice).stages_run == list(pipeline.ORDER)
    assert results(workspace) == before
    assert run(alice).stages_run == []


def test_a_static_clip_of_the_repository_is_what_stage_1_trained_on(alice: Path) -> None:
    workspace = Workspace("alice")
    settings = config.resolve(SMALL, project=alice).settings
    family = models.open_family(settings.model, Events())
    for number, photo in enumerate(conditioning.references(workspace)):
        path = conditioning.static_path(workspace.reconstruct / "static", family, photo.sha256, Shape(9, 64, 64))
        again = workspace.repository / f"latents/static-{number:03d}.safetensors"
        trained, stored = conditioning.load_tensors(path)["latents"], conditioning.load_tensors(again)["latents"]
        assert torch.equal(trained, stored)


def test_stage_1_on_single_frames_trains_on_the_photos_encoded_as_such(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the VAE's own encoding of one frame; the clips of the repository stay whole."""
    workspace, seen = Workspace("alice"), list[torch.Tensor]()
    real = reconstruct.accumulate

    def spy(family: Any, clips: Any, *rest: Any) -> dict[str, float]:
        seen[:] = [latents for latents, _ in clips]
        return real(family, clips, *rest)

    monkeypatch.setattr(reconstruct, "accumulate", spy)
    wanted = {"reconstruct.clip": "frame", "reconstruct.steps": 1}
    settings = config.resolve({**SMALL, **wanted}, project=alice).settings
    reconstruct.run(workspace, settings, Events())
    family = models.open_family(settings.model, Events())
    family.load("vae")
    photos = [decode(photo.crop).rgb for photo in conditioning.references(workspace)]
    assert all(
        torch.equal(latents, family.encode_video(photo[None])) for latents, photo in zip(seen, photos, strict=True)
    )
    assert [tuple(latents.shape[1:]) for latents in seen] == [(1, 8, 8)] * 3
    assert len(list((workspace.reconstruct / "static").iterdir())) == 3


def test_latents_of_a_photo_that_is_not_used_any_more_are_removed(alice: Path) -> None:
    workspace = Workspace("alice")
    assert len(list((workspace.reconstruct / "static").iterdir())) == 3
    dropped = workspace.references / "002.png"
    dropped.unlink()
    rows = read_lines(workspace.references / "captions.jsonl")
    write_lines(workspace.references / "captions.jsonl", [row for row in rows if row["crop"] != dropped.name])
    settings = config.resolve({**SMALL, "reconstruct.steps": 1}, project=alice).settings
    reconstruct.run(workspace, settings, Events())
    assert len(list((workspace.reconstruct / "static").iterdir())) == 2


def test_captions_saved_with_a_byte_order_mark_are_read(alice: Path) -> None:
    """Some editors begin every file with one: by the stages that read captions, and by ingest, which keeps edits."""
    workspace = Workspace("alice")
    path = workspace.references / "captions.jsonl"
    rows, known = read_lines(path), conditioning.references(workspace)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_lines(path) == rows and conditioning.references(workspace) == known


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"crop": "000.png", "caption": "unclosed', "line 1 is no caption"),
        ('{"crop": "000.png"}', "line 1 is no caption"),
        ('{"crop": "000.png", "caption": " "}', "line 1 is no caption"),
        ('{"crop": "../000.png", "caption": "somewhere else"}', "line 1 is no caption"),
        ('{"crop": "001.png", "caption": "twice"}', "line 2 is no caption"),
        ("", "000.png has no caption"),
    ],
)
def test_no_photo_drops_out_by_a_slip_in_the_captions(alice: Path, line: str, why: str) -> None:
    path = Workspace("alice").references / "captions.jsonl"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([line, *lines[1:]]))
    with pytest.raises(MagicIDError, match=why) as caught:
        stale(alice)
    assert caught.value.code == "captions-unusable"


def test_a_file_named_by_a_setting_counts_by_its_content(alice: Path) -> None:
    workspace = Workspace("alice")
    one, moved = alice / "one.onnx", alice / "elsewhere.onnx"
    one.write_bytes(b"weights")
    moved.write_bytes(b"weights")

    def keys(path: Path) -> list[str]:
        settings = config.resolve({**SMALL, "rewards.face_model": str(path)}, project=alice).settings
        return [pipeline.key_of(name, workspace, settings, photos_of(alice)) for name in ("ingest", "score", "select")]

    before = keys(one)
    assert keys(moved) == before
    one.write_bytes(b"other weights")
    assert [new == old for new, old in zip(keys(one), before, strict=True)] == [False, False, True]


def test_the_prompts_file_counts_by_its_content_and_a_repeated_prompt_once(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace("alice")
    monkeypatch.chdir(alice)
    text = "a {person} runs\na {person} sings\na {person} runs\n"
    Path("prompts.txt").write_text(text)
    (alice / "other").mkdir()
    (alice / "other" / "moved.txt").write_text(text)

    def settings(path: str) -> config.Settings:
        return config.resolve({**SMALL, "repository.prompts_file": path}, project=alice).settings

    def key(path: str, stage: str = "sample") -> str:
        return pipeline.key_of(stage, workspace, settings(path), photos_of(alice))

    assert sample.chosen_prompts(settings("prompts.txt")) == ["a person runs", "a person sings"]
    assert key("prompts.txt") == key(str(alice / "prompts.txt")) == key("other/moved.txt")
    before = key("prompts.txt")
    Path("prompts.txt").write_text("a {person} swims\n")
    assert key("prompts.txt") != before
    assert key("prompts.txt", "reconstruct") == key("other/moved.txt", "reconstruct")


def test_nothing_to_compare_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    wanted = {**SMALL, "repository.tuned": 0, "repository.initial": 0}
    resolved = config.resolve(wanted, project=tmp_path)
    workspace = Workspace("bob")
    for call in (
        lambda: pipeline.plan(workspace, resolved, []),
        lambda: pipeline.run(workspace, resolved, [], Events()),
    ):
        with pytest.raises(MagicIDError) as caught:
            call()
        assert caught.value.code == "settings-invalid" and "--prefer-steps 0" in caught.value.hint
    assert not workspace.exists
    # Without stage 2 there is nothing to compare.
    alone = config.resolve({**wanted, "prefer.steps": 0}, project=tmp_path)
    assert [state.name for state in pipeline.plan(workspace, alone, []).stages] == ["ingest", "reconstruct"]


def test_an_unfinished_change_takes_the_old_adapter_out_of_use(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest describes the run that was begun last; an adapter of other settings must not go by them."""
    workspace = Workspace("alice")

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(pipeline.stage("select"), "run", cut)
        with pytest.raises(KeyboardInterrupt):
            run(alice, **{"pairs.video_cap": 9})
    assert workspace.manifest()["adapter"] is None
    assert run(alice).stages_run == ["select"]
    assert workspace.manifest()["adapter"] == "prefer/adapter.safetensors"


@pytest.mark.parametrize(
    ("raised", "code"),
    [(torch.OutOfMemoryError("CUDA out of memory. Tried"), "gpu-memory"), (OSError(errno.ENOSPC, "full"), "disk-full")],
)
def test_a_machine_that_is_full_is_named(
    alice: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, code: str
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(pipeline.stage("select"), "run", fail)
    with pytest.raises(MagicIDError) as caught:
        run(alice, **{"pairs.video_cap": 9})
    assert caught.value.code == code


def test_tensors_on_a_full_disk_are_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file writer of safetensors would raise an error of its own, which nothing could tell from a bug."""

    @contextmanager
    def full(_: Path) -> Iterator[Path]:
        yield Path("/dev/full")

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    monkeypatch.setattr(conditioning, "atomic_path", full)
    with pytest.raises(OSError) as caught:
        conditioning.save_tensors(Path("x.safetensors"), {"latents": torch.zeros(100_000)})
    assert caught.value.errno == errno.ENOSPC


def test_frames_that_no_judge_reads_make_no_score_again(alice: Path) -> None:
    """The stand-in chooses its frames itself: nothing is stale, and nothing is judged."""
    workspace = Workspace("alice")
    before = workspace.scores.read_bytes()
    settings = config.resolve({**SMALL, "rewards.sampled_frames": 4}, project=alice).settings
    found = pipeline.states(workspace, settings, photos_of(alice))
    assert {state.state for state in found} == {"cached"}
    assert score.run(workspace, settings, Events()).made == 0
    assert workspace.scores.read_bytes() == before


def test_sampling_says_what_a_video_took_and_how_much_of_it_was_not_denoising(alice: Path) -> None:
    """By hand: 4 videos in 50 s, 40 of them denoising, are 12.5 s each and a fifth outside; none made, nothing said."""
    assert sample.timing_of(4, 40.0, 50.0) == {"denoised": 4, "seconds_per_video": 12.5, "outside_share": 0.2}
    assert sample.timing_of(0, 0.0, 3.0) == {}
    record = Workspace("alice").manifest()["stages"]["sample"]["result"]["timing"]
    assert record["denoised"] == 8 + 4
    assert 0 < record["outside_share"] < 1


def test_a_large_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from magicid_cli import workspace

    monkeypatch.setattr(workspace, "_LARGE", 4)
    reads: list[Path] = []
    real = workspace._digest_of

    def counted(path: Path) -> str:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(workspace, "_digest_of", counted)
    path = tmp_path / "adapter"
    workspace.write_text(path, "12345")
    first = workspace.file_digest(path)
    assert workspace.file_digest(path) == first and len(reads) == 1
    workspace.write_text(path, "54321")
    assert workspace.file_digest(path) != first and len(reads) == 2


class Crash(RuntimeError):
    """Stands for a process that ends in the middle of a write."""


@pytest.mark.slow
def test_a_crash_between_any_two_writes_leaves_a_run_that_ends_the_same(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every durable write passes through fsync; the run dies at one of them, again and again."""
    chance, left, where = random.Random(2), 0, list[str]()
    real = os.fsync

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Crash
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    bob = Workspace("bob")
    resolved = config.resolve(SMALL, project=alice)
    for _ in range(100):
        left = chance.randint(18, 60)
        try:
            pipeline.run(bob, resolved, photos_of(alice), Events())
            break
        except Crash:
            states = bob.manifest()["stages"]
            where += [name for name in pipeline.ORDER if states.get(name, {}).get("state") == "running"]
    assert len(set(where)) >= 4, where
    assert results(bob) == results(Workspace("alice"))
    assert not list(bob.path.rglob(".tmp-*"))


@pytest.mark.parametrize(("stage", "step"), [("reconstruct", 4), ("prefer", 5)])
def test_out_of_memory_in_a_step_goes_on_with_the_next_plan(
    alice: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    """The end is that of the run without it, bit for bit; no step is computed twice, and the manifest says it."""
    workspace, seen = Workspace("alice"), list[int]()
    adapter = workspace.path / stage / "adapter.safetensors"
    whole = file_digest(adapter)
    adapter.unlink()
    checkpoints.discard(workspace.path / stage / "checkpoints")
    module = pipeline.stage(stage)
    real = module.accumulate

    def accumulate(*arguments: Any) -> Any:
        batch = next(one for one in arguments if isinstance(one, training.Batch))
        found = real(*arguments)
        seen.append(batch.step)
        if seen.count(step) == 1 and batch.step == step:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(module, "accumulate", accumulate)
    run(alice)
    assert file_digest(adapter) == whole
    assert seen == [*range(step + 1), *range(step, 8)]
    (told,) = workspace.manifest()["fallbacks"]
    assert f"Memory ran out at '{stage}'" in told and "memory plan 48gb" in told
    assert workspace.manifest()["held"][stage]["memory_plan"] == "48gb"
    assert workspace.manifest()["held"]["reconstruct" if stage == "prefer" else "prefer"]["memory_plan"] == "none"


def test_out_of_memory_twice_is_an_error_that_says_what_to_do(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(*_: Any) -> None:
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(pipeline.stage("reconstruct"), "accumulate", full)
    with pytest.raises(MagicIDError) as caught:
        run(alice, **{"reconstruct.learning_rate": 1e-4})
    assert (caught.value.code, len(calls)) == ("gpu-memory", 2)
    assert "--size" in caught.value.hint
