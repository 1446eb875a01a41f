"""Photo files against hand arithmetic (what the format's definition says the pixels are) and one contract: whatever a
file contains, it is decoded or refused with a reason, within 1 GB.
"""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from magicid_cli.errors import MagicIDError
from magicid_cli.photos import (
    NEAR_DUPLICATE_BITS,
    SHEET_TITLE,
    Unreadable,
    content_digest,
    decode,
    expand,
    hash_distance,
    name_of,
    perceptual_hash,
)
from pictures import chunk, linear_profile, png, smooth

STRANGE_NAMES = [
    "with space.png",
    "größe äöü.png",
    "写真 顔.png",
    "🙂 me.png",
    "-v.png",
    "%03d.png",
    "n" * 200 + ".png",
]


def saved(folder: Path, name: str, image: Image.Image, **options: Any) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def reason(path: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        decode(path)
    assert caught.value.advice
    return caught.value.reason


# What a camera stores, by EXIF's definition of the tag, for the picture that should be seen.
STORED = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif"])
def test_every_exif_orientation_comes_out_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    seen = np.zeros((48, 80, 3), np.uint8)
    seen[:24, :40], seen[:24, 40:], seen[24:, :40] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](seen)))
    path = saved(tmp_path, f"photo.{suffix}", stored, exif=exif, quality=95)
    rgb = decode(path).rgb
    assert rgb.shape == seen.shape
    # Away from the edges, where chroma subsampling mixes neighbours.
    for row, column in ((12, 20), (12, 60), (36, 20), (36, 60)):
        assert np.abs(rgb[row, column].astype(int) - seen[row, column]).max() <= 12


def test_heic_is_decoded_upright_where_the_plug_in_is_there(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    seen = smooth(96, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(seen, 1)))
    photo = decode(saved(tmp_path, "phone.heic", stored, quality=95, exif=exif.tobytes()))
    assert photo.rgb.shape == seen.shape
    assert np.abs(photo.rgb.astype(int) - seen).mean() < 6


def test_without_the_plug_in_heic_is_refused_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = written(tmp_path, "a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(Unreadable) as caught:
        decode(path)
    assert "pip install" in caught.value.advice


def test_sixteen_bit_grey_is_scaled_by_257(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    rgb = decode(saved(tmp_path, "grey.png", Image.fromarray(values))).rgb
    assert (rgb == np.arange(256).reshape(16, 16, 1)).all()


def test_sixteen_bit_rgb_is_scaled_by_257(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    rgb = decode(written(tmp_path, "rgb.png", png(8, 8, 16, 2, values.astype(">u2").tobytes()))).rgb
    assert np.abs(rgb - values / 257).max() <= 1


def test_cmyk_is_not_inverted(tmp_path: Path) -> None:
    # Ink: none, all four, cyan, magenta + yellow.
    inks = np.zeros((16, 64, 4), np.uint8)
    inks[:, 16:32], inks[:, 32:48, 0], inks[:, 48:, 1:3] = 255, 255, 255
    path = saved(tmp_path, "print.jpg", Image.fromarray(inks, "CMYK"), quality=95)
    assert b"Adobe" in path.read_bytes()
    rgb = decode(path).rgb[8, 8::16].astype(int)
    expected = [(255, 255, 255), (0, 0, 0), (0, 255, 255), (255, 0, 0)]
    assert np.abs(rgb - expected).max() <= 8


def without_adobes_mark(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def test_ink_is_inverted_only_where_adobe_inverted_it(tmp_path: Path) -> None:
    # Pillow stores 255 - ink and Adobe's mark: without the mark, the same bytes are what they say.
    inks = np.zeros((16, 64, 4), np.uint8)
    inks[:, 16:32], inks[:, 32:48, 0], inks[:, 48:, 1:3] = 255, 255, 255
    buffer = io.BytesIO()
    Image.fromarray(255 - inks, "CMYK").save(buffer, "JPEG", quality=95)
    path = written(tmp_path, "plain.jpg", without_adobes_mark(buffer.getvalue()))
    expected = [(255, 255, 255), (0, 0, 0), (0, 255, 255), (255, 0, 0)]
    assert np.abs(decode(path).rgb[8, 8::16].astype(int) - expected).max() <= 8


def test_without_avif_in_pillow_the_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import features

    path = saved(tmp_path, "a.avif", Image.new("RGB", (8, 8)))
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    assert "cannot read AVIF" in reason(path)


def test_transparency_is_shown_over_white(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8).repeat(3, 0), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = saved(tmp_path, "palette.png", palette, transparency=bytes([255, 0, 128]))
    assert decode(path).rgb[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 255]]
    grey_alpha = Image.fromarray(np.array([[[100, 255], [100, 0]]], np.uint8), "LA")
    assert decode(saved(tmp_path, "la.png", grey_alpha)).rgb[0].tolist() == [[100] * 3, [255] * 3]
    keyed = png(2, 1, 8, 2, bytes([9, 9, 9, 50, 60, 70]), chunk(b"tRNS", b"\0\x09\0\x09\0\x09"))
    assert decode(written(tmp_path, "keyed.png", keyed)).rgb[0].tolist() == [[255] * 3, [50, 60, 70]]


def test_one_bit_pictures_are_black_and_white(tmp_path: Path) -> None:
    assert decode(written(tmp_path, "bits.png", png(8, 1, 1, 0, b"\xaa"))).rgb[0, :, 0].tolist() == [255, 0] * 4


@pytest.mark.parametrize(("mode", "space"), [("RGB", b"RGB "), ("L", b"GRAY"), ("L", b"RGB "), ("RGBA", b"RGB ")])
def test_colour_profiles_are_applied(tmp_path: Path, mode: str, space: bytes) -> None:
    image = Image.new("L", (8, 8), 128).convert(mode)
    path = saved(tmp_path, "profile.png", image, icc_profile=linear_profile(space))
    # The sRGB curve: 1.055 · 0.50196^(1 / 2.4) - 0.055 = 0.7367, which is 187.9 of 255.
    photo = decode(path)
    assert photo.notes == ()
    assert np.abs(photo.rgb.astype(int) - 188).max() <= 1


def test_a_damaged_colour_profile_is_noted_and_ignored(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), (128, 128, 128))
    photo = decode(saved(tmp_path, "profile.png", image, icc_profile=b"no profile at all" * 20))
    assert "colour profile" in photo.notes[0]
    assert (photo.rgb == 128).all()


@pytest.mark.parametrize("suffix", ["png", "webp", "avif", "gif"])
def test_of_an_animation_the_first_frame_is_used_and_noted(tmp_path: Path, suffix: str) -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    path = saved(tmp_path, f"moving.{suffix}", red, save_all=True, append_images=[blue], quality=95)
    photo = decode(path)
    assert "first frame" in photo.notes[0]
    assert photo.rgb[8, 8, 0] > 240 and photo.rgb[8, 8, 2] < 15


def test_a_phone_picture_with_a_second_picture_inside_is_no_animation(tmp_path: Path) -> None:
    first, depth = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    path = saved(tmp_path, "phone.jpg", first, format="MPO", save_all=True, append_images=[depth])
    photo = decode(path)
    assert photo.notes == () and photo.rgb[8, 8, 0] > 240


def test_a_large_photo_is_reduced_to_the_working_size(tmp_path: Path) -> None:
    scene = smooth(5000, 400, cell=200)
    for name, options in (("large.png", {"compress_level": 1}), ("large.jpg", {"quality": 90})):
        rgb = decode(saved(tmp_path, name, Image.fromarray(scene), **options)).rgb
        assert rgb.shape == (200, 2500, 3)
        small = scene.reshape(200, 2, 2500, 2, 3).mean((1, 3))
        assert np.abs(rgb - small).mean() < 2


HOSTILE = {
    "empty.jpg": (b"", "empty"),
    "page.jpg": (b"\n  <!DOCTYPE html><html>not found</html>", "web page"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "web page or other text"),
    "moving.jpg": (b"GIF89a" + bytes(100), "damaged"),
    "newer.jpg": (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a" + bytes(20), "JPEG XL"),
    "wavelets.jpg": (b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a" + bytes(20), "JPEG 2000"),
    "layers.png": (b"8BPS\0\1" + bytes(100), "Photoshop"),
    "vector.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    "stars.png": (b"SIMPLE  =                    T" + bytes(100), "FITS"),
    "scan.jpg": (b"II*\0" + bytes(100), "TIFF"),
    "paper.jpg": (b"%PDF-1.7", "PDF"),
    "clip.heic": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(99), "video"),
    "nothing.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "damaged"),
    "head.jpg": (b"\xff\xd8\xff", "damaged"),
    "head.png": (b"\x89PNG\r\n\x1a\n", "damaged"),
    "head.webp": (b"RIFF\x20\0\0\0WEBP", "damaged"),
    "noise.jpg": (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4, "damaged"),
    "text.jpg": (b"hello", "something else"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    content, why = HOSTILE[name]
    if name == "nothing.heic":
        pytest.importorskip("pillow_heif")
    assert why in reason(written(tmp_path, name, content))


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.webp"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"progressive": True} if name.startswith("prog") else {}
    whole = saved(tmp_path, name, Image.fromarray(smooth(160, 120)), **options).read_bytes()
    for twentieth in range(1, 20):
        assert reason(written(tmp_path, name, whole[: len(whole) * twentieth // 20]))


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    image = Image.fromarray(smooth(64, 48))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for name in ("a.jpg", "a.png", "a.webp", "a.avif"):
        whole = saved(tmp_path, name, image, exif=exif, icc_profile=linear_profile(b"RGB ")).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for position in random.integers(12, min(len(whole), 2000), 6):
                damaged[position] = random.integers(256)
            path = written(tmp_path, name, bytes(damaged))
            try:
                assert decode(path).rgb.dtype == np.uint8
            except Unreadable as error:
                assert error.reason


def test_things_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "folder" in reason(tmp_path / "folder.jpg")
    assert "link points nowhere" in reason(tmp_path / "link.jpg")
    assert "no regular file" in reason(tmp_path / "pipe.jpg")
    assert "no such file" in reason(tmp_path / "nowhere.jpg")
    assert content_digest(tmp_path / "pipe.jpg") == content_digest(tmp_path / "link.jpg") == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = saved(tmp_path, "closed.png", Image.new("RGB", (4, 4)))
    path.chmod(0)
    assert "may not read" in reason(path)
    assert content_digest(path) == "unreadable"


def test_a_permission_error_becomes_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "closed.png", Image.new("RGB", (4, 4)))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert "may not read" in reason(path)


def peak_memory(path: Path) -> tuple[str, float]:
    """What decoding printed, and the process's peak memory in GB (1e9 bytes).

    Not `ru_maxrss`: that also counts what the parent had in memory when it forked.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    script = (
        "import sys; from pathlib import Path\n"
        "from magicid_cli.photos import Unreadable, decode\n"
        "try: print(decode(Path(sys.argv[1])).rgb.shape)\n"
        "except Unreadable as error: print(error.reason)\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    said, kilobytes = done.stdout.splitlines()
    return said, int(kilobytes) * 1024 / 1e9


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    # 18 kB that would become 432 MB of RGB.
    path = written(tmp_path, "bomb.png", png(12000, 12000, 1, 0, bytes(1500 * 12000)))
    assert path.stat().st_size < 100_000
    said, gigabytes = peak_memory(path)
    assert "megapixels" in said and gigabytes < 0.2


def test_strips_are_reduced_as_the_whole_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from magicid_cli.photos import decoding, pixels

    monkeypatch.setattr(decoding, "MAX_SIDE", 40)
    rgba = np.dstack([smooth(130, 190, 1), smooth(130, 190, 2)[..., :1]])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    shown = (rgba[..., :3].astype(float) * rgba[..., 3:] + 255.0 * (255 - rgba[..., 3:])) / 255
    expected = shown.reshape(38, 5, 26, 5, 3).mean((1, 3))  # 190 / 40 is 4.75: by a factor of 5
    for size in (pixels._STRIP, 130 * 5, 130 * 5 * 3, 1):
        monkeypatch.setattr(pixels, "_STRIP", size)
        rgb = decode(tmp_path / "a.png").rgb
        assert rgb.shape == (38, 26, 3) and np.abs(rgb - expected).max() <= 1.5
    grey = np.arange(101, dtype=np.uint8)[:, None].repeat(7, 1)  # the last strip is not a whole factor high
    Image.fromarray(grey).save(tmp_path / "g.png")
    rows = [grey[top : top + 3].mean() for top in range(0, 101, 3)]
    assert np.abs(decode(tmp_path / "g.png").rgb[:, 0, 0] - rows).max() <= 0.5


def test_a_panorama_is_reduced_while_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL.JpegImagePlugin import JpegImageFile

    loaded: list[tuple[int, int]] = []
    load = JpegImageFile.load

    def noted(self: JpegImageFile) -> Any:
        loaded.append(self.size)
        return load(self)

    path = saved(tmp_path, "wide.jpg", Image.new("RGB", (34000, 60), "red"))
    monkeypatch.setattr(JpegImageFile, "load", noted)
    assert decode(path).rgb.shape[1] == 4250 // 2
    assert loaded[0] == (4250, 8)


@pytest.mark.parametrize(("options", "limit"), [({}, 128), ({"progressive": True}, 51)])
def test_a_progressive_jpeg_has_a_cap_of_its_own(tmp_path: Path, options: dict[str, Any], limit: int) -> None:
    small = saved(tmp_path, "a.jpg", Image.new("L", (64, 64)), **options)
    content = bytearray(small.read_bytes())
    start = content.index(b"\xff\xc2" if options else b"\xff\xc0")
    content[start + 5 : start + 9] = (limit * 125 + 1).to_bytes(2, "big") + (8000).to_bytes(2, "big")
    why = reason(written(tmp_path, "large.jpg", bytes(content)))
    assert f"more than {limit} megapixels" in why and ("progressive JPEG" in why) == bool(options)


def test_what_is_damaged_is_said_without_a_class_of_ours(tmp_path: Path) -> None:
    # A truncated header used to read "damaged (UnidentifiedImageError)".
    assert reason(written(tmp_path, "a.png", b"\x89PNG\r\n\x1a\n")) == "its beginning is damaged or missing"
    whole = saved(tmp_path, "b.png", Image.fromarray(smooth(64, 64))).read_bytes()
    for path in (written(tmp_path, "c.png", whole[:20] + b"\xff" + whole[21:]), written(tmp_path, "d.gif", b"GIF89a")):
        assert "Error" not in reason(path) and "(" not in reason(path)


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "Ordner mit Ümläuten 写真 🙂"
    folder.mkdir()
    path = saved(folder, name, Image.new("RGB", (4, 4), "red"))
    assert expand([str(folder)]) == [path]
    assert decode(path).name == name


def test_a_name_that_is_no_text_becomes_text() -> None:
    assert name_of(Path(os.fsdecode(b"a\xff.png"))) == "a\ufffd.png"


def test_expand_takes_folders_files_and_globs_in_order_and_once(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", "c.png", ".hidden.jpg", "magicid-sheet.png", "magicid-sheet-2.png"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d.jpg").touch()
    (tmp_path / "named.jpg").mkdir()
    (tmp_path / "z.jpg").symlink_to("gone")

    def names(*arguments: str) -> list[str]:
        return [path.name for path in expand([str(tmp_path / argument) for argument in arguments])]

    assert names("") == ["a.jpg", "b.jpg", "c.png", "named.jpg", "z.jpg"]
    assert names("c.png", "*.jpg", "a.jpg") == ["c.png", "a.jpg", "b.jpg", "named.jpg", "z.jpg"]
    assert names("below", "z.jpg", "") == ["d.jpg", "z.jpg", "a.jpg", "b.jpg", "c.png", "named.jpg"]


def test_only_contact_sheets_are_skipped(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    def titled(name: str, **texts: str) -> None:
        about = PngInfo()
        for key, text in texts.items():
            about.add_text(key, text)
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG", pnginfo=about)

    titled("my own sheet.png", Title=SHEET_TITLE, Software="magicid")
    titled("magicid-sheet.png")
    titled("magicid-sheet-12.png")
    titled("magicid-sheet-of-me.png")
    titled("drawn.png", Software="magicid", Description="Drawn: person 12")
    (tmp_path / "magicid-sheets.jpg").touch()
    os.mkfifo(tmp_path / "pipe")
    photos = ["drawn.png", "magicid-sheet-of-me.png", "magicid-sheets.jpg", "pipe"]
    assert [path.name for path in expand([str(tmp_path)])] == photos
    assert [path.name for path in expand([str(tmp_path / "*.png")])] == photos[:2]


def test_photos_in_folders_below_are_told_of(tmp_path: Path) -> None:
    for name in ("trip/a.jpg", "notes/b.txt", ".hidden/c.jpg", "old/d.HEIC"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(MagicIDError, match="no photos itself, only folders: old, trip") as caught:
        expand([str(tmp_path)])
    assert str(tmp_path / "old") in caught.value.hint
    (tmp_path / "e.jpg").touch()
    heard: list[str] = []
    assert [path.name for path in expand([str(tmp_path)], heard.append)] == ["e.jpg"]
    (said,) = heard
    assert "old, trip" in said and "notes" not in said and "hidden" not in said
    expand([str(tmp_path / "trip")], heard.append)
    assert len(heard) == 1


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a[1].jpg").touch()
    (tmp_path / "a1.jpg").touch()
    assert [path.name for path in expand([str(tmp_path / "a[1].jpg")])] == ["a[1].jpg"]


@pytest.mark.parametrize("argument", ["nowhere", "*.nothing", "", "empty", "x" * 5000])
def test_an_argument_that_names_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MagicIDError) as caught:
        expand([argument])
    assert caught.value.code == "photos-missing" and caught.value.exit_code == 4


def test_the_hash_recognises_the_same_picture_and_only_that() -> None:
    original = Image.fromarray(smooth(400, 300, cell=40))
    known = perceptual_hash(np.asarray(original))
    buffer = io.BytesIO()
    original.save(buffer, "JPEG", quality=25)
    same = [Image.open(buffer), original.resize((123, 92)), ImageEnhance.Brightness(original).enhance(0.7)]
    same.append(original.crop((6, 5, 394, 295)))
    for image in same:
        assert hash_distance(known, perceptual_hash(np.asarray(image.convert("RGB")))) <= NEAR_DUPLICATE_BITS
    others = [smooth(400, 300, seed, 40) for seed in range(1, 30)] + [np.asarray(original)[:, ::-1]]
    assert min(hash_distance(known, perceptual_hash(other)) for other in others) > NEAR_DUPLICATE_BITS


def test_the_hash_is_the_sign_pattern_of_the_cosine_transform() -> None:
    # One cosine along x, amplitude 50, frequency 3: of 63 coefficients only number 3 is far from their median, 0.
    wave = 128 + 50 * np.cos(np.pi * 3 * (2 * np.arange(32) + 1) / 64)
    picture = np.broadcast_to(np.round(wave)[None, :, None], (32, 32, 3)).astype(np.uint8)
    assert perceptual_hash(picture) >> 3 & 1 == 1
    assert hash_distance(0b1011, 0b0110) == 3
