"""ConsisID. Truth: the documented files of the exchange; the other side is the shipped script, run by the Python of a
real environment with stand-ins for its packages; the video model is diffusers' own at tiny size with given embeddings.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import looked_at
import tiny_consisid
from hub_server import HubServer
from magicid_cli import config, generation, methods, video
from magicid_cli.baselines import environments
from magicid_cli.baselines.consisid import exchange, other_side, pipeline
from magicid_cli.baselines.untrained import Place
from magicid_cli.cli.app import main
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.workspace import Workspace, digest, file_digest, read_json, read_lines, write_json

pytestmark = pytest.mark.xdist_group("consisid")  # they share the environment
SMALL = {"consisid.frames": 9, "consisid.steps": 2, "consisid.size": "64x64"}
COMMAND = ["generate", "--method", "consisid", "--prompt", "alice dances", "--seed", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_consisid.write(tmp_path_factory.mktemp("consisid") / "repository")


@pytest.fixture(scope="module")
def made_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with an environment that `install` made, of the stand-in's wheel alone."""
    home = tmp_path_factory.mktemp("environment")
    patch = pytest.MonkeyPatch()
    patch.setenv("MAGICID_HOME", str(home))
    _stand_in(patch, home)
    environments.install("consisid", Events())
    patch.undo()
    return home


def _stand_in(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Let the environment be that of the stand-in, which pip finds in a folder."""
    (home / "wheels").mkdir(exist_ok=True)
    requirements = home / "requirements.txt"
    requirements.write_text("face-stand-in==1.0\n", encoding="utf-8")
    known = environments.ENVIRONMENTS["consisid"]
    wanted = replace(known, requirements=requirements, pythons=(sys.version_info[:2],))
    patch.setitem(environments.ENVIRONMENTS, "consisid", wanted)
    index = tiny_consisid.wheels(home / "wheels")
    real = subprocess.run

    def run(command: Any, **about: Any) -> Any:
        alone = ["--no-index", "--find-links", str(index)] if "pip" in command else []
        return real([*command, *alone], **about)

    patch.setattr(environments.subprocess, "run", run)


@pytest.fixture
def environment(made_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment, in the home in use."""
    _stand_in(monkeypatch, made_environment)
    here = environments.folder_of("consisid")
    here.parent.mkdir(parents=True)
    here.symlink_to(made_environment / "cache" / "baselines" / "consisid")
    return here


@pytest.fixture
def alice(tmp_path: Path) -> Workspace:
    return looked_at.identity(tmp_path / "photos").of_method("consisid")


# ----------------------------------------------------------------------------------------------------- the video model


def test_a_video_from_given_embeddings(repository: Path) -> None:
    """Transformer, VAE and scheduler as the real pipeline uses them; the face and its keypoints take part."""
    wanted = config.resolve(SMALL).settings.consisid
    loaded = pipeline.assemble(repository, Place("cpu", "float32"))
    text = torch.randn(2, tiny_consisid.TOKENS, tiny_consisid.TEXT, generator=torch.Generator().manual_seed(0))
    face = tiny_consisid.face(0.5)
    steps: list[int] = []

    def made(**changes: torch.Tensor) -> np.ndarray:
        return pipeline.sample(loaded, {**face, **changes}, text, wanted, 3, steps.append)

    one = made()
    assert one.shape == (9, 64, 64, 3) and one.dtype == np.uint8 and steps == [1, 2]
    assert np.array_equal(one, made())
    for changed in ({"id_cond": -face["id_cond"]}, {"id_vit_hidden.1": -face["id_vit_hidden.1"]}):
        assert not np.array_equal(one, made(**changed))
    assert not np.array_equal(one, made(picture=255 - face["picture"] // 2))
    assert not np.array_equal(one, made(keypoints=face["keypoints"] + 9))


# -------------------------------------------------------------------------------------------------------- the exchange


def test_both_sides_know_the_same_format() -> None:
    assert exchange.FORMAT == other_side.FORMAT


def asked(folder: Path, weights: Path, photo: Path) -> dict[str, torch.Tensor]:
    question = {"weights": str(weights), "device": "cpu", "dtype": "float32", "photo": str(photo)}
    return exchange.ask("consisid", folder, "face", question, [file_digest(photo)], Events())


@pytest.fixture
def weights(repository: Path, tmp_path: Path) -> Path:
    """What a fetch leaves of the repository: no code."""
    for name in ("EVA02_CLIP_L_336_psz14_s6B.pt", "detection_Resnet50_Final.pth", "models/antelopev2/glintr100.onnx"):
        path = tmp_path / "weights" / "face_encoder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((repository / "face_encoder" / name).read_bytes())
    return tmp_path / "weights"


def test_a_question_is_answered_once_and_kept_private(
    environment: Path, weights: Path, alice: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photo, folder = alice.references / "000.png", tmp_path / "exchange"
    found = asked(folder, weights, photo)
    assert found["id_cond"].shape == (1, tiny_consisid.ID) and found["keypoints"].shape == (5, 2)
    assert found["picture"].dtype == torch.uint8 and "id_vit_hidden.1" in found
    (place,) = folder.iterdir()
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in place.iterdir()} == {"request.json", "tensors.safetensors", "answer.json", "log.txt"}
    request, answer = read_json(place / "request.json"), read_json(place / "answer.json")
    assert request["format"] == answer["format"] == 1 and request["task"] == answer["task"] == "face"
    assert answer["sha256"] == file_digest(place / "tensors.safetensors")

    # From here on the other side answers from what it answered first.
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    calls: list[Path] = []

    def answered(_python: Path, where: Path) -> None:
        calls.append(where)
        for name in ("tensors.safetensors", "answer.json"):
            (where / name).write_bytes(whole[name])

    monkeypatch.setattr(exchange, "_run", answered)
    again = asked(folder, weights, photo)
    assert not calls and all(torch.equal(found[name], again[name]) for name in found)
    # What is damaged, cut short or of another version is asked for again.
    for spoil in (
        lambda: (place / "tensors.safetensors").write_bytes(whole["tensors.safetensors"][:-1]),
        lambda: (place / "answer.json").unlink(),
        lambda: write_json(place / "answer.json", {**answer, "format": 2}),
    ):
        spoil()
        again = asked(folder, weights, photo)
        assert torch.equal(again["id_cond"], found["id_cond"])
    assert calls == [place] * 3
    asked(folder, weights, alice.references / "001.png")
    assert len(calls) == 4 and calls[3] != place


def test_a_failure_of_the_other_side_comes_with_its_log(environment: Path, weights: Path, tmp_path: Path) -> None:
    from PIL import Image

    photo = tmp_path / "dark.png"
    Image.new("RGB", (64, 64)).save(photo)
    with pytest.raises(MagicIDError) as caught:
        asked(tmp_path / "exchange", weights, photo)
    error = caught.value
    assert error.code == "baseline-failed" and "facexlib align face fail" in error.message
    log = next((tmp_path / "exchange").glob("*/log.txt"))
    assert str(log) in error.hint and "Traceback" in log.read_text()
    assert not list((tmp_path / "exchange").glob("*/answer.json"))


def test_a_request_of_another_format_is_refused_by_the_other_side(environment: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "request.json", {"format": 2, "task": "face", "answer": str(tmp_path)})
    with pytest.raises(MagicIDError, match="a request of format 2; this side knows format 1"):
        exchange._run(environments.python_of("consisid"), tmp_path)


def test_tensors_alone_are_taken_from_pickles_there(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side's surroundings: torch is told so whatever its callers ask, and nothing of ours leaks in."""
    seen: dict[str, str] = {}

    def run(_command: Any, env: dict[str, str], **_: Any) -> Any:
        seen.update(env)
        return subprocess.CompletedProcess([], 0)

    monkeypatch.setattr(exchange.subprocess, "run", run)
    monkeypatch.setenv("PYTHONPATH", "/ours")
    exchange._run(environment / "bin" / "python", environment.parent)
    assert seen["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1" and seen["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in seen if name.startswith(("PYTHON", "MAGICID_"))]


# ----------------------------------------------------------------------------------------------------------- the whole


@pytest.fixture
def served(hub: HubServer, repository: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    hub.add(tiny_consisid.REPO, repository)
    for name, value in SMALL.items():
        monkeypatch.setenv(f"MAGICID_{name.replace('.', '_').upper()}", str(value))
    return hub


def test_generate_makes_a_video_once(
    served: HubServer, environment: Path, alice: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--json", "--yes"]) == 0
    out, said = capsys.readouterr()
    (made,) = json.loads(out)["data"]["videos"]
    frames, fps = video.read_video(Path(made["path"]))
    assert frames.shape == (9, 64, 64, 3) and fps == 8
    assert "Non-commercial: the face models of InsightFace" in said and "CogVideoX License" in said
    asked_for = {Path(request.path).name for request in served.asked("/resolve/")}
    assert {"EVA02_CLIP_L_336_psz14_s6B.pt", "glintr100.onnx", "spiece.model"} <= asked_for
    assert not asked_for & {"run_me.py", "other.pt"}
    (row,) = read_lines(alice.videos / "videos.jsonl")
    assert row["weights"] == {tiny_consisid.REPO: served.repo(tiny_consisid.REPO).commit}
    assert row["method"] == "consisid" and row["seed"] == 3 and row["prompt"] == "a person dances"

    before = len(served.requests)
    assert main([*COMMAND, "--json", "--yes"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["videos"] == [made]
    assert len(served.requests) == before and len(read_lines(alice.videos / "videos.jsonl")) == 1


def test_several_prompts_load_the_text_encoder_and_the_model_once(
    served: HubServer, environment: Path, alice: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second video is the one that it is alone, bit for bit."""
    settings = config.resolve({"model.name": "tiny", "model.device": "cpu"}).settings
    loaded, real = list[str](), pipeline.load_weights

    def load(kind: Any, *given: Any) -> Any:
        loaded.append(kind.__name__)
        return real(kind, *given)

    monkeypatch.setattr(pipeline, "load_weights", load)
    wanted = [generation.Asked("a person dances", 3), generation.Asked("a person sleeps in a chair", 4)]
    both = methods.generate_each(Workspace("alice"), "consisid", settings, wanted, events=Events())
    assert loaded == ["T5EncoderModel", "ConsisIDTransformer3DModel", "AutoencoderKLCogVideoX"]
    (alone,) = methods.generate_each(
        Workspace("alice"), "consisid", settings, wanted[1:], events=Events(), force=True, output=alice.path / "x.mp4"
    )
    assert alone.path.read_bytes() == both[1].path.read_bytes() != both[0].path.read_bytes()


def test_without_the_environment_nothing_is_fetched(
    served: HubServer, alice: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--yes"]) == 3
    error = capsys.readouterr().err
    assert "it is not there yet" in error and "magicid baseline install consisid" in error
    assert not served.requests
    assert main([*COMMAND, "--dry-run"]) == 0
    assert "needs: magicid baseline install consisid" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- the environments


def test_an_environment_is_listed_kept_and_removed(
    environment: Path, made_environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["baseline", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["data"]["environments"]
    assert (row["name"], row["state"]) == ("consisid", "ready") and row["bytes"] > 0
    monkeypatch.setattr(environments, "_run", lambda *_: pytest.fail("it is ready"))
    assert main(["baseline", "install", "consisid", "-q"]) == 0
    assert capsys.readouterr().out.strip() == str(environment)

    environment.unlink()
    environment.mkdir()
    (environment / "pyvenv.cfg").write_text("cut short")
    assert environments.state_of("consisid").state == "incomplete"
    write_json(environment / "magicid.json", {"format": 1, "requirements": digest("others")})
    assert environments.state_of("consisid").state == "outdated"
    with pytest.raises(MagicIDError, match="another version of magicid"):
        environments.python_of("consisid")
    assert main(["baseline", "remove", "consisid", "--yes"]) == 0
    assert not environment.exists() and environments.state_of("consisid").state == "absent"
    assert main(["baseline", "remove", "consisid", "--yes"]) == 3


def test_what_pip_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it left is no environment; the same command begins anew."""
    _stand_in(monkeypatch, tmp_path)
    environments.ENVIRONMENTS["consisid"].requirements.write_text("no-such-package==1.0\n")
    real = environments._run

    def run(command: list[str], log: Path, name: str) -> None:
        real([*command, "--without-pip"] if "venv" in command else [sys.executable, *command[1:]], log, name)

    monkeypatch.setattr(environments, "_run", run)
    with pytest.raises(MagicIDError, match="no-such-package") as caught:
        environments.install("consisid", Events())
    assert caught.value.code == "baseline-failed"
    assert environments.state_of("consisid").state == "incomplete"


def test_another_python_is_refused_with_the_flag_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    known = environments.ENVIRONMENTS["consisid"]
    monkeypatch.setitem(environments.ENVIRONMENTS, "consisid", replace(known, pythons=((2, 7),)))
    with pytest.raises(MagicIDError, match=r"for Python 2\.7") as caught:
        environments.install("consisid", Events())
    assert "--python" in caught.value.hint


def test_every_package_has_one_version() -> None:
    """The list is exact, so an environment made tomorrow is the same."""
    lines = environments.ENVIRONMENTS["consisid"].requirements.read_text().splitlines()
    packages = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(parts) == 2 for parts in packages)
    names = [name for name, _ in packages]
    assert len(set(names)) == len(names)
    assert {"insightface", "facexlib", "consisid-eva-clip", "torch", "sentencepiece"} <= set(names)
