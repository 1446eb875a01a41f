"""Every metric on videos whose truth is known: drawn people, a still, a pan, a swap, and copies.

Truths: what was drawn. The judges are those of the drawn world, which come with the package.
"""

import csv
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filmed import SCENES, film, frames_of, hidden, panned, photos, swapped

from magicid_cli.config import resolve
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation import METRICS, Evaluation, Item, evaluate, harness
from magicid_cli.evaluation.motion import Motion
from magicid_cli.evaluation.pictures import Pictures
from magicid_cli.evaluation.sheet import as_csv, by_metric
from magicid_cli.evaluation.summary import beside
from magicid_cli.events import Events
from magicid_cli.rewards.identity import IdentityReward

SETTINGS = {"model.name": "mini", "rewards.flow": "dis"}


class Studio:
    """Evaluates clips against the drawn person's album; what was measured once is kept for all tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = photos(folder / "photos")
        self.settings = resolve(SETTINGS, project=folder).settings
        self.prompts = [scene.caption() for scene in SCENES]
        self.clips = [film(folder, f"scene-{number}", frames_of(scene)) for number, scene in enumerate(SCENES)]

    def measure(
        self, clips: Sequence[Path], prompts: Sequence[str | None] | None = None, reference: Sequence[Path] = ()
    ) -> Evaluation:
        shown = prompts or self.prompts[: len(clips)]
        items = [Item(path, path.name, prompt) for path, prompt in zip(clips, shown, strict=True)]
        return evaluate(
            items, self.photos, self.settings, store=self.folder / "store", events=Events(), fvd_reference=reference
        )


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def original(studio: Studio) -> Evaluation:
    return studio.measure(studio.clips)


def value(evaluation: Evaluation, name: str) -> float:
    found = evaluation.figures[name].value
    assert found is not None, (name, evaluation.figures[name].why)
    return found


def of_one(evaluation: Evaluation, number: int = 0) -> dict[str, Any]:
    return evaluation.videos[number]


def test_a_good_video_scores_high_in_everything(original: Evaluation) -> None:
    assert value(original, "face_sim") > 0.9
    assert value(original, "face_sim_reward") > 0.9
    assert value(original, "face_found") == 1
    assert value(original, "clip_t") > 85
    assert value(original, "consistency") > 0.95
    assert of_one(original)["dynamic_rate"] == 1  # a dance


def test_a_still_does_not_move_and_keeps_all_else(studio: Studio, original: Evaluation) -> None:
    still = film(studio.folder, "still", np.repeat(frames_of(SCENES[0])[:1], 9, axis=0))
    found = of_one(studio.measure([still]))
    assert found["dynamic_degree"] < 0.3 < 5 < of_one(original)["dynamic_degree"]
    assert found["dynamic_rate"] == 0
    assert found["consistency"] > 0.9999 > of_one(original)["consistency"]
    assert found["face_sim"] > 0.9


def test_a_pan_moves_by_as_much_as_the_camera(studio: Studio) -> None:
    """8 frames a second: a pair of frames is 1/8 s apart, and the statistic is the shift. VBench's threshold is 6."""
    slow, fast = (film(studio.folder, f"pan-{pixels:g}", panned(pixels)) for pixels in (5.0, 8.0))
    below, above = studio.measure([slow, fast]).videos
    assert below["dynamic_degree"] == pytest.approx(5, rel=0.05)
    assert above["dynamic_degree"] == pytest.approx(8, rel=0.05)
    assert (below["dynamic_rate"], above["dynamic_rate"]) == (0, 1)
    assert above["details"]["subject"] < 0.1 * above["dynamic_degree"]  # it is the camera's motion
    for found in (below, above):  # nobody is there; a finder may be wrong about a frame
        assert found["face_found"] < 0.3
        assert found["face_sim"] < 0.1


def test_one_motion_reads_the_same_at_every_frame_rate(studio: Studio) -> None:
    """At 16 frames a second every second frame is taken: 4 pixels a frame are 8 in 1/8 s."""
    found = of_one(studio.measure([film(studio.folder, "pan-16", panned(4.0, 17), 16)]))
    assert found["dynamic_degree"] == pytest.approx(8, rel=0.05)
    assert found["dynamic_rate"] == 1


def test_frames_shown_three_times_as_fast_are_as_consistent_at_8_a_second(studio: Studio, original: Evaluation) -> None:
    """Each frame thrice at 24 a second: neighbours are mostly equal, frames 1/8 s apart are those of the first video.

    The table says it beside the column, and FVD and the mean of both rates each say their own.
    """
    fast = film(studio.folder, "thrice", np.repeat(frames_of(SCENES[0]), 3, axis=0), 24)
    found = studio.measure([fast], reference=studio.clips)
    row, before = of_one(found), of_one(original)
    assert (row["fps"], before["fps"]) == (24, 8)
    assert before["consistency"] == before["consistency_eighth"]
    assert row["consistency_eighth"] == pytest.approx(before["consistency"], abs=2e-3)
    assert 1 - row["consistency"] < 0.6 * (1 - before["consistency"])
    table = beside({"ours": original, "theirs": found, "again": original})
    assert any("Frames a second: 24; of ours: 8." in note for note in table["theirs"].notes)
    assert table["ours"] == original and table["again"] == original
    both = studio.measure([fast, studio.clips[0]], [studio.prompts[0]] * 2, reference=studio.clips)
    assert any("frame rates differ (8, 24 a second)" in note for note in both.notes)
    assert any("the videos have 8, 24 a second, the reference set 8" in note for note in both.notes)
    rows = list(csv.DictReader(as_csv({"ours": both}).splitlines()))
    assert [one["fps"] for one in rows if one["level"] == "video"] == ["24.0", "8.0"]


def test_a_swap_half_way_halves_the_likeness(studio: Studio, original: Evaluation) -> None:
    """4 of 9 frames show the person; a stranger is like nobody, so the rest is near 0."""
    before, after = of_one(original), of_one(studio.measure([film(studio.folder, "swap", swapped(SCENES[0]))]))
    assert after["face_found"] == 1
    first, second = after["details"]["halves"]
    assert first > 0.85 * before["face_sim"]
    assert second < 0.5 * before["face_sim"]
    assert 4 / 9 * 0.9 < after["face_sim"] / before["face_sim"] < 0.75
    assert after["face_sim_reward"] < 0.8 * before["face_sim_reward"]
    assert after["consistency"] < before["consistency"]
    assert after["clip_t"] == pytest.approx(before["clip_t"], abs=10)  # who it is was not asked for


def test_frames_without_a_face_count_zero_and_the_other_figure_skips_them(studio: Studio) -> None:
    """The first six frames are the same in both videos."""
    whole = film(studio.folder, "six", frames_of(SCENES[1])[:6])
    part = film(studio.folder, "six-of-nine", hidden(SCENES[1]))
    shown, covered = studio.measure([whole, part]).videos
    assert covered["face_found"] == pytest.approx(6 / 9)
    assert covered["face_sim"] == pytest.approx(shown["face_sim"] * 6 / 9, rel=0.02)
    assert covered["face_sim_skipped"] == pytest.approx(shown["face_sim"], rel=0.02)


def test_the_figure_that_skips_frames_is_not_clipped_and_its_label_says_so(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one frame that is less like the person than nobody, and one without a face."""
    told = {"cosines": [-0.25, None], "relative": [-0.3, None], "found": 0.5, "value": 0.0}
    told |= {"first_half": 0.0, "second_half": 0.0}
    monkeypatch.setattr(IdentityReward, "likeness", lambda *_: told)
    found = studio.measure([film(studio.folder, "unlike", frames_of(SCENES[2])[:3])])
    assert (value(found, "face_sim"), value(found, "face_sim_skipped")) == (0.0, -0.25)
    rows = {row[0]: row[1] for row in by_metric({"ours": found})[1]}
    (label,) = (name for name in rows if name.startswith("Face Sim, faceless skipped"))
    assert "unclipped" in label and rows[label].startswith("-0.250")


def test_permuted_prompts_lower_clip_t_and_change_nothing_else(studio: Studio, original: Evaluation) -> None:
    found = studio.measure(studio.clips, [*studio.prompts[1:], studio.prompts[0]])
    assert value(found, "clip_t") < value(original, "clip_t") - 50
    for name in set(METRICS) - {"clip_t", "fvd"}:
        assert value(found, name) == value(original, name), name


def test_a_re_encoded_copy_is_nearly_the_same(studio: Studio, original: Evaluation) -> None:
    """H.264 at CRF 30 after CRF 17: visible to an eye that knows, not to the metrics."""
    import imageio_ffmpeg

    copies = []
    for path in studio.clips:
        copies.append(path.with_stem(f"{path.stem}-again"))
        program = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", "-threads", "1", "-i", str(path)]
        subprocess.run([*program, "-c:v", "libx264", "-crf", "30", str(copies[-1])], check=True)
    found = studio.measure(copies, reference=studio.clips)
    near = {"face_sim": 0.05, "face_sim_reward": 0.05, "consistency": 0.01, "clip_t": 5, "clip_i": 2}
    for name, room in near.items():
        assert value(found, name) == pytest.approx(value(original, name), abs=room), name
    # Of small drawn clips, what an encoder adds reads as motion, most of it beside a slow wave. Measured: 18 % here,
    # and 6 to 21 % over CRF 23 to 34 and three presets, so a bound much below that would be one encoder's.
    assert 1 < value(found, "dynamic_degree") / value(original, "dynamic_degree") < 1.25
    other = [film(studio.folder, f"other-{n}", frames_of(replace(one, place="street"))) for n, one in enumerate(SCENES)]
    assert value(found, "fvd") < 0.2 * value(studio.measure(other, reference=studio.clips), "fvd")


def test_a_set_has_no_distance_from_itself(studio: Studio) -> None:
    found = studio.measure(studio.clips, reference=studio.clips)
    assert value(found, "fvd") == pytest.approx(0, abs=1e-6 * found.fvd["dimensions"])
    assert found.fvd["in_both"] == 3
    assert any("also in the reference set" in note for note in found.notes)
    assert found.fvd["infinite"] is None  # 3 videos give no line


def test_photos_of_somebody_else_are_not_like_the_person(studio: Studio, tmp_path: Path) -> None:
    from filmed import STRANGER
    from PIL import Image

    from magicid_cli.world.clips import album

    strange = []
    for number, picture in enumerate(album(STRANGER, 3, 128)):
        strange.append(tmp_path / f"{number}.png")
        Image.fromarray(picture).save(strange[-1])
    item = Item(studio.clips[1], "clip", studio.prompts[1])
    found = evaluate([item], strange, studio.settings, store=studio.folder / "store", events=Events())
    assert value(found, "face_sim") < 0.5


def test_figures_are_means_over_videos_and_rows_over_prompts(studio: Studio, original: Evaluation) -> None:
    for name in set(METRICS) - {"fvd"}:
        assert value(original, name) == pytest.approx(np.mean([row[name] for row in original.videos]))
    two = studio.measure(studio.clips, [studio.prompts[0]] * 2 + [studio.prompts[2]])
    first, second = two.prompts
    assert (first["videos"], second["videos"]) == (2, 1)
    assert first["face_sim"] == pytest.approx(np.mean([row["face_sim"] for row in two.videos[:2]]))


def test_intervals_hold_the_mean_and_one_video_has_none(studio: Studio, original: Evaluation) -> None:
    figure = original.figures["dynamic_degree"]
    assert figure.low is not None and figure.high is not None
    assert figure.low < value(original, "dynamic_degree") < figure.high
    alone = studio.measure(studio.clips[:1])
    assert (alone.figures["face_sim"].low, alone.figures["face_sim"].high) == (None, None)
    assert any("One video has no interval" in note for note in alone.notes)


def test_a_video_of_one_frame_has_gaps_with_reasons(studio: Studio) -> None:
    found = studio.measure([film(studio.folder, "one", frames_of(SCENES[0])[:1])], [None])
    assert found.figures["face_sim"].value is not None
    for name, word in {
        "dynamic_degree": "1/8 s",
        "consistency": "two frames",
        "consistency_eighth": "1/8 s",
        "clip_t": "prompt",
        "fvd": "set",
    }.items():
        assert found.figures[name].value is None
        assert word in found.figures[name].why


def test_what_cannot_be_read_is_set_aside_and_counts_nowhere(studio: Studio, original: Evaluation) -> None:
    broken = studio.folder / "broken.mp4"
    broken.write_bytes(studio.clips[0].read_bytes()[:2000])
    gone = studio.folder / "gone.mp4"
    found = studio.measure([*studio.clips, broken, gone], [*studio.prompts, "Dance.", "Dance."])
    assert [one.name for one in found.set_aside] == ["gone.mp4", "broken.mp4"]
    assert all(one.why for one in found.set_aside)
    assert found.figures["face_sim"] == original.figures["face_sim"]
    with pytest.raises(MagicIDError) as caught:
        studio.measure([broken], [None])
    assert caught.value.code == "videos-unusable"
    assert "broken.mp4" in caught.value.message


def test_nothing_is_measured_twice(studio: Studio, original: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    """No video is decoded again for the same question, under another name neither; another prompt asks CLIP alone."""
    read, looked = [], []

    def reading(path: Path) -> tuple[np.ndarray, float]:
        read.append(path)
        return frames_of(SCENES[0]), 8.0

    def looking(*given: Any) -> dict[str, Any]:
        looked.append("pictures")
        return real(*given)

    real = Pictures.look
    monkeypatch.setattr(harness.video, "read_video", reading)
    renamed = studio.folder / "renamed.mp4"
    renamed.write_bytes(studio.clips[0].read_bytes())
    assert studio.measure([renamed]).videos[0] == {**original.videos[0], "video": "renamed.mp4"}
    assert studio.measure(studio.clips).as_dict() == original.as_dict()
    assert read == []
    monkeypatch.setattr(Pictures, "look", looking)
    monkeypatch.setattr(Motion, "look", lambda *given: looked.append("motion"))
    studio.measure([renamed], ["A man nods in a library."])
    assert (read, looked) == ([renamed], ["pictures"])


def test_an_interrupted_evaluation_goes_on(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished before the second video is kept; the end is the same as without the interruption."""
    clips = [film(studio.folder, f"late-{n}", frames_of(replace(SCENES[n], seed=50 + n))) for n in range(2)]
    real, seen = harness.video.read_video, []

    def stopped(path: Path) -> tuple[np.ndarray, float]:
        seen.append(path)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(harness.video, "read_video", stopped)
    with pytest.raises(KeyboardInterrupt):
        studio.measure(clips)
    resumed = studio.measure(clips)
    assert seen == [clips[0], clips[1], clips[1]]
    fresh = Studio.__new__(Studio)
    vars(fresh).update(vars(studio) | {"folder": studio.folder / "fresh"})
    assert fresh.measure(clips).as_dict() == resumed.as_dict()


def test_the_table_names_who_made_each_number(original: Evaluation) -> None:
    by = original.made_by
    assert set(by) == set(METRICS) - {"fvd"}
    assert by["face_sim"] != by["face_sim_reward"]
    assert "drawn face recogniser" in by["face_sim"]
    assert "DIS" in by["dynamic_degree"]
    assert any("not VBench's number" in note for note in original.notes)
    assert any("drawn world only" in note for note in original.notes)
