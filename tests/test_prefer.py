"""Stage 2 on the real classes: against joint autograd through the model, and the promises about the reference."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from album import SMALL
from magicid_cli import adapters, conditioning, config, hpo, models, preference, training
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.base import Family
from magicid_cli.stages import prefer
from magicid_cli.workspace import Workspace, digest, read_json, read_lines

pytestmark = pytest.mark.xdist_group("finished")

Ready = tuple[Family, list[preference.Pair], Settings, dict[str, torch.Tensor]]


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
        drawn = preference.draw(family, pairs[item], generator, settings)
        errors = hpo.PairErrors(drawn.winner(), drawn.winner_reference, drawn.rejected(), drawn.rejected_reference)
        losses.append(hpo.preference_loss(errors, beta, guard=0.0, anchor=0.0))
    joint = torch.autograd.grad(torch.stack(losses).mean(), list(parameters.values()))
    wanted = torch.cat([g.flatten().double() for g in joint])
    # float32 model: the two ways differ by rounding only.
    assert float((ours - wanted).norm() / wanted.norm()) < 1e-5
    assert float(wanted.norm()) > 0


def spied(family: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, torch.Tensor]]:
    """Time and noise of every video that the family makes noisy from now on, in order."""
    seen: list[tuple[float, torch.Tensor]] = []
    real = family.noised

    def spy(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((float(t), noise.clone()))
        return real(x0, noise, t)

    monkeypatch.setattr(family, "noised", spy)
    return seen


def test_winner_and_rejected_share_noise_and_time(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    family, pairs, settings, _ = ready
    seen = spied(family, monkeypatch)
    prefer.accumulate(family, pairs, batch((0,)), settings, 100.0)
    assert len(seen) == 4
    assert all(t == seen[0][0] and torch.equal(noise, seen[0][1]) for t, noise in seen)


def test_independent_draws_are_each_video_s_own_for_policy_and_reference(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference on winner and rejected, then policy on both: two draws in all, and the first is the shared one's."""
    family, pairs, settings, _ = ready
    seen = spied(family, monkeypatch)
    prefer.accumulate(family, pairs, batch((0,)), settings, 100.0)
    changed = config.with_values(settings, {"prefer.noise": "independent"})
    metrics = prefer.accumulate(family, pairs, batch((0,)), changed, 100.0)
    shared, (winner, rejected, *policy) = seen[0], seen[4:]
    assert metrics["margin"] == 0.0, "the policy is still its reference, which saw the same draws"
    assert same(winner, shared) and not same(rejected, winner)
    assert winner[0] != rejected[0] and not torch.equal(winner[1], rejected[1])
    assert same(policy[0], winner) and same(policy[1], rejected) and len(policy) == 2


def same(one: tuple[float, torch.Tensor], other: tuple[float, torch.Tensor]) -> bool:
    return one[0] == other[0] and torch.equal(one[1], other[1])


def test_the_base_as_reference_is_the_model_without_adapters(ready: Ready) -> None:
    """Its errors are those of a transformer that never had an adapter; the policy is selected again afterwards."""
    family, pairs, settings, _ = ready
    changed = config.with_values(settings, {"prefer.reference": "base"})
    drawn = preference.draw(family, pairs[0], torch.Generator().manual_seed(4), changed)
    of_stage_1 = preference.draw(family, pairs[0], torch.Generator().manual_seed(4), settings)
    assert drawn.winner_reference != of_stage_1.winner_reference
    assert drawn.winner().item() == of_stage_1.winner_reference.item(), "the policy is still stage 1"
    trainable = {name for name, p in family.transformer.named_parameters() if p.requires_grad}
    assert trainable and all(".policy." in name for name in trainable)
    bare = models.open_family(settings.model, Events())
    bare.load("transformer")
    generator = torch.Generator().manual_seed(4)
    t = bare.timesteps(1, generator, settings.training.timesteps)
    for path, wanted in ((pairs[0].winner, drawn.winner_reference), (pairs[0].rejected, drawn.rejected_reference)):
        x0 = conditioning.load_tensors(path)["latents"]
        if path == pairs[0].winner:
            noise = torch.randn(x0.shape, generator=generator)
        x_t, target = bare.noised(x0, noise, t)
        with torch.no_grad():
            found = hpo.error(target, bare.predict(x_t, t, pairs[0].text, settings.training.guidance))
        assert found.item() == wanted.item()


def test_a_run_against_the_base_holds_one_adapter(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the public path: beta is solved, training ends, and no second adapter takes memory."""
    attached: list[str] = []
    real = adapters.attach

    def spy(transformer: Any, name: str, *rest: Any, **more: Any) -> None:
        attached.append(name)
        real(transformer, name, *rest, **more)

    monkeypatch.setattr(adapters, "attach", spy)
    wanted = {"prefer.reference": "base", "prefer.steps": 2, "prefer.probe_steps": 2}
    settings = config.resolve({**SMALL, **wanted}, project=alice).settings
    prefer.run(Workspace("alice"), settings, Events())
    assert attached == ["policy"]
    first = read_lines(Workspace("alice").prefer / "metrics.jsonl")[0]
    assert first["margin"] != 0.0 and first["winner_shift"] != 0.0


def test_a_cut_run_with_every_option_ends_with_the_bits_of_an_uncut_one(alice: Path) -> None:
    """Independent draws, guard, anchor and the base as reference: stopped after step 2, then run again."""
    workspace = Workspace("alice")
    options = {
        "noise": "independent",
        "winner_guard": 2.0,
        "anchor": 0.5,
        "reference": "base",
        "beta": 50.0,
        "steps": 4,
    }
    changes = {f"prefer.{name}": value for name, value in options.items()}
    settings = config.resolve({**SMALL, **changes, "prefer.guards": False}, project=alice).settings
    prefer.run(workspace, settings, Events())
    uncut = (workspace.prefer / "adapter.safetensors").read_bytes()
    shutil.rmtree(workspace.prefer)
    events, steps = Events(), list[int]()

    def stop(event: Event) -> None:
        if event.kind == "step":
            steps.append(event.data["step"])
            if steps == [1, 2]:
                events.request_stop()

    events.listen(stop)
    with pytest.raises(KeyboardInterrupt):
        prefer.run(workspace, settings, events)
    assert steps == [1, 2] and not (workspace.prefer / "adapter.safetensors").exists()
    prefer.run(workspace, settings, Events())
    assert (workspace.prefer / "adapter.safetensors").read_bytes() == uncut


def test_guard_and_anchor_reach_the_loss(ready: Ready) -> None:
    """The gradient that a batch leaves is that of `preference_loss` with both terms, differentiated by autograd."""
    family, pairs, settings, tensors = ready
    shake = torch.Generator().manual_seed(1)
    shaken = {name: t + 0.2 * torch.randn(t.shape, generator=shake) for name, t in tensors.items()}
    adapters.load_tensors(family.transformer, "policy", shaken)
    changed = config.with_values(settings, {"prefer.winner_guard": 2.0, "prefer.anchor": 0.5})
    parameters = list(adapters.parameters(family.transformer, "policy").values())
    # A draw at which the winner's error is above the reference's: elsewhere the guard has nothing to do.
    drawn_at = {
        seed: preference.draw(family, pairs[0], torch.Generator().manual_seed(seed), changed) for seed in range(30)
    }
    seed = next(seed for seed, drawn in drawn_at.items() if risen(drawn) > 0)
    metrics = prefer.accumulate(family, pairs, batch((0,), seed), changed, 50.0)
    ours = torch.cat([p.grad.flatten().double() for p in parameters if p.grad is not None])
    drawn = preference.draw(family, pairs[0], torch.Generator().manual_seed(seed), changed)
    errors = hpo.PairErrors(drawn.winner(), drawn.winner_reference, drawn.rejected(), drawn.rejected_reference)
    loss = hpo.preference_loss(errors, 50.0, guard=2.0, anchor=0.5)
    joint = torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, parameters)])
    assert float((ours - joint).norm() / joint.norm()) < 1e-5
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_beta_is_solved_from_the_margin_that_the_loss_sees(ready: Ready) -> None:
    """A guard adds to the probe's margins, and to no others, what the winner's error is above its reference's."""
    family, pairs, settings, tensors = ready
    shake = torch.Generator().manual_seed(1)
    shaken = {name: t - 0.05 * torch.randn(t.shape, generator=shake) for name, t in tensors.items()}
    adapters.load_tensors(family.transformer, "policy", shaken)
    workspace = Workspace("alice")
    plain, guarded = (prefer.margins(workspace, family, pairs, settings, 1, guard) for guard in (0.0, 2.0))
    above = []
    for number, pair in enumerate(pairs):
        seed = int(digest([settings.seed, 1, number])[:12], 16)
        above.append(risen(preference.draw(family, pair, torch.Generator().manual_seed(seed), settings)))
    assert max(above) > 0
    wanted = [margin + 2 * max(0.0, more) for margin, more in zip(plain, above, strict=True)]
    assert guarded == pytest.approx(wanted, rel=1e-4, abs=1e-7)


def risen(drawn: preference.Draw) -> float:
    """What the winner's error is above the reference's."""
    return float(drawn.winner().detach() - drawn.winner_reference)


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
