"""Which prompt belongs to which video: the documented rule, held against folders made for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation import collecting
from magicid_cli.evaluation.collecting import in_folder, of_identity, untouched, video_files
from magicid_cli.workspace import Workspace, append_line, file_digest

NAMES = ("clip-2.mp4", "clip-10.mp4", "Other.WEBM")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "videos"
    path.mkdir()
    for name in (*NAMES, "notes.md", ".hidden.mp4"):
        (path / name).write_bytes(b"x")
    return path


def prompts(folder: Path, file: Path | None = None) -> dict[str, str | None]:
    return {item.name: item.prompt for item in in_folder(folder, file).items}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder.parent / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(code: str, folder: Path, file: Path | None = None) -> MagicIDError:
    with pytest.raises(MagicIDError) as caught:
        in_folder(folder, file)
    assert caught.value.code == code
    return caught.value


def test_videos_come_in_natural_order_and_nothing_else_does(folder: Path) -> None:
    assert [path.name for path in video_files(folder)] == list(NAMES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"clip-2": "two", "clip-10.mp4": "ten", "x/y/Other.WEBM": "other"})),
        (
            "b.json",
            json.dumps([{"video": n, "prompt": p} for n, p in zip(NAMES, ("two", "ten", "other"), strict=True)]),
        ),
        ("c.json", json.dumps(["two", "ten", "other"])),
        (
            "d.jsonl",
            '{"file": "C:\\\\videos\\\\clip-2.mp4", "prompt": "two"}\n\n{"clip": "clips/clip-10.mp4", "prompt": '
            '"ten"}\n{"name": "Other", "prompt": "other"}\n',
        ),
        ("e.csv", "prompt,video\ntwo,clip-2\nten,clip-10\nother,Other\n"),
        ("f.txt", "# mine\ntwo\n\nten\nother\n"),
        ("g.csv", "\ufeffvideo,prompt\nclip-2,two\nclip-10,ten\nOther,other\n"),
    ],
)
def test_every_form_of_a_prompts_file(folder: Path, name: str, text: str) -> None:
    found = in_folder(folder, written(folder, name, text))
    assert [item.prompt for item in found.items] == ["two", "ten", "other"]
    assert found.notes == ()


def test_a_quoted_prompt_may_hold_commas_and_lines(folder: Path) -> None:
    found = prompts(folder, written(folder, "a.csv", 'video,prompt\nclip-2,"one, two\nthree"\n'))
    assert found["clip-2.mp4"] == "one, two\nthree"


def test_videos_without_prompt_and_prompts_without_video_are_told(folder: Path) -> None:
    found = in_folder(folder, written(folder, "a.json", '{"clip-2": "two", "clip-3": "three"}'))
    assert [item.prompt for item in found.items] == ["two", None, None]
    assert found.notes == (
        "a.json has no prompt for clip-10.mp4, Other.WEBM.",
        "a.json names videos that are not there: clip-3.",
    )


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.txt", "two\nten\n", "2 prompts for 3 videos"),
        ("a.json", "[1, 2, 3]", "row 1"),
        ("a.json", "{", "line 1"),
        ("a.json", "3", "neither"),
        ("a.jsonl", '{"video": "clip-2"}', "row 1"),
        ("a.csv", "film,words\nclip-2,two\n", "row 1"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(folder: Path, name: str, text: str, word: str) -> None:
    assert word in refused("prompts-file", folder, written(folder, name, text)).message


def test_files_that_cannot_be_read_are_refused(folder: Path) -> None:
    assert "No such file" in refused("prompts-file", folder, folder / "none.json").message
    binary = folder / "b.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused("prompts-file", folder, binary).message


def test_our_own_records_need_no_file_and_neither_do_neighbours(folder: Path) -> None:
    append_line(folder / "videos.jsonl", {"file": "/elsewhere/clip-2.mp4", "prompt": "two"})
    assert prompts(folder) == {"clip-2.mp4": "two", "clip-10.mp4": None, "Other.WEBM": None}
    (folder / "videos.jsonl").rename(folder.parent / "videos.jsonl")  # as in a repository: clips/ below it
    assert prompts(folder)["clip-2.mp4"] == "two"
    (folder.parent / "videos.jsonl").unlink()
    (folder / "clip-10.txt").write_text(" ten \n", encoding="utf-8")
    (folder / "Other.json").write_text('{"prompt": "other"}', encoding="utf-8")
    (folder / "clip-2.json").write_text('{"seed": 3}', encoding="utf-8")
    assert prompts(folder) == {"clip-2.mp4": None, "clip-10.mp4": "ten", "Other.WEBM": "other"}


def test_a_folder_without_videos_says_so(tmp_path: Path) -> None:
    assert "holds no video" in refused("videos-missing", tmp_path).message
    (tmp_path / "below").mkdir()
    assert "below" in refused("videos-missing", tmp_path).hint
    assert "no folder" in refused("videos-missing", tmp_path / "nowhere").message


# An identity's videos


def made(workspace: Workspace, name: str, adapter: str | None, kind: str = "final", **more: Any) -> Path:
    path = workspace.videos / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    row: dict[str, Any] = {"file": str(path), "prompt": f"prompt of {name}", "adapter": adapter}
    append_line(workspace.videos / "videos.jsonl", row | {"settings": {"adapter": kind}} | more)
    return path


def trained(workspace: Workspace, text: str, kind: str = "adapter") -> str:
    """An adapter or keywords that are in use now; their digest."""
    path = workspace.path / f"{kind}.safetensors"
    workspace.create()
    path.write_text(text, encoding="utf-8")
    workspace.update(**{kind: path.name})
    return file_digest(path)


def names(workspace: Workspace) -> dict[str, list[str]]:
    return {label: [item.name for item in group.items] for label, group in of_identity(workspace).items()}


def test_videos_of_keywords_that_were_trained_again_are_left_out() -> None:
    """Magic-Me trains keywords and no adapter."""
    workspace = Workspace("alice").of_method("magic-me")
    made(workspace, "old.mp4", None, keywords=trained(workspace, "first", "keywords"))
    made(workspace, "new.mp4", None, keywords=trained(workspace, "second", "keywords"))
    assert names(workspace) == {"magic-me": ["new.mp4"]}
    assert of_identity(workspace)["magic-me"].notes == ("Videos of an earlier adapter, left out: 1.",)


def test_an_identitys_videos_by_what_made_them() -> None:
    workspace = Workspace("alice")
    made(workspace, "old.mp4", trained(workspace, "first"))
    second = trained(workspace, "second")
    made(workspace, "a.mp4", second)
    made(workspace, "base.mp4", None, "none")
    workspace.reconstruct.mkdir()
    early = workspace.reconstruct / "adapter.safetensors"
    early.write_text("one", encoding="utf-8")
    made(workspace, "early.mp4", file_digest(early), "stage-1")
    made(workspace, "earlier.mp4", "zero", "stage-1")
    made(workspace, "gone.mp4", second).unlink()
    made(workspace, "a.mp4", second)  # made again: the later record counts
    assert names(workspace) == {
        collecting.OWN: ["a.mp4"],
        collecting.UNTOUCHED: ["base.mp4"],
        collecting.STAGE_1: ["early.mp4"],
    }
    own = of_identity(workspace)[collecting.OWN]
    assert own.notes == (
        "Videos of an earlier adapter, left out: 1.",
        "Videos that are not where they were made, left out: 1.",
    )
    assert own.items[0].prompt == "prompt of a.mp4"


def test_videos_of_an_adapter_that_is_no_longer_in_use_are_left_out() -> None:
    """Also where the one in use has made none yet."""
    workspace = Workspace("alice")
    made(workspace, "old.mp4", trained(workspace, "first"))
    trained(workspace, "second")
    assert names(workspace) == {collecting.OWN: []}
    assert of_identity(workspace)[collecting.OWN].notes == ("Videos of an earlier adapter, left out: 1.",)


def test_another_methods_videos_have_its_name() -> None:
    workspace = Workspace("alice", method="dreambooth")
    made(workspace, "a.mp4", trained(workspace, "x"))
    assert list(of_identity(workspace)) == ["dreambooth"]


def test_videos_made_otherwise_are_groups_of_their_own() -> None:
    """By base model and settings, also across methods; how many were asked for together is no part of them."""
    identity = Workspace("alice")
    own, space = trained(identity, "x"), identity.of_method("dreambooth")
    theirs, large = trained(space, "y"), {"frames": 61, "size": "1280x720", "adapter": "final"}

    def add(where: Workspace, name: str, adapter: str, **more: Any) -> None:
        made(where, name, adapter, **({"settings": {**large, "count": 1}, "model": "mini", "commit": "c"} | more))

    def found() -> dict[str, list[str]]:
        return {label: [item.name for item in group.items] for label, group in of_identity(identity, space).items()}

    add(identity, "a.mp4", own)
    add(identity, "b.mp4", own, settings={**large, "count": 7})
    add(space, "c.mp4", theirs)
    assert found() == {"magicid": ["a.mp4", "b.mp4"], "dreambooth": ["c.mp4"]}
    add(identity, "d.mp4", own, settings={**large, "frames": 33})
    assert found() == {
        "magicid (frames 61)": ["a.mp4", "b.mp4"],
        "magicid (frames 33)": ["d.mp4"],
        "dreambooth (frames 61)": ["c.mp4"],
    }
    add(space, "e.mp4", theirs, base="int8")
    assert list(found())[2:] == ["dreambooth (base full, frames 61)", "dreambooth (base int8, frames 61)"]
    assert {group.by for group in of_identity(identity, space).values()} == {"magicid", "dreambooth"}
    # What is left out differs from nothing.
    made(identity, "old.mp4", "an earlier adapter", settings={**large, "size": "544x320"})
    assert list(found())[0] == "magicid (base full, frames 61)"


def test_videos_of_a_model_of_its_own_are_of_one_model_and_of_photos_that_are_there() -> None:
    workspace = Workspace("alice").of_method("id-animator")
    workspace.references.mkdir(parents=True)
    crop = workspace.references / "000.png"
    crop.write_bytes(b"photo")
    for number, (photo, weights, checkpoint, scale, fps) in enumerate(
        [
            ("another photo", "a", "x", 0.8, 8),
            (file_digest(crop), "b", "x", 0.8, 8),
            (file_digest(crop), "a", "y", 0.8, 8),
            (file_digest(crop), "a", "x", 0.5, 8),
            (file_digest(crop), "a", "x", 0.8, 8),
            (file_digest(crop), "a", "x", 0.8, 16),
            ("another photo", "a", "x", 0.3, 8),
        ]
    ):
        more: dict[str, Any] = {
            "photo": {"sha256": photo},
            "weights": {"repo": weights},
            "checkpoint_sha256": checkpoint,
        }
        made(workspace, f"{number}.mp4", None, settings={"scale": scale, "fps": fps}, time=float(number), **more)
    assert names(workspace) == {"id-animator": ["5.mp4"]}, "at another rate the same video is there again"
    (note,) = of_identity(workspace)["id-animator"].notes
    assert note == "Videos from another photo, or with another model or settings, left out: 6."
    crop.unlink()
    assert names(workspace) == {"id-animator": []}


def test_the_reference_set_of_an_identity_is_the_untouched_models() -> None:
    workspace = Workspace("alice")
    for number, origin in enumerate(("initial", "tuned", "static", "initial")):
        append_line(workspace.repository / "videos.jsonl", {"clip": f"clips/{number}.mp4", "origin": origin})
    (workspace.repository / "clips").mkdir()
    for number in range(3):
        (workspace.repository / "clips" / f"{number}.mp4").write_bytes(b"x")
    assert [path.name for path in untouched(workspace)] == ["0.mp4"]
