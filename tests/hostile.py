"""A folder of photos as people and devices send them, and of what only looks like one; the verdict of each is known."""

import base64
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from album import drawn_photos
from pictures import chunk, linear_profile, png

READ, REFUSED = "used", "unreadable"
Expected = dict[str, tuple[str, str]]
"""Name → verdict and a word of the reason or of a note."""
CUTS = 20


def write(folder: Path) -> Expected:
    """Write the corpus and return what must become of each file."""
    folder.mkdir(parents=True)
    photo = Image.open(drawn_photos(folder.with_name("originals"), 1)[0])
    expected: Expected = {}
    for content, verdict in (
        (_oriented(photo), READ),
        (_modes(photo), READ),
        (_profiles(photo), READ),
        (_odd_but_good(photo), READ),
        (_cut(photo), REFUSED),
        (_no_pictures(photo), REFUSED),
    ):
        for name, (data, word) in content.items():
            (folder / name).write_bytes(data)
            expected[name] = verdict, word
    return expected | _moving(photo, folder) | _places(folder)


Files = dict[str, tuple[bytes, str]]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _oriented(photo: Image.Image) -> Files:
    files: Files = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("JPEG", "PNG", "WEBP", "AVIF"):
            files[f"exif-{orientation}.{kind.lower()}"] = encoded(photo, kind, exif=exif), ""
    if _heif():
        exif = Image.Exif()
        exif[0x0112] = 6
        files["exif-6.heic"] = encoded(photo, "HEIF", exif=exif.tobytes()), ""
    return files


def _modes(photo: Image.Image) -> Files:
    side = photo.width
    grey = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    deep = (np.asarray(photo).astype(np.uint16) * 257).astype(">u2")
    deep_alpha = np.dstack([deep, np.full((side, side, 1), 65535, ">u2")])
    rgba = photo.copy()
    rgba.putalpha(200)
    palette = rgba.quantize(64)
    ink = photo.convert("CMYK")
    adobe = encoded(ink, "JPEG")
    plain = without_adobes_mark(encoded(Image.eval(ink, lambda value: 255 - value), "JPEG"))
    bits = np.packbits(np.asarray(photo.convert("1")), axis=1).tobytes()
    keyed = chunk(b"tRNS", struct.pack(">3H", 255, 255, 255))
    return {
        "16-bit grey.png": (encoded(Image.fromarray(grey), "PNG"), ""),
        "16-bit.png": (png(side, side, 16, 2, deep.tobytes()), ""),
        "16-bit with alpha.png": (png(side, side, 16, 6, deep_alpha.tobytes()), ""),
        "grey.jpg": (encoded(photo.convert("L"), "JPEG"), ""),
        "grey with alpha.png": (encoded(rgba.convert("LA"), "PNG"), ""),
        "grey with alpha.webp": (encoded(rgba, "WEBP", lossless=True), ""),
        "palette with alpha.png": (encoded(palette, "PNG"), ""),
        "one bit.png": (png(side, side, 1, 0, bits), ""),
        "a colour is clear.png": (png(side, side, 8, 2, np.asarray(photo).tobytes(), keyed), ""),
        "adobe.jpg": (adobe, ""),
        "ink.jpg": (plain, ""),
        "photoshop.jpg": (ycck(photo), ""),
    }


def without_adobes_mark(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def ycck(photo: Image.Image) -> bytes:
    """A JPEG as Photoshop writes it: inverted ink, cyan to yellow turned into brightness and two colours."""
    # Photoshop's inverted ink is red, green and blue where there is no black; YCCK is YCbCr of 255 minus that.
    # Pillow inverts once more when it writes.
    negative = Image.eval(photo, lambda value: 255 - value).convert("YCbCr")
    stored = np.dstack([np.asarray(negative), np.full((photo.height, photo.width, 1), 255, np.uint8)])
    jpeg = bytearray(encoded(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=95, subsampling=0))
    start = jpeg.index(b"Adobe")
    jpeg[start + 11] = 2  # Adobe's mark: the transform is YCCK
    return bytes(jpeg)


def _profiles(photo: Image.Image) -> Files:
    rgb = linear_profile(b"RGB ")
    files = {f"profile.{kind.lower()}": (encoded(photo, kind, icc_profile=rgb), "") for kind in ("PNG", "WEBP", "AVIF")}
    files["grey profile.png"] = encoded(photo.convert("L"), "PNG", icc_profile=linear_profile(b"GRAY")), ""
    files["grey profile on colours.png"] = encoded(photo, "PNG", icc_profile=linear_profile(b"GRAY")), ""
    files["no profile.jpg"] = encoded(photo, "JPEG", icc_profile=b"nothing" * 30), "colour profile"
    return files


def _odd_but_good(photo: Image.Image) -> Files:
    jpeg = encoded(photo, "JPEG")

    def tagged(exif: bytes) -> bytes:
        return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + jpeg[2:]

    entry = b"MM\0*\0\0\0\x08\0\x01\x01\x12"
    return {
        "progressive.jpg": (encoded(photo, "JPEG", progressive=True), ""),
        "more behind it.jpg": (jpeg + bytes(range(256)) * 40, ""),
        "no tags.jpg": (tagged(b"garbage" * 9), ""),
        "cut tags.jpg": (tagged(entry[:11]), ""),
        "orientation 9.jpg": (tagged(entry + b"\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0"), ""),
        "orientation A.jpg": (tagged(entry + b"\0\x02\0\0\0\x02A\0\0\0\0\0\0\0"), ""),
        "a circle of tags.jpg": (tagged(b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"), ""),
        "wrong.png": (jpeg, ""),
        "no ending": (encoded(photo, "PNG"), ""),
        "a person 写真 🙂.JPG": (jpeg, ""),
        "still.gif": (encoded(photo, "GIF"), ""),
        "lossless.webp": (encoded(photo, "WEBP", lossless=True), ""),
    }


def _moving(photo: Image.Image, folder: Path) -> Expected:
    frames = [photo.rotate(angle) for angle in (90, 180)]
    expected: Expected = {}
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        name = f"moving.{kind.lower()}"
        photo.save(folder / name, kind, save_all=True, append_images=frames, duration=100)
        expected[name] = READ, "first frame"
    photo.save(folder / "with depth.jpg", "MPO", save_all=True, append_images=frames[:1])
    return expected | {"with depth.jpg": (READ, "")}


def _cut(photo: Image.Image) -> Files:
    files: Files = {}
    kinds = {"jpg": ("JPEG", {}), "progressive.jpg": ("JPEG", {"progressive": True}), "png": ("PNG", {})}
    kinds |= {"webp": ("WEBP", {}), "avif": ("AVIF", {}), "gif": ("GIF", {})}
    if _heif():
        kinds["heic"] = ("HEIF", {})
    for ending, (kind, options) in kinds.items():
        whole = encoded(photo, kind, **options)
        points = range(CUTS) if ending == "jpg" else (1, CUTS // 2, CUTS - 1)
        for point in points:
            part = whole[: len(whole) * point // CUTS]
            files[f"cut at {point:02d}.{ending}"] = part, "empty" if not part else ""
    return files


def bomb() -> bytes:
    """18 kB that would become 432 MB of RGB: 12000 × 12000 pixels of one bit."""
    rows = zlib.compress(bytes(1501) * 12000, 9)
    header = struct.pack(">IIBBBBB", 12000, 12000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _no_pictures(photo: Image.Image) -> Files:
    whole = encoded(photo, "PNG")
    return {
        "page.jpg": (b"\n  <!DOCTYPE html><html><body>404</body></html>", "web page"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "web page or other text"),
        "text.jpg": (b"see you tomorrow\n", "something else"),
        "random.jpg": (np.random.default_rng(0).integers(1, 127, 4000, dtype=np.uint8).tobytes(), "something else"),
        "bomb.png": (bomb(), "megapixels"),
        "bomb.gif": (b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b"\x2c" + bytes(30), "megapixels"),
        "bomb.jpg": (_resized_jpeg(encoded(photo, "JPEG"), 65500, 65500), "megapixels"),
        "bomb.webp": (_resized_webp(encoded(photo, "WEBP", lossless=True), 16383, 16383), "megapixels"),
        "no size.png": (_no_size(), "damaged"),
        "wrong sum.png": (whole[:20] + b"\xff" + whole[21:], ""),
        "half is noise.png": (whole[: len(whole) // 2] + bytes(len(whole) // 2), ""),
        "stars.jpg": (f"{'SIMPLE  =                    T':80}{'END':80}".encode().ljust(2880) + bytes(2880), "FITS"),
        "layers.jpg": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(500), "Photoshop"),
        "vector.jpg": (encoded(photo.resize((32, 32)), "EPS"), "PostScript"),
        "scan.jpg": (encoded(photo, "TIFF"), "TIFF"),
        "bitmap.jpg": (encoded(photo, "BMP"), "BMP"),
        "paper.jpg": (encoded(photo, "PDF"), "PDF"),
        "wavelets.jpg": (encoded(photo, "JPEG2000"), "JPEG 2000"),
        "newer.jpg": (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a" + bytes(200), "JPEG XL"),
        "archive.jpg": (b"PK\3\4" + bytes(200), "ZIP"),
        "clip.heic": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(200), "video"),
        "nothing.avif": (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(200), ""),
        "nothing.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), ""),
        "head.jpg": (b"\xff\xd8\xff", "damaged"),
        "head.png": (b"\x89PNG\r\n\x1a\n", "damaged"),
        "head.webp": (b"RIFF\x20\0\0\0WEBP", "damaged"),
        "head.gif": (b"GIF89a", "damaged"),
        "noise.jpg": (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40, "damaged"),
    }


def _no_size() -> bytes:
    header = struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def _resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    start = jpeg.index(b"\xff\xc0")
    return jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]


def _resized_webp(webp: bytes, width: int, height: int) -> bytes:
    start = webp.index(b"VP8L") + 9  # its size follows the length and one byte
    sizes = int.from_bytes(webp[start : start + 4], "little") & ~0xFFFFFFF | (height - 1) << 14 | (width - 1)
    return webp[:start] + sizes.to_bytes(4, "little") + webp[start + 4 :]


def _places(folder: Path) -> Expected:
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to("gone.jpg")
    (folder / "round.jpg").symlink_to("round.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "link.jpg").symlink_to("exif-1.jpeg")
    os.mkfifo(folder / "pipe.jpg")
    expected = {
        "folder.jpg": (REFUSED, "folder"),
        "dangling.jpg": (REFUSED, "points nowhere"),
        "round.jpg": (REFUSED, "points nowhere"),
        "zero.jpg": (REFUSED, "no regular file"),
        "pipe.jpg": (REFUSED, "no regular file"),
        "link.jpg": (READ, ""),
    }
    if os.geteuid() != 0:  # root may read everything
        (folder / "closed.jpg").write_bytes((folder / "exif-1.jpeg").read_bytes())
        (folder / "closed.jpg").chmod(0)
        expected["closed.jpg"] = REFUSED, "may not read"
    return expected


# ---------------------------------------------------------------------------------- as many pixels as are still allowed

# 8240 × 6180 pixels of one colour as HEIC, which takes seconds to make: saved by Pillow, then zlib and base 85.
_HEIC = (
    "c-rmM%}X0W6aeryyCDRzR{UxX6>Rk2NsSljp|G@i(2A!XEVOFeBxFj~9n(;h(h^Zr42YLXK#(4k9%>;y6eJ?%BKR*@sCe-"
    "%^kTu*zDZ&aUZp;8-(=XCdHXg$-dk7zxF1hXt3*uNfWwjTu--c|5(f~^ome^o<?$d9O{OY)P|{Arl@XFjxAZ5y76|;|5bw$>K*uAzv`RS<FC"
    "BHX5f3q=a!S0h!+KkzWZL<cawt_w;aZT&c5!`+X-|ZyLo21E-"
    "BURKeRc+L*Brwqf|jTj7Z*Cg)ETCpy9L9F;LXm*LR`7?5v*|thJT(Eh6bLlW#(rM9q!f_qjnsh@%M`2<ZK;E^|qT#P1wmPjNSo%215<<wThL"
    "?Yv}?Aw&A8$$tkHLW*`v2<(^c|We2e-"
    "z8S;xVK@4mXapPB@vvQNMXN)h(UGH(<{$rU9Di8)ll|l_WE(_w`}_WJrT&|rFN;+LG8}vxboQV{WgDwRaxOyy`?qM^raX<?-"
    "9qE`5V=;7#(hTQ_7i<NhKcGOC30U7_4yT1y)#7LXV+u(&JnrqiTb=qRPSdZcaz9nCUSEgd%ro4xnGIg10wf}$J})y_nXJuJ$7$o?y!5S-"
    "Mq)#ZI8KmcG+c@U3S@JmtA(*WtUxc*=3hqcG+c@U3S^MMea4G`1KcNAUK`"
)


def write_near_caps(folder: Path) -> list[str]:
    """Write a picture of each kind with nearly as many pixels as are allowed, in the form that takes most memory."""
    folder.mkdir(parents=True)
    colour = (90, 120, 150)

    def add(name: str, image: Image.Image, kind: str, **options: Any) -> None:
        image.save(folder / name, kind, **options)

    add("baseline.jpg", Image.new("RGB", (11000, 11000), colour), "JPEG")
    add("progressive.jpg", Image.new("RGB", (8240, 6180), colour), "JPEG", progressive=True, subsampling=0)
    add("clear.png", Image.new("RGBA", (8240, 6180), (*colour, 200)), "PNG", compress_level=1)
    add("many.gif", Image.new("P", (8240, 6180)), "GIF", transparency=1)
    add("clear.webp", Image.new("RGBA", (6000, 4990), (*colour, 200)), "WEBP", quality=50, method=0)
    add("fine.avif", Image.new("RGB", (6400, 4990), colour), "AVIF", speed=10, subsampling="4:4:4")
    if _heif():
        (folder / "phone.heic").write_bytes(zlib.decompress(base64.b85decode("".join(_HEIC))))
    return sorted(path.name for path in folder.iterdir())
