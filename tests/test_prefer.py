"""Stage 2 on the real classes: against joint autograd through the model, and the promises about the reference."""

import hashlib
from pathlib import Path

import pytest
import torch

from album import SMALL
from magicid_cli import adapters, config, hpo, models, training
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models.base import Family
from magicid_cli.stages import prefer
from magicid_cli.workspace import Workspace, read_json, read_lines

pytestmark = pytest.mark.xdist_group("finished")

Ready = tuple[Family, list[prefer.Pair], Settings, dict[str, torch.Tensor]]


@pytest.fixture
def ready(alice: Path) -> Ready:
    """The tiny model with both adapters on it, the training pairs, settings, stage-1 tensors."""
    settings = config.resolve(SMALL, project=alice).settings
    workspace = Workspace("alice")
    family = models.open_family(settings.model, Events())
    pairs, _ = prefer.load_pairs(workspace, family, Events())
    tensors, spec = adapters.load(workspace.reconstruct / "adapter.safetensors")
    family.load("transformer")
    for name in ("reference", "policy"):
        adapters.attach(family.transformer, name, spec, seed=0)
        adapters.load_tensors(family.transformer, name, tensors)
    adapters.select(family.transformer, "policy", trainable=True)
    return family, pairs, settings, tensors


def batch(items: tuple[int, ...], seed: int = 0) -> training.Batch:
    return training.Batch(0, items, torch.Generator().manual_seed(seed))


def fingerprint(family: Family, name: str) -> str:
    content = b"".join(t.numpy().tobytes() for t in adapters.tensors(family.transformer, name).values())
    return hashlib.sha256(content).hexdigest()


def test_the_first_step_sees_margin_exactly_zero(ready: Ready) -> None:
    family, pairs, settings, _ = ready
    for item in range(len(pairs)):
        metrics = prefer.accumulate(family, pairs, batch((item,), item), settings, beta=500.0)
        assert metrics["margin"] == 0.0
        assert metrics["winner_shift"] == metrics["rejected_shift"] == 0.0
        assert metrics["gradient_factor"] == 0.5
        assert metrics["loss"] == pytest.approx(0.6931471805599453, abs=1e-12)


def test_the_reference_never_changes_while_the_policy_learns(ready: Ready) -> None:
    family, pairs, settings, _ = ready
    before = fingerprint(family, "reference")
    parameters = adapters.parameters(family.transformer, "policy")
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3)
    for step in range(3):
        prefer.accumulate(family, pairs, batch((step % len(pairs),), step), settings, beta=500.0)
        optimizer.step()
    assert fingerprint(family, "reference") == before
    assert fingerprint(family, "policy") != before
    trainable = {name for name, p in family.transformer.named_parameters() if p.requires_grad}
    assert trainable and all(".policy." in name for name in trainable)


def test_the_gradient_is_that_of_the_joint_loss(ready: Ready) -> None:
    """Both graphs alive, `preference_loss` differentiated by autograd: the same gradient for a batch of two pairs."""
    family, pairs, settings, tensors = ready
    shaken = {
        name: t + 0.01 * torch.randn(t.shape, generator=torch.Generator().manual_seed(1)) for name, t in tensors.items()
    }
    adapters.load_tensors(family.transformer, "policy", shaken)
    beta = 50.0
    prefer.accumulate(family, pairs, batch((0, 1), 9), settings, beta)
    parameters = adapters.parameters(family.transformer, "policy")
    ours = torch.cat([p.grad.flatten().double() for p in parameters.values() if p.grad is not None])

    generator, losses = torch.Generator().manual_seed(9), []
    for item in (0, 1):
        drawn = prefer.draw(family, pairs[item], generator, settings)
        errors = hpo.PairErrors(drawn.winner(), drawn.winner_reference, drawn.rejected(), drawn.rejected_reference)
        losses.append(hpo.preference_loss(errors, beta))
    joint = torch.autograd.grad(torch.stack(losses).mean(), list(parameters.values()))
    wanted = torch.cat([g.flatten().double() for g in joint])
    # float32 model: the two ways differ by rounding only.
    assert float((ours - wanted).norm() / wanted.norm()) < 1e-5
    assert float(wanted.norm()) > 0


def test_winner_and_rejected_share_noise_and_time(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    family, pairs, settings, _ = ready
    seen: list[tuple[float, torch.Tensor]] = []
    real = family.noised

    def spy(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((float(t), noise.clone()))
        return real(x0, noise, t)

    monkeypatch.setattr(family, "noised", spy)
    prefer.accumulate(family, pairs, batch((0,)), settings, 100.0)
    assert len(seen) == 4
    assert all(t == seen[0][0] and torch.equal(noise, seen[0][1]) for t, noise in seen)


def test_every_forward_sees_the_training_guidance(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    family, pairs, settings, _ = ready
    changed = config.with_values(settings, {"training.guidance": 3.5})
    seen: list[float] = []
    real = family.predict

    def spy(x_t: torch.Tensor, t: torch.Tensor, text: dict[str, torch.Tensor], guidance: float) -> torch.Tensor:
        seen.append(guidance)
        return real(x_t, t, text, guidance)

    monkeypatch.setattr(family, "predict", spy)
    prefer.accumulate(family, pairs, batch((0,)), changed, 100.0)
    assert seen == [3.5] * 4


def test_a_finished_run_says_what_it_did(alice: Path) -> None:
    workspace = Workspace("alice")
    rows = read_lines(workspace.prefer / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows[0]["margin"] == 0.0
    for name in (
        "loss",
        "winner_shift",
        "rejected_shift",
        "implicit_accuracy",
        "gradient_factor",
        "grad_norm",
        "lr",
        "t",
    ):
        assert all(name in row for row in rows), name
    assert [row["step"] for row in rows if "held_out_margin" in row] == [4, 8]
    beta = read_json(workspace.prefer / "beta.json")
    factor = 1 / (1 + 2.718281828459045 ** -(beta["beta"] / 2 * sorted(beta["margins"])[len(beta["margins"]) // 2]))
    if len(beta["margins"]) % 2:
        assert factor == pytest.approx(0.3, abs=1e-6)
    assert workspace.manifest()["stages"]["prefer"]["result"]["beta"] == beta["beta"]
    assert not (workspace.prefer / "probe").exists()


def test_the_probe_leaves_no_trace_in_the_policy(alice: Path) -> None:
    """Solved or given, the same strength gives the same adapter: the probe's steps are forgotten."""
    workspace = Workspace("alice")
    solved = (workspace.prefer / "adapter.safetensors").read_bytes()
    beta = read_json(workspace.prefer / "beta.json")["beta"]
    settings = config.resolve({**SMALL, "prefer.beta": beta}, project=alice).settings
    result = prefer.run(workspace, settings, Events())
    assert result.beta_from == "setting"
    assert (workspace.prefer / "adapter.safetensors").read_bytes() == solved


def test_more_steps_keep_the_strength_that_was_found(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe on a GPU is not repeatable in every bit: another one would give another beta."""
    found = read_json(Workspace("alice").prefer / "beta.json")
    settings = config.resolve({**SMALL, "prefer.steps": 2}, project=alice).settings
    monkeypatch.setattr(prefer, "margins", lambda *_: pytest.fail("it was probed again"))
    monkeypatch.setattr(prefer, "HeldOut", lambda *_: None)
    result = prefer.run(Workspace("alice"), settings, Events())
    assert (result.steps, result.beta, result.beta_from) == (2, found["beta"], "probe")


def test_no_strength_can_be_solved_from_a_policy_that_did_not_learn(alice: Path) -> None:
    settings = config.resolve({**SMALL, "prefer.learning_rate": 0.0}, project=alice).settings
    with pytest.raises(MagicIDError) as caught:
        prefer.run(Workspace("alice"), settings, Events())
    assert caught.value.code == "beta-undetermined"
    assert "--beta" in caught.value.hint


def test_held_out_pairs_share_no_clip_with_training(alice: Path) -> None:
    rows = read_lines(Workspace("alice").pairs)
    clips = {
        split: {row[s]["id"] for row in rows if row["split"] == split for s in ("winner", "rejected")}
        for split in ("train", "held-out")
    }
    assert clips["train"] and clips["held-out"]
    assert not clips["train"] & clips["held-out"]
