"""`magicid mini photos`, against the contract of the command line and against the drawn world itself.

Truth: `clips.album` for the pictures, the rule that a folder holds a whole album or what it held before, and what
`photos` demands of real photos.
"""

import errno
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_run import outcome
from magicid_cli import photos
from magicid_cli.cli.app import main
from magicid_cli.errors import MagicIDError
from magicid_cli.world import albums, clips, people


def draw(folder: Path, seed: int = 7, count: int = 3, *, force: bool = False) -> albums.Album:
    return albums.write_album(folder, seed=seed, count=count, size=64, force=force)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_album_holds_the_drawn_pictures(tmp_path: Path) -> None:
    made = draw(tmp_path / "new" / "album")
    assert [path.name for path in made.files] == ["photo-01.png", "photo-02.png", "photo-03.png"]
    assert sorted(made.folder.iterdir()) == list(made.files)
    assert made.person == people.person(7)
    for path, picture in zip(made.files, clips.album(7, 3, 64), strict=True):
        assert np.array_equal(photos.decode(path).rgb, picture)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_person(tmp_path: Path) -> None:
    one, again, other = (content(draw(tmp_path / name, seed).folder) for name, seed in (("a", 7), ("b", 7), ("c", 8)))
    assert one == again
    assert not set(one.values()) & set(other.values())


def test_every_photo_says_that_it_is_drawn(tmp_path: Path) -> None:
    for path in draw(tmp_path / "album", 12).files:
        with Image.open(path) as image:
            assert image.info["Description"] == "Drawn: person 12 of magicid's drawn world, who exists nowhere"


def test_a_larger_album_begins_with_the_smaller_one(tmp_path: Path) -> None:
    few, many = content(draw(tmp_path / "few", count=2).folder), content(draw(tmp_path / "many", count=4).folder)
    assert few.items() < many.items()


@pytest.mark.parametrize("seed", range(0, 1000, 111))
def test_no_two_photos_count_as_the_same_picture(seed: int) -> None:
    hashes = [photos.perceptual_hash(picture) for picture in clips.album(seed, 10, 128)]
    distances = [photos.hash_distance(one, other) for one, other in itertools.combinations(hashes, 2)]
    assert min(distances) > photos.NEAR_DUPLICATE_BITS


def test_an_empty_folder_is_used_and_a_full_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert len(draw(tmp_path / "empty").files) == 3
    before = content(tmp_path / "empty")
    with pytest.raises(MagicIDError, match="is not empty") as refused:
        draw(tmp_path / "empty", 8)
    assert refused.value.code == "output-exists"
    assert content(tmp_path / "empty") == before


def test_force_replaces_an_album_as_a_whole(tmp_path: Path) -> None:
    draw(tmp_path / "album", 7, 4)
    made = draw(tmp_path / "album", 8, 2, force=True)
    assert sorted(made.folder.iterdir()) == list(made.files)
    assert [np.asarray(Image.open(path)).tobytes() for path in made.files] == [
        p.tobytes() for p in clips.album(8, 2, 64)
    ]
    assert list(tmp_path.iterdir()) == [made.folder]


@pytest.mark.parametrize("name", ["my-own.jpg", "photo-1.png", ".hidden"])
def test_force_never_removes_what_is_no_album(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "album")
    (tmp_path / "album" / name).write_text("precious")
    before = content(tmp_path / "album")
    with pytest.raises(MagicIDError, match="no photo of an album") as refused:
        draw(tmp_path / "album", 8, force=True)
    assert refused.value.code == "output-invalid"
    assert content(tmp_path / "album") == before


@pytest.mark.parametrize("force", [False, True])
def test_a_file_and_a_link_are_left_alone(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("file", "link"):
        with pytest.raises(MagicIDError) as refused:
            draw(tmp_path / name, force=force)
        assert refused.value.code == ("output-invalid" if force else "output-exists")
    assert (tmp_path / "file").read_text() == "precious"
    assert list((tmp_path / "real").iterdir()) == []


def test_a_file_above_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for name in ("file/album", "file/sub/album"):
        with pytest.raises(MagicIDError, match=f"{tmp_path / 'file'} is no folder") as refused:
            draw(tmp_path / name)
        assert refused.value.code == "output-invalid"
    assert (tmp_path / "file").read_text() == "precious"


def test_the_folder_somebody_stands_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MagicIDError, match="the folder you are in") as refused:
        draw(Path("."))
    assert refused.value.code == "output-invalid"


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [False, True])
def test_half_an_album_is_never_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException, old: bool
) -> None:
    folder = tmp_path / "album"
    before = content(draw(folder, 8).folder) if old else {}
    write, written = albums._write_photo, []

    def failing(path: Path, picture: np.ndarray, seed: int) -> None:
        write(path, picture, seed)
        written.append(path)
        if len(written) == 2:
            raise problem

    monkeypatch.setattr(albums, "_write_photo", failing)
    with pytest.raises((MagicIDError, KeyboardInterrupt)) as stopped:
        draw(folder, force=old)
    assert isinstance(problem, KeyboardInterrupt) or getattr(stopped.value, "code", "") == "disk-full"
    assert len(written) == 2
    assert (content(folder) if old else {}) == before
    assert list(tmp_path.iterdir()) == ([folder] if old else [])


def test_what_is_put_there_while_it_is_drawn_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "album"
    album = clips.album

    def slow(*arguments: Any) -> list[np.ndarray]:
        folder.mkdir()
        (folder / "mine.txt").write_text("precious")
        return album(*arguments)

    monkeypatch.setattr(albums, "album", slow)
    with pytest.raises(MagicIDError) as refused:
        draw(folder)
    assert refused.value.code == "output-exists"
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert list(tmp_path.iterdir()) == [folder]


# the command


def test_the_command_prints_the_folder_and_tells_what_to_do_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "her photos"
    assert main(["mini", "photos", str(folder), "--seed", "7", "--count", "2", "--size", "64"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{folder}\n"
    assert (
        "Person 7 is drawn and exists nowhere: a woman with curly red hair, blue eyes and round glasses."
        in captured.err
    )
    assert captured.err.endswith(f"Next: magicid customize '{folder}' --name alice --model mini --class-word woman\n")
    assert len(content(folder)) == 2


def test_json_says_who_is_in_the_album(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "album"
    assert main(["mini", "photos", str(folder), "--seed", "7", "--count", "2", "--size", "64", "--json"]) == 0
    told = outcome(capsys)
    assert (told["command"], told["ok"]) == ("mini photos", True)
    data = told["data"]
    assert (data["folder"], data["seed"], data["size"], data["drawn"]) == (str(folder), 7, 64, True)
    assert data["files"] == [str(folder / "photo-01.png"), str(folder / "photo-02.png")]
    assert data["person"]["looks"] == "a woman with curly red hair, blue eyes and round glasses"
    assert data["next"] == f"magicid customize {folder} --name alice --model mini --class-word woman"


def test_without_a_seed_somebody_new_to_the_model_is_drawn_and_can_be_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = []
    for name in ("a", "b", "c"):
        assert main(["mini", "photos", str(tmp_path / name), "--count", "1", "--size", "64", "--json"]) == 0
        seeds.append(outcome(capsys)["data"]["seed"])
    assert set(seeds) <= set(people.HELD_OUT)
    assert len(set(seeds)) > 1  # one in a million that not
    assert content(draw(tmp_path / "again", seeds[0], 1).folder) == content(tmp_path / "a")


def test_a_person_of_the_training_gets_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mini", "photos", str(tmp_path / "a"), "--seed", "1000", "--count", "1", "--size", "64"]) == 0
    assert "warning: Person 1000 is one of those that the miniature was trained on" in capsys.readouterr().err
    assert main(["mini", "photos", str(tmp_path / "b"), "--seed", "999", "--count", "1", "--size", "64"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["mini", "photos", str(tmp_path / "c"), "--seed", "1000000", "--count", "1", "--size", "64"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert 999_999 in people.TRAINED
    guide = (Path(__file__).parents[1] / "docs" / "how-to" / "train-the-miniature.md").read_text()
    assert "With 1000 to 999,999 the command warns" in " ".join(guide.split())


def test_force_says_that_it_replaces_albums_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mini", "photos", "--help"]) == 0
    assert "Replace the album that is in OUT" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_quiet_is_the_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mini", "photos", str(tmp_path / "a"), "--seed", "1000", "--count", "1", "--size", "64", "-q"]) == 0
    assert tuple(capsys.readouterr()) == (f"{tmp_path / 'a'}\n", "")


def test_a_full_folder_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "album")
    assert main(["mini", "photos", str(tmp_path / "album")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'album'} is not empty.\nhint: Name a new folder. An album is replaced with --force.\n"
    )
