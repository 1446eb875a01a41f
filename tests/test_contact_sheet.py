"""The contact sheet against what was drawn into the photos, and `prepare`'s promises about where it goes."""

import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from album import drawn_photos
from fake_run import outcome
from magicid_cli import contact_sheet
from magicid_cli.cli import verdicts
from magicid_cli.cli.app import main
from magicid_cli.cli.output import Terminal
from magicid_cli.contact_sheet import BAD, GOOD, Tile
from magicid_cli.errors import MagicIDError
from magicid_cli.photos import SHEET_TITLE, decode, expand, says_sheet
from magicid_cli.workspace import Workspace


def tile(path: Path, name: str = "", *, box: Any = None, aspect: float = 1.0, **facts: Any) -> Tile:
    shown = None if path.suffix == ".jpg" else contact_sheet.shown(decode(path).rgb, box, aspect)
    values: dict[str, Any] = {"verdict": "used", "colour": GOOD, "lines": (), "shown": shown}
    return Tile(name or path.name, **{**values, **facts})


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def close_to(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    near: np.ndarray = np.abs(picture - colour).max(-1) < 12
    return near


def test_the_box_is_drawn_around_the_face_in_the_crop(tmp_path: Path) -> None:
    # A yellow face on blue: the box belongs exactly around it, wherever the crop lies.
    rgb = np.zeros((400, 300, 3), np.uint8)
    rgb[:] = (20, 40, 200)
    rgb[150:230, 120:180] = (240, 220, 40)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    sheet = tmp_path / "sheet.png"
    face = (120.0, 150.0, 60.0, 80.0)
    contact_sheet.write(sheet, [tile(tmp_path / "a.png", box=face, aspect=544 / 320)], ["One"], 544 / 320)
    picture = pixels(sheet)
    box, yellow = np.argwhere(close_to(picture, GOOD)), np.argwhere(close_to(picture, (240, 220, 40)))
    first = box[box[:, 0] < yellow[:, 0].max() + 4]  # below it, the verdict has the same colour
    assert np.abs(first.min(0) - yellow.min(0)).max() <= 3 and np.abs(first.max(0) - yellow.max(0)).max() <= 3


def test_what_cannot_be_read_has_an_empty_place_and_nobody_is_cut_away(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    Image.new("RGB", (900, 300), (30, 160, 160)).save(tmp_path / "wide.png")
    tiles = [tile(tmp_path / "page.jpg", colour=BAD, verdict="unreadable"), tile(tmp_path / "wide.png")]
    sheet = tmp_path / "sheet.png"
    contact_sheet.write(sheet, tiles, ["Two", "a line"], 1.0)
    teal = np.argwhere(close_to(pixels(sheet), (30, 160, 160)))
    height, width = teal.max(0) - teal.min(0) + 1
    assert width / height == pytest.approx(3, rel=0.05), "the whole photo is shown where there is no face"
    assert close_to(pixels(sheet), BAD).any()


def test_a_sheet_is_private_and_takes_any_name_and_number(tmp_path: Path) -> None:
    photo = drawn_photos(tmp_path, 1)[0]
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"before")
    sheet.chmod(0o644)
    names = ["ü 写真 🙂", "line\nbreak\t\x1b[31m", "n" * 250, "", "‮evil"]
    tiles = [
        tile(photo, name, lines=("a long reason " * 30, "x" * 300), box=(90, 90, 70, 80), aspect=0.5) for name in names
    ]
    contact_sheet.write(sheet, tiles * 50, ["Many", "b" * 500], 0.5)
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    with Image.open(sheet) as image:
        assert image.format == "PNG" and image.text == {"Title": SHEET_TITLE, "Software": "magicid"}  # type: ignore[attr-defined]
        many = image.size
    contact_sheet.write(sheet, (tiles * 50)[: contact_sheet.MOST], ["Many", "b" * 500, "one more line"], 0.5)
    with Image.open(sheet) as image:
        assert image.size == many, "beyond the most there is one line instead of the photos"
    pens = contact_sheet._Pens()
    assert pens.written("résumé 写 x\n.jpg") in ("resume ? x?.jpg", "résumé ? x?.jpg")
    (one,) = pens.wrapped("a" + "x" * 300 + "b", 200)
    assert 150 < pens.small.getlength(one) <= 200 and one[0] == "a" and one[-1] == "b"


def test_where_the_sheet_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    terminal, default = Terminal(), tmp_path / "magicid-sheet.png"
    assert verdicts.destination(None, terminal) == default
    default.touch()
    assert verdicts.destination(None, terminal) == tmp_path / "magicid-sheet-2.png"
    (tmp_path / "there").mkdir()
    assert verdicts.destination(Path("there"), terminal) == tmp_path / "there" / "magicid-sheet.png"
    assert verdicts.destination(Path("new/mine.PNG"), terminal) == Path("new/mine.PNG")
    Path("mine.png").symlink_to("nowhere")
    drawn_photos(tmp_path / "photos", 1)
    for named, code in (
        ("magicid-sheet.png", "output-exists"),
        ("mine.png", "output-exists"),
        ("photos/photo 0.png", "output-exists"),
        ("sheet.jpg", "output-invalid"),
        ("n" * 300 + ".png", "output-invalid"),
        ("/dev/null/sheet.png", "output-invalid"),
    ):
        with pytest.raises(MagicIDError) as caught:
            verdicts.destination(Path(named), terminal)
        assert caught.value.code == code and ("--sheet" in caught.value.hint or ".png" in caught.value.hint)
        assert "--force" not in caught.value.hint
    # A sheet is replaced by the next one, whatever its name; a second one does not lie about.
    for name in ("magicid-sheet-2.png", "of anna.png"):
        contact_sheet.write(tmp_path / name, [tile(tmp_path / "none.jpg")], ["None"], 1.0)
    assert verdicts.destination(None, terminal) == tmp_path / "magicid-sheet-2.png"
    assert verdicts.destination(Path("of anna.png"), terminal) == Path("of anna.png")

    def closed(path: Path, option: str) -> None:
        raise MagicIDError("output-invalid", "Nothing can be written here.", f"Name another with {option}.")

    monkeypatch.setattr("magicid_cli.destinations.require_writable", closed)
    assert verdicts.destination(None, terminal) is None
    assert "No contact sheet is written. Nothing can be written here." in capsys.readouterr().err


def test_prepare_shows_verdicts_advice_and_the_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    drawn_photos(photos, 3)
    (photos / "page.jpg").write_text("<html>")
    assert main(["prepare", "photos", "--model", "tiny", "--json", "--max-photos", "2"]) == 0
    data = outcome(capsys)["data"]
    assert [one["code"] for one in data["photos"]].count("used") == 2
    assert data["sheet"] == str(tmp_path / "magicid-sheet.png")
    assert {"code", "text"} == set(data["advice"][0]) and data["rule"].startswith("2 of 3 good photos")
    face = data["photos"][1]["face"]
    assert {"light", "blown_out", "pose", "enlarged"} <= set(face) and face["pose"] is None
    assert stat.S_IMODE((tmp_path / "magicid-sheet.png").stat().st_mode) == 0o600
    # The sheet of a run inside the folder is no photo of the next one.
    (photos / "magicid-sheet.png").write_bytes((tmp_path / "magicid-sheet.png").read_bytes())
    assert len(expand(["photos"])) == 4
    assert main(["prepare", "photos", "--model", "tiny", "--max-photos", "2"]) == 0
    shown = capsys.readouterr().out
    assert "Chosen: 2 of 3 good photos" in shown and "What would help most:\n1. With two photos" in shown
    assert f"Contact sheet: {tmp_path / 'magicid-sheet.png'}" in shown
    assert main(["prepare", "--model", "tiny", "--sheet", "new.png"]) == 2
    assert "no photos to show" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("*.png")] == ["magicid-sheet.png"]


def test_force_is_about_people_and_never_about_the_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn_photos(tmp_path / "photos", 1)
    (tmp_path / "holiday.png").write_bytes(b"mine")
    command = ["prepare", "photos", "--model", "tiny", "-q", "--sheet"]
    assert main([*command, "mix.png"]) == 0 and says_sheet(tmp_path / "mix.png")
    first = (tmp_path / "mix.png").stat().st_ino
    assert main([*command, "mix.png"]) == 0 and (tmp_path / "mix.png").stat().st_ino != first
    assert main([*command, "holiday.png", "--force"]) == 2
    assert (tmp_path / "holiday.png").read_bytes() == b"mine"


def test_each_photo_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from magicid_cli.choosing import looking

    monkeypatch.chdir(tmp_path)
    drawn_photos(tmp_path / "photos", 3)
    decoded: list[str] = []

    def noted(path: Path) -> Any:
        decoded.append(path.name)
        return decode(path)

    monkeypatch.setattr(looking, "decode", noted)
    monkeypatch.setattr(contact_sheet, "decode", noted, raising=False)
    assert main(["prepare", "photos", "--model", "tiny", "-q"]) == 0
    assert sorted(decoded) == [f"photo {number}.png" for number in range(3)]
    sheet = pixels(tmp_path / "magicid-sheet.png")
    assert len(np.unique(sheet[100:300].reshape(-1, 3), axis=0)) > 500, "the photos are on the sheet"


def test_quiet_and_json_print_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn_photos(tmp_path / "photos", 1)
    for flag in ("-q", "--json"):
        assert main(["prepare", "photos", "--model", "tiny", flag]) == 0
        assert "STAGE" not in capsys.readouterr().err
    assert main(["prepare", "photos", "--model", "tiny"]) == 0
    assert "STAGE" in capsys.readouterr().err


def test_odd_names_leave_the_table_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (photo,) = drawn_photos(tmp_path / "photos", 1)
    broken, long = "two\nlines\t.jpg", "a" + "x" * 190 + "z.jpg"
    for name in (broken, long):
        (photo.parent / name).write_bytes(b"")
    assert main(["prepare", "photos", "--model", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line[:3].strip().isdigit()]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert any("two\\x0alines\\x09.jpg" in row for row in rows)
    (shortened,) = (row for row in rows if "axxx" in row)
    assert "xxz.jpg" in shortened and "…" in shortened
    header = next(line for line in lines if line.startswith("#"))
    assert header.index("VERDICT") < 60
    assert main(["prepare", "photos", "--model", "tiny", "--json"]) == 0
    assert {broken, long} <= {one["file"] for one in outcome(capsys)["data"]["photos"]}, "programs get the name itself"


def test_a_finished_identity_is_its_owners_alone(alice: Path) -> None:
    folder = Workspace("alice").path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    private = list((folder / "references").iterdir())
    private += [path for path in (folder / "reconstruct" / "static").iterdir() if path.is_file()]
    private += [*(folder / "repository" / "clips").iterdir(), folder / "manifest.json"]
    assert len(private) > 10
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in private} == {
        path.name: "0o600" for path in private
    }
