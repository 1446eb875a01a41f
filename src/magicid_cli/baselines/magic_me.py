"""Magic-Me (arXiv 2402.09368) on a model whose text encoder is Llama: "extended keywords" and nothing else.

A few rows, which say nothing but the class word at first, stand before the class word in every prompt. They alone are
trained, by the error of reconstructing the photos' clips within an outline of the person; the video model and the text
encoders stay as they are. Rows are Llama's input embeddings, with the gradient through the layers that the video model
uses; or, cheaper, states at Llama's output, for which Llama leaves memory after the captions are encoded.

The optimizer holds only how far the rows are from their start, in units of its root mean square, so one learning rate
means the same share of a row for both kinds and every text encoder: of the miniature's, states are four orders of
magnitude larger than embeddings, and AdamW's step knows nothing of that. Weight decay pulls these rows back to the
start and touches nothing else; the original trains embeddings as they are, and decays the whole table towards zero.

What the original has besides and this has not: its noise prior across frames, its face and tile refiners, and a
segmentation for the mask (`person_mask.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from magicid_cli import conditioning, keywords, models, training
from magicid_cli.baselines.person_mask import at_latents, masked_error, outline
from magicid_cli.config import Settings, subset
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces import open_faces
from magicid_cli.models.base import Family
from magicid_cli.models.catalog import video_model
from magicid_cli.photos import decode
from magicid_cli.plan import running
from magicid_cli.plan.begun import Begun, of_training
from magicid_cli.reconstruction import inputs, latents_of
from magicid_cli.workspace import Workspace, digest, file_digest

if TYPE_CHECKING:
    from magicid_cli.models.hunyuan_keywords import KeywordEncoder

NAME = "magic-me"
TITLE = "Magic-Me: keywords"
FORMAT = 3
# By this name training draws its random numbers, and it is the section of its settings.
_SECTION = "magic_me"
READS = (
    "seed",
    "rounds",
    "model.name",
    "model.dtype",
    "model.base",
    "photos.class_word",
    "shape.frames",
    "shape.size",
    "training.guidance",
    "training.timesteps",
    "training.max_grad_norm",
    "reconstruct.steps",
    "reconstruct.clip",
    "prefer.steps",
    "rewards.face_detector",
    _SECTION,
)

Text = dict[str, torch.Tensor]
Prompted = Callable[[int, torch.Tensor], Text]


@dataclass(frozen=True)
class MagicMeResult:
    """Where the keywords lie and how they were reached.

    Attributes:
        keywords: the file.
        clips: photos that were trained on.
        outlined: those whose error was masked.
        steps: finished steps.
        commit: of the weights.
    """

    keywords: Path
    clips: int
    outlined: int
    steps: int
    commit: str


class Rows:
    """Keywords in training: where they began, and how far they have moved from there.

    Attributes:
        moved: what is trained, float32 (count, width), in units of the root mean square of each row's start.
    """

    def __init__(self, start: torch.Tensor) -> None:
        """Begin at `start`, float32 (count, width), on its device."""
        self._start, self._unit = start, start.square().mean(1, keepdim=True).sqrt()
        self.moved = torch.nn.Parameter(torch.zeros_like(start))

    def now(self) -> torch.Tensor:
        """The rows as they are, float32 (count, width), differentiable in `moved`."""
        return self._start + self._unit * self.moved


def path_of(workspace: Workspace) -> Path:
    """Where the keywords are written."""
    return workspace.reconstruct / "keywords.safetensors"


def outputs(workspace: Workspace) -> dict[str, str]:
    """Content of the keywords."""
    path = path_of(workspace)
    return {"keywords": file_digest(path)} if path.is_file() else {}


def prepare(settings: Settings, events: Events) -> None:
    """Bring in what the method needs from outside, before anything starts."""
    models.open_family(settings.model, events)
    if settings.magic_me.mask == "person":
        _finder(settings, events)


def run(workspace: Workspace, settings: Settings, events: Events) -> MagicMeResult:
    """Train the keywords.

    Args:
        workspace: the method's folder.
        settings: seed set; what is read is listed in `READS`.
        events: where progress goes.

    Raises:
        MagicIDError: `captions-unusable` if no caption says the class word; or weights, memory or training failed.
    """
    # Held and computed as in stage 1, but for Llama beside it.
    family, own = running.open_family(settings, "reconstruct", events, NAME), settings.magic_me
    photos = conditioning.references(workspace)
    said = _said(family, photos, settings, events)
    every = latents_of(workspace, settings, family, events, NAME)
    photos, latents = [photos[number] for number in said], [every[number] for number in said]
    masks = _masks(photos, settings, latents, events)
    captions = [photo.caption for photo in photos]
    encoder = keywords.open_encoder(family, gradients=own.kind == "input")
    start = keywords.beginning(encoder, own.kind, captions, settings.photos.class_word, own.keywords)
    rows = Rows(start.to(family.device))
    spec = keywords.KeywordSpec(own.kind, settings.photos.class_word, own.keywords, encoder.width, family.commit)
    prompted = _prompted(encoder, captions, spec, family.device)
    if own.kind == "output":
        encoder.close()
    family.load("transformer")
    family.gradient_checkpointing(settings.training.gradient_checkpointing)
    family.transformer.requires_grad_(False)
    running.arrange(family, "reconstruct", events)
    result = training.train(
        stage=_SECTION,
        parameters={"keywords": rows.moved},
        schedule=training.Schedule(
            steps=settings.total_steps,
            learning_rate=own.learning_rate,
            weight_decay=own.weight_decay,
            warmup=0,
            batch=own.batch,
            max_grad_norm=settings.training.max_grad_norm,
            save_every=settings.training.save_every,
        ),
        items=len(latents),
        seed=settings.seed or 0,
        key=run_key(workspace, settings, family.commit),
        folder=workspace.reconstruct,
        accumulate=lambda batch: accumulate(family, latents, masks, prompted, rows, batch, settings),
        events=events,
    )
    path = path_of(workspace)
    keywords.save(path, keywords.Keywords(rows.now(), spec))
    family.unload("transformer")
    return MagicMeResult(path, len(latents), sum(mask is not None for mask in masks), result.steps, family.commit)


def begun(workspace: Workspace, settings: Settings) -> dict[str, Begun]:
    """How far an interrupted training is, by the name that the plan has for it."""
    known = models.known(settings.model)
    key = known and run_key(workspace, settings, known[0])
    return {"reconstruct": of_training(workspace.reconstruct / "checkpoints", key)}


def run_key(workspace: Workspace, settings: Settings, commit: str) -> str:
    """What a checkpoint of this run must have been made from."""
    return digest([NAME, FORMAT, subset(settings, READS), inputs(workspace, settings), commit])


def accumulate(
    family: Family,
    latents: list[torch.Tensor],
    masks: list[torch.Tensor | None],
    prompted: Prompted,
    rows: Rows,
    batch: training.Batch,
    settings: Settings,
) -> dict[str, float]:
    """Leave the gradient of the batch's mean error in the rows' movement.

    Args:
        family: its transformer is loaded and frozen.
        latents: `(C, f, h, w)` of every clip.
        masks: `(h, w)` of every clip, or None where everything counts.
        prompted: clip and rows → the conditioning of its caption.
        rows: the keywords.
        batch: which clips, and the generator of their noise and times and of what is not masked.
        settings: guidance, the law of the timesteps, the share that is not masked.

    Returns:
        `loss`, `t` (of the last clip) and `masked` (share of the batch's clips).
    """
    total, masked, t = 0.0, 0, torch.zeros(1)
    for item in batch.items:
        t = family.timesteps(1, batch.generator, settings.training.timesteps)
        noise = torch.randn(latents[item].shape, generator=batch.generator)
        whole = float(torch.rand(1, generator=batch.generator)) < settings.magic_me.unmasked
        mask = None if whole else masks[item]
        x_t, target = family.noised(latents[item], noise, t)
        found = family.predict(x_t, t, prompted(item, rows.now()), settings.training.guidance)
        loss = masked_error(target.to(family.device), found, mask)
        (loss / len(batch.items)).backward()
        total += float(loss.detach()) / len(batch.items)
        masked += mask is not None
    return {"loss": total, "t": float(t), "masked": masked / len(batch.items)}


def _said(family: Family, photos: list[conditioning.Reference], settings: Settings, events: Events) -> list[int]:
    """The numbers of the photos whose captions say the class word: the others have no place for a keyword.

    Raises:
        MagicIDError: `captions-unusable` if none does. Only the tokenizer is read until then.
    """
    word, count = settings.photos.class_word, settings.magic_me.keywords
    places = [keywords.place_in(family, photo.caption, word, count) for photo in photos]
    without = [photo.crop.name for photo, place in zip(photos, places, strict=True) if place is None]
    if len(without) == len(photos):
        raise MagicIDError(
            "captions-unusable",
            f"No caption says '{word}' where the text encoder reads it, and the keywords stand before that word.",
            f"Write '{word}' for the person in {photos[0].crop.parent / 'captions.jsonl'}, then run the same command.",
        )
    if without:
        what = f"Captions that do not say '{word}' have no place for a keyword; not trained on: {', '.join(without)}."
        events.notice(what, stage=NAME)
    return [number for number, place in enumerate(places) if place is not None]


def _prompted(
    encoder: "KeywordEncoder", captions: list[str], spec: keywords.KeywordSpec, device: torch.device
) -> Prompted:
    """What gives the conditioning of a clip's caption with the keywords in it, differentiable in them, on the device.

    What does not depend on the keywords is computed here, once: CLIP's vector, and for kind `output` Llama's states.
    """
    placed = [encoder.placed(caption, spec.class_word, spec.count) for caption in captions]
    pooled = [encoder.pooled(caption) for caption in captions]
    if spec.kind == "input":
        return lambda item, rows: encoder.text(encoder.states(placed[item], rows), pooled[item])
    with torch.no_grad():
        fixed = [encoder.text(encoder.states(one).cpu(), vector) for one, vector in zip(placed, pooled, strict=True)]
    places = [None if one.place is None else keywords.row_of(one) for one in placed]
    on_device = [{**text, "prompt_embeds": text["prompt_embeds"].to(device)} for text in fixed]
    return lambda item, rows: keywords.spliced(on_device[item], rows, places[item])


def _finder(settings: Settings, events: Events) -> Any:
    model = video_model(settings.model.name)
    return open_faces(settings.rewards, model, offline=settings.model.offline, events=events).detector


def _masks(
    photos: list[conditioning.Reference], settings: Settings, latents: list[torch.Tensor], events: Events
) -> list[torch.Tensor | None]:
    """The person's outline in every photo at the latents' resolution; None where everything counts."""
    if settings.magic_me.mask != "person":
        return [None] * len(latents)
    finder, masks = _finder(settings, events), list[torch.Tensor | None]()
    for photo, one in zip(photos, latents, strict=True):
        rgb = decode(photo.crop).rgb
        faces = finder.find(rgb)
        if not faces:
            what = f"{photo.crop.name} shows no face at the training size: its error counts everywhere."
            events.emit("fallback", message=what, stage=NAME)
        masks.append(
            at_latents(outline(rgb.shape[0], rgb.shape[1], faces[0].box), one.shape[-2], one.shape[-1])
            if faces
            else None
        )
    return masks
