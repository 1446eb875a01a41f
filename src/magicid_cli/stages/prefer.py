"""Stage 2: hybrid preference optimization of the LoRA against the stage-1 model.

Two adapters sit on one frozen base: `reference` (stage 1, frozen) and `policy` (starts as its copy); in a later round
both are what the round before ended with. A step draws one time and one noise for both videos of a pair, measures the
reference's two errors without gradient, then lets `hpo.accumulate_preference` form the exact gradient with one video's
graph alive at a time (`method.md` 5). The settings may ask for other draws, also out of a bank of fixed ones, for the
bare base as reference, and for further terms in the loss.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from magicid_cli import adapters, conditioning, guards, hpo, models, training
from magicid_cli.config import Settings, subset
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces import open_faces
from magicid_cli.models.base import Family
from magicid_cli.models.catalog import video_model
from magicid_cli.named_files import by_content
from magicid_cli.plan import running
from magicid_cli.plan.begun import Begun, of_training
from magicid_cli.preference import Bank, Pair, draw
from magicid_cli.reconstruction import schedule
from magicid_cli.rounds import FIRST
from magicid_cli.workspace import Workspace, digest, file_digest, read_json, read_lines, write_json

NAME = "prefer"
TITLE = "Stage 2: preference optimization"
FORMAT = 1
READS = (
    "seed",
    "model.name",
    "model.dtype",
    "model.base",
    "training.guidance",
    "training.timesteps",
    "training.max_grad_norm",
    "prefer",
)
PROBE_PAIRS = 16
# What the probe steps do not read: more steps later keep the strength that was found.
_AFTER_PROBE = ("prefer.steps", "prefer.beta", "prefer.guards", "prefer.watch_every", "prefer.watch_videos")
_PROBE_SALT, _HELD_OUT_SALT = 1, 2


@dataclass(frozen=True)
class PreferResult:
    """Where the final adapter lies and how it was reached.

    Attributes:
        adapter: its file.
        pairs: how many were trained on.
        steps: that were trained.
        beta: strength of the preference.
        beta_from: `setting` or `probe`.
        chosen: the step whose adapter it is.
        stopped: the guards' rule that ended the training early, or None.
        why: why it was ended, if it was, and why that step was chosen.
    """

    adapter: Path
    pairs: int
    steps: int
    beta: float
    beta_from: str
    chosen: int
    stopped: str | None
    why: str


def reads(settings: Settings) -> tuple[str, ...]:
    """`READS`, and what the guards read."""
    return tuple(dict.fromkeys((*READS, *guards.READS))) if settings.prefer.guards else READS


def inputs(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """What is trained on, and what the guards look at."""
    found = trained_on(workspace)
    if settings.prefer.guards:
        found["watched"] = [vars(wish) for wish in guards.wishes(workspace, settings)]
        found["references"] = file_digest(workspace.references / "embeddings.safetensors")
    return found


def trained_on(workspace: Workspace) -> dict[str, Any]:
    """Content of the adapter that the round starts from and of the pairs, and the records of their videos."""
    rows = read_lines(workspace.pairs)
    named = {row[side]["id"] for row in rows for side in ("winner", "rejected")}
    records = read_lines(workspace.repository / "videos.jsonl")
    return {
        "adapter": file_digest(workspace.start),
        "pairs": [[row["split"], row["winner"]["id"], row["rejected"]["id"], row["prompt"]] for row in rows],
        "videos": {row["id"]: row["key"] for row in records if row["id"] in named},
    }


def outputs(workspace: Workspace) -> dict[str, str]:
    """Content of the final adapter."""
    path = workspace.prefer / "adapter.safetensors"
    return {"adapter": file_digest(path)} if path.is_file() else {}


def prepare(settings: Settings, events: Events) -> None:
    """Bring in what the stage needs from outside, before any stage starts."""
    models.open_family(settings.model, events)
    if settings.prefer.guards:
        open_faces(settings.rewards, video_model(settings.model.name), offline=settings.model.offline, events=events)


def run(workspace: Workspace, settings: Settings, events: Events) -> PreferResult:
    """Train the final adapter.

    Raises:
        MagicIDError: `beta-undetermined` if no strength can be solved for; else as `training.train`.
    """
    family = running.open_family(settings, NAME, events)
    train_pairs, held_out = load_pairs(workspace, family, events)
    if settings.prefer.guards:
        prompts = [wish.prompt for wish in guards.wishes(workspace, settings)]
        conditioning.encode_texts(family, workspace.path / "texts", prompts, events, NAME)
    tensors, spec = adapters.load(workspace.start)
    family.load("transformer")
    family.gradient_checkpointing(settings.training.gradient_checkpointing)
    for name in ("policy",) if settings.prefer.reference == "base" else ("reference", "policy"):
        adapters.attach(family.transformer, name, spec, seed=0)
        adapters.load_tensors(family.transformer, name, tensors)
    adapters.select(family.transformer, "policy", trainable=True)
    running.arrange(family, NAME, events)

    probe_key = probe_key_of(workspace, settings, family.commit)
    bank = open_bank(workspace, settings, family)
    beta, beta_from = choose_beta(workspace, settings, family, train_pairs, probe_key, events, bank)
    adapters.load_tensors(family.transformer, "policy", tensors)
    key = run_key(workspace, settings, family.commit, beta)
    guard = None
    if settings.prefer.guards:
        guard = guards.open_guard(workspace, settings, family, (tensors, spec), key, events)
    watch = HeldOut(workspace, family, held_out, settings, guard) if held_out else None
    result = training.train(
        stage=NAME,
        parameters=adapters.parameters(family.transformer, "policy"),
        schedule=schedule(settings, settings.prefer.steps, settings.prefer),
        items=len(train_pairs),
        seed=training_seed(workspace, settings),
        key=key,
        folder=workspace.prefer,
        accumulate=lambda batch: accumulate(family, train_pairs, batch, settings, beta, bank),
        events=events,
        after_step=watch.measure if watch else None,
        guard=guard,
    )
    path = workspace.prefer / "adapter.safetensors"
    if guard:
        verdict = guard.finish(read_lines(result.metrics), path)
    else:
        adapters.save(path, adapters.tensors(family.transformer, "policy"), spec)
        verdict = guards.unguarded(workspace.prefer, result.steps)
    family.unload("transformer")
    return PreferResult(
        path, len(train_pairs), result.steps, beta, beta_from, verdict.step, verdict.stopped, verdict.why
    )


def begun(workspace: Workspace, settings: Settings) -> Begun:
    """How far an interrupted training is; its probe is begun anew in this count."""
    known, key = models.known(settings.model), None
    if known:
        beta = settings.prefer.beta or kept_beta(workspace, probe_key_of(workspace, settings, known[0]))
        key = run_key(workspace, settings, known[0], beta)
    return of_training(workspace.prefer / "checkpoints", key)


def probe_key_of(workspace: Workspace, settings: Settings, commit: str) -> str:
    """What a strength that the probe found must have been found from."""
    probed = {name: value for name, value in subset(settings, READS).items() if name not in _AFTER_PROBE}
    return digest([FORMAT, probed, [trained_on(workspace), commit]])


def run_key(workspace: Workspace, settings: Settings, commit: str, beta: float | None) -> str:
    """What a checkpoint of this run must have been made from."""
    values = by_content(subset(settings, reads(settings)))
    return digest([FORMAT, values, [inputs(workspace, settings), commit], beta])


def kept_beta(workspace: Workspace, key: str) -> float | None:
    """The strength that a probe of this key has found, if one has."""
    kept = workspace.prefer / "beta.json"
    found = read_json(kept) if kept.is_file() else {}
    return float(found["beta"]) if found.get("key") == key else None


def load_pairs(workspace: Workspace, family: Family, events: Events) -> tuple[list[Pair], list[Pair]]:
    """`pairs.jsonl` → training and held-out pairs; prompts are encoded if they are not yet."""
    rows = read_lines(workspace.pairs)
    texts = workspace.path / "texts"
    conditioning.encode_texts(family, texts, [row["prompt"] for row in rows], events, NAME)
    splits: dict[str, list[Pair]] = {"train": [], "held-out": []}
    for row in rows:
        winner, rejected = (workspace.repository / row[side]["latents"] for side in ("winner", "rejected"))
        splits[row["split"]].append(Pair(winner, rejected, conditioning.load_text(family, texts, row["prompt"])))
    return splits["train"], splits["held-out"]


def training_seed(workspace: Workspace, settings: Settings) -> int:
    """The seed of order and noise: the run's own in the first round, another one in each later round."""
    return (settings.seed or 0) if workspace.number == FIRST else workspace.seed_of(settings.seed, NAME)


def open_bank(workspace: Workspace, settings: Settings, family: Family) -> Bank | None:
    """The fixed draws of all training pairs, if the settings ask for some; the probe and the training share them."""
    draws = settings.prefer.bank
    seed, key = training_seed(workspace, settings), bank_key_of(workspace, settings, family)
    return Bank(draws, seed, workspace.prefer / "bank.jsonl", key) if draws else None


def bank_key_of(workspace: Workspace, settings: Settings, family: Family) -> str:
    """What the reference's errors at fixed draws follow from: model, laws of the draws, pairs and reference.

    Nothing of how the policy is trained, and not how many draws there are: each of them is drawn by itself.
    """
    model = [settings.model.name, family.commit, str(family.dtype), settings.model.base]
    drawn = [settings.training.timesteps, settings.prefer.noise, training_seed(workspace, settings)]
    measured = [settings.training.guidance, settings.prefer.reference, trained_on(workspace)]
    return digest([FORMAT, model, drawn, measured])


def accumulate(
    family: Family,
    pairs: list[Pair],
    batch: training.Batch,
    settings: Settings,
    beta: float | None,
    bank: Bank | None = None,
) -> dict[str, float]:
    """Leave the gradient of the mean preference loss over the batch's pairs in the policy.

    Args:
        family: its transformer is loaded with both adapters.
        pairs: all training pairs.
        batch: which of them, and the generator of their noise and times.
        settings: guidance and the law of the timesteps.
        beta: strength of the preference; None for the small-beta limit of the probe.
        bank: fixed draws to choose from; by default every step draws anew.

    Returns:
        Means over the batch: `loss`, `margin`, `winner_shift` (e_w - e_w0), `rejected_shift` (e_l - e_l0),
        `implicit_accuracy` (margin below 0), `gradient_factor`; and the last pair's `t`.
    """
    parameters = list(adapters.parameters(family.transformer, "policy").values())
    buffer = [torch.zeros_like(parameter) for parameter in parameters]
    steps, t = [], 0.0
    for item in batch.items:
        if bank:
            drawn = bank.draw(family, pairs, item, batch.generator, settings)
        else:
            drawn = draw(family, pairs[item], batch.generator, settings)
        steps.append(
            hpo.accumulate_preference(
                drawn.winner,
                drawn.rejected,
                drawn.winner_reference,
                drawn.rejected_reference,
                parameters,
                beta,
                buffer,
                weight=1 / len(batch.items),
                guard=settings.prefer.winner_guard,
                anchor=settings.prefer.anchor,
            )
        )
        t = drawn.t
    for parameter, gradient in zip(parameters, buffer, strict=True):
        parameter.grad = gradient
    names = ("loss", "margin", "winner_shift", "rejected_shift", "implicit_accuracy", "gradient_factor")
    return {name: sum(float(getattr(step, name)) for step in steps) / len(steps) for name in names} | {"t": t}


def margins(
    workspace: Workspace, family: Family, pairs: list[Pair], settings: Settings, salt: int, guard: float = 0.0
) -> list[float]:
    """The policy's (guarded) margins on some pairs, each at its own fixed time and noise, without gradient."""
    found = []
    for number, pair in enumerate(pairs):
        seed = workspace.seed_of(settings.seed, salt, number)
        drawn = draw(family, pair, torch.Generator().manual_seed(seed), settings)
        with torch.no_grad():
            errors = hpo.PairErrors(drawn.winner(), drawn.winner_reference, drawn.rejected(), drawn.rejected_reference)
        found.append(float(hpo.guarded_margin(errors, guard)))
    return found


class HeldOut:
    """Watches over-fitting: the margin of pairs that share no clip with training."""

    def __init__(
        self,
        workspace: Workspace,
        family: Family,
        pairs: list[Pair],
        settings: Settings,
        guard: guards.Guard | None,
    ) -> None:
        self.workspace, self.settings, self.guard = workspace, settings, guard
        self.family, self.pairs = family, pairs

    def measure(self, step: int) -> dict[str, float] | None:
        """Mean margin and accuracy of the held-out pairs, every `prefer.held_out_every` steps and for the guard."""
        if step % self.settings.prefer.held_out_every and not (self.guard and self.guard.due(step)):
            return None
        found = margins(self.workspace, self.family, self.pairs, self.settings, _HELD_OUT_SALT)
        return {
            "held_out_margin": sum(found) / len(found),
            "held_out_accuracy": sum(value < 0 for value in found) / len(found),
        }


def choose_beta(
    workspace: Workspace,
    settings: Settings,
    family: Family,
    pairs: list[Pair],
    key: str,
    events: Events,
    bank: Bank | None = None,
) -> tuple[float, str]:
    """The strength of the preference, and how it was found.

    At the start every margin is 0 and the gradient factor is 0.5 whatever beta is. So: train some probe steps in the
    small-beta limit, measure the margin they reach on fixed draws, forget them, and solve for the beta that would put
    the gradient factor of the median margin at the target. Found once, kept in `prefer/beta.json`.

    Raises:
        MagicIDError: `beta-undetermined` if the probe did not bring the median margin below 0.
    """
    if settings.prefer.beta is not None:
        return settings.prefer.beta, "setting"
    before = kept_beta(workspace, key)
    if before is not None:
        return before, "probe"
    folder = workspace.prefer / "probe"
    events.notice(f"{settings.prefer.probe_steps} probe steps, to be forgotten, tell how strong beta must be.")
    training.train(
        stage=NAME,
        parameters=adapters.parameters(family.transformer, "policy"),
        schedule=schedule(settings, settings.prefer.probe_steps, settings.prefer),
        items=len(pairs),
        seed=training_seed(workspace, settings),
        key=key,
        folder=folder,
        accumulate=lambda batch: accumulate(family, pairs, batch, settings, None, bank),
        events=events,
    )
    reached = margins(workspace, family, pairs[:PROBE_PAIRS], settings, _PROBE_SALT, settings.prefer.winner_guard)
    shutil.rmtree(folder)
    try:
        beta = hpo.solve_beta(reached, settings.prefer.gradient_factor)
    except ValueError:
        raise MagicIDError(
            "beta-undetermined",
            f"After {settings.prefer.probe_steps} probe steps the median margin is {median(reached):.3g}, not below 0: "
            "the pairs did not teach the adapter anything yet, so no strength can be solved for.",
            "Probe longer (--probe-steps 128), or set the strength yourself (--beta 500).",
        ) from None
    write_json(
        workspace.prefer / "beta.json",
        {"key": key, "beta": beta, "margins": reached, "gradient_factor": settings.prefer.gradient_factor},
    )
    events.notice(
        f"beta = {beta:.4g}: the median margin after {settings.prefer.probe_steps} steps is {median(reached):.3g}."
    )
    return beta, "probe"
