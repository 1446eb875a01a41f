"""The report against the files it was made from, Python's own HTML parser, hand arithmetic, and what a front is.

What only a browser can tell is in test_report_in_a_browser.py.
"""

import json
import re
import shlex
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from magicid_cli import comparison, repeating
from magicid_cli.cli.app import main
from magicid_cli.cli.identity import recorded_settings
from magicid_cli.config import KNOBS, resolve
from magicid_cli.events import Events
from magicid_cli.hpo import selection
from magicid_cli.pages import report, shell
from magicid_cli.pages.charts import COLOURS, lines, number, scatter
from magicid_cli.pages.report import making, repository
from magicid_cli.video import read_video
from magicid_cli.workspace import Workspace, append_line, read_json, read_lines
from report_cases import HOSTILE, page_of, parsed, poison, with_guards

SVG = "{http://www.w3.org/2000/svg}"


def marks(svg: str) -> list[ElementTree.Element]:
    """The elements of a chart that stand for something."""
    return [one for one in ElementTree.fromstring(svg).iter() if one.get("data-mark")]


def variables(sheet: str) -> list[dict[str, str]]:
    """The colours of a style sheet, theme by theme."""
    blocks = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio of two colours, by its formula."""

    def luminance(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_the_contrast_of_wcag_aa_in_both_themes() -> None:
    light, dark, *_ = variables(shell.asset("shell.css"))
    assert light.keys() == dark.keys()
    for theme in (light, dark):
        for text in ("ink", "faint", "accent", "alarm", "c1", "c2", "c3", "c4"):
            for ground in ("ground", "raised"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        assert contrast(theme["accent-ink"], theme["accent"]) >= 4.5
        for verdict in ("good", "spare", "bad"):
            assert contrast(theme[verdict], theme[f"{verdict}-ground"]) >= 4.5, verdict


def test_charts_are_drawn_in_the_light_theme() -> None:
    light = variables(shell.asset("shell.css"))[0]
    assert {name: light[name] for name in COLOURS} == COLOURS


def test_a_figure_is_written_with_digits_that_mean_something() -> None:
    written = [number(value) for value in (None, 0.0, 0.56281, -0.00446, 4.687, 123.4, 3.1e-5)]
    assert written == ["–", "0.000", "0.563", "-0.0045", "4.69", "123", "3.10e-05"]


def points(count: int) -> list[scatter.Point]:
    chance = np.random.default_rng(0)
    origins = list(scatter.origins())
    return [
        scatter.Point(f"v{n}", origins[n % 3], None if n % 3 == 2 else n % 4, *chance.random(3).round(3).tolist())
        for n in range(count)
    ]


def test_a_front_is_what_its_definition_says() -> None:
    some = points(60)

    def beats(a: scatter.Point, b: scatter.Point) -> bool:
        return a.likeness >= b.likeness and a.motion >= b.motion and (a.likeness, a.motion) != (b.likeness, b.motion)

    upper = sorted((one.likeness, one.motion) for one in some if not any(beats(other, one) for other in some))
    lower = sorted((one.likeness, one.motion) for one in some if not any(beats(one, other) for other in some))
    assert scatter.front(some, upper=True) == upper
    assert scatter.front(some, upper=False) == lower


def test_every_video_and_pair_is_a_link_that_says_what_it_is() -> None:
    some = points(12)
    pairs = [
        scatter.Pair("pair-0", "identity", "v2", "v0", "because"),
        scatter.Pair("pair-1", "dynamic", "v1", "v4", "x"),
    ]
    chart = scatter.chart(some, pairs)
    found = marks(chart.svg)
    said = {one.get("data-mark"): one.get("aria-label") for one in found if one.get("aria-label")}
    assert {name for name in said if name in {one.id for one in some}} == {one.id for one in some}
    assert said["v3"] == some[3].said
    assert said["pair-0"] == "identity pair: v2 preferred to v0; because"
    spoken = [one for one in found if one.get("aria-label")]
    assert all(one.tag == f"{SVG}a" and one.get("href") == f"#{one.get('data-mark')}" for one in spoken)
    # The rings of the two winners are silent.
    assert [one.get("aria-hidden") for one in found if one not in spoken] == ["true"] * 2
    # Of every prompt its own frontiers, hidden at first, and in no PNG.
    hidden = {one.get("data-mark") for one in found if one.get("class") == "off"}
    prompts = {one.prompt for one in some if one.prompt is not None}
    assert hidden == {f"front-{side}-{prompt}" for side in ("upper", "lower") for prompt in prompts}
    assert not {"front-upper-all", "front-lower-all"} & hidden
    assert chart.png.startswith(b"\x89PNG")
    assert "of prompt" not in json.dumps(chart.still)


def test_a_later_round_s_videos_are_said_to_come_from_the_adapter_it_started_from():
    some = [replace(one, round=2) for one in points(6)]
    chart = scatter.chart(some, [])
    origins = {row[1] for row in chart.rows}
    assert origins == {"with the adapter of round 1", "untouched model", "photo as a clip"}
    assert "stage-1" not in json.dumps(chart.spec)


def test_a_long_curve_has_every_step_and_the_means_of_its_parts() -> None:
    rows = [(float(step), float(step % 7)) for step in range(1, 101)]
    alarm = lines.Mark(60, "saturation", "alarm at step 60")
    chart = lines.chart("id", "T", "C", [lines.Curve("loss", rows)], lines.Axis("Step", "Loss"), [alarm])
    found = marks(chart.svg)
    means = [one for one in found if one.get("data-mark", "").startswith("id:")]
    assert len(means) == lines.MOST_POINTS
    # 100 steps in 40 parts: the first has steps 1 and 2, whose values are 1 and 2.
    assert means[0].get("aria-label") == "loss, steps 1–2: 1.50"
    (fired,) = [one for one in found if one.get("data-mark", "").startswith("mark:")]
    assert fired.get("aria-label") == "alarm at step 60"
    paths = [one.get("d", "") for one in ElementTree.fromstring(chart.svg).iter(f"{SVG}path")]
    assert 100 in [len(re.findall("[ML]", path)) for path in paths], "the whole curve is there, too"


def test_a_chart_follows_the_theme_of_the_page() -> None:
    svg = scatter.chart(points(6), []).svg
    assert "var(--c1)" in svg and "var(--ink)" in svg
    assert not re.search(r'(fill|stroke)="#', svg)
    assert 'fill="black"' not in svg


def test_what_users_wrote_is_text_and_nothing_else(alice: Path) -> None:
    workspace = Workspace("alice")
    clean = parsed(page_of(workspace))
    poison(workspace)
    found = parsed(page_of(workspace))
    assert [tag for tag, _ in found.tags if tag in ("script", "style")] == [
        tag for tag, _ in clean.tags if tag in ("script", "style")
    ]
    assert not [tag for tag, attributes in found.tags for name in attributes if name.startswith("on")]
    assert found.named("img") == [one for one in found.named("img") if str(one["src"]).startswith("data:")]
    assert found.scripts[-1] == clean.scripts[-1]
    prompts = {one["prompt"] for one in json.loads(found.scripts[0])["videos"].values()}
    assert prompts == {HOSTILE}
    # Photo (name, reason, advice, remark), caption, pair, video set aside (twice), fallback, setting (twice), videos.
    assert found.text.count("<script>window.hacked=1</script>") > 12
    assert "49" not in re.findall(r"</style>(.{2})", found.text)


def test_our_own_files_do_not_end_the_element_they_stand_in() -> None:
    for path in shell.TEMPLATES.iterdir():
        if path.suffix in (".css", ".js"):
            assert "</" not in path.read_text(encoding="utf-8").replace("</'", ""), path.name


def test_the_form_to_share_shows_nobody_and_no_place(alice: Path) -> None:
    workspace = Workspace("alice")
    recorded = workspace.manifest()["settings"]
    # A file's name tells as much as its path, so one has no folder and none has the ending of a file.
    secrets = {
        "repository.prompts_file": "for-alice-smith",
        "rewards.face_model": "/home/smith/faces",
        "rewards.evaluation_face_model": "smiths-judge.onnx",
        "compare.prompts_file": "C:\\smith",
        "evaluate.fvd_features": "smith.pt",
    }
    for name, value in secrets.items():
        section, _, inner = name.rpartition(".")
        if section in recorded["values"]:
            recorded["values"][section][inner] = value
        recorded["origins"][name] = f"flag {KNOBS[name].flag}"
    recorded["origins"]["seed"] = "preset fast (smith.toml)"
    recorded["origins"]["pairs.count"] = "smith.toml"
    workspace.update(settings=recorded)
    files = [row["file"] for row in read_lines(workspace.references / "photos.jsonl")]
    captions = {row["caption"] for row in read_lines(workspace.references / "captions.jsonl")}
    private, shared = page_of(workspace), page_of(workspace, show=False)
    for telling in (*files, *captions, "data:image", "data:video", ".mp4", "the tests"):
        assert telling in private, f"the test would find nothing: {telling}"
        assert telling not in shared, telling
    assert str(alice) not in shared
    for flag, value in (("--prompts", "for-alice-smith"), ("--face-model", "/home/smith/faces")):
        assert f"{flag} {value}" in private and f"{flag} FILE" in shared
    assert "smith" not in shared
    assert "preset fast" in shared
    known, told = (json.loads(parsed(page).scripts[0]) for page in (private, shared))
    assert told["pairs"] == known["pairs"] and told["videos"].keys() == known["videos"].keys()
    assert not told["previews"]
    assert "This page shows a face" in private
    assert "This page shows a face" not in shared


@pytest.mark.parametrize("last", ["", "ingest", "reconstruct", "sample", "score", "select"])
def test_a_run_that_is_not_finished_has_a_report_that_says_so(alice: Path, last: str) -> None:
    workspace = Workspace("alice")
    order = ["ingest", "reconstruct", "sample", "score", "select", "prefer"]
    gone = order[order.index(last) + 1 :] if last else order
    paths = {
        "ingest": [workspace.references],
        "reconstruct": [workspace.reconstruct],
        "sample": [workspace.repository],
        "score": [workspace.scores, workspace.set_aside],
        "select": [workspace.pairs, workspace.pairs_report],
        "prefer": [workspace.prefer],
    }
    for path in [path for stage in gone for path in paths[stage]]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    stages = {name: row for name, row in workspace.manifest()["stages"].items() if name not in gone}
    workspace.update(stages=stages, adapter=None, finished=None)
    text = parsed(page_of(workspace, show=False)).text
    assert "there is no adapter to judge yet" in text
    said = {
        "ingest": "No photo was judged yet",
        "reconstruct": "Stage 1 has not begun",
        "sample": "no preference repository",
        "score": "none is scored to the end yet",
        "prefer": "Stage 2 has not begun",
    }
    for stage, sentence in said.items():
        expected = stage in gone and not (stage == "score" and "sample" in gone)
        assert (sentence in text) == expected, stage


def test_a_run_without_stage_2_says_so(alice: Path) -> None:
    workspace = Workspace("alice")
    recorded = workspace.manifest()["settings"]
    recorded["values"]["prefer"]["steps"] = 0
    workspace.update(settings=recorded, adapter="reconstruct/adapter.safetensors")
    text = parsed(page_of(workspace, show=False)).text
    assert "this run has no preference optimization" in text
    assert "This run has no stage 2" in text
    # The repository that lies there is an earlier run's.
    assert read_lines(workspace.repository / "videos.jsonl")
    assert "This run has no preference repository: it ends after stage 1" in text and "possible pairs" not in text


def test_every_rule_of_selection_has_a_word() -> None:
    named = {rule for _, rule in selection._STARVED}
    assert {"voted", "no_motion_gap", "identity_lost"} <= named
    assert named <= set(repository.REASONS)


def test_alarms_are_drawn_where_they_fired(alice: Path) -> None:
    workspace = Workspace("alice")
    with_guards(workspace, {4: ["motion-lost"], 8: ["motion-lost", "saturation"]}, chosen=4)
    settings = recorded_settings(workspace, {})
    built = report.build(workspace, settings, (), target=workspace.path / "r.html", show=False)
    charts = {chart.id: chart for chart in built.charts}
    fired = {
        name: [str(one.get("data-mark")) for one in marks(chart.svg) if one.get("data-mark", "").startswith("mark:")]
        for name, chart in charts.items()
    }
    assert sorted(fired["watched-motion"]) == ["mark:chosen:4", "mark:motion-lost:4", "mark:motion-lost:8"]
    assert fired["watched-likeness"] == ["mark:chosen:4"]
    assert fired["gradient-factor"] == ["mark:saturation:8"]
    assert fired["margin"] == fired["errors"] == []
    assert "Chosen: step 4 of 8" in parsed(built.page).text


def test_the_command_repeats_the_settings(alice: Path) -> None:
    recorded = Workspace("alice").manifest()["settings"]
    words = shlex.split(repeating.command("alice", recorded))
    assert words[:5] == ["magicid", "customize", "PHOTOS", "--name", "alice"]
    flags = {knob.flag: name for name, knob in KNOBS.items() if knob.flag}
    given = {flags[flag]: value for flag, value in zip(words[5::2], words[6::2], strict=True)}
    kinds = {name: type(KNOBS[name].default) for name in given}
    values = {name: value if kinds[name] is str else json.loads(value) for name, value in given.items()}
    again = resolve(values).settings
    for name in KNOBS:
        section, _, inner = name.rpartition(".")
        if section not in ("generate", "model"):
            before = recorded["values"][section][inner] if section else recorded["values"][inner]
            assert getattr(getattr(again, section) if section else again, inner) == before, name


def test_hours_are_those_of_work(alice: Path) -> None:
    workspace = Workspace("alice")
    workspace.events.unlink()
    stage = {"kind": "stage", "stage": "sample", "title": "Sampling"}
    for row in (
        {"time": 1000.0, **stage, "state": "started"},
        {"time": 1060.0, "kind": "step", "stage": "sample"},
        # Killed; the next day it goes on.
        {"time": 90_000.0, **stage, "state": "started"},
        {"time": 90_030.0, **stage, "state": "finished"},
        {"time": 99_000.0, "kind": "stage", "stage": "score", "title": "Judging", "state": "started"},
        {"time": 99_010.0, "kind": "notice", "message": "no stage is named"},
    ):
        append_line(workspace.events, row)
    found = making.section(workspace, workspace.manifest(), None, private=True)
    assert found["hours"] == {"Sampling": 90.0, "Judging": 10.0}
    assert found["energy"].startswith("1.8 Wh")  # 100 s at 65 W
    assert making.energy(3600, "NVIDIA H200", on_gpu=True).startswith("0.7 kWh")


def test_a_large_repository_stays_below_the_limit(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace("alice")
    whole = page_of(workspace)
    count = sum(row["origin"] != "static" for row in read_lines(workspace.repository / "videos.jsonl"))
    assert len(json.loads(parsed(whole).scripts[0])["previews"]) == count
    # Charts, tables and the rest of a full run take a fraction of what is left.
    assert report.ROOM_FOR_PREVIEWS + report.ROOM_FOR_POSTERS <= 15_000_000
    monkeypatch.setattr(report, "ROOM_FOR_PREVIEWS", 5_000)
    previews = json.loads(parsed(page_of(workspace)).scripts[0])["previews"]
    assert 0 < len(previews) < count
    assert sum(map(len, list(previews.values())[:-1])) < 5_000
    paired = {row[side]["id"] for row in read_lines(workspace.pairs) for side in ("winner", "rejected")}
    assert previews.keys() <= paired, "those that are in pairs come first"


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict]:
    code = main(["report", "alice", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_the_command_makes_the_comparison_once(alice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace("alice")
    settings = recorded_settings(workspace, {"prefer.watch_videos": 1})
    recorded = workspace.manifest()["settings"]
    recorded["values"]["prefer"]["watch_videos"] = 1
    workspace.update(settings=recorded)

    assert main(["report", "alice", "--dry-run"]) == 0
    assert "generate" in capsys.readouterr().out
    assert not (workspace.path / "report").exists()
    code, said = outcome(capsys, "--png")
    assert code == 0 and said["data"]["videos_made"] == 3
    path = Path(said["data"]["report"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == said["data"]["bytes"] < 20_000_000
    assert [Path(one).stem for one in said["data"]["pictures"]] == said["data"]["charts"]
    assert {"compared-likeness", "repository", "margin", "likeness-by-frame"} <= set(said["data"]["charts"])

    # The videos are those that `generate` makes with the same settings.
    found = {one.id: one for one in comparison.found(workspace, settings)}
    assert sorted(found) == ["base-00", "final-00", "stage-1-00"]
    assert all(None not in (one.likeness, one.motion, one.following) for one in found.values())
    wanted = found["stage-1-00"]
    flags = ["--size", settings.shape.size, "--frames", str(settings.shape.frames), "--fps", str(settings.shape.fps)]
    flags += ["--steps", str(settings.repository.steps), "--guidance", str(settings.repository.guidance)]
    flags += ["--seed", str(wanted.seed), "--adapter", "stage-1", "--output", str(alice / "one.mp4")]
    assert main(["generate", "--prompt", wanted.prompt, "--name", "alice", *flags, "--quiet"]) == 0
    capsys.readouterr()
    assert np.array_equal(read_video(alice / "one.mp4")[0], read_video(wanted.clip)[0])

    # A base in other numbers makes other videos.
    coarse = recorded_settings(workspace, {"model.base": "int8"})
    assert len(comparison.to_make(workspace, coarse)) == 3

    # A second report makes nothing, another adapter only its own videos, a damaged clip only itself.
    before = (comparison.folder(workspace) / "scores.jsonl").read_bytes()
    assert outcome(capsys)[1]["data"]["videos_made"] == 0
    assert (comparison.folder(workspace) / "scores.jsonl").read_bytes() == before
    found["base-00"].clip.write_bytes(b"")
    assert [item.id for item in comparison.to_make(workspace, settings)] == ["base-00"]
    shutil.copy(workspace.reconstruct / "adapter.safetensors", workspace.prefer / "adapter.safetensors")
    ids = [item.id for item in comparison.to_make(workspace, settings)]
    assert ids == ["base-00", "final-00"]
    assert comparison.make(workspace, settings, Events()) == 2
    again = {one.id: one for one in comparison.found(workspace, settings)}
    assert again["base-00"].content == found["base-00"].content
    assert again["final-00"].likeness == again["stage-1-00"].likeness


def test_without_videos_the_report_says_what_is_missing(alice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace("alice")
    assert main(["report", "alice", "--no-videos", "--quiet"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert "No videos were made to compare (--no-videos)" in page.read_text(encoding="utf-8")
    assert not comparison.folder(workspace).exists()
    with workspace.lock():
        assert main(["report", "alice"]) == 0
        assert "is working on 'alice'" in capsys.readouterr().err
    recorded = read_json(workspace.manifest_path)
    recorded["stages"]["reconstruct"]["result"]["commit"] = "another"
    workspace.update(stages=recorded["stages"])
    assert main(["report", "alice", "--quiet"]) == 0
    assert "trained on weights that are not here any more" in page.read_text(encoding="utf-8")


def test_a_page_of_the_users_is_not_overwritten(
    alice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mine.html"
    target.write_text("mine")
    code, said = outcome(capsys, "--no-videos", "--output", str(target))
    assert (code, said["error"]["code"]) == (2, "output-exists")
    assert target.read_text() == "mine"
    code, said = outcome(capsys, "--no-videos", "--output", str(tmp_path / "mine.pdf"))
    assert (code, said["error"]["code"]) == (2, "output-invalid")
    code, said = outcome(capsys, "--no-videos", "--output", str(target), "--force")
    assert code == 0
    (link, *_) = [one["href"] for one in parsed(target.read_text()).named("a") if str(one["href"]).endswith(".mp4")]
    assert (target.parent / str(link)).resolve().is_file()
    # It shows the person and lies where `rm` does not reach: `rm` names it.
    assert main(["rm", "alice", "--yes"]) == 0
    assert str(target) in capsys.readouterr().out
