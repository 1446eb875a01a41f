"""A corpus of hostile files through the stage's own `examine`, against what each file is known to be; and colours
against formulas that nothing of ours has: Display P3's and sRGB's definitions, and CIEDE2000.
"""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hostile
from hostile import READ, REFUSED
from magicid_cli.photos import decode
from pictures import profile, smooth

# Looks at every file in a process of its own; processor seconds are those between two files.
_EXAMINE = """
import json, sys, time
from pathlib import Path
from magicid_cli.config import Settings, with_values
from magicid_cli.events import Events
from magicid_cli.faces import Faces, StandInDetector, StandInRecogniser
from magicid_cli.photos import expand
from magicid_cli.stages import ingest

values = {"photos.keep_duplicates": True, "photos.limit": 200, "photos.max_blown_out": 1.0, "photos.min_sharpness": 1}
times = []
events = Events(lambda event: times.append(time.process_time()))
files = expand([sys.argv[1]])
times.append(time.process_time())
faces = Faces(StandInDetector(), StandInRecogniser())
examined = ingest.examine(files, with_values(Settings(), values), faces, events)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({
    "verdicts": [[one.file, one.code, one.reason, one.advice, one.notes] for one in examined.verdicts],
    "seconds": [after - before for before, after in zip(times, times[1:])],
    "peak_gb": peak * 1024 / 1e9,
}))
"""


# `magicid prepare` itself; what is measured of each photo is the most memory since the one before it.
_PREPARE = """
import json, re, sys, time
from magicid_cli.cli.app import main
from magicid_cli.stages import ingest

def gigabytes(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024 / 1e9

def measured(path, *others):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark begins anew
    before, started = gigabytes("VmRSS"), time.process_time()
    seen = look(path, *others)
    rows[path.name] = gigabytes("VmHWM"), gigabytes("VmHWM") - before, time.process_time() - started
    return seen

rows, look, ingest.look = {}, ingest.look, measured
flags = ["--model", "tiny", "--json", "--keep-duplicates", "--min-sharpness", "0", "--min-light", "0"]
code = main(["prepare", sys.argv[1], *flags])
print(json.dumps(rows), file=sys.stderr)
sys.exit(code)
"""


def test_the_largest_pictures_that_are_allowed_stay_under_a_gigabyte(tmp_path: Path) -> None:
    """In the real command, everything that it loads included; each is decoded once, also for the contact sheet."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from /proc")
    names = hostile.write_near_caps(tmp_path / "large")
    done = subprocess.run(
        [sys.executable, "-c", _PREPARE, "large"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stderr.splitlines()[-1])
    photos = json.loads(done.stdout)["data"]["photos"]
    assert [(one["file"], one["code"]) for one in photos] == [(name, READ) for name in names]
    assert sorted(measured) == names and (tmp_path / "magicid-sheet.png").exists()
    for name, (peak, growth, seconds) in measured.items():
        assert peak < 1 and growth < 0.6 and seconds < 3, (name, peak, growth, seconds)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[hostile.Expected, dict[str, Any]]:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    folder = tmp_path_factory.mktemp("corpus") / "photos from everywhere"
    expected = hostile.write(folder)
    done = subprocess.run([sys.executable, "-c", _EXAMINE, str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return expected, json.loads(done.stdout)


def test_every_hostile_file_gets_the_right_verdict(corpus: tuple[hostile.Expected, dict[str, Any]]) -> None:
    expected, found = corpus
    assert len(expected) >= 60 and {one[0] for one in found["verdicts"]} == set(expected)
    wrong = []
    for name, code, reason, advice, notes in found["verdicts"]:
        wanted, word = expected[name]
        if code != wanted or word not in " ".join([reason, *notes]):
            wrong.append((name, code, reason, notes, wanted, word))
        if code == REFUSED:
            assert reason.startswith("It cannot be read: ") and reason.endswith(".") and advice.endswith((".", "]'"))
    assert not wrong
    assert sum(one[1] == READ for one in found["verdicts"]) >= 50


def test_the_corpus_takes_less_than_a_second_a_file_and_a_gigabyte(
    corpus: tuple[hostile.Expected, dict[str, Any]],
) -> None:
    expected, found = corpus
    assert len(found["seconds"]) == len(expected)
    slowest = max(zip(found["seconds"], found["verdicts"], strict=True))
    assert slowest[0] < 1, slowest
    assert found["peak_gb"] < 1
    assert hostile.bomb().__len__() < 20_000


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_face_of_every_orientation_is_found_upright(shared_data: Path, tmp_path: Path, orientation: int) -> None:
    from magicid_cli.faces import YuNet

    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.open(shared_data / "astronaut.png").convert("RGB")
    ways = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of Image.Transpose: from upright to what the camera stores
    stored = upright.transpose(Image.Transpose(ways[orientation])) if orientation in ways else upright
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    face = YuNet(shared_data / "face_detection_yunet.onnx", "test").find(decode(tmp_path / "a.jpg").rgb)[0]
    x, y, width, height = face.box
    assert abs(x + width / 2 - 224) < 12 and abs(y + height / 2 - 120) < 12
    eyes, mouth = face.landmarks[:2].mean(0), face.landmarks[3:].mean(0)
    assert mouth[1] - eyes[1] > 25 and abs(mouth[0] - eyes[0]) < 12


# ------------------------------------------------------------------------------------------------------------ colours

# Chromaticities of the primaries; the white of both spaces is D65.
SRGB, P3 = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06)), ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
D65 = np.array([0.3127 / 0.329, 1.0, (1 - 0.3127 - 0.329) / 0.329])


def to_xyz(primaries: Any) -> np.ndarray:
    """The matrix from linear light in these primaries to XYZ."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    return np.asarray(columns * np.linalg.solve(columns, D65))


def linear(encoded: np.ndarray) -> np.ndarray:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def gamma(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, None)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def lab(rgb: np.ndarray, primaries: Any) -> np.ndarray:
    """CIELAB under D65 of 8-bit values."""
    scaled = linear(rgb / 255) @ to_xyz(primaries).T / D65
    f = np.where(scaled > (6 / 29) ** 3, np.cbrt(scaled), scaled / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def ciede2000(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Sharma, Wu and Dalal 2005, equations 2 to 22."""
    light, mean_chroma = one[..., 0], (np.hypot(*one[..., 1:].T).T + np.hypot(*other[..., 1:].T).T) / 2
    g = 0.5 * (1 - np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7)))
    a1, a2 = (1 + g) * one[..., 1], (1 + g) * other[..., 1]
    c1, c2 = np.hypot(a1, one[..., 2]), np.hypot(a2, other[..., 2])
    h1 = np.degrees(np.arctan2(one[..., 2], a1)) % 360
    h2 = np.degrees(np.arctan2(other[..., 2], a2)) % 360
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    d_l, d_c = other[..., 0] - light, c2 - c1
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    m_l, m_c = (light + other[..., 0]) / 2, (c1 + c2) / 2
    m_h = np.where(grey, h1 + h2, np.where(np.abs(h1 - h2) <= 180, (h1 + h2) / 2, ((h1 + h2 + 360) / 2) % 360))

    def cos(degrees: np.ndarray) -> np.ndarray:
        return np.asarray(np.cos(np.radians(degrees)))

    t = 1 - 0.17 * cos(m_h - 30) + 0.24 * cos(2 * m_h) + 0.32 * cos(3 * m_h + 6) - 0.2 * cos(4 * m_h - 63)
    s_l = 1 + 0.015 * (m_l - 50) ** 2 / np.sqrt(20 + (m_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * m_c, 1 + 0.015 * m_c * t
    turning = 60 * np.exp(-(((m_h - 275) / 25) ** 2))
    r = -2 * np.sqrt(m_c**7 / (m_c**7 + 25.0**7)) * np.sin(np.radians(turning))
    return np.asarray(np.sqrt((d_l / s_l) ** 2 + (d_c / s_c) ** 2 + (d_h / s_h) ** 2 + r * (d_c / s_c) * (d_h / s_h)))


def test_the_colour_difference_itself() -> None:
    # From the table of test data of Sharma, Wu and Dalal.
    pairs = [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((90.8027, -2.0831, 1.441), (91.1528, -1.6435, 0.0447), 1.4441),
    ]
    for one, other, difference in pairs:
        assert ciede2000(np.array(one), np.array(other)) == pytest.approx(difference, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {"quality": 97, "subsampling": 0}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 97})],
)
def test_a_display_p3_photo_keeps_its_colours(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    # The values of a P3 camera for colours that sRGB has, too.
    shown = smooth(96, 64, 5, cell=12)
    light = linear(shown / 255) @ to_xyz(SRGB).T @ np.linalg.inv(to_xyz(P3)).T
    values = np.round(255 * gamma(light)).astype(np.uint8)
    icc = profile(P3)
    path = tmp_path / f"phone.{kind.lower()}"
    Image.fromarray(values).save(path, kind, icc_profile=icc, **options)
    photo = decode(path)
    assert photo.notes == ()
    difference = ciede2000(lab(values.astype(float), P3), lab(photo.rgb.astype(float), SRGB))
    assert np.percentile(difference, 95) < 2 and difference.mean() < 1
    if kind == "PNG":
        assert difference.max() < 2
    ignored = ciede2000(lab(values.astype(float), P3), lab(values.astype(float), SRGB))
    assert np.percentile(ignored, 95) > 2, "these colours would not tell a profile from none"


def test_photoshops_ink_has_the_photos_colours(tmp_path: Path) -> None:
    photo = Image.fromarray(smooth(64, 64, 2))
    (tmp_path / "a.jpg").write_bytes(hostile.ycck(photo))
    assert Image.open(io.BytesIO(hostile.ycck(photo))).mode == "CMYK"
    assert np.abs(decode(tmp_path / "a.jpg").rgb.astype(int) - np.asarray(photo)).mean() < 4
