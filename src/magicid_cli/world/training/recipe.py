"""The whole way from nothing to the weights that come with the package, part after part, in one folder.

OUT/
    recipe.json     what was asked for; another scale in the same folder is refused
    codec/          the autoencoder; in each folder like this state.pt (to go on from), log.jsonl, made-of.json (hashes
                    of what it is made from: once that is replaced, it begins anew) and, when it is done,
                    weights.safetensors
    latents/        the training clips, encoded once for each autoencoder
    words/          the two tokenizers
    base/ guided/   text encoders and transformer: the flow, then its guidance
    face_finder/ face_encoder/ face_judge/ prompt_scorer/
    weights/        the result, laid out as the package has it: hunyuan-mini/, four files of the judges, README.md
    figures.json    what each part measured on people it had never seen
"""

import fcntl
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from magicid_cli.checkpoints import room_to_write
from magicid_cli.destinations import require_folder
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models import mini
from magicid_cli.workspace import atomic_path, read_json, read_lines, write_json, write_text
from magicid_cli.world import networks
from magicid_cli.world.captions import words
from magicid_cli.world.training import base, judges, origins, readme
from magicid_cli.world.training.codec import DOSE, Codec, as_video
from magicid_cli.world.training.damage import reading
from magicid_cli.world.training.loop import Dose, fit

_RECIPE, _LOCK, _SCALING = "recipe.json", "lock", "scaling.json"
_HELD_OUT = 64  # clips on which the transformer is measured
_FEWEST = 10  # steps and, times the size of a file of latents, clips


@dataclass(frozen=True)
class Trained:
    """What a run left.

    Attributes:
        weights: the folder of the result.
        files: all files in it.
        figures: part → what it measured at its end.
        seconds: that this call took.
    """

    weights: Path
    files: list[Path]
    figures: dict[str, dict[str, float]]
    seconds: float


@dataclass(frozen=True)
class _Run:
    folder: Path
    device: str
    scale: float
    events: Events

    def dose(self, whole: Dose) -> Dose:
        return replace(whole, steps=max(_FEWEST, round(whole.steps * self.scale)))

    def keep(self, name: str, model: nn.Module) -> None:
        """Mark a part as done by keeping what it made."""
        tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
        with atomic_path(self.folder / name / origins.DONE) as temporary:
            save_file(tensors, temporary)

    def kept(self, name: str, model: nn.Module) -> nn.Module:
        """The model with what a part made, frozen, on the run's device."""
        path = self.folder / name / origins.DONE
        with reading(path, f"'{name}' is finished again from its last state"):
            model.load_state_dict(load_file(path))
        return model.to(self.device).eval().requires_grad_(False)


class _Judge(Protocol):
    """What `judges` calls a task."""

    model: nn.Module
    recipe: judges.Recipe

    def batch(self, step: int) -> judges.Tensors: ...

    def loss(self, batch: judges.Tensors) -> torch.Tensor: ...

    def evaluate(self) -> dict[str, float]: ...

    def save(self, path: Path) -> None: ...


class _Lesson:
    """A judge as a task of the loop."""

    def __init__(self, name: str, judge: _Judge, dose: Dose) -> None:
        self.name, self.judge, self.dose = name, judge, dose
        judge.recipe = replace(judge.recipe, steps=dose.steps)
        self.model = judge.model

    def batch(self, step: int) -> judges.Tensors:
        return self.judge.batch(step)

    def loss(self, batch: judges.Tensors, step: int) -> torch.Tensor:
        with torch.autocast(next(self.model.parameters()).device.type, torch.bfloat16):
            return self.judge.loss(batch)

    def evaluate(self) -> dict[str, float]:
        return self.judge.evaluate()


def train(folder: Path, *, device: str, only: str | None, scale: float, events: Events) -> Trained:
    """Train the miniature and its judges, or go on where an earlier call stopped.

    Args:
        folder: for everything; made if it is missing.
        device: `cpu` or `cuda`.
        only: one of `PARTS`; all of them by default.
        scale: on every part's steps and on the number of clips; the shipped weights had 1.
        events: told of parts and steps; may ask to stop.

    Raises:
        MagicIDError: `folder-busy`, `settings-invalid` for another scale than before, `output-exists` for a folder of
            something else, `output-invalid` where no folder can be, `training-order` if a part is missing that `only`
            needs, `training-damaged` for a file that cannot be read, `disk-full`.
        KeyboardInterrupt: after a stop request; the same call goes on.
    """
    begun = time.monotonic()
    folder = folder.absolute()
    run = _Run(folder, device, scale, events)
    chosen = [only] if only else list(PARTS)
    _check(run)
    if not PARTS[chosen[0]].made(folder):
        _require(run, chosen[0])  # what is refused must leave nothing behind
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder), room_to_write(folder):
        _settle(run)
        for number, name in enumerate(chosen, start=1):
            part = PARTS[name]
            about = {"stage": name, "title": part.title, "i": number, "n": len(chosen)}
            if part.made(folder):
                events.emit("stage", state="cached", **about)
                continue
            _require(run, name)
            events.emit("stage", state="started", **about)
            part.make(run)
            events.emit("stage", state="finished", **about)
        figures = _figures(folder)
        write_json(folder / "figures.json", figures)
    weights = folder / "weights"
    for path in weights.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # some of them were written for their owner alone
    files = sorted(path for path in weights.rglob("*") if path.is_file())
    return Trained(weights, files, figures, round(time.monotonic() - begun, 1))


# --- the parts ------------------------------------------------------------------------------------------------------


def _codec(run: _Run) -> None:
    task = Codec(run.device, run.dose(DOSE))
    fit(task, run.folder, run.events)
    run.keep("codec", task.model)


def _base(run: _Run) -> None:
    """The flow and then its guidance, on latents that are made once for each autoencoder."""
    vae = run.kept("codec", mini.vae())  # first: if that is damaged, nothing was made with something else
    origins.begin(run.folder, "latents", run.events)
    origins.begin(run.folder, "base", run.events)
    if not origins.finished(run.folder, "base"):
        origins.clear(run.folder, "guided", "base is made anew", run.events)
    count = max(_FEWEST * 50, round(base.CLIPS * run.scale / 500) * 500)
    values = base.latents(vae, run.folder / "latents", count, run.events)
    scaling = 1 / float(values[::8].float().std())  # all of them as float32 would be twice their memory again
    data = base.Latents(values, [base.training_scene(number) for number in range(count)], scaling)
    held_out = base.held_out_scenes(_HELD_OUT)
    seen = base.Latents(base.encoded(vae, held_out), held_out, scaling)
    task = base.Base(data, seen, run.folder / "words", device=run.device, dose=run.dose(base.DOSE))
    fit(task, run.folder, run.events)
    run.keep("base", task.model)
    origins.begin(run.folder, "guided", run.events)
    dose = run.dose(base.GUIDED_DOSE)
    guided = base.Base(data, seen, run.folder / "words", device=run.device, dose=dose, teacher=task.model)
    fit(guided, run.folder, run.events)
    write_json(run.folder / "guided" / _SCALING, scaling)
    run.keep("guided", guided.model)


def _judge(run: _Run, *, name: str, made: Callable[[judges.Codec], _Judge]) -> None:
    """Train a judge, also on what the autoencoder makes of clips, and write it where the package has it."""
    vae = run.kept("codec", mini.vae())
    origins.begin(run.folder, name, run.events)
    judge = made(partial(_through, vae))
    judge.model.to(run.device)
    recipe = judge.recipe
    dose = Dose(recipe.steps, rate=recipe.learning_rate, hold=0.2, weight_decay=recipe.weight_decay, average=0.99)
    fit(_Lesson(name, judge, run.dose(dose)), run.folder, run.events)
    judge.model.eval()
    judge.save(run.folder / "weights" / f"{name}.safetensors")
    run.keep(name, judge.model)


def _pack(run: _Run) -> None:
    """The miniature in the Hub's layout, and what the folders say about themselves."""
    path = run.folder / "guided" / _SCALING
    with reading(path, "it is written again", delete=path.with_name(origins.DONE)):
        scaling = float(read_json(path))
    model = base.TextAndVideo(run.folder / "words")
    run.kept("guided", model)
    vae = run.kept("codec", mini.vae(scaling_factor=scaling))
    mini.write(
        run.folder / "weights" / "hunyuan-mini",
        transformer=model.transformer,
        vae=vae,
        text_encoder=model.text_encoder,
        text_encoder_2=model.text_encoder_2,
        words=words(),
        readme=readme.CHECKPOINT,
    )
    write_text(run.folder / "weights" / "README.md", readme.WEIGHTS)


@dataclass(frozen=True)
class Part:
    """A part of the recipe.

    Attributes:
        title: for people.
        make: trains and keeps it.
        needs: parts that must be done before.
        folders: those whose finished weights mean that it is done; none for the packing, which is done every time.
        cpu_s: about how long it takes on one CPU core.
        result: the file in `weights/` that it writes itself, if any.
    """

    title: str
    make: Callable[[_Run], None]
    needs: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    cpu_s: float = 0.0
    result: str = ""

    def made(self, folder: Path) -> bool:
        """Whether nothing is left to do in `train`'s folder."""
        there = not self.result or (folder / "weights" / self.result).is_file()
        return there and bool(self.folders) and all(origins.finished(folder, name) for name in self.folders)


def _judge_part(title: str, name: str, cpu_s: float, made: Callable[[judges.Codec], _Judge]) -> Part:
    make = partial(_judge, name=name, made=made)
    return Part(title, make, ("codec",), (name,), cpu_s, f"{name}.safetensors")


PARTS: dict[str, Part] = {
    "codec": Part("Autoencoder", _codec, (), ("codec",), 7000),
    "base": Part("Text encoders and transformer", _base, ("codec",), ("base", "guided"), 20_000),
    "finder": _judge_part("Face finder", "face_finder", 260, lambda codec: judges.FinderTask(0, codec)),
    "encoder": _judge_part(
        "Face encoder", "face_encoder", 400, lambda codec: judges.EncoderTask(0, networks.reward_encoder, codec)
    ),
    "judge": _judge_part(
        "Face encoder of the evaluation",
        "face_judge",
        400,
        lambda codec: judges.EncoderTask(1, networks.judging_encoder, codec),
    ),
    "scorer": _judge_part("Prompt scorer", "prompt_scorer", 700, lambda codec: judges.ScorerTask(0, codec)),
    "pack": Part("Packing", _pack, ("codec", "base")),
}
"""In their order."""


def seconds_left(folder: Path, *, only: str | None, scale: float) -> float:
    """About how long `train` would take on one CPU core, parts that are done left out.

    Below scale 1 it takes longer: measurements and the fewest clips are the same at any scale, and are not counted.
    """
    parts = [PARTS[only]] if only else list(PARTS.values())
    return sum(scale * part.cpu_s for part in parts if not part.made(folder))


# --- around them ----------------------------------------------------------------------------------------------------


def _require(run: _Run, name: str) -> None:
    missing = [need for need in PARTS[name].needs if not PARTS[need].made(run.folder)]
    if missing:
        place = f"{shlex.quote(str(run.folder))} --only {missing[0]} --scale {run.scale} --device {run.device}"
        raise MagicIDError(
            "training-order",
            f"'{name}' is made with what '{missing[0]}' leaves, and that is unfinished or out of date in {run.folder}.",
            f"First: magicid mini train {place}",
        )


def _check(run: _Run) -> None:
    """Hold what is asked for against what is in the folder.

    Raises:
        MagicIDError: `settings-invalid` for another scale, `output-exists` for a folder of something else,
            `output-invalid` where none can be, `training-damaged`.
    """
    require_folder(run.folder)
    path = run.folder / _RECIPE
    if path.is_file():
        before = _scale_of(path, run.scale)
        if before != run.scale:
            raise MagicIDError(
                "settings-invalid",
                f"{run.folder} was begun with --scale {before}; a part of the way cannot be gone at another one.",
                f"Use --scale {before}, or another folder.",
            )
        return
    content = [one.name for one in run.folder.iterdir()] if run.folder.is_dir() else []
    # A kill at the very beginning leaves these two.
    foreign = sorted(name for name in content if name != _LOCK and not name.startswith(".tmp-"))
    if foreign:
        raise MagicIDError(
            "output-exists",
            f"{run.folder} holds {foreign[0]} and no {_RECIPE}: it is no folder of a training.",
            "Name a new folder, or an empty one.",
        )


def _scale_of(path: Path, asked: float) -> float:
    try:
        return float(read_json(path)["scale"])
    except (ValueError, LookupError, TypeError) as error:
        # Without this file the folder would be one of something else; all that is needed of it is the scale.
        raise MagicIDError(
            "training-damaged",
            f"{path} is damaged; it holds the scale that the training was begun with.",
            f"If that was {asked}: echo '{{\"scale\": {asked}}}' > {shlex.quote(str(path))}",
        ) from error


def _settle(run: _Run) -> None:
    """Keep what was asked for, unless an earlier call did."""
    _check(run)  # again, now that nobody else writes here
    path = run.folder / _RECIPE
    if not path.is_file():
        doses = {"codec": DOSE, "base": base.DOSE, "guided": base.GUIDED_DOSE}
        write_json(path, {"scale": run.scale, "doses": {name: asdict(run.dose(dose)) for name, dose in doses.items()}})


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder for this process.

    Raises:
        MagicIDError: `folder-busy`.
    """
    with (folder / _LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MagicIDError(
                "folder-busy", f"Another process is training in {folder}.", "Wait for it, or name another folder."
            ) from error
        yield


@torch.no_grad()
def _through(vae: nn.Module, frames: np.ndarray) -> np.ndarray:
    """What the autoencoder makes of clips: uint8 RGB `(N, 9, 48, 48, 3)` → the same shape."""
    device = next(vae.parameters()).device
    made: Any = vae
    video = made.decode(made.encode(as_video(frames).to(device)).latent_dist.mode()).sample
    pixels = ((video.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 4, 1).cpu().numpy())


def _figures(folder: Path) -> dict[str, dict[str, float]]:
    """The last evaluation in each part's log."""
    found = {}
    for path in sorted(folder.glob("*/log.jsonl")):
        rows = [row for row in read_lines(path) if set(row) - {"step", "time", "loss"}]
        if rows:
            found[path.parent.name] = {name: value for name, value in rows[-1].items() if name != "time"}
    return found
