"""`magicid evaluate` as its user meets it, and the tables that it writes.

Truths: the contract of the command line, the files read back by others (csv, json), and counted rows. The judges are
the stand-ins of `tiny`: no download, no claim about faces.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filmed import film

from album import drawn_photos
from fake_run import identity, outcome
from magicid_cli import evaluation as evaluating
from magicid_cli import pipeline
from magicid_cli.cli.app import main
from magicid_cli.evaluation import METRICS, Evaluation, Figure, SetAside, sheet
from magicid_cli.workspace import Workspace, append_line, file_digest

TINY = ("--model", "tiny", "--flow", "dis")


def noise(seed: int, frames: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three videos of anybody's, photos, and prompts."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        film(tmp_path / "videos", f"clip-{number}", noise(number))
    drawn_photos(tmp_path / "photos", 2)
    (tmp_path / "prompts.txt").write_text("one\none\ntwo\n", encoding="utf-8")
    return tmp_path


ANYBODY = ("evaluate", "--videos", "videos", "--references", "photos", "--prompts", "prompts.txt", *TINY)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert main([*arguments, "--json"]) != 0
    error = outcome(capsys)["error"]
    return error["code"], error["message"] + " " + error["hint"]


def made(workspace: Workspace, name: str, prompt: str, seed: int) -> None:
    """A video generated with the adapter in use, with its record."""
    path, adapter = film(workspace.videos, name, noise(seed)), workspace.path / "adapter.safetensors"
    if not adapter.is_file():
        adapter.write_text(name, encoding="utf-8")
        workspace.update(adapter=adapter.name)
    row = {"file": str(path), "prompt": prompt, "adapter": file_digest(adapter), "settings": {"adapter": "final"}}
    append_line(workspace.videos / "videos.jsonl", row)


@pytest.fixture
def alice(folder: Path) -> Workspace:
    """An identity with two videos of its own and one by another method, and two of the untouched model."""
    workspace = identity("alice", **dict.fromkeys(pipeline.ORDER, "done"))
    workspace.references.mkdir()
    for number, photo in enumerate(sorted((folder / "photos").iterdir())):
        photo.rename(workspace.references / f"{number:03d}.png")
    made(workspace, "a", "one", 1)
    made(workspace, "b", "two", 2)
    made(Workspace("alice", method="dreambooth"), "c", "one", 3)
    for number in range(2):
        film(workspace.repository / "clips", f"{number}", noise(10 + number))
        append_line(workspace.repository / "videos.jsonl", {"clip": f"clips/{number}.mp4", "origin": "initial"})
    return workspace


def test_anybodys_videos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("-o", "table.csv", "-o", "table.md", "-o", "table.tex", "-o", "all.json")
    assert main([*ANYBODY, "--fvd-reference", "videos", *files, "--json"]) == 0
    data = outcome(capsys)["data"]
    found = data["evaluations"]["videos"]
    assert list(found["figures"]) == list(METRICS)
    assert [row["prompt"] for row in found["videos"]] == ["one", "one", "two"]
    assert [(row["prompt"], row["videos"]) for row in found["prompts"]] == [("one", 2), ("two", 1)]
    assert found["figures"]["face_sim"]["prompts"] == 2
    assert found["figures"]["fvd"]["value"] == pytest.approx(0, abs=1e-6)
    assert [Path(path).name for path in data["files"]] == ["table.csv", "table.md", "table.tex", "all.json"]

    with Path("table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["level"] for row in rows] == ["mean", "low", "high", "prompt", "prompt", "video", "video", "video"]
    assert float(rows[0]["clip_i"]) == found["figures"]["clip_i"]["value"]
    assert rows[1]["fvd"] == ""
    assert json.loads(Path("all.json").read_text(encoding="utf-8"))["videos"] == found


def test_people_read_a_table_and_programs_with_q_paths(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ANYBODY, "--per-video"]) == 0
    shown = capsys.readouterr().out
    for metric in METRICS.values():
        assert f"\n{metric.title} " in shown
    assert "FVD ↓" in shown
    assert "FVD: no reference set." in shown
    assert "clip-2.mp4" in shown
    assert "stand-in-judge" in shown
    assert main([*ANYBODY, "-o", "table.csv", "-q"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "table.csv")


def test_an_identitys_videos_by_every_method(alice: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "alice", "--flow", "dis", "--json"]) == 0
    found = outcome(capsys)["data"]["evaluations"]
    assert {label: len(one["videos"]) for label, one in found.items()} == {"magicid": 2, "dreambooth": 1}
    assert found["magicid"]["fvd"]["reference"] == 2, "the untouched model's videos"
    assert "2 of each are needed" in found["dreambooth"]["figures"]["fvd"]["why"]
    assert sorted(path.name for path in alice.path.iterdir() if path.name == "evaluation")
    assert main(["evaluate", "--method", "dreambooth", "--flow", "dis", "--json"]) == 0
    assert list(outcome(capsys)["data"]["evaluations"]) == ["dreambooth"]
    assert main(["rm", "alice", "--dry-run"]) == 0
    assert "what `evaluate` measured" in capsys.readouterr().out


def test_a_table_has_the_same_judges_for_every_group_and_tells_what_groups_differ_in(
    alice: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One set of commits for all; another frame rate beside the first column; FVD's set with other prompts."""
    given, real = list[Any](), evaluating.evaluate

    def spy(*arguments: Any, **named: Any) -> Evaluation:
        given.append(named["commits"])
        return real(*arguments, **named)

    monkeypatch.setattr(evaluating, "evaluate", spy)
    slow = film(alice.path / "elsewhere", "slow", noise(3), 6)
    slow.replace(Workspace("alice", method="dreambooth").videos / "c.mp4")
    assert main(["evaluate", "alice", "--flow", "dis", "--json"]) == 0
    found = outcome(capsys)["data"]["evaluations"]
    assert len(given) == 2 and given[0] is given[1]
    assert [one["videos"][0]["fps"] for one in found.values()] == [8, 6]
    assert any("Frames a second: 6; of magicid: 8." in note for note in found["dreambooth"]["notes"])
    assert any("differs from the videos in: the prompts" in note for note in found["magicid"]["notes"])
    videos = ("--fvd-reference", str(alice.repository / "clips"))
    assert main(["evaluate", "alice", "--flow", "dis", "--json", *videos]) == 0
    notes = outcome(capsys)["data"]["evaluations"]["magicid"]["notes"]
    assert not any("untouched" in note for note in notes), "these are the user's"


def test_the_videos_of_another_model_are_held_beside_fvd_s_set_by_their_own_records(
    alice: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """ID-Animator's size, frames and steps are not those of `generate`."""
    space, photo = Workspace("alice", method="id-animator"), min(alice.references.glob("*.png"))
    for number in range(2):
        path = film(space.videos, f"{number}", noise(20 + number))
        row = {"file": str(path), "prompt": "one", "adapter": None, "photo": {"sha256": file_digest(photo)}}
        theirs = {"size": "512x512", "frames": 16, "steps": 30}
        append_line(space.videos / "videos.jsonl", row | {"weights": {}, "settings": theirs, "time": number})
    assert main(["evaluate", "alice", "--flow", "dis", "--json", "--method", "id-animator"]) == 0
    notes = outcome(capsys)["data"]["evaluations"]["id-animator"]["notes"]
    (said,) = [note for note in notes if note.startswith("FVD's reference set")]
    assert all(f"(the videos: {value})" in said for value in theirs.values())


def test_a_group_of_which_nothing_remains_is_named(alice: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (alice.path / "adapter.safetensors").write_text("trained again", encoding="utf-8")
    assert main(["evaluate", "alice", "--flow", "dis"]) == 0
    shown = capsys.readouterr()
    assert "magicid: Videos of an earlier adapter, left out: 2." in shown.err
    assert "dreambooth" in shown.out and "magicid" not in shown.out
    code, text = refused(capsys, "evaluate", "alice", "--method", "magicid")
    assert code == "videos-missing"
    assert "magicid: Videos of an earlier adapter, left out: 2. It has some by: dreambooth." in text


def test_a_method_asked_for_by_name_has_all_its_columns(alice: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where its videos were made with several settings, which then stand apart."""
    path, adapter = film(alice.videos, "small", noise(9)), file_digest(alice.path / "adapter.safetensors")
    row = {"file": str(path), "prompt": "one", "adapter": adapter, "settings": {"adapter": "final", "frames": 9}}
    append_line(alice.videos / "videos.jsonl", row)
    assert main(["evaluate", "alice", "--method", "magicid", "--flow", "dis", "--json"]) == 0
    found = outcome(capsys)["data"]["evaluations"]
    assert {label: len(one["videos"]) for label, one in found.items()} == {
        "magicid (frames 61)": 2,
        "magicid (frames 9)": 1,
    }


def test_anybodys_videos_of_an_identity(alice: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "alice", "--videos", "videos", "--flow", "dis", "--json"]) == 0
    found = outcome(capsys)["data"]["evaluations"]["videos"]
    assert found["figures"]["clip_t"]["value"] is None
    assert "no prompt is known" in found["figures"]["clip_t"]["why"]
    assert found["photos"]["with_face"] == 2


def test_what_does_not_go_together_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ("evaluate", "--references", "photos"),
        ("evaluate", "--videos", "videos"),
        ("evaluate", "alice", "--videos", "videos", "--references", "photos"),
        (*ANYBODY, "--method", "magicid"),
    ):
        assert refused(capsys, *arguments)[0] == "usage", arguments


def test_what_is_not_there_is_named(folder: Path, alice: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = refused(capsys, "evaluate", "alice", "--method", "consisid")
    assert code == "videos-missing"
    assert "magicid, dreambooth" in text
    identity("bob")
    code, text = refused(capsys, "evaluate", "bob")
    assert code == "videos-missing"
    assert "magicid generate --name bob" in text
    (folder / "empty").mkdir()
    photo = str(alice.references / "000.png")
    assert refused(capsys, "evaluate", "--videos", "empty", "--references", photo)[0] == "videos-missing"
    code, text = refused(capsys, "evaluate", "--videos", "videos", "--references", "prompts.txt", *TINY)
    assert code == "photos-none-usable"
    assert "prompts.txt" in text


def test_a_table_is_never_lost_nor_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "table.csv").write_text("mine", encoding="utf-8")
    assert refused(capsys, *ANYBODY, "-o", "table.csv")[0] == "output-exists"
    assert refused(capsys, *ANYBODY, "-o", "table.xlsx")[0] == "output-invalid"
    assert (folder / "table.csv").read_text(encoding="utf-8") == "mine"
    assert main([*ANYBODY, "-o", "table.csv", "--force"]) == 0
    assert (folder / "table.csv").read_text(encoding="utf-8").startswith("method,level")


# Tables


def evaluation(**figures: Figure) -> Evaluation:
    found = {name: figures.get(name, Figure(None, 0, 0, why="not measured")) for name in METRICS}
    row: dict[str, Any] = {"prompt": "=a | b_c", "videos": 2, **dict.fromkeys(METRICS)}
    return Evaluation(
        found,
        prompts=(row,),
        videos=({**row, "video": "v.mp4", "details": {}},),
        made_by={"face_sim": "one_judge 100%"},
        set_aside=(SetAside("x.mp4", "it is damaged"),),
        notes=("A note.",),
    )


SOME = evaluation(face_sim=Figure(0.61234, 8, 4, 0.55, 0.66), fvd=Figure(1228.333, 8, 4))


def test_latex_is_the_papers_table() -> None:
    lines = sheet.as_latex({"ours & theirs": SOME}).splitlines()
    assert [line for line in lines if not line.startswith("%")] == [
        r"\begin{tabular}{lcccccc}",
        r"\toprule",
        r"Method & Face Sim $\uparrow$ & Dyna. Deg. $\uparrow$ & T. Cons. $\uparrow$ & CLIP-T $\uparrow$ & "
        r"CLIP-I $\uparrow$ & FVD $\downarrow$ \\",
        r"\midrule",
        r"ours \& theirs & 0.612 {\scriptsize [0.550, 0.660]} & -- & -- & -- & -- & 1228.33 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert "% ours & theirs: Face Sim: one_judge 100%" in lines


def test_markdown_has_intervals_gaps_judges_and_prompts() -> None:
    text = sheet.as_markdown({"ours": SOME, "theirs": SOME})
    assert "| Face Sim ↑ | 0.612 [0.550, 0.660] | 0.612 [0.550, 0.660] |" in text
    assert "| FVD ↓ | 1228.33 | 1228.33 |" in text
    assert "- CLIP-T: not measured." in text
    assert "- x.mp4: it is damaged." in text
    assert r"one\_judge" in text
    assert r"=a \| b\_c" in text


def test_csv_holds_no_formulas() -> None:
    rows = list(csv.DictReader(sheet.as_csv({"ours": SOME}).splitlines()))
    assert [row["level"] for row in rows] == ["mean", "low", "high", "prompt", "video"]
    assert rows[3]["prompt"] == "'=a | b_c"
    assert (rows[0]["face_sim"], rows[1]["face_sim"], rows[0]["clip_t"]) == ("0.61234", "0.55", "")


def test_the_terminals_table_has_a_row_for_every_metric() -> None:
    header, rows = sheet.by_metric({"ours": SOME})
    assert header == ("METRIC", "ours")
    assert len(rows) == len(METRICS)
    assert rows[0] == ("Face Sim ↑", "0.612 [0.550, 0.660]")
