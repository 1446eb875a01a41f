"""`customize`, `generate`, `export` and `prepare` at the command line.

Truth: the contract of the command line (questions, streams, exit codes, consent). The work itself is replaced by
stand-ins that record what they were asked for; it has its own tests.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import fake_run
from fake_run import outcome
from magicid_cli import export, pipeline, plan
from magicid_cli.cli import app as app_module
from magicid_cli.cli.app import main
from magicid_cli.cli.estimate import blocks
from magicid_cli.cli.output import Table, Terminal
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import Workspace, file_digest


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> fake_run.Calls:
    return fake_run.use(monkeypatch)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": "backend:native"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": ""}, {"PYTORCH_CUDA_ALLOC_CONF": ""}),
    ],
    ids=["unset", "set", "set by its old name"],
)
def test_a_gpu_is_divided_into_pieces_that_grow_unless_the_user_says_otherwise(
    given: dict[str, str], after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command finds it: nothing has read torch by then."""
    seen: list[dict[str, str]] = []

    def look(*_: Any, **__: Any) -> None:
        seen.append({name: value for name, value in os.environ.items() if name.endswith("ALLOC_CONF")})

    with monkeypatch.context() as patch:
        for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
            patch.setenv(name, "")  # so that what is set below is taken back
            patch.delenv(name)
        for name, value in given.items():
            patch.setenv(name, value)
        patch.setattr(app_module, "app", look)
        assert main(["ls"]) == 0
    assert seen == [after]


def answer(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Somebody sits at a terminal and types these lines."""
    monkeypatch.setattr(Terminal, "interactive", True)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))


# customize


def test_customize_prints_the_adapter_and_tells_the_next_command(
    calls: fake_run.Calls, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["customize", str(photos), "--name", "Alice", "--consent", "--frames", "9", "--class-word", "woman"]) == 0
    )
    captured = capsys.readouterr()
    assert captured.out == f"{Workspace('alice').prefer / 'adapter.safetensors'}\n"
    assert captured.err.startswith("STAGE")
    assert captured.err.endswith("Next: magicid generate --prompt 'alice walks along a beach at sunset'\n")
    (ran,) = calls.ran
    assert (ran["name"], ran["settings"].shape.frames, ran["settings"].photos.class_word) == ("alice", 9, "woman")
    assert ran["settings"].model.name == "hunyuan-video"
    assert ran["photos"] == [photos / "a.jpg", photos / "b.jpg"]


def test_customize_quiet_and_json(calls: fake_run.Calls, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["customize", str(photos), "--name", "alice", "--consent"]
    adapter = Workspace("alice").prefer / "adapter.safetensors"
    assert main([*common, "-q"]) == 0
    assert capsys.readouterr() == (f"{adapter}\n", "")
    assert main([*common, "--json"]) == 0
    whole = outcome(capsys)
    assert (whole["command"], whole["ok"], whole["error"]) == ("customize", True, None)
    assert (whole["data"]["adapter"], whole["data"]["pairs"]) == (str(adapter), 12)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_prints_the_plan_and_does_nothing(
    calls: fake_run.Calls, photos: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    calls.seconds, calls.states = None, {"ingest": "cached"}
    assert main(["customize", str(photos), "--name", "alice", "-n", *(["--json"] if as_json else [])]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert calls.ran == []
    assert not Workspace("alice").path.exists()
    if as_json:
        data = json.loads(captured.out)["data"]
        assert data["stages"][0] == {"name": "ingest", "title": "Ingest", "state": "cached", "why": "not begun"}
        assert data["estimate"]["seconds"] is None
        return
    # Every figure says whether it was measured or estimated.
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert "ingest cached 0 s - measured not begun" in lines
    assert "prefer todo unknown 34 GB unknown not begun" in lines
    assert "time unknown unknown" in lines
    assert "GPU memory (NVIDIA H100 80GB HBM3, 79 GB free) 33.6 GB estimated" in lines
    assert "disk (500 GB free) 12.3 GB estimated" in lines
    assert "download owner/weights 41.9 GB estimated" in lines


@pytest.mark.parametrize(
    ("state", "why", "label"),
    [
        ("todo", "what it reads has changed", "time, at most"),
        ("todo", "not begun", "time"),
        ("resume", "was interrupted", "time"),
    ],
)
def test_a_stage_that_may_turn_out_to_be_fresh_makes_the_time_an_upper_bound(state: str, why: str, label: str) -> None:
    stages = [
        pipeline.StageState("ingest", "Photos", "cached", "nothing it reads has changed"),
        pipeline.StageState("reconstruct", "Stage 1", state, why),
        pipeline.StageState("sample", "Videos", "todo", "follows reconstruct"),
    ]
    totals = blocks(fake_run.estimate(60.0, ("reconstruct", "sample")), stages)[1]
    assert isinstance(totals, Table)
    assert totals.rows[0][0] == label


def test_without_consent_and_without_a_terminal_nothing_runs(
    calls: fake_run.Calls, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["customize", str(photos), "--name", "alice", "--yes"]) == 4
    assert "add --consent" in capsys.readouterr().err
    assert main(["customize", str(photos), "--name", "alice", "--json"]) == 4
    assert outcome(capsys)["error"]["code"] == "consent-missing"
    assert calls.ran == []
    assert not Workspace("alice").path.exists()


def test_consent_is_kept_with_who_how_and_the_photos_and_not_asked_again(
    calls: fake_run.Calls, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    command = ["customize", str(photos), "--name", "alice", "-q"]
    assert main([*command, "--consent"]) == 0
    (entry,) = Workspace("alice").manifest()["consent"]
    assert (entry["who"], entry["how"]) == ("somebody", "--consent")
    assert entry["photos"] == sorted(file_digest(photo) for photo in photos.iterdir())
    assert main(command) == 0
    (photos / "c.jpg").write_bytes(b"c")
    assert main(command) == 4
    assert main([*command, "--consent"]) == 0
    assert Workspace("alice").manifest()["consent"][1]["photos"] == [file_digest(photos / "c.jpg")]
    assert len(calls.ran) == 3


def test_on_a_terminal_consent_is_asked(
    calls: fake_run.Calls, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["customize", str(photos), "--name", "alice", "--yes"]
    for said in ("n", ""):
        answer(monkeypatch, said)
        assert main(command) == 4
    assert calls.ran == []
    answer(monkeypatch, "y")
    assert main(command) == 0
    assert "Is this you, or do you have this person's permission?" in capsys.readouterr().err
    assert Workspace("alice").manifest()["consent"][0]["how"] == "asked on a terminal"


def test_new_photos_under_an_old_name_list_the_stale_stages_before_they_ask(
    calls: fake_run.Calls, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["customize", str(photos), "--name", "alice", "--consent", "-q"]) == 0
    (photos / "c.jpg").write_bytes(b"c")
    calls.states = {"ingest": "todo", "reconstruct": "cached"}
    answer(monkeypatch, "y")
    assert main(["customize", str(photos), "--name", "alice"]) == 0
    asked = capsys.readouterr().err
    told = "1 of 3 photos are new. Stages that will be done again: Ingest, Sample, Score, Select, Prefer."
    assert asked.index(told) < asked.index("Is this you") < asked.index("STAGE")


@pytest.mark.parametrize(("seconds", "asks"), [(1799.0, False), (1801.0, True), (None, True)])
def test_on_a_terminal_more_than_half_an_hour_needs_a_yes(
    calls: fake_run.Calls,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float | None,
    asks: bool,
) -> None:
    calls.seconds = seconds
    command = ["customize", str(photos), "--name", "alice", "--consent"]
    answer(monkeypatch, "n")
    assert main([*command, "--json"]) == (1 if asks else 0)
    assert (outcome(capsys)["error"] or {}).get("code") == ("declined" if asks else None)
    answer(monkeypatch, "y")
    assert main(command) == 0
    assert ("Start? [y/N]" in capsys.readouterr().err) == asks
    answer(monkeypatch)
    assert main([*command, "--yes"]) == 0
    monkeypatch.setattr(Terminal, "interactive", False)
    assert main(command) == 0  # nobody is there: nothing waits


def test_a_busy_identity_is_refused_before_anything_is_planned(
    calls: fake_run.Calls, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("planned")

    monkeypatch.setattr(pipeline, "plan", never)
    with fake_run.identity("alice").lock():
        assert main(["customize", str(photos), "--name", "alice", "--consent"]) == 1
    assert "is working on 'alice'" in capsys.readouterr().err


def test_a_name_that_is_a_word_gets_a_warning(
    calls: fake_run.Calls, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["customize", str(photos), "--name", "Rose", "--consent"]) == 0
    assert "warning: 'rose' is also a word" in capsys.readouterr().err


def test_photos_that_are_not_there_are_refused(calls: fake_run.Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["customize", "nowhere/*.jpg", "--name", "alice", "--json"]) == 4
    assert outcome(capsys)["error"]["code"] == "photos-missing"


# generate, export, prepare


def test_the_only_identity_needs_no_name_and_brings_its_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = fake_run.identity("alice", class_word="woman")
    made = fake_run.use_generation(monkeypatch)
    assert main(["generate", "--prompt", "Alice's hat blows away", "--seed", "3", "--count", "2"]) == 0
    assert capsys.readouterr().out == f"{workspace.videos / '3.mp4'}\n{workspace.videos / '4.mp4'}\n"
    assert made[0]["prompt"] == "A woman's hat blows away"
    settings = made[0]["settings"]
    assert (settings.model.name, settings.generate.size, settings.seed) == ("tiny", "64x64", 3)
    assert main(["generate", "--prompt", "alice", "--json"]) == 0
    whole = outcome(capsys)
    assert whole["data"]["videos"] == [{"path": str(workspace.videos / "5.mp4"), "seed": 5, "prompt": "a woman"}]


def test_which_identity_a_prompt_means(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = fake_run.use_generation(monkeypatch)
    assert main(["generate", "--prompt", "a dance"]) == 2
    for name in ("alice", "bob"):
        fake_run.identity(name)
    for arguments in (["a dance"], ["alice and bob dance"], ["alice dances", "--name", "bob"], ["x", "--name", "eve"]):
        assert main(["generate", "--prompt", *arguments]) == 2, arguments
    assert made == []
    assert main(["generate", "--prompt", "bob dances"]) == 0
    assert main(["generate", "--prompt", "a dance", "--name", "ALICE"]) == 0
    assert [call["name"] for call in made] == ["bob", "alice"]
    capsys.readouterr()


def test_a_prompt_without_the_person_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.identity("alice", class_word="woman")
    made = fake_run.use_generation(monkeypatch)
    assert main(["generate", "--prompt", "a dog runs"]) == 0
    assert "warning: The prompt says neither alice nor woman" in (shown := capsys.readouterr().err)
    assert '--prompt "alice walks along a beach"' in shown
    for unwarned in (["alice runs"], ["a Woman runs"], ["a dog runs", "-q"]):
        assert main(["generate", "--prompt", *unwarned]) == 0
        assert "warning" not in capsys.readouterr().err, unwarned
    assert len(made) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["generate", "--prompt", "bob"], "identity-unfinished"),
        (["generate", "--prompt", "alice", "--model", "hunyuan-video"], "model-mismatch"),
        (["generate", "--prompt", "alice", "-o", "taken.mp4"], "output-exists"),
        (["generate", "--prompt", "alice", "-o", "x" * 300 + ".mp4"], "output-invalid"),
        (["generate", "--prompt", "alice", "-o", "clip.gif"], "output-invalid"),
        (["export", "bob"], "identity-unfinished"),
        (["export", "alice", "--model", "hunyuan-video"], "model-mismatch"),
        (["export", "alice", "-o", "."], "output-exists"),
        (["export", "alice", "-o", "x" * 300], "output-invalid"),
    ],
)
def test_what_can_be_refused_at_once_is_refused_before_torch_is_imported(
    tmp_path: Path, arguments: list[str], code: str
) -> None:
    workspace = fake_run.identity("alice")
    (workspace.path / "adapter.safetensors").write_bytes(b"")
    workspace.update(adapter="adapter.safetensors")
    fake_run.identity("bob")
    (tmp_path / "taken.mp4").write_bytes(b"")
    script = f"""
import sys
from magicid_cli.cli.app import main
main({[*arguments, "--json"]!r})
sys.exit(any(name in sys.modules for name in ("torch", "diffusers", "transformers", "peft")))
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(ended.stdout)["error"]["code"] == code
    assert ended.returncode == 0, "something heavy was imported"


def test_a_damaged_neighbour_does_not_keep_an_identity_from_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake_run.use_generation(monkeypatch)
    fake_run.identity("alice")
    fake_run.identity("bob").manifest_path.write_text("{")
    assert main(["generate", "--prompt", "alice", "-q"]) == 0
    assert [call["name"] for call in made] == ["alice"]
    assert main(["generate", "--prompt", "bob", "-q"]) == 1


def test_many_videos_are_planned_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_run.identity("alice")
    made = fake_run.use_generation(monkeypatch, seconds=7200.0)
    assert main(["generate", "--prompt", "alice", "-n"]) == 0
    assert "generate  todo   2.0 h" in capsys.readouterr().out
    answer(monkeypatch, "n")
    assert main(["generate", "--prompt", "alice"]) == 1
    assert made == []


def test_a_negative_prompt_without_true_guidance_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.identity("alice")
    made = fake_run.use_generation(monkeypatch)
    assert main(["generate", "--prompt", "alice", "--negative-prompt", "rain"]) == 2
    assert "--true-guidance" in capsys.readouterr().err
    assert made == []


def test_export_formats_are_those_that_can_be_written() -> None:
    from magicid_cli.cli.export import Format

    assert get_args(get_args(Format)[0]) == export.KINDS


def test_export_prints_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(workspace: Workspace, kind: str, destination: Path | None, **more: Any) -> export.Exported:
        folder = destination or tmp_path / f"{workspace.name}-{kind}-{more['settings'].model.name}"
        folder.mkdir()
        (folder / "README.md").write_text("card")
        return export.Exported(folder, [folder / "README.md"], {"largest_difference": 1.0008257333993242e-07})

    monkeypatch.setattr(export, "export", write)
    fake_run.identity("alice")
    assert main(["export", "-q"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'alice-diffusers-tiny'}\n"
    assert main(["export", "alice", "--format", "comfyui", "-o", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{tmp_path / 'out'}\n")
    assert "README.md  4 B" in shown
    assert "largest difference: 1e-07" in shown


def test_prepare_judges_every_photo(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # the contact sheet goes here
    bad = tmp_path / "bad.jpg"
    bad.write_text("<html>")
    assert main(["prepare", str(shared_data / "astronaut.png"), str(bad), "--model", "tiny", "--json"]) == 0
    whole = outcome(capsys)
    assert [(one["file"], one["code"]) for one in whole["data"]["photos"]] == [
        ("astronaut.png", "used"),
        ("bad.jpg", "unreadable"),
    ]
    assert main(["prepare", str(bad), "--model", "tiny"]) == 4
    captured = capsys.readouterr()
    assert "bad.jpg  unreadable" in captured.out
    assert "Photos that can be used: 0 of 1." in captured.out
    assert "The only photo cannot be used" in captured.err
    assert "from the front" in captured.err and "magicid prepare" not in captured.err
    assert not Workspace("alice").path.exists()


def test_prepare_judges_photos_also_where_the_model_cannot_run(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # the contact sheet goes here
    problem = MagicIDError("gpu-memory", "Too small.", "Take another.")
    monkeypatch.setattr(plan, "check", lambda estimated: [problem])
    assert main(["prepare", str(shared_data / "astronaut.png"), "--model", "tiny", "--json"]) == 3
    whole = outcome(capsys)
    assert whole["error"]["code"] == "gpu-memory"
    assert whole["data"]["photos"][0]["code"] == "used"
    assert "path" not in whole["data"]  # nothing was fetched
    assert main(["prepare", "--model", "tiny"]) == 3
    assert capsys.readouterr().out == ""


def test_a_machine_that_cannot_exits_with_3_and_still_shows_the_plan(
    calls: fake_run.Calls, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.problems = [MagicIDError("gpu-missing", "No GPU.", "For a small model: --model mini")]
    command = ["customize", str(photos), "--name", "alice", "--consent", "--json"]
    assert main(command) == 3
    whole = outcome(capsys)
    assert (whole["data"], whole["error"]["code"], whole["error"]["exit_code"]) == (None, "gpu-missing", 3)
    assert main([*command, "-n"]) == 3
    whole = outcome(capsys)
    assert (whole["ok"], len(whole["data"]["stages"]), whole["error"]["hint"]) == (
        False,
        6,
        "For a small model: --model mini",
    )
    assert calls.ran == []
    assert not Workspace("alice").exists


def test_every_command_takes_what_its_settings_need() -> None:
    from magicid_cli.cli.customize import customize

    hints = get_type_hints(customize, include_extras=True)
    assert {"ctx", "photos", "name", "consent", "preset", "json", "prefer__beta"} <= set(hints)
    assert "flags" not in hints and "terminal" not in hints
