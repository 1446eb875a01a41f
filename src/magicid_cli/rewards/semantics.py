"""Prompt following: a vision-language model is shown frames and the prompt and asked for 1-10.

The value is the expectation over the answer's probabilities and not the answer itself (method D): finer than ten
steps, and deterministic. The drawn world has a judge of its own (`rewards/drawn.py`), and `StandInJudge` takes the
place of the model where nothing may be downloaded.
"""

import gc
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from tokenizers import Tokenizer

from magicid_cli import hub
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models import catalog
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.drawn import DrawnJudge

STAND_IN = "stand-in"
DRAWN = "drawn"
SHORT_SIDE = 448  # pixels of a frame shown to the model; 1 visual token covers 32 x 32 of them
PATTERNS = ["*config.json", "tokenizer.json", "*.index.json", "*.safetensors"]

_CHAT = "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
_IMAGE = "<|image_pad|>"
_OPENING = "Here are {count} frames of one video, in the order of time.\n"
_FRAME = "At {seconds:.1f} s: <|vision_start|>{image}<|vision_end|>\n"
_QUESTION = (
    "The video was made for this description:\n{prompt}\n\n"
    "How much of the description does the video show? Compare the person, the clothes, the place, the action, the "
    "expression and the camera. Judge the action over all frames together: it counts only where it can be seen to "
    "happen. Answer with one whole number from 1 (nothing of it) to 10 (all of it), and with nothing else."
)
_WORDING = hashlib.sha256((_CHAT + _OPENING + _FRAME + _QUESTION).encode()).hexdigest()[:8]


class QwenJudge:
    """Qwen3-VL, loaded when the first clip is scored.

    Attributes:
        name: `semantics`.
        made_by: model, commit, number type, and the version of the question's wording.
    """

    name = "semantics"

    def __init__(self, folder: Path, *, name: str, commit: str, device: str, frames: int) -> None:
        self._folder, self._device, self._frames = folder, device, frames
        self._dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._model: Any = None
        number_type = str(self._dtype).removeprefix("torch.")
        self.made_by = f"{name} {commit} {number_type} {frames} frames question {_WORDING}"

    def load(self) -> None:
        """Bring the model into memory; nothing happens if it is there.

        Raises:
            MagicIDError: `model-unusable` if files are missing, damaged or of another model.
        """
        if self._model is not None:
            return
        # The Pil class by name, and no AutoProcessor: that one loads a video processor, which wants torchvision.
        from transformers import Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration
        from transformers.utils import logging

        logging.set_verbosity_error()  # missing weights, the one warning that matters, are checked below
        logging.disable_progress_bar()
        try:
            # Without the file transformers goes on with a default configuration of 9 billion parameters.
            kind = json.loads((self._folder / "config.json").read_bytes())["model_type"]
            if kind != "qwen3_vl":
                raise _unusable(self._folder, f"is a {kind} and not a Qwen3-VL")
            self._images = Qwen2VLImageProcessorPil.from_pretrained(self._folder, local_files_only=True)
            # The file as it is: transformers' tokenizer classes rebuild parts of it.
            self._tokenizer = Tokenizer.from_buffer((self._folder / "tokenizer.json").read_bytes())
            model, info = Qwen3VLForConditionalGeneration.from_pretrained(
                self._folder, dtype=self._dtype, local_files_only=True, output_loading_info=True
            )
        except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).partition("\n")[0]
            raise _unusable(self._folder, f"cannot be loaded ({reason})") from error
        if info["missing_keys"]:
            # transformers would go on with random numbers in their place.
            raise _unusable(self._folder, f"lacks weights, for example {min(info['missing_keys'])}")
        self._digits = self._checked_digits(model.config.image_token_id)
        self._model = model.to(self._device).eval().requires_grad_(False)

    def close(self) -> None:
        """Drop the model and give its memory back; the next score loads it again."""
        self._model = None
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def score(self, clip: Clip) -> dict[str, Any]:
        """The expected answer from 1 to 10.

        Returns:
            `value`, the expectation; `distribution`, ten probabilities that sum to 1; `mass`, the probability of
            answering with one of the ten at all (a small one says that the question was not understood); `frames`,
            the indices that were shown.

        Raises:
            MagicIDError: `model-unusable`.
        """
        self.load()
        shown = evenly_spaced(len(clip.frames), self._frames)
        inputs = self._inputs(
            [shrunk(clip.frames[index]) for index in shown], [i / clip.fps for i in shown], clip.prompt
        )
        with torch.inference_mode():
            logits = self._model(**inputs, logits_to_keep=2, use_cache=False).logits[0]
        distribution, mass = answer_distribution(logits[0], logits[1], self._digits)
        value = float(distribution @ torch.arange(1, 11, dtype=torch.float64))
        if not np.isfinite(value):
            raise _unusable(self._folder, "answers with values that are not finite")
        return {"value": value, "distribution": distribution.tolist(), "mass": mass, "frames": shown}

    def _inputs(self, frames: list[Image.Image], seconds: list[float], prompt: str) -> dict[str, torch.Tensor]:
        """The model's inputs for the question and the first half of the answer "10".

        The text ends in "1": being causal, one forward pass then gives the probabilities of the first digit (at the
        last position but one) and of a second digit after "1" (at the last).
        """
        pictures = self._images(images=frames, return_tensors="pt")
        tokens = pictures["image_grid_thw"].prod(-1) // self._images.merge_size**2
        content = _OPENING.format(count=len(frames))
        for second, count in zip(seconds, tokens.tolist(), strict=True):
            content += _FRAME.format(seconds=second, image=_IMAGE * count)
        # Split, so that nothing in a user's text is read as a picture or as the end of the question.
        content += _QUESTION.format(prompt=prompt.replace("<|", "< |"))
        ids = torch.tensor([self._ids(_CHAT.format(content=content)) + [self._digits[1]]])
        types = torch.eq(ids, self._model.config.image_token_id).int()
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types, **pictures}
        return {key: value.to(self._device) for key, value in inputs.items()}

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _checked_digits(self, image_token: int) -> list[int]:
        """The tokens of "0" to "9"; an answer must be cut into its digits, and the markers be one token each."""
        digits = [self._ids(str(digit)) for digit in range(10)]
        whole = all(len(ids) == 1 for ids in digits) and self._ids("10") == digits[1] + digits[0]
        markers = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
        if not whole or self._ids(_IMAGE) != [image_token] or any(len(self._ids(text)) != 1 for text in markers):
            raise _unusable(self._folder, "has a tokenizer that is not Qwen3-VL's")
        return [ids[0] for ids in digits]


class StandInJudge:
    """A random scorer of CLIP's shape: pictures and words are projected into one space, and their cosine is scaled.

    It says nothing about a video. It is deterministic, differs between videos and prompts, and needs no download.
    """

    name = "semantics"
    made_by = "stand-in (random CLIP-shaped scorer) 1"
    _grid, _width, _shown = 8, 64, 8

    def score(self, clip: Clip) -> dict[str, Any]:
        """5.5 + 4.5 times the cosine between the frames' and the prompt's random features: `value` and `frames`."""
        shown = evenly_spaced(len(clip.frames), self._shown)
        size = (self._grid, self._grid)
        patches = [cv2.resize(clip.frames[index], size, interpolation=cv2.INTER_AREA) for index in shown]
        pooled = np.mean(patches, axis=0, dtype=np.float64).ravel() / 255 - 0.5
        picture = pooled @ _random("picture", (pooled.size, self._width))
        words = re.findall(r"\w+", clip.prompt.lower()) or [""]
        text = np.sum([_random(f"word {word}", (self._width,)) for word in words], axis=0)
        norms = np.linalg.norm(picture) * np.linalg.norm(text)
        cosine = float(picture @ text / norms) if norms > 0 else 0.0
        return {"value": 5.5 + 4.5 * cosine, "frames": shown}

    def close(self) -> None:
        """Nothing to give back."""


def open_judge(
    rewards: RewardSettings, model: catalog.VideoModel, *, device: str, offline: bool, events: Events
) -> QwenJudge | DrawnJudge | StandInJudge:
    """The judge that the settings name, its weights on disk and not yet in memory.

    Args:
        rewards: `vlm` names the judge; `auto` is what the catalog names for the video model.
        model: the video model whose clips are judged.
        device: `cuda` or `cpu`.
        offline: use only weights that are in the cache.
        events: where downloads are reported, and prompts that ask for nothing the drawn world has.

    Raises:
        MagicIDError: `settings-unknown`, `model-unusable` for damaged weights of the package, or what
            `hub.fetch_repo` raises.
    """
    name = judge_name(rewards, model)
    if name == STAND_IN:
        return StandInJudge()
    if name == DRAWN:
        return DrawnJudge(events)
    source = catalog.JUDGES[name].source
    fetched = hub.fetch_repo(source, patterns=PATTERNS, offline=offline, events=events)
    return QwenJudge(
        fetched.path, name=source.repo, commit=fetched.commit, device=device, frames=rewards.sampled_frames
    )


def judge_name(rewards: RewardSettings, model: catalog.VideoModel) -> str:
    """The name of the judge that the settings mean.

    Raises:
        MagicIDError: `settings-unknown`.
    """
    name = model.vlm if rewards.vlm == "auto" else rewards.vlm
    if name not in (*catalog.JUDGES, DRAWN, STAND_IN):
        raise MagicIDError(
            "settings-unknown",
            f"No judge of prompt following is called '{name}'.",
            "Use --vlm with one of: auto, " + ", ".join([*catalog.JUDGES, DRAWN, STAND_IN]) + ".",
        )
    return name


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """The middle frame of each of `wanted` equal parts of `count` frames; every frame if there are fewer."""
    if wanted >= count:
        return list(range(count))
    return [(2 * part + 1) * count // (2 * wanted) for part in range(wanted)]


def shrunk(frame: np.ndarray) -> Image.Image:
    """A frame `(H, W, 3)`, made smaller if its short side is longer than `SHORT_SIDE`."""
    image = Image.fromarray(frame)
    scale = SHORT_SIDE / min(image.size)
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def answer_distribution(first: torch.Tensor, after_one: torch.Tensor, digits: list[int]) -> tuple[torch.Tensor, float]:
    """Probabilities of the answers 1 to 10.

    "10" is two tokens: P(10) = P("1") P("0" | "1"), and P(1) = P("1") (1 - P("0" | "1")).

    Args:
        first: logits `(V,)` where the answer begins.
        after_one: logits `(V,)` after the token "1".
        digits: the tokens of "0" to "9".

    Returns:
        Ten probabilities that sum to 1 (float64, on the CPU), and their sum before that.
    """
    starts = torch.softmax(first.double().cpu(), -1)[digits]
    zero_follows = torch.softmax(after_one.double().cpu(), -1)[digits[0]]
    answers = torch.cat([starts[1:2] * (1 - zero_follows), starts[2:], starts[1:2] * zero_follows])
    mass = answers.sum()
    return answers / mass, float(mass)


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers that depend on the name alone, in every process (`hash` does not)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


def _unusable(folder: Path, why: str) -> MagicIDError:
    return MagicIDError(
        "model-unusable",
        f"The judge of prompt following in {folder} {why}.",
        "Run `magicid cache` to look at the weights.",
    )
