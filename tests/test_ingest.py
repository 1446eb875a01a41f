"""Ingest against its contract: a verdict with a reason for every photo, one person, crops at the training size that
show the head, captions that may be edited by hand. The real detector looks at a real photo; people are told apart by a
recogniser whose answers the test chooses.
"""

import contextlib
import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from safetensors import safe_open

from magicid_cli import faces
from magicid_cli.choosing import comparing
from magicid_cli.config import PhotoSettings, Settings, ShapeSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.faces import Face, Faces, StandInDetector, StandInRecogniser
from magicid_cli.photos import decode
from magicid_cli.prompts.captions import template
from magicid_cli.stages import ingest
from magicid_cli.workspace import Workspace, read_lines, write_lines
from pictures import smooth
from tiny_onnx import write_recogniser


class ChosenPeople:
    """A recogniser that reads the person's angle, in degrees, from the red value of the picture's first pixel."""

    name = "chosen"
    made_by = "chosen angles"
    same_person = 0.25

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        angle = np.deg2rad(float(image[0, 0, 0]))
        return np.array([np.cos(angle), np.sin(angle)], np.float32)


Use = Callable[[Faces], None]
STAND_INS = Faces(StandInDetector(), StandInRecogniser())
CHOSEN = Faces(StandInDetector(), ChosenPeople())


@pytest.fixture
def real(shared_data: Path, tmp_path: Path) -> Faces:
    detector = faces.YuNet(shared_data / "face_detection_yunet.onnx", "yunet test (MIT)")
    network = write_recogniser(tmp_path / "sface.onnx")
    return Faces(detector, faces.OnnxRecogniser(network, "sface", name="sface", made_by="sface test"))


@pytest.fixture
def astronaut(shared_data: Path) -> Image.Image:
    return Image.open(shared_data / "astronaut.png").convert("RGB")


@pytest.fixture
def alice(tmp_path: Path) -> Workspace:
    workspace = Workspace("alice", tmp_path / "home")
    workspace.create()
    return workspace


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    return lambda chosen: monkeypatch.setattr(ingest, "open_faces", lambda *_, **__: chosen)


def wanted(size: str = "96x64", **photos: Any) -> Settings:
    return Settings(photos=replace(PhotoSettings(), **photos), shape=replace(ShapeSettings(), size=size))


def person(folder: Path, name: str, angle: int, seed: int) -> Path:
    """A picture of nobody in particular whose embedding is the angle."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = smooth(160, 160, seed, cell=6)
    pixels[0, 0] = angle
    path = folder / name
    Image.fromarray(pixels).save(path)
    return path


def album(folder: Path, angles: list[int]) -> list[Path]:
    return [person(folder, f"{number}.png", angle, number) for number, angle in enumerate(angles)]


def codes(photos: list[Path], settings: Settings, chosen: Faces, events: Events | None = None) -> list[str]:
    return [verdict.code for verdict in ingest.examine(photos, settings, chosen, events or Events()).verdicts]


def test_every_kind_of_photo_gets_its_verdict(tmp_path: Path, real: Faces, astronaut: Image.Image) -> None:
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(astronaut, (512, 0))
    beside_a_child = Image.new("RGB", (800, 512), "gray")
    beside_a_child.paste(astronaut, (0, 0))
    beside_a_child.paste(astronaut.resize((200, 200)), (560, 0))
    pictures = {
        "a good.png": (astronaut, "used"),
        "b mirrored.jpg": (astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "used"),
        "c closer.webp": (astronaut.crop((100, 0, 400, 300)), "used"),
        "d beside a child.png": (beside_a_child, "used"),
        "e again.jpg": (astronaut.resize((400, 400)), "near-duplicate"),
        "f two.png": (two, "several-faces"),
        "g far.png": (astronaut.resize((200, 200)), "face-too-small"),
        "h blurred.png": (astronaut.filter(ImageFilter.GaussianBlur(5)), "blurred"),
        "i suit.png": (astronaut.crop((180, 240, 512, 512)), "no-face"),
    }
    for name, (picture, _) in pictures.items():
        picture.save(tmp_path / name)
    (tmp_path / "j page.jpg").write_text("<html>")
    paths = [tmp_path / name for name in [*pictures, "j page.jpg"]]
    verdicts = ingest.examine(paths, wanted(), real, Events()).verdicts
    assert [verdict.code for verdict in verdicts] == [code for _, code in pictures.values()] + ["unreadable"]
    assert [verdict.file for verdict in verdicts] == [path.name for path in paths]
    for verdict in verdicts:
        assert verdict.reason.endswith(".") and bool(verdict.advice) == (verdict.code != "used")
    assert "a good.png" in verdicts[4].reason
    assert "web page" in verdicts[-1].reason and verdicts[-1].sha256 is None
    assert verdicts[0].face is not None and verdicts[0].face["box"] == pytest.approx([178, 62, 91, 116], abs=12)


def test_thresholds_are_settings(tmp_path: Path, real: Faces, astronaut: Image.Image) -> None:
    path = tmp_path / "a.png"
    astronaut.resize((200, 200)).filter(ImageFilter.GaussianBlur(1)).save(path)
    assert codes([path], wanted(min_face=30, min_sharpness=1), real) == ["used"]
    assert codes([path], wanted(min_face=40, min_sharpness=1), real) == ["face-too-small"]
    assert codes([path], wanted(min_face=30, min_sharpness=60), real) == ["blurred"]


def test_examining_writes_nothing_and_reports_each_photo(tmp_path: Path) -> None:
    photos = album(tmp_path / "photos", [0, 0, 0])
    before = sorted(tmp_path.rglob("*"))
    heard: list[Event] = []
    assert codes(photos, wanted(), CHOSEN, Events(heard.append)) == ["used"] * 3
    assert sorted(tmp_path.rglob("*")) == before
    steps = [event.data for event in heard if event.kind == "step"]
    assert [(step["step"], step["of"], step["file"], step["verdict"]) for step in steps] == [
        (number + 1, 3, f"{number}.png", "used") for number in range(3)
    ]
    assert str(tmp_path) not in json.dumps(steps)


def test_of_duplicates_the_best_stays_unless_all_are_wanted(tmp_path: Path) -> None:
    original = Image.fromarray(smooth(300, 300, 3, cell=30))
    pictures = [original.resize((200, 200)), original, original.filter(ImageFilter.GaussianBlur(1)), original]
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    verdicts = ingest.examine(paths, wanted(min_sharpness=0), STAND_INS, Events()).verdicts
    assert [verdict.code for verdict in verdicts] == ["near-duplicate", "used", "near-duplicate", "near-duplicate"]
    assert all("1.png" in verdict.reason for verdict in verdicts if verdict.code != "used")
    assert codes(paths, wanted(min_sharpness=0, keep_duplicates=True), STAND_INS) == ["used"] * 4


def noisy(picture: Image.Image, amount: float) -> Image.Image:
    pixels = np.asarray(picture).astype(float) + np.random.default_rng(0).normal(0, amount, (*picture.size[::-1], 3))
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def test_noise_is_no_sharpness(tmp_path: Path, real: Faces, astronaut: Image.Image) -> None:
    """A blurred copy with noise, a noisy and a dithered one, each beside the original under another file format."""
    blurred = astronaut.filter(ImageFilter.GaussianBlur(3))
    copies = {
        "blurred.png": (blurred, "blurred"),
        "blurred noisy.png": (noisy(blurred, 20), "blurred"),
        "noisy.png": (noisy(astronaut, 10), "near-duplicate"),
        "dithered.png": (astronaut.quantize(256), "near-duplicate"),
        "few colours.gif": (astronaut.quantize(16), "near-duplicate"),
        "smaller.png": (astronaut.resize((380, 380)), "near-duplicate"),
        "again.jpg": (astronaut, "near-duplicate"),
        "original.png": (astronaut, "used"),
    }
    for name, (picture, _) in copies.items():
        picture.save(tmp_path / name)
    verdicts = ingest.examine([tmp_path / name for name in copies], wanted(), real, Events()).verdicts
    assert {verdict.file: verdict.code for verdict in verdicts} == {name: code for name, (_, code) in copies.items()}
    assert all("original.png" in verdict.reason for verdict in verdicts if verdict.code == "near-duplicate")
    # Also where the original is the smaller file of a lossy format.
    astronaut.save(tmp_path / "original.jpg", quality=90)
    for name in ("noisy.png", "dithered.png"):
        paths = [tmp_path / name, tmp_path / "original.jpg"]
        assert codes(paths, wanted(), real) == ["near-duplicate", "used"]


def test_sharpness_is_the_same_in_little_light(tmp_path: Path, real: Faces, astronaut: Image.Image) -> None:
    beside_a_window = np.asarray(astronaut) * np.linspace(1.0, 0.15, 512)[None, :, None]
    pictures = {
        "bright": astronaut,
        "a third": ImageEnhance.Brightness(astronaut).enhance(1 / 3),
        "grey day": ImageEnhance.Contrast(astronaut).enhance(0.4),
        "window": Image.fromarray(beside_a_window.astype(np.uint8)),
        "grainy": noisy(ImageEnhance.Brightness(astronaut).enhance(1 / 3), 6),
    }
    values = {}
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        (verdict,) = ingest.examine([tmp_path / f"{name}.png"], wanted(), real, Events()).verdicts
        assert verdict.code == "used" and verdict.face is not None
        values[name] = verdict.face["sharpness"]
    assert max(values.values()) < 1.2 * min(values.values()), values


def test_over_the_limit_only_the_best_half_is_chosen_from(tmp_path: Path) -> None:
    paths = []
    for number, side in enumerate((200, 320, 240, 280)):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(smooth(160, 160, number, cell=20)).resize((side, side)).save(paths[-1])
    examined = ingest.examine(paths, wanted(limit=1, min_sharpness=0), STAND_INS, Events())
    verdicts = examined.verdicts
    values = [verdict.face["sharpness"] * min(verdict.face["box"][2:]) for verdict in verdicts if verdict.face]
    order = np.argsort(values)[::-1].tolist()
    assert [verdicts[place].code for place in order] == ["used", *["over-limit"] * 3]
    assert "differ more" in verdicts[order[1]].reason
    assert all("2 better ones" in verdicts[place].reason for place in order[2:])
    assert examined.rule.startswith("1 of 4 good photos are taken: of the 2 best")


def test_light_comes_before_sharpness(tmp_path: Path, real: Faces, astronaut: Image.Image) -> None:
    for name, factor in (("dark.png", 0.12), ("glare.png", 1.8)):
        ImageEnhance.Brightness(astronaut).enhance(factor).save(tmp_path / name)
    paths = [tmp_path / "dark.png", tmp_path / "glare.png"]
    assert codes(paths, wanted(keep_duplicates=True), real) == ["too-dark", "blown-out"]
    settings = wanted(keep_duplicates=True, min_light=10, max_blown_out=1.0, min_sharpness=1)
    assert codes(paths, settings, real) == ["used", "used"]


def unit(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def test_strangers_by_hand() -> None:
    # The mean of 0° and 20° is 10°: 110° is 100° away, cosine -0.17. Then 0° and 20° remain.
    assert comparing.strangers(unit(0, 110, 20), 0.25) == {1: pytest.approx(np.cos(np.deg2rad(100)))}
    # A profile 60° off the mean of the others is the same person (0.5 >= 0.25), 80° off is not (0.17).
    assert comparing.strangers(unit(0, 0, 0, 60), 0.25) == {}
    assert list(comparing.strangers(unit(0, 0, 0, 80), 0.25)) == [3]
    # Two odd ones: neither spoils the mean for the photos that belong together.
    assert set(comparing.strangers(unit(0, 10, 170, 5, 190), 0.25)) == {2, 4}
    # Everybody different: two are left, because two cannot tell which is odd.
    assert len(comparing.strangers(unit(0, 90, 180, 270), 0.25)) == 2
    assert comparing.strangers(unit(0, 180), 0.25) == {} == comparing.strangers(np.empty((0, 2)), 0.25)


def test_different_people_are_refused_by_name(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(CHOSEN)
    photos = album(tmp_path / "photos", [0, 10, 120, 20])
    assert codes(photos, wanted(), CHOSEN) == ["used", "used", "other-person", "used"]
    with pytest.raises(MagicIDError) as caught:
        ingest.run(alice, wanted(), Events(), photos=photos)
    assert caught.value.code == "photos-several-people" and caught.value.exit_code == 4
    assert "2.png" in caught.value.message and "0.png" not in caught.value.message and "--force" in caught.value.hint
    assert not alice.references.exists()


def test_force_uses_them_and_says_so(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(CHOSEN)
    heard: list[Event] = []
    photos = album(tmp_path / "photos", [0, 10, 120, 20])
    result = ingest.run(alice, wanted(force=True), Events(heard.append), photos=photos)
    assert result.used == 4
    notices = [event.data["message"] for event in heard if event.kind == "notice"]
    assert len(notices) == 1 + len(result.advice)
    assert "2.png" in notices[0] and "--force" in notices[0]


@pytest.mark.parametrize(("angle", "warned"), [(60, False), (120, True)])
def test_two_photos_only_warn(tmp_path: Path, alice: Workspace, use: Use, angle: int, warned: bool) -> None:
    use(CHOSEN)
    heard: list[Event] = []
    photos = album(tmp_path / "photos", [0, angle])
    assert ingest.run(alice, wanted(), Events(heard.append), photos=photos).used == 2
    said = [event.data["message"] for event in heard if event.kind == "notice"]
    assert sum("different people" in message for message in said) == int(warned)


def test_the_stand_in_never_refuses_people(tmp_path: Path) -> None:
    assert codes(album(tmp_path, [0] * 6), wanted(), STAND_INS) == ["used"] * 6


def test_no_usable_photo_is_an_error_that_lists_reasons(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    photos = [tmp_path / f"{number}.jpg" for number in range(7)]
    for path in photos:
        path.write_bytes(b"")
    with pytest.raises(MagicIDError) as caught:
        ingest.run(alice, wanted(), Events(), photos=photos)
    assert caught.value.code == "photos-none-usable" and caught.value.exit_code == 4
    assert "0.jpg: It cannot be read: the file is empty" in caught.value.message
    assert "2 more" in caught.value.message and "magicid prepare" in caught.value.hint
    assert str(tmp_path) not in caught.value.message
    with pytest.raises(MagicIDError, match=r"^The only photo cannot be used\. 0\.jpg: It cannot be read"):
        ingest.run(alice, wanted(), Events(), photos=photos[:1])
    with pytest.raises(MagicIDError, match="None of the 0 photos can be used"):
        ingest.run(alice, wanted(), Events(), photos=[])


def test_where_no_photo_shows_a_face_the_finder_says_what_to_do(tmp_path: Path) -> None:
    class Nothing(StandInDetector):
        advice = "Draw one."

        def find(self, image: np.ndarray) -> list[Face]:
            return []

    blind = Faces(Nothing(), StandInRecogniser())
    photos = album(tmp_path, [0, 0])
    verdicts = ingest.examine(photos, wanted(), blind, Events()).verdicts
    assert [(verdict.code, verdict.advice) for verdict in verdicts] == [("no-face", "Draw one.")] * 2
    with pytest.raises(MagicIDError) as caught:
        ingest.refuse(verdicts, "Look at each.")
    assert caught.value.hint == "Draw one."
    (tmp_path / "broken.png").write_bytes(b"")
    verdicts = ingest.examine([*photos, tmp_path / "broken.png"], wanted(), blind, Events()).verdicts
    with pytest.raises(MagicIDError) as caught:
        ingest.refuse(verdicts, "Look at each.")
    assert caught.value.hint == "Look at each."


def test_references_are_written(
    tmp_path: Path, alice: Workspace, real: Faces, astronaut: Image.Image, use: Use
) -> None:
    use(real)
    folder = tmp_path / "Fotos von mir 写真 🙂"
    folder.mkdir()
    astronaut.save(folder / "größe.png")
    ImageEnhance.Brightness(astronaut.crop((60, 0, 360, 300))).enhance(1.3).save(folder / "b.jpg")
    (folder / "c.jpg").write_bytes(b"")
    heard: list[Event] = []
    photos = sorted(folder.iterdir())
    settings = wanted("544x320", class_word="woman")
    result = ingest.run(alice, settings, Events(heard.append), photos=photos)
    assert (result.used, result.refused) == (2, (("c.jpg", "unreadable"),))
    assert result.captions == alice.references / "captions.jsonl"
    said = [event.data["message"] for event in heard if event.kind == "notice"]
    assert said == [
        "2 of 3 photos are used; left out: c.jpg (unreadable).",
        *(one.text for one in result.advice),
    ]
    assert [one.code for one in result.advice][0] == "few-photos"

    rows = read_lines(alice.references / "photos.jsonl")
    assert [(row["file"], row["verdict"], row["crop"]) for row in rows] == [
        ("b.jpg", "used", "000.png"),
        ("c.jpg", "unreadable", None),
        ("größe.png", "used", "001.png"),
    ]
    assert rows[2]["sha256"] == ingest.content_digest(folder / "größe.png")
    face = rows[2]["face"]
    assert {"light", "blown_out", "pose", "enlarged", "likeness", "without_eyes", "same_background"} <= set(face)
    assert face["light"] == pytest.approx(222, abs=10) and set(face["pose"]) == {"yaw", "pitch", "roll"}
    captions = read_lines(alice.references / "captions.jsonl")
    assert [(row["crop"], row["caption"]) for row in captions] == [
        (name, template("woman")) for name in ("000.png", "001.png")
    ]
    for name in ("000.png", "001.png"):
        crop = decode(alice.references / name).rgb
        assert crop.shape == (320, 544, 3)
        face = real.detector.find(crop)[0]
        # Head and shoulders: hair above, at least as much below the chin, nothing beside cut off.
        x, y, width, height = face.box
        assert y > 0.35 * height and 320 - (y + height) > 0.6 * height
        assert x > 0.5 * width and 544 - (x + width) > 0.5 * width

    with safe_open(alice.references / "embeddings.safetensors", "numpy") as file:
        embeddings, made_by = file.get_tensor("embeddings"), file.metadata()["made_by"]
    assert embeddings.shape == (2, 128) and embeddings.dtype == np.float32
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    assert made_by == f"{real.detector.made_by}; {real.recogniser.made_by}"


def test_a_persons_files_are_private(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    ingest.run(alice, wanted(), Events(), photos=album(tmp_path / "photos", [0, 1]))
    assert stat.S_IMODE(alice.path.stat().st_mode) == 0o700
    for path in alice.references.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_the_same_photos_give_the_same_bytes(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    photos = album(tmp_path / "photos", [0, 1, 2])
    ingest.run(alice, wanted(), Events(), photos=photos)
    first = {path.name: path.read_bytes() for path in alice.references.iterdir()}
    ingest.run(alice, wanted(), Events(), photos=photos)
    assert {path.name: path.read_bytes() for path in alice.references.iterdir()} == first


def test_crops_that_nothing_names_any_more_are_removed(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    photos = album(tmp_path / "photos", [0, 1, 2])
    ingest.run(alice, wanted(), Events(), photos=photos)
    ingest.run(alice, wanted(), Events(), photos=photos[:1])
    assert sorted(path.name for path in alice.references.glob("*.png")) == ["000.png"]


def test_read_only_photos_are_enough(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    photos = album(tmp_path / "photos", [0])
    photos[0].chmod(0o400)
    photos[0].parent.chmod(0o500)
    try:
        assert ingest.run(alice, wanted(), Events(), photos=photos).used == 1
    finally:
        photos[0].parent.chmod(0o700)


def edit(workspace: Workspace, crop: str, caption: str) -> None:
    path = workspace.references / "captions.jsonl"
    write_lines(path, [{**row, "caption": caption} if row["crop"] == crop else row for row in read_lines(path)])


def captions(workspace: Workspace) -> dict[str, str]:
    return {row["crop"]: row["caption"] for row in read_lines(workspace.references / "captions.jsonl")}


def test_an_edited_caption_stays_with_its_crop(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    photos = album(tmp_path / "photos", [0, 1, 2])
    ingest.run(alice, wanted(), Events(), photos=photos[1:])
    edit(alice, "001.png", "a person with a red hat")
    # Another photo comes first: the crop is called 002 now; the class word changes: the other captions follow.
    ingest.run(alice, wanted(class_word="man"), Events(), photos=photos)
    expected = {"000.png": template("man"), "001.png": template("man"), "002.png": "a person with a red hat"}
    assert captions(alice) == expected
    ingest.run(alice, wanted(class_word="woman"), Events(), photos=photos)
    assert captions(alice)["002.png"] == "a person with a red hat" and captions(alice)["000.png"] == template("woman")


def forget_photos(workspace: Workspace) -> None:
    """Make `captions.jsonl` one of an earlier version, which names only crops."""
    path = workspace.references / "captions.jsonl"
    write_lines(path, [{key: value for key, value in row.items() if key != "photo"} for row in read_lines(path)])


@pytest.mark.parametrize("earlier", [False, True])
def test_an_edited_caption_stays_with_its_photo_when_the_crop_changes(
    tmp_path: Path, alice: Workspace, use: Use, earlier: bool
) -> None:
    """Also where the file is of an earlier version, and another photo comes first."""
    use(STAND_INS)
    photos = album(tmp_path / "photos", [0, 1, 2])
    ingest.run(alice, wanted(), Events(), photos=photos[1:])
    edit(alice, "001.png", "a person with a red hat")
    if earlier:
        forget_photos(alice)
    ingest.run(alice, wanted("64x96"), Events(), photos=photos)
    plain = template("person")
    assert captions(alice) == {"000.png": plain, "001.png": plain, "002.png": "a person with a red hat"}
    ingest.run(alice, wanted(class_word="man"), Events(), photos=photos)
    assert captions(alice)["002.png"] == "a person with a red hat" and captions(alice)["000.png"] == template("man")
    assert not (alice.references / ingest.ASIDE).exists()


def test_the_same_pixels_in_another_file_keep_the_edited_caption(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    (photo,) = album(tmp_path / "photos", [0])
    ingest.run(alice, wanted(), Events(), photos=[photo])
    edit(alice, "000.png", "a person with a red hat")
    Image.open(photo).save(photo.with_name("again.png"), compress_level=1)
    ingest.run(alice, wanted(), Events(), photos=[photo.with_name("again.png")])
    assert captions(alice) == {"000.png": "a person with a red hat"}


@pytest.mark.parametrize("earlier", [False, True])
def test_the_edited_caption_of_a_photo_left_out_comes_back_with_it(
    tmp_path: Path, alice: Workspace, use: Use, earlier: bool
) -> None:
    """At another size, too; meanwhile it is said once where it is kept, and nothing that reads captions sees it."""
    use(STAND_INS)
    photos, heard = album(tmp_path / "photos", [0, 1]), list[Event]()
    ingest.run(alice, wanted(), Events(), photos=photos)
    edit(alice, "001.png", "a person with a red hat")
    if earlier:
        forget_photos(alice)
    for _ in range(2):
        ingest.run(alice, wanted(), Events(heard.append), photos=photos[:1])
        assert captions(alice) == {"000.png": template("person")}
    aside = alice.references / ingest.ASIDE
    (said,) = [
        event.data["message"] for event in heard if event.kind == "notice" and "caption" in event.data["message"]
    ]
    assert "1.png" in said and str(aside) in said
    ingest.run(alice, wanted("64x96"), Events(), photos=photos)
    assert captions(alice) == {"000.png": template("person"), "001.png": "a person with a red hat"}
    assert not aside.exists()


def test_an_edited_caption_survives_a_crash_while_it_is_set_aside(
    tmp_path: Path, alice: Workspace, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the writing ends, the same photos afterwards have the same captions, and none is kept twice."""
    use(STAND_INS)
    photos, real, left = album(tmp_path / "photos", [0, 1]), ingest.write_lines, 0

    def write(path: Path, rows: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("no space")
        real(path, rows)

    for wanted_photos in (photos[:1], photos):
        for writes in range(4):
            ingest.run(alice, wanted(), Events(), photos=photos)
            edit(alice, "001.png", "a person with a red hat")
            monkeypatch.setattr(ingest, "write_lines", write)
            left = writes
            with contextlib.suppress(OSError):
                ingest.run(alice, wanted("64x96"), Events(), photos=wanted_photos)
            monkeypatch.setattr(ingest, "write_lines", real)
            ingest.run(alice, wanted(), Events(), photos=photos)
            assert captions(alice) == {"000.png": template("person"), "001.png": "a person with a red hat"}
            assert not (alice.references / ingest.ASIDE).exists()


def test_rows_written_by_hand_without_the_other_fields_do_no_harm(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    photos = album(tmp_path / "photos", [0])
    write_lines(alice.references / "captions.jsonl", [{"crop": "000.png", "caption": "mine"}, {"crop": "x"}])
    ingest.run(alice, wanted(), Events(), photos=photos)
    assert captions(alice) == {"000.png": template("person")}


def test_inputs_are_the_photos_content(tmp_path: Path, alice: Workspace) -> None:
    photos = album(tmp_path / "photos", [0, 1])
    known = ingest.inputs(alice, photos)
    renamed = tmp_path / "renamed.png"
    shutil.copy(photos[0], renamed)
    assert ingest.inputs(alice, [photos[1], renamed]) == known
    assert ingest.inputs(alice, photos[:1]) != known
    renamed.write_bytes(renamed.read_bytes() + b"x")
    assert ingest.inputs(alice, [photos[1], renamed]) != known
    (tmp_path / "gone.png").symlink_to("nowhere")
    assert "unreadable" in ingest.inputs(alice, [tmp_path / "gone.png"])["photos"]


def test_outputs_notice_a_changed_crop_but_not_an_edited_caption(tmp_path: Path, alice: Workspace, use: Use) -> None:
    use(STAND_INS)
    ingest.run(alice, wanted(), Events(), photos=album(tmp_path / "photos", [0, 1]))
    known = ingest.outputs(alice)
    edit(alice, "000.png", "edited")
    assert ingest.outputs(alice) == known
    (alice.references / "001.png").write_bytes(b"")
    assert ingest.outputs(alice) != known
    ingest.run(alice, wanted(), Events(), photos=album(tmp_path / "photos", [0, 1]))
    assert ingest.outputs(alice) == known
    (alice.references / "captions.jsonl").unlink()
    assert ingest.outputs(alice) != known


def test_every_setting_it_reads_exists_and_every_photo_setting_is_among_them() -> None:
    from magicid_cli.config import subset

    read = subset(Settings(), ingest.READS)
    assert {name for name in read if name.startswith("photos.")} == {
        f"photos.{name}" for name in PhotoSettings.__dataclass_fields__
    }
    assert {"model.name", "shape.size", "rewards.face_detector", "rewards.face_model"} <= set(read)
