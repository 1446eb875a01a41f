"""A study's folder and its answers. Truth: counting by hand, Krippendorff's examples, and listing all resamples."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from album import drawn_photos
from judged import clip
from magicid_cli import generation, video
from magicid_cli.cli.app import main
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.pages.study import QUESTIONS, Candidate, build, results, sets_of
from magicid_cli.pages.study.statistics import intervals, krippendorff_alpha, win_rates
from magicid_cli.workspace import Workspace, file_digest, write_lines

METHODS = ("magic-id", "dreambooth")


# -- agreement


def test_agreement_by_hand() -> None:
    # Two raters, four sets: aa, ab, bb, bb. Do = 2/8. Of 8 answers 3 are a and 5 are b: De = 1 - (3*2 + 5*4)/(8*7).
    found = krippendorff_alpha(["aa", "ab", "bb", "bb"])
    assert found == pytest.approx(1 - (2 / 8) / (1 - 26 / 56))


def test_agreement_with_missing_answers_by_hand() -> None:
    # Sets with 3, 2 and 1 answers: aab, bb, a. The single one does not count; n = 5, a: 2, b: 3.
    # aab: of its 6 ordered pairs 4 differ, each counts 1/2. Do = 2/5, De = 1 - (2*1 + 3*2)/(5*4) = 3/5.
    assert krippendorff_alpha(["aab", "bb", "a"]) == pytest.approx(1 - (2 / 5) / (3 / 5))


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [
        (["0100000000", "1110010010"], 0.095),
        (["aabbdcccedda", "babbbccceddd"], 0.692),
        (["123321412...", "1233224125.3", ".3332342251.", "12332441251."], 0.743),
    ],
)
def test_agreement_of_published_examples(raters: list[str], alpha: float) -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), sections A to C; a dot is a missing answer."""
    units = [[answer for answer in unit if answer != "."] for unit in zip(*raters, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(alpha, abs=5e-4)


def test_agreement_that_is_not_defined() -> None:
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha(["a", "b"]) is None  # nobody answered the same set
    assert krippendorff_alpha(["aa", "aa"]) is None  # nothing else was ever said: chance would agree as well
    assert krippendorff_alpha(["aa", "bb"]) == 1.0


# -- win rates


def shares(rows: list[list[int | None]], methods: int = 2) -> np.ndarray:
    """Answers by rater and set, as the number of a method; None where there is none, -1 for no difference."""
    found = np.full((len(rows), len(rows[0]), methods), np.nan)
    for rater, row in enumerate(rows):
        for column, answer in enumerate(row):
            if answer is not None:
                found[rater, column] = 1 / methods if answer < 0 else np.eye(methods)[answer]
    return found


def test_win_rates_by_hand() -> None:
    # Five answers: three for 0, one for 1, one for neither.
    found = win_rates(shares([[0, 0, 1], [0, None, -1]]))
    assert found == pytest.approx([3.5 / 5, 1.5 / 5])
    assert np.isnan(win_rates(shares([[None]]))).all()


def test_intervals_against_all_resamples() -> None:
    """Two raters and three sets have so few resamples that all can be listed, with how likely each is."""
    table = shares([[0, 0, 1], [0, 1, 1]])[:, :, 0]
    means = [
        table[np.ix_(raters, sets)].mean()
        for raters in itertools.product(range(2), repeat=2)
        for sets in itertools.product(range(3), repeat=3)
    ]
    low, high = np.percentile(means, (2.5, 97.5), method="inverted_cdf")
    found = intervals(shares([[0, 0, 1], [0, 1, 1]]))
    assert found[0] == pytest.approx([low, high], abs=1e-9)
    assert found[1] == pytest.approx([1 - high, 1 - low], abs=1e-9)


def test_intervals_are_wider_than_for_answers_drawn_alone() -> None:
    """Four raters who each always say the same are four observations, not forty."""
    answers = shares([[rater % 2] * 10 for rater in range(4)])
    low, high = intervals(answers)[0]
    assert (low, high) == (0.0, 1.0)
    alone = np.random.default_rng(0).choice(answers[:, :, 0].ravel(), (2000, 40)).mean(axis=1)
    assert np.percentile(alone, 97.5) - np.percentile(alone, 2.5) < 0.5


def test_intervals_of_unanimous_and_of_no_answers() -> None:
    assert intervals(shares([[0, 0], [0, 0]])) == pytest.approx(np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert np.isnan(intervals(shares([[None, None]]))).all()


# -- the folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Two sets of videos of two methods, by file name, and prompts for one of them."""
    found = {}
    for number, method in enumerate(METHODS):
        found[method] = tmp_path / method
        for one in range(2):
            path = found[method] / f"clip {one}.mp4"
            video.write_video(path, clip(2 * number + one), 8, comment=f"made by {method}")
            path.with_suffix(".txt").write_text(f"prompt {one} </script><b>")
    return found


def built(folders: dict[str, Path], tmp_path: Path, *more: str) -> Path:
    named = [part for method, folder in folders.items() for part in ("--videos", f"{method}={folder}")]
    photos = drawn_photos(tmp_path / "photos", 1)
    target = tmp_path / "study"
    assert main(["study", "build", *named, "--photos", str(photos[0]), "-o", str(target), "--seed", "1", *more]) == 0
    return target


def test_a_folder_tells_nobody_whose_a_video_is(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = built(folders, tmp_path)
    content = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(content) == 1 + 4 + 1  # the page, the videos, the photo
    for path, data in content.items():
        for method in METHODS:
            assert method.encode() not in data and method not in str(path.relative_to(folder))
        assert b"made by" not in data and b"clip 0" not in data
    key = json.loads((tmp_path / "study.key.json").read_text())
    assert sorted(one["prompt"] for one in key["sets"]) == ["prompt 0 </script><b>", "prompt 1 </script><b>"]
    for one in key["sets"]:
        assert {told["method"] for told in one["videos"].values()} == set(METHODS)
        for name, told in one["videos"].items():
            mine, theirs = video.read_video(folder / "media" / name)[0], video.read_video(Path(told["file"]))[0]
            assert np.abs(mine.astype(int) - theirs).mean() < 2
    assert "</script><b>" not in (folder / "index.html").read_text()


def test_a_folder_is_whole_or_not_there(folders: dict[str, Path], tmp_path: Path) -> None:
    (folders["dreambooth"] / "clip 1.mp4").write_bytes(b"no video")
    sets, _ = sets_of(
        {name: [Candidate(path, None) for path in sorted(of.glob("*.mp4"))] for name, of in folders.items()}
    )
    with pytest.raises(MagicIDError) as caught:
        build(sets, [], tmp_path / "study", Events(), title="t", count=0, seed=1)
    assert caught.value.code == "video-unreadable"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(METHODS)


def test_nothing_is_overwritten(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(folders, tmp_path)
    capsys.readouterr()
    named = [part for method, folder in folders.items() for part in ("--videos", f"{method}={folder}")]
    assert main(["study", "build", *named, "-o", str(tmp_path / "study"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "output-exists"


def candidate(name: str, prompt: str | None = None) -> Candidate:
    return Candidate(Path(name), prompt)


def test_sets_by_name_and_by_prompt() -> None:
    by_name, notes = sets_of({"a": [candidate("x/1.mp4"), candidate("x/2.mp4")], "b": [candidate("y/2.mp4")]})
    assert [{method: str(one.path) for method, one in of.items()} for of in by_name] == [
        {"a": "x/2.mp4", "b": "y/2.mp4"}
    ]
    assert notes == ["1 videos of a have no counterpart everywhere and are left out."]
    one = [candidate("p-1", "run"), candidate("p-2", "run"), candidate("p-3", "sit")]
    other = [candidate("q-1", "sit"), candidate("q-2", "run"), candidate("q-3", "run")]
    found, _ = sets_of({"a": one, "b": other})
    assert [(str(of["a"].path), str(of["b"].path)) for of in found] == [("p-1", "q-2"), ("p-2", "q-3"), ("p-3", "q-1")]


def test_the_same_name_with_another_prompt_is_no_set() -> None:
    one = [candidate("x/1.mp4", "run"), candidate("x/2.mp4", "sit"), candidate("x/3.mp4")]
    other = [candidate("y/1.mp4", "run"), candidate("y/2.mp4", "jump"), candidate("y/3.mp4", "nod")]
    found, notes = sets_of({"a": one, "b": other})
    assert [(str(of["a"].path), str(of["b"].path)) for of in found] == [("x/1.mp4", "y/1.mp4"), ("x/3.mp4", "y/3.mp4")]
    assert notes[0] == "The videos called 2 show different prompts and are no set."
    # Numbered alike by chance, in another order: the prompts say what belongs together.
    found, notes = sets_of({"a": one[:2], "b": [candidate("y/1.mp4", "sit"), candidate("y/2.mp4", "run")]})
    assert [(str(of["a"].path), str(of["b"].path)) for of in found] == [("x/1.mp4", "y/2.mp4"), ("x/2.mp4", "y/1.mp4")]


def test_a_study_that_cannot_take_its_place_leaves_no_key(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, _ = sets_of(
        {name: [Candidate(path, None) for path in sorted(of.glob("*.mp4"))] for name, of in folders.items()}
    )

    def full(self: Path, target: Path) -> None:
        if Path(target).name == "study":
            raise OSError(28, "No space left on device")
        os.rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"):
        build(sets, [], tmp_path / "study", Events(), title="t", count=0, seed=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(METHODS)


@pytest.mark.parametrize(
    "methods",
    [
        {},
        {"a": [candidate("1.mp4")]},
        {"a": [candidate("1.mp4")], "b": [candidate("2.mp4", "run")]},
        {str(n): [candidate("1.mp4")] for n in range(9)},
    ],
)
def test_what_cannot_be_compared(methods: dict[str, list[Candidate]]) -> None:
    with pytest.raises(MagicIDError) as caught:
        sets_of(methods)
    assert caught.value.code == "study-unusable"


def test_rm_names_a_study_of_the_identity_that_it_leaves(
    alice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study shows the person, and who deletes the identity wants to know where."""
    made, adapter = Workspace("alice").videos / "alice.mp4", file_digest(generation.adapter_of(Workspace("alice")))
    video.write_video(made, clip(1), 8)
    row = {"file": str(made), "prompt": "alice runs", "seed": 1, "adapter": adapter}
    write_lines(made.with_name("videos.jsonl"), [row])
    other = tmp_path / "other" / "alice.mp4"
    video.write_video(other, clip(2), 8)
    target = tmp_path / "study"
    assert main(["study", "build", "alice", "--videos", f"other={other.parent}", "-o", str(target)]) == 0
    capsys.readouterr()
    assert main(["rm", "alice", "-n"]) == 0
    assert f"  {target}\n  {tmp_path / 'study.key.json'}\n" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["folder", "=folder", "name=", " =folder"])
def test_a_method_needs_a_name_and_a_folder(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "build", "--videos", given, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "study-unusable"


# -- the answers


def key(folder: Path) -> dict[str, Any]:
    """A study of three sets of two videos, whose names tell the method."""
    sets = [
        {"id": f"s{n}", "prompt": "run", "videos": {f"{m}{n}": {"method": m, "file": ""} for m in METHODS}}
        for n in range(3)
    ]
    data = {"kind": "magicid study key", "format": 1, "study": "one", "title": "T", "methods": METHODS, "sets": sets}
    (folder / "study.key.json").write_text(json.dumps(data))
    return data


def answered(folder: Path, rater: str, said: dict[str, str], **changes: Any) -> Path:
    """A rater's file: `{"s0": "magic-id"}` answers every question about set 0 so."""
    answers = [
        {"set": one, "question": question.id, "choice": "none" if method == "none" else f"{method}{one[1:]}"}
        for one, method in said.items()
        for question in QUESTIONS
    ]
    data = {
        "kind": "magicid study answers",
        "format": 1,
        "study": "one",
        "rater": {"id": rater, "name": ""},
        "saved": "2026-01-01T00:00:00Z",
        "answers": answers,
        **changes,
    }
    path = folder / f"answers-{rater}-{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(data))
    return path


def test_answers_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key(tmp_path)
    answered(tmp_path, "r1", {"s0": "magic-id", "s1": "magic-id", "s2": "dreambooth"})
    answered(tmp_path, "r2", {"s0": "magic-id", "s1": "none"})
    files = sorted(tmp_path.glob("*.json"))
    outcome = results(files)
    assert (outcome.raters, outcome.sets) == (2, 3)
    for question in QUESTIONS:
        rates = {rate.method: rate for rate in outcome.rates if rate.question == question.id}
        assert rates["magic-id"].rate == pytest.approx(3.5 / 5)
        assert rates["dreambooth"].rate == pytest.approx(1.5 / 5)
        assert {rate.answers for rate in rates.values()} == {5}
        assert 0 <= rates["magic-id"].low <= 0.7 <= rates["magic-id"].high <= 1
        # Both answered sets 0 (alike) and 1 (not): magicid three times, none once; Do = 2/4, De = 1 - 6/12.
        assert outcome.agreement[question.id] == pytest.approx(1 - (2 / 4) / (1 - 6 / 12))
    assert main(["study", "results", *map(str, files)]) == 0
    printed = capsys.readouterr()
    assert "magic-id    70.0 %" in printed.out and "50.0 % would be chance" in printed.out
    assert "so few raters or sets" in printed.err


def test_who_saves_twice_counts_once_and_other_studies_do_not(tmp_path: Path) -> None:
    key(tmp_path)
    answered(tmp_path, "r1", {"s0": "magic-id"})
    answered(tmp_path, "r1", {"s0": "dreambooth"}, saved="2026-01-02T00:00:00Z")
    answered(tmp_path, "r2", {"s0": "magic-id"}, study="another")
    answered(tmp_path, "r3", {"s9": "magic-id", "s1": "nobody"})
    for order in (1, -1):
        outcome = results(sorted(tmp_path.glob("*.json"))[::order])
        rates = {rate.method: rate.rate for rate in outcome.rates}
        assert rates == {"magic-id": 0.0, "dreambooth": 1.0}
        told = " ".join(outcome.notes)
        assert "another study" in told and "saved more than once" in told and "8 answers name a set" in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "neither answers to a study nor"),
        ('{"kind": "magicid study answers", "format": 2, "study": "one"}', "neither answers to a study nor"),
        (
            '{"kind": "magicid study answers", "format": 1, "study": "one", "rater": 3}',
            "neither answers to a study nor",
        ),
    ],
)
def test_files_that_are_no_answers(tmp_path: Path, content: str, message: str) -> None:
    key(tmp_path)
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(MagicIDError, match=message) as caught:
        results(sorted(tmp_path.glob("*.json")))
    assert caught.value.code == "answers-unusable"


def test_answers_without_sense_are_left_out_and_counted(tmp_path: Path) -> None:
    key(tmp_path)
    answered(tmp_path, "r1", {"s0": "magic-id"})
    question = QUESTIONS[0].id
    mad = [{"question": question, "choice": "none"}, {"set": ["s0"], "question": question, "choice": "none"}]
    answered(tmp_path, "r2", {}, answers=[*mad, {"set": "s0", "question": [question], "choice": {}}])
    outcome = results(sorted(tmp_path.glob("*.json")))
    assert {rate.answers for rate in outcome.rates} == {1}
    assert "3 answers name a set" in " ".join(outcome.notes)


def test_a_key_whose_sets_have_no_name_is_refused(tmp_path: Path) -> None:
    data = key(tmp_path)
    del data["sets"][1]["id"]
    (tmp_path / "study.key.json").write_text(json.dumps(data))
    answered(tmp_path, "r1", {"s0": "magic-id"})
    with pytest.raises(MagicIDError, match="neither answers to a study nor") as caught:
        results(sorted(tmp_path.glob("*.json")))
    assert caught.value.code == "answers-unusable"


def test_without_a_key_or_an_answer_nothing_is_counted(tmp_path: Path) -> None:
    path = answered(tmp_path, "r1", {"s0": "magic-id"})
    with pytest.raises(MagicIDError, match="none of the files is the study's key"):
        results([path])
    key(tmp_path)
    with pytest.raises(MagicIDError, match="no answer to the study"):
        results([tmp_path / "study.key.json"])
    with pytest.raises(MagicIDError, match="cannot be read"):
        results([tmp_path / "missing.json"])
