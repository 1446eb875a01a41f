"""Videos against what went in (round trips within the codec's error) and contracts: same frames, same bytes; a whole
file or none; a reason for every file that is no video.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from magicid_cli import video
from magicid_cli.errors import MagicIDError
from magicid_cli.video import read_video, static_clip, write_video
from pictures import smooth


def moving(count: int = 9, width: int = 96, height: int = 64) -> np.ndarray:
    scene = smooth(width + count * 2, height)
    return np.stack([scene[:, 2 * index : 2 * index + width] for index in range(count)])


@pytest.mark.parametrize("fps", [8, 24, 30000 / 1001])
def test_a_video_comes_back(tmp_path: Path, fps: float) -> None:
    frames = moving()
    path = tmp_path / "Ordner mit Ümläut 写真 🙂" / "clip %03d.mp4"
    write_video(path, frames, fps)
    back, rate = read_video(path)
    assert back.shape == frames.shape and back.dtype == np.uint8 and back.flags.writeable
    assert rate == pytest.approx(fps, abs=0.01)
    assert np.abs(back.astype(int) - frames).mean() < 4
    # Each frame is nearest to its own original: none was dropped, doubled or moved.
    distances = np.abs(back[:, None].astype(int) - frames[None]).mean((2, 3, 4))
    assert distances.argmin(1).tolist() == list(range(len(frames)))


@pytest.mark.parametrize("claimed", [0, 3, 9, 50, 10**9])
def test_all_frames_are_read_whatever_the_file_says_of_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: int
) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(), 24)
    frames, _ = read_video(path)
    real = video._look
    monkeypatch.setattr(video, "_look", lambda path: (*real(path)[:3], claimed))
    assert np.array_equal(read_video(path)[0], frames)


@pytest.mark.parametrize("size", [(96, 64), (1280, 720)])
def test_colours_come_back_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    for colour in ((200, 30, 60), (20, 180, 40), (128, 128, 128)):
        frames = np.full((2, size[1], size[0], 3), colour, np.uint8)
        write_video(tmp_path / "a.mp4", frames, 24)
        assert np.abs(read_video(tmp_path / "a.mp4")[0].astype(int) - colour).max() <= 5


def test_the_file_is_what_every_player_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(), 24, comment='AI-generated: "quoted", größe = 3; 写真')
    facts = next(imageio_ffmpeg.read_frames(path))
    assert facts["codec"] == "h264" and facts["pix_fmt"].startswith("yuv420p")
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "must play while it loads"
    assert 'AI-generated: "quoted", größe = 3; 写真'.encode() in content


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", moving(30), 24, comment="x")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_frames_that_are_not_contiguous_are_written_as_they_look(tmp_path: Path) -> None:
    frames = moving()[:, ::-1, ::-1]
    write_video(tmp_path / "a.mp4", frames, 24)
    assert np.abs(read_video(tmp_path / "a.mp4")[0].astype(int) - frames).mean() < 4


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 16, 16, 3), np.uint8),
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((2, 16, 16, 4), np.uint8),
        np.zeros((2, 16, 16, 3), np.float32),
        np.zeros((2, 16, 15, 3), np.uint8),
    ],
)
def test_what_are_no_frames_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ValueError):
        write_video(tmp_path / "a.mp4", frames, 24)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(), 24)
    before = path.read_bytes()
    for stderr, code in ((b"x: No space left on device", "disk-full"), (b"[h264 @ 0x1] broken", "video-unwritable")):
        failed = subprocess.CompletedProcess([], 1, b"", stderr)
        monkeypatch.setattr(video, "_ffmpeg", lambda *_, failed=failed: failed)
        with pytest.raises(MagicIDError) as caught:
            write_video(path, moving(3), 24)
        assert caught.value.code == code
    assert "broken" in caught.value.message and "0x1" not in caught.value.message
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_every_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(40), 24)
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "empty": b"",
        "text": b"<html>not found</html>" * 50,
        "no end": whole[: len(whole) * 95 // 100],
        "half": whole[:middle],
        "hole": whole[:middle] + bytes(400) + whole[middle + 400 :],
        "playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    }
    for what, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(MagicIDError) as caught:
            read_video(path)
        assert caught.value.code == "video-unreadable", what
        assert str(tmp_path) not in caught.value.message
    with pytest.raises(MagicIDError) as caught:
        read_video(tmp_path / "nowhere.mp4")
    assert "no such file" in caught.value.message


def test_a_video_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says of its length: frames are counted as they come. Here 40 frames, and room for 40 or for 39."""
    path, frames = tmp_path / "a.mp4", moving(40)
    write_video(path, frames, 24)
    monkeypatch.setattr(video, "_TRUSTED", frames[:10].nbytes)
    monkeypatch.setattr(video, "_MOST", frames.nbytes)
    assert len(read_video(path)[0]) == 40
    monkeypatch.setattr(video, "_MOST", frames[:39].nbytes)
    with pytest.raises(MagicIDError) as caught:
        read_video(path)
    assert caught.value.code == "video-unreadable" and "cut it shorter" in caught.value.message


def test_without_ffmpeg_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    path = tmp_path / "a.mp4"
    write_video(path, moving(2), 24)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    for attempt in (lambda: read_video(path), lambda: write_video(path, moving(2), 24)):
        with pytest.raises(MagicIDError) as caught:
            attempt()
        assert caught.value.code == "ffmpeg-missing" and caught.value.exit_code == 3


def test_ctrl_c_does_not_cut_a_clip_that_is_being_written(tmp_path: Path) -> None:
    # The whole process group gets SIGINT again and again, as from a terminal; Python finishes its step.
    script = (
        "import os, signal, sys, threading, time; from pathlib import Path\n"
        "import numpy as np; from magicid_cli.video import write_video\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "frames = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)\n"
        "def interrupt():\n"
        "    while True: time.sleep(0.01); os.killpg(0, signal.SIGINT)\n"
        "import imageio_ffmpeg; imageio_ffmpeg.get_ffmpeg_exe()\n"  # looked up once, by starting it in our group
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "write_video(Path(sys.argv[1]), frames, 24)\n"
    )
    path = tmp_path / "a.mp4"
    done = subprocess.run([sys.executable, "-c", script, str(path)], start_new_session=True, timeout=60, check=False)
    assert done.returncode == 0
    assert len(read_video(path)[0]) == 40


def test_a_killed_writer_leaves_no_video(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import numpy as np; from magicid_cli.video import write_video\n"
        "print('ready', flush=True)\n"
        "write_video(Path(sys.argv[1]), np.random.default_rng(0).integers(0, 256, (200, 256, 256, 3), np.uint8), 24)\n"
    )
    path = tmp_path / "a.mp4"
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not path.exists()


def test_a_static_clip_is_the_photo_again_and_again(tmp_path: Path) -> None:
    photo = smooth(64, 48)
    clip = static_clip(photo, 5)
    assert clip.shape == (5, 48, 64, 3) and (clip == photo).all()
