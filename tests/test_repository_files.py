"""Which files of a repository may be removed: those that we wrote, as we wrote them, and no others.

Truth: the bytes of what was there before.
"""

import shutil
from pathlib import Path

import pytest
import torch

from magicid_cli import conditioning
from magicid_cli.stages import sample
from magicid_cli.workspace import file_digest, read_lines
from small_repository import VIDEOS, sampled


def test_only_what_we_wrote_is_removed() -> None:
    """Two videos leave the repository; in the place of one of their clips somebody has put another."""
    folder = sampled().repository
    records = {row["id"]: row for row in read_lines(folder / "videos.jsonl")}
    for row in records.values():
        conditioning.save_tensors(folder / row["latents"], {"latents": torch.zeros(1)}, {"key": row["key"]})
    stays = [name for name, *_ in VIDEOS][2:]
    items = [sample.Item(name, "tuned", 0, "", None, 1, {}) for name in stays]
    clips, latents = folder / "clips", folder / "latents"
    shutil.copy(clips / "static-000.mp4", clips / "holiday.mp4")
    (clips / "notes.txt").write_text("mine")
    (clips / "tuned-000-1.mp4").write_bytes(b"somebody's own")
    conditioning.save_tensors(latents / "mine.safetensors", {"x": torch.zeros(1)}, {"key": "copied"})
    conditioning.save_tensors(latents / "tuned-009-9.safetensors", {"x": torch.zeros(1)})
    # Of a run that was stopped before it wrote the record.
    conditioning.save_tensors(latents / "tuned-008-0.safetensors", {"latents": torch.zeros(1)}, {"key": "ours"})
    before = {path: file_digest(path) for path in (*clips.iterdir(), *latents.iterdir())}
    sample.remove_stale(folder, items, records)
    after = {path: file_digest(path) for path in (*clips.iterdir(), *latents.iterdir())}
    gone = {str(path.relative_to(folder)) for path in before.keys() - after.keys()}
    assert gone == {
        "clips/tuned-000-0.mp4",
        *(f"latents/{name}.safetensors" for name in ("tuned-000-0", "tuned-000-1", "tuned-008-0")),
    }
    assert all(before[path] == digest for path, digest in after.items())


@pytest.mark.xdist_group("finished")
def test_files_of_somebody_survive_a_run(alice: Path) -> None:
    """The whole way: a video beside ours is named by scoring and still there when the next run is through."""
    from album import SMALL
    from magicid_cli import config, pipeline
    from magicid_cli.events import Event, Events
    from magicid_cli.workspace import Workspace

    clips = Workspace("alice").repository / "clips"
    shutil.copy(clips / "static-000.mp4", clips / "holiday.mp4")
    whole = (clips / "holiday.mp4").read_bytes()
    told: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "notice":
            told.append(event.data["message"])

    photos = sorted((alice / "photos").glob("*.png"))
    fewer = config.resolve({**SMALL, "repository.initial": 3, "prefer.steps": 1}, project=alice)
    pipeline.run(Workspace("alice"), fewer, photos, Events(listen))
    assert (clips / "holiday.mp4").read_bytes() == whole
    assert any("holiday.mp4" in text for text in told)
    assert len(list(clips.glob("initial*"))) == 3
