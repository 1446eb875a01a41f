"""What trains the judges of the drawn world: batches, losses and measurements; the loop itself is `loop.py`'s.

A task gives `model` (everything that is trained; its buffers count, too, when weights are averaged), `batch(step)`
(tensors on the CPU that depend on the step's number alone), `loss(batch)`, `evaluate()` and `save(path)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from magicid_cli.alignment import aligned, square
from magicid_cli.world import clips, networks
from magicid_cli.world.actions import ACTIONS
from magicid_cli.world.networks import FaceEncoder, FaceFinder, PromptScorer, seen
from magicid_cli.world.outfits import OUTFITS
from magicid_cli.world.places import PLACES
from magicid_cli.world.training import pictures
from magicid_cli.world.training.pictures import HELD_OUT, SCENES, TRAINING, Codec, Draw, Shot, generator
from magicid_cli.world.training.verification import auc, margin_loss, pairs, thresholds

Tensors = dict[str, torch.Tensor]

LABELS = {"action": list(ACTIONS), "place": list(PLACES), "outfit": list(OUTFITS)}
"""What the scorer chooses from, in the order of its answers."""


@dataclass(frozen=True)
class Recipe:
    """How a task wants to be trained; `learning_rate` is that of AdamW, see `loop.Dose`."""

    steps: int
    learning_rate: float
    weight_decay: float


class FinderTask:
    """Find the face.

    Args:
        seed: of the weights and of all that is drawn.
        codec: what the VAE makes of clips, once there is one; a part of the pictures then went through it.
    """

    SIZE = 64
    recipe = Recipe(steps=800, learning_rate=2e-3, weight_decay=0.02)

    def __init__(self, seed: int = 0, codec: Codec | None = None) -> None:
        torch.manual_seed(seed)
        self.seed, self.codec = seed, codec
        self.network = FaceFinder()
        self.model: nn.Module = self.network

    def batch(self, step: int) -> Tensors:
        """A fifth of the pictures show nobody."""
        draw = generator(1, self.seed, step)
        made = _clips(self.codec, draw, [TRAINING] * 2)[1] if self.codec else []
        shots = [self._varied(draw, what, changed=True) for what in made]
        rest = self.SIZE - len(shots)
        empty = rest // 5 + 1
        shots += [self._varied(draw, self._shot(draw), changed=False) for _ in range(rest - empty)]
        blank = Shot(np.empty(0), np.zeros((5, 2)), (0.0, 0.0, 1.0, 1.0))
        shots += [
            pictures.with_picture(blank, _finders(_worn(draw, pictures.nobody(draw, TRAINING)))) for _ in range(empty)
        ]
        return {**_places(shots), "there": torch.arange(self.SIZE) < self.SIZE - empty}

    def _shot(self, draw: Draw) -> Shot:
        return pictures.shot(draw, TRAINING, size=clips.SIZE if draw.random() < 0.6 else pictures.any_size(draw))

    def _varied(self, draw: Draw, what: Shot, *, changed: bool) -> Shot:
        """As a frame of a video, as a photo, or a part of either; `changed` if its pixels are already used up."""
        if not changed:
            what = pictures.with_picture(what, _worn(draw, what.picture))
        if draw.random() < 0.5:
            what = pictures.mirrored(what)
        if draw.random() < 0.4:
            return pictures.with_picture(what, _finders(what.picture))
        x, y, width, height = what.box
        part = height / float(np.exp(draw.uniform(np.log(0.17), np.log(0.75))))
        place = draw.uniform(0.45 * height / part, 1 - 0.45 * height / part, 2)
        corner = np.array([x + width / 2, y + height / 2]) - part * place
        return pictures.cropped(what, (float(corner[0]), float(corner[1])), part, networks.PICTURE)

    def loss(self, batch: Tensors) -> torch.Tensor:
        """Presence, and distances in units of the head's height where there is one."""
        found, there = self.network(_pixels(batch["pictures"], self.model)), batch["there"]
        device = found.presence.device
        target, box = batch["landmarks"].to(device), batch["box"].to(device)
        height = box[:, 3].exp()[:, None]
        off = (found.landmarks - target).norm(dim=-1) / height
        box_off = torch.cat([(found.box[:, :2] - box[:, :2]).abs() / height, (found.box[:, 2:] - box[:, 2:]).abs()], 1)
        presence = functional.binary_cross_entropy_with_logits(found.presence, there.to(device, torch.float32))
        return 2 * presence + 20 * off[there].mean() + 5 * box_off[there].mean()

    @torch.inference_mode()
    def evaluate(self, count: int = 400) -> dict[str, float]:
        """On frames of unseen people: how often the face is found and by how many of 64 pixels landmarks are off."""
        self.model.eval()
        draw = generator(2)
        shots = []
        for _ in range(count):
            what = pictures.shot(draw, HELD_OUT, first=0)
            shots.append(pictures.with_picture(what, _finders(what.picture)))
        empty = np.stack([_finders(pictures.nobody(draw, HELD_OUT, first=0)) for _ in range(count)])
        wanted = _places(shots)
        found = self.network(_pixels(wanted["pictures"], self.model))
        none = self.network(_pixels(torch.from_numpy(empty), self.model))
        self.model.train()
        off = networks.PICTURE * (found.landmarks.cpu() - wanted["landmarks"]).norm(dim=-1)
        edge = (found.box.cpu()[:, 3] - wanted["box"][:, 3]).abs()
        return {
            "found": float((found.presence > 0).float().mean()),
            "false_alarms": float((none.presence > 0).float().mean()),
            "landmarks_px": float(off.mean()),
            "landmarks_px_95": float(off.quantile(0.95)),
            "box_height_off": float(edge.mean()),
        }

    def save(self, path: Path) -> None:
        """Keep the network with what it measures."""
        networks.save(self.network, path, self.evaluate())


class EncoderTask:
    """Tell people apart: an additive angular margin (Deng et al. 2019, ArcFace), every person's other crop its centre.

    A batch shows many people, each twice: in a picture of any size, and in a small and worn frame of another scene.
    Each crop must point to the person's other one among all crops. Without learned centres the number of training
    people is without limit: nobody is learned by heart.

    Args:
        seed: of the weights and of all that is drawn.
        network: makes the untrained network: `networks.reward_encoder` or `networks.judging_encoder`.
        codec: see `FinderTask`.
    """

    PEOPLE = 64
    SCALE, MARGIN = 20.0, 0.2
    recipe = Recipe(steps=450, learning_rate=2e-3, weight_decay=0.02)

    def __init__(self, seed: int, network: Callable[[], FaceEncoder], codec: Codec | None = None) -> None:
        torch.manual_seed(seed)
        self.seed, self.codec = seed, codec
        self.network = network()
        self.model: nn.Module = self.network

    def batch(self, step: int) -> Tensors:
        """`first` and `second` crops of the same people, and whose they are."""
        draw = generator(3, self.seed, step)
        first, second, who = [], [], []
        if self.codec:
            chosen = [int(number) for number in draw.integers(len(TRAINING), size=2)]
            true, made = _clips(self.codec, draw, [TRAINING[number : number + 1] for number in chosen])
            for index in range(0, len(true), 2):
                first.append(self._crop(draw, true[index]))
                second.append(self._crop(draw, made[index - index % clips.FRAMES + int(draw.integers(clips.FRAMES))]))
                who.append(chosen[index // clips.FRAMES])
        for _ in range(self.PEOPLE - len(first)):
            number = int(draw.integers(len(TRAINING)))
            for crops, share in ((first, 0.3), (second, 0.75)):
                size = pictures.any_size(draw) if crops is first else clips.SIZE
                what = pictures.shot(draw, TRAINING[number : number + 1], size=size)
                crops.append(self._crop(draw, pictures.with_picture(what, _worn(draw, what.picture, share))))
            who.append(number)
        return {
            "first": torch.from_numpy(np.stack(first)),
            "second": torch.from_numpy(np.stack(second)),
            "who": torch.tensor(who),
            "step": torch.tensor(step),
        }

    def _crop(self, draw: Draw, what: Shot, jitter: float = 0.03) -> np.ndarray:
        """The aligned face; landmarks are off as the finder's are, and half of the crops are mirrored."""
        crop = _crop(draw, what, self.network, jitter)
        return np.ascontiguousarray(crop[:, ::-1]) if draw.random() < 0.5 else crop

    def loss(self, batch: Tensors) -> torch.Tensor:
        """Cross-entropy over all crops of other people and the one of the same person, with a growing margin."""
        crops = _pixels(torch.cat([batch["first"], batch["second"]]), self.model)
        vectors = self.network(crops)
        who = batch["who"].to(vectors.device).repeat(2)
        margin = self.MARGIN * min(1.0, 5 * int(batch["step"]) / self.recipe.steps)
        return margin_loss(vectors, who, self.SCALE, margin)

    def evaluate(self, people: int = 300) -> dict[str, float]:
        """On unseen people.

        Returns:
            `auc`: of the cosines of pairs of different scenes, the same person against different ones, in frames of
            48 pixels; `worn`: mean cosine of a frame and the same frame degraded (and `codec`: and after the VAE);
            `own_low`, `strangers_high`: see `thresholds`; `same_person`: halfway between these two.
        """
        draw = generator(4)
        each = [HELD_OUT[number // 4 : number // 4 + 1] for number in range(4 * people)]
        small = [pictures.shot(draw, who, first=0) for who in each]
        large = [pictures.shot(draw, who, size=pictures.any_size(draw), first=0) for who in each]
        worn = [pictures.with_picture(what, pictures.degraded(draw, what.picture[None])[0]) for what in small]
        frames = self._vectors(draw, small).reshape(people, 4, -1)
        photos = self._vectors(draw, large).reshape(people, 4, -1)
        own, strangers = pairs(frames)
        low, high = thresholds(photos)
        facts = {
            "auc": auc(own, strangers),
            "worn": float((self._vectors(draw, worn) * frames.reshape(4 * people, -1)).sum(1).mean()),
            "strangers": float(strangers.mean()),
            "own": float(own.mean()),
            "own_low": low,
            "strangers_high": high,
            "same_person": (low + high) / 2,
        }
        if self.codec:
            true, made = _clips(self.codec, draw, [HELD_OUT[p : p + 1] for p in range(min(people, 32))], first=0)
            cosines = (self._vectors(draw, true) * self._vectors(draw, made)).sum(1)
            facts["codec"] = float(cosines.mean())
        return facts

    @torch.inference_mode()
    def _vectors(self, draw: Draw, shots: list[Shot]) -> np.ndarray:
        self.model.eval()
        crops = torch.from_numpy(np.stack([_crop(draw, what, self.network, 0.02) for what in shots]))
        vectors = torch.cat([self.network(_pixels(part, self.model)).float() for part in crops.split(256)])
        self.model.train()
        return vectors.cpu().numpy()

    def save(self, path: Path) -> None:
        """Keep the network with what it measures."""
        networks.save(self.network, path, {**self.evaluate(), "seed": self.seed})


class ScorerTask:
    """Say what a clip shows.

    Args:
        seed: of the weights and of all that is drawn.
        codec: see `FinderTask`.
    """

    SIZE = 32
    SMOOTHING = 0.05
    recipe = Recipe(steps=450, learning_rate=2e-3, weight_decay=0.02)

    def __init__(self, seed: int = 0, codec: Codec | None = None) -> None:
        torch.manual_seed(seed)
        self.seed, self.codec = seed, codec
        self.network = PromptScorer([len(names) for names in LABELS.values()])
        self.model: nn.Module = self.network

    def batch(self, step: int) -> Tensors:
        """Clips and what they show; a few are frozen, which is standing still, whatever the pose."""
        draw = generator(5, self.seed, step)
        frames, labels = self._drawn(draw, self.SIZE, TRAINING, SCENES)
        for index in range(self.SIZE):
            if draw.random() < 0.08:
                frames[index] = frames[index, draw.integers(clips.FRAMES)]
                labels[index, 0] = LABELS["action"].index("still")
        made = self.SIZE // 4 if self.codec else 0
        if self.codec:
            frames[:made] = self.codec(frames[:made])
        for index in range(made, self.SIZE):
            frames[index] = _worn(draw, frames[index])
        for index in range(self.SIZE):
            if draw.random() < 0.5:
                frames[index] = frames[index, :, :, ::-1]
        return {"clips": torch.from_numpy(frames), "labels": torch.from_numpy(labels)}

    def _drawn(self, draw: Draw, count: int, people: range, first: int) -> tuple[np.ndarray, np.ndarray]:
        scenes = [pictures.some_scene(draw, people, first) for _ in range(count)]
        frames = np.stack([clips.render(what, fps=clips.FPS * draw.uniform(0.9, 1.1)).frames for what in scenes])
        labels = [[names.index(getattr(what, part)) for part, names in LABELS.items()] for what in scenes]
        return frames, np.array(labels)

    def loss(self, batch: Tensors) -> torch.Tensor:
        """Mean cross-entropy of the three answers, with smoothed labels: a judge that is never sure keeps a slope."""
        answers = self.network(_pixels(batch["clips"], self.model))
        labels = batch["labels"].to(answers[0].device)
        losses = [
            functional.cross_entropy(logits, labels[:, number], label_smoothing=self.SMOOTHING)
            for number, logits in enumerate(answers)
        ]
        return torch.stack(losses).mean()

    def evaluate(self, count: int = 400) -> dict[str, float]:
        """Shares of right answers on unseen people in unseen scenes: clean, `worn`, and `codec` after the VAE."""
        draw = generator(6)
        frames, labels = self._drawn(draw, count, HELD_OUT, 0)
        variants = {"": frames, "worn_": np.stack([pictures.degraded(draw, one) for one in frames])}
        if self.codec:
            variants["codec_"] = np.concatenate([self.codec(part) for part in np.array_split(frames, -(-count // 8))])
        facts: dict[str, float] = {}
        for name, shown in variants.items():
            right = self._right(torch.from_numpy(shown), torch.from_numpy(labels))
            facts |= {name + part: share for part, share in zip(LABELS, right, strict=True)}
        return facts

    @torch.inference_mode()
    def _right(self, shown: torch.Tensor, labels: torch.Tensor) -> list[float]:
        self.model.eval()
        answers = [self.network(_pixels(part, self.model)) for part in shown.split(32)]
        self.model.train()
        best = torch.stack([torch.cat([part[k] for part in answers]).argmax(1).cpu() for k in range(3)], 1)
        return [float(share) for share in (best == labels).float().mean(0)]

    def save(self, path: Path) -> None:
        """Keep the network with what it measures and the names of its answers."""
        networks.save(self.network, path, {**self.evaluate(), "labels": LABELS})


def _crop(draw: Draw, what: Shot, network: FaceEncoder, jitter: float) -> np.ndarray:
    size = what.picture.shape[0]
    off = draw.normal(0, jitter * draw.random(), (5, 2)) + draw.normal(0, jitter / 2, 2)
    landmarks = (what.landmarks + off * what.box[3]) * size - 0.5
    return aligned(what.picture, landmarks, network.template, network.side)


def _worn(draw: Draw, picture: np.ndarray, share: float = 0.6) -> np.ndarray:
    """A picture `(S, S, 3)` or clip, degraded in this share of the cases."""
    if draw.random() >= share:
        return picture
    return pictures.degraded(draw, picture) if picture.ndim == 4 else pictures.degraded(draw, picture[None])[0]


def _finders(picture: np.ndarray) -> np.ndarray:
    return square(picture, np.zeros(2), picture.shape[0], networks.PICTURE)


def _places(shots: list[Shot]) -> Tensors:
    """Pictures and where the face is, as `networks.Found` says it."""
    boxes = np.array([what.box for what in shots])
    boxes = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, np.log(boxes[:, 2:])], 1)
    return {
        "pictures": torch.from_numpy(np.stack([what.picture for what in shots])),
        "landmarks": torch.from_numpy(np.stack([what.landmarks for what in shots])).float(),
        "box": torch.from_numpy(boxes).float(),
    }


def _clips(codec: Codec, draw: Draw, people: list[range], first: int = SCENES) -> tuple[list[Shot], list[Shot]]:
    """The frames of one clip of each, true and as the VAE gives them back."""
    drawn = [clips.render(pictures.some_scene(draw, who, first)) for who in people]
    made = codec(np.stack([clip.frames for clip in drawn]))
    true = [what for clip in drawn for what in pictures.shots(clip)]
    return true, [
        pictures.with_picture(what, frame) for what, frame in zip(true, made.reshape(-1, *made.shape[2:]), strict=True)
    ]


def _pixels(pixels: torch.Tensor, model: nn.Module) -> torch.Tensor:
    return seen(pixels.to(next(model.parameters()).device))
