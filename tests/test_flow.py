"""Which optical flow measures motion: RAFT against a stand-in for torchvision, and what `auto` means.

Truth: a network that sees a known flow; the rule of `auto` written out as a table; the rows of a repository that is
stopped half way while torchvision comes and goes.
"""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation.motion import Motion
from magicid_cli.events import Event, Events
from magicid_cli.rewards import flow
from magicid_cli.rewards.base import Clip, device_for
from magicid_cli.rewards.dynamics import DynamicsReward
from magicid_cli.stages import score
from magicid_cli.workspace import read_lines
from pictures import smooth
from small_repository import sampled, settings

# --- RAFT -----------------------------------------------------------------------------------------------------------


def torchvision_with(monkeypatch: pytest.MonkeyPatch, optical_flow: Any) -> None:
    package = ModuleType("torchvision")
    package.__spec__ = ModuleSpec("torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", SimpleNamespace(optical_flow=optical_flow))


class Weights:
    """Stands for torchvision's description of RAFT's weights."""

    name = "C_T_V1"
    url = "https://example.org/models/raft_large.pth"

    @staticmethod
    def get_state_dict(*, progress: bool, weights_only: bool) -> dict[str, Any]:
        assert weights_only, "weights are pickles: tensors only"
        return {}


@pytest.fixture
def raft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, Any]]:
    """A RAFT that sees (3, 4) everywhere and nothing in the padding; the list gets what it is shown."""
    import torch

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Net(torch.nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor, num_flow_updates: int) -> list[torch.Tensor]:
            assert num_flow_updates == 20
            seen.append((first, second))
            field = torch.zeros(1, 2, *first.shape[2:])
            field[:, 0, :256, :300], field[:, 1, :256, :300] = 3, 4
            return [field * 100, field]

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "raft_large.pth").touch()
    stand_in = SimpleNamespace(Raft_Large_Weights=SimpleNamespace(C_T_V1=Weights), raft_large=Net)
    torchvision_with(monkeypatch, stand_in)
    return seen


def test_without_torchvision_raft_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MagicIDError) as caught:
        DynamicsReward("raft")
    assert caught.value.code == "raft-missing" and "--flow dis" in caught.value.hint
    assert "pip install" in caught.value.hint and "torchvision" in caught.value.hint


@pytest.mark.parametrize(
    ("torch", "command"),
    [
        ("2.13.0", 'python -m pip install "torch==2.13.0" torchvision'),
        (
            "2.13.0+cpu",
            'python -m pip install "torch==2.13.0+cpu" torchvision --index-url https://download.pytorch.org/whl/cpu',
        ),
    ],
)
def test_the_way_to_torchvision_is_that_of_torch(monkeypatch: pytest.MonkeyPatch, torch: str, command: str) -> None:
    """torchvision 0.28.0 requires torch 2.13.0, of the same build: its own metadata says the first, its index the
    second. So pip, told which torch is here, finds the one that fits."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(flow, "version", {"torch": torch}.__getitem__)
    lack = flow.raft_lack()
    assert lack is not None and "not installed" in lack.what
    install, _, fetch = lack.remedy.partition(" && ")
    assert install == command and "Raft_Large_Weights" in fetch


def test_a_torchvision_of_another_build_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch, raft: Any) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setitem(sys.modules, "torchvision.models", Broken("torchvision.models"))
    lack = flow.raft_lack()
    assert lack is not None and "nms does not exist)" in lack.what
    assert lack.remedy.startswith("python -m pip uninstall -y torchvision && python -m pip install")
    assert flow.choose("auto").name == "dis"


def test_without_its_weights_raft_is_refused_and_nothing_is_fetched(raft: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "raft_large.pth").unlink()
    with pytest.raises(MagicIDError) as caught:
        DynamicsReward("raft")
    assert caught.value.code == "raft-missing" and "raft_large.pth" in caught.value.message
    assert "Raft_Large_Weights" in caught.value.hint and "pip install" not in caught.value.hint


def test_raft_gets_what_it_expects_and_its_last_flow_counts(raft: list[tuple[Any, Any]]) -> None:
    frames = np.stack([np.full((128, 150, 3), value, np.uint8) for value in (0, 255)])
    reward = DynamicsReward("raft")
    found = reward.score(Clip(frames, 8, ""))
    # The flow is (3, 4) everywhere, length 5, in the 300 x 256 picture; the padding to 304 columns does not count.
    # In frames without anything to see no camera can be told; in others, all of it is the camera's.
    assert found["total"] == found["subject"] == pytest.approx(5) and found["camera"] == 0
    seen = reward.score(Clip(np.stack([smooth(150, 128, 1, 8)] * 2), 8, ""))
    assert seen["camera"] == pytest.approx(5) and seen["subject"] == pytest.approx(0, abs=1e-4)
    first, second = raft[0]
    assert first.shape == (1, 3, 256, 304)
    assert float(first.min()) == float(first.max()) == -1 and float(second.min()) == float(second.max()) == 1
    assert "RAFT large C_T_V1 (20 updates)" in reward.made_by


def test_device_cpu_keeps_raft_off_the_gpu(raft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the rewards and for the evaluation, on a machine that has a GPU; `auto` would take it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = settings(**{"rewards.flow": "raft", "model.device": "cpu"})
    ((reward,),) = score.passes(sampled(), asked, Events(), ["dynamics"])
    assert isinstance(reward, DynamicsReward) and isinstance(reward._flow, flow.Raft)
    assert reward._flow._device == torch.device("cpu")
    motion = Motion(asked, Events())
    assert motion.look(Clip(np.zeros((2, 64, 64, 3), np.uint8), 8, ""), None)["dynamic_degree"] == pytest.approx(5)
    assert device_for("auto") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_for("auto") == "cpu"
    with pytest.raises(MagicIDError) as caught:
        DynamicsReward("raft", "cuda")
    assert caught.value.code == "gpu-missing"


def test_a_repository_is_never_scored_by_two_flows(raft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second flow comes when half of the videos have scores of the first: in the end, all are the second's."""
    workspace = sampled()
    real = DynamicsReward.score
    left = 2

    def until(self: DynamicsReward, clip: Clip) -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real(self, clip)

    with monkeypatch.context() as broken:
        broken.setattr(DynamicsReward, "score", until)
        with pytest.raises(KeyboardInterrupt):
            score.run(workspace, settings(**{"rewards.flow": "raft"}), Events())
    assert {row["made_by"][:4] for row in read_lines(workspace.scores) if row["reward"] == "dynamics"} == {"RAFT"}

    def dynamics() -> tuple[set[str], set[float]]:
        rows = [row for row in read_lines(workspace.scores) if row["reward"] == "dynamics"]
        assert len(rows) == 4
        return {row["made_by"][:4] for row in rows}, {row["value"] for row in rows}

    score.run(workspace, settings(), Events())
    judges, values = dynamics()
    assert judges == {"DIS "} and 5.0 not in values
    others = [row for row in read_lines(workspace.scores) if row["reward"] != "dynamics"]
    result = score.run(workspace, settings(**{"rewards.flow": "raft"}), Events())
    # Two scores of the first attempt were kept beside the others.
    assert result.made == 2 and dynamics()[0] == {"RAFT"}
    assert [row for row in read_lines(workspace.scores) if row["reward"] != "dynamics"] == others


# --- which of them --------------------------------------------------------------------------------------------------

DIS_ROW, RAFT_ROW = DynamicsReward("dis").made_by, "RAFT large C_T_V1 (20 updates), short side 256"


@pytest.mark.parametrize(
    ("wanted", "scored_by", "here", "name"),
    [
        ("auto", "", True, "raft"),
        ("auto", "", False, "dis"),
        ("auto", DIS_ROW, True, "dis"),
        ("auto", RAFT_ROW, True, "raft"),
        ("auto", RAFT_ROW, False, "raft"),
        ("dis", RAFT_ROW, True, "dis"),
        ("raft", DIS_ROW, False, "raft"),
    ],
)
def test_auto_keeps_what_made_the_scores_and_else_takes_raft_where_it_can_be_used(
    wanted: str, scored_by: str, here: bool, name: str, raft: Any, tmp_path: Path
) -> None:
    if not here:
        (tmp_path / "checkpoints" / "raft_large.pth").unlink()
    choice = flow.choose(wanted, scored_by)
    assert choice.name == name
    assert str(choice).startswith(f"{name.upper()}, because ")


def judges_of_motion(rows: list[dict[str, Any]]) -> set[str]:
    return {row["made_by"][:4].strip() for row in rows if row["reward"] == "dynamics"}


def test_a_repository_keeps_its_flow_when_torchvision_comes(raft: Any, tmp_path: Path) -> None:
    """Begun without RAFT's weights, stopped half way, and gone on with when they are there."""
    workspace, auto = sampled(), settings(**{"rewards.flow": "auto"})
    weights = tmp_path / "checkpoints" / "raft_large.pth"
    weights.unlink()
    heard: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "notice":
            heard.append(event.data["message"])
        if event.kind == "step" and event.data["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score.run(workspace, auto, Events(listen))
    assert "Motion is measured by DIS" in heard[0] and "weights" in heard[0] and "magicid doctor" in heard[0]
    weights.touch()
    result = score.run(workspace, auto, Events(lambda event: listen(event) if event.kind == "notice" else None))
    assert "DIS" in heard[1] and "scores that are there" in heard[1]
    rows = read_lines(workspace.scores)
    assert judges_of_motion(rows) == {"DIS"} and result.judges["dynamics"] == DIS_ROW
    assert score.run(workspace, auto, Events()).made == 0, "nothing is measured again because RAFT came"

    assert score.run(workspace, settings(**{"rewards.flow": "raft"}), Events()).made == 4
    assert judges_of_motion(read_lines(workspace.scores)) == {"RAFT"}
    assert score.run(workspace, auto, Events()).made == 0, "auto keeps RAFT as well"


def test_a_new_repository_is_measured_by_raft_where_it_can_be_used(raft: Any) -> None:
    workspace = sampled()
    score.run(workspace, settings(**{"rewards.flow": "auto"}), Events())
    rows = read_lines(workspace.scores)
    assert judges_of_motion(rows) == {"RAFT"}
    # (3, 4) everywhere, in 256 of 256 rows and columns.
    assert [row["value"] for row in rows if row["reward"] == "dynamics"] == pytest.approx([5] * 4)


def test_without_torchvision_the_choice_loads_no_torch() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from magicid_cli.rewards import flow; print(flow.choose('auto').name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["dis", "False"]
