"""Qwen3-VL: looks at pictures and answers; loaded when it is first asked, and dropped when asked to.

The reward asks it how well a video follows its prompt, ingest what a photo shows, and `prepare` for new prompts. It
runs without torchvision: transformers' own processor would load a video processor that wants it, so pictures go through
the PIL image processor, and the chat markers and the pictures' tokens are written here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from magicid_cli import hub
from magicid_cli.events import Events
from magicid_cli.models.catalog import JUDGES
from magicid_cli.rewards.loading import loading, release, require_kind, require_whole, unusable

SHORT_SIDE = 448  # pixels of a picture shown to the model; 1 visual token covers 32 x 32 of them

_CHAT = "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
_IMAGE = "<|image_pad|>"
_PICTURE = "<|vision_start|>{image}<|vision_end|>"
_ENDS = ("<|im_end|>", "<|endoftext|>")
_PADDING = "<|endoftext|>"
_MARKERS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", *_ENDS)
# How a text is sampled: lively, without the long tail of improbable words.
_TEMPERATURE, _TOP_P = 0.9, 0.95


@dataclass(frozen=True, eq=False)
class Question:
    """One question, and how its answer begins.

    Attributes:
        parts: text and pictures (RGB), in their order.
        answer: the words that the answer begins with.
    """

    parts: tuple[str | Image.Image, ...]
    answer: str = ""


class Qwen:
    """The model of one folder.

    Attributes:
        folder: where its files are.
        device: `cuda` or `cpu`.
        made_by: model, commit and number type; bfloat16 on a GPU, float32 on a CPU.
        digits: the tokens of "0" to "9", once it is loaded.
    """

    def __init__(self, folder: Path, *, name: str, commit: str, device: str) -> None:
        self.device = device
        self.folder = folder
        self._dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._model: Any = None
        self.digits: list[int] = []
        self.made_by = f"{name} {commit} {str(self._dtype).removeprefix('torch.')}"

    def load(self) -> None:
        """Bring the model into memory; nothing happens if it is there.

        Raises:
            MagicIDError: `model-unusable` if files are missing, damaged or of another model.
        """
        if self._model is not None:
            return
        # The Pil class by name, and no AutoProcessor: that one loads a video processor, which wants torchvision.
        from transformers import GenerationConfig, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

        with loading(self.folder):
            require_kind(self.folder, "qwen3_vl", "Qwen3-VL")
            self._images = Qwen2VLImageProcessorPil.from_pretrained(self.folder, local_files_only=True)
            # The file as it is: transformers' tokenizer classes rebuild parts of it.
            self._tokenizer = Tokenizer.from_buffer((self.folder / "tokenizer.json").read_bytes())
            model, info = Qwen3VLForConditionalGeneration.from_pretrained(
                self.folder, dtype=self._dtype, local_files_only=True, output_loading_info=True
            )
        require_whole(self.folder, info)
        self.digits = self._checked_digits(model.config.image_token_id)
        # The repository's own says to sample; here a call says how it wants its words.
        ends = [self._token(text) for text in _ENDS]
        model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=self._token(_PADDING))
        self._model = model.to(self.device).eval().requires_grad_(False)

    def close(self) -> None:
        """Drop the model and give its memory back; the next question loads it again."""
        self._model = None
        release(self.device)

    def logits(self, questions: Sequence[Question], keep: int) -> torch.Tensor:
        """What could come next after each of the last `keep` tokens of the given answers, in one forward pass.

        Args:
            questions: B of them, of any lengths.
            keep: how many positions.

        Returns:
            (B, keep, V), on the device.

        Raises:
            MagicIDError: `model-unusable`.
        """
        self.load()
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**self._inputs(questions), logits_to_keep=keep, use_cache=False).logits
        return logits

    def write(self, questions: Sequence[Question], *, tokens: int, seed: int | None = None) -> list[str]:
        """Answers in words, all questions at once.

        Args:
            questions: B of them, of any lengths.
            tokens: an answer is cut after so many.
            seed: samples the answers; without one each token is the most probable.

        Returns:
            B texts that begin with the questions' `answer`.

        Raises:
            MagicIDError: `model-unusable`.
        """
        self.load()
        inputs = self._inputs(questions)
        how: dict[str, Any] = {"do_sample": False}
        if seed is not None:
            how = {"do_sample": True, "temperature": _TEMPERATURE, "top_p": _TOP_P, "top_k": 0}
        devices = [torch.cuda.current_device()] if self.device == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed or 0)
            rows = self._model.generate(**inputs, max_new_tokens=tokens, **how)
        new = rows[:, inputs["input_ids"].shape[1] :].tolist()
        texts = self._tokenizer.decode_batch(new, skip_special_tokens=True)
        return [question.answer + text for question, text in zip(questions, texts, strict=True)]

    def _inputs(self, questions: Sequence[Question]) -> dict[str, torch.Tensor]:
        """The model's inputs, short rows padded on the left, so that all answers end at the last position."""
        pictures = [part for question in questions for part in question.parts if not isinstance(part, str)]
        seen = dict(self._images(images=pictures, return_tensors="pt")) if pictures else {}
        counts = iter((seen["image_grid_thw"].prod(-1) // self._images.merge_size**2).tolist() if pictures else [])
        rows = [self._ids(_written(question, counts)) for question in questions]
        longest = max(len(row) for row in rows)
        padding = self._token(_PADDING)
        ids = torch.tensor([[padding] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        types = torch.eq(ids, self._model.config.image_token_id).int()
        inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types, **seen}
        return {key: value.to(self.device) for key, value in inputs.items()}

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _token(self, text: str) -> int:
        return self._ids(text)[0]

    def _checked_digits(self, image_token: int) -> list[int]:
        """The tokens of "0" to "9"; an answer must be cut into its digits, and the markers be one token each."""
        digits = [self._ids(str(digit)) for digit in range(10)]
        whole = all(len(ids) == 1 for ids in digits) and self._ids("10") == digits[1] + digits[0]
        if not whole or self._ids(_IMAGE) != [image_token] or any(len(self._ids(text)) != 1 for text in _MARKERS):
            raise unusable(self.folder, "has a tokenizer that is not Qwen3-VL's")
        return [ids[0] for ids in digits]


def open_qwen(name: str, *, device: str, offline: bool, events: Events) -> Qwen:
    """A Qwen3-VL of the catalog, its weights on disk and not yet in memory.

    Raises:
        MagicIDError: what `hub.fetch_repo` raises.
    """
    judge = JUDGES[name]
    fetched = hub.fetch_repo(judge.source, patterns=judge.files, offline=offline, events=events)
    return Qwen(fetched.path, name=judge.source.repo, commit=fetched.commit, device=device)


def _written(question: Question, counts: Iterator[int]) -> str:
    """The chat that the model reads, up to where its own words begin; `counts` are the pictures' visual tokens."""
    content = "".join(
        # Split, so that nothing in a user's text is read as a picture or as the end of the question.
        part.replace("<|", "< |") if isinstance(part, str) else _PICTURE.format(image=_IMAGE * next(counts))
        for part in question.parts
    )
    return _CHAT.replace("{content}", content) + question.answer


def shrunk(picture: np.ndarray) -> Image.Image:
    """A picture `(H, W, 3)`, made smaller if its short side is longer than `SHORT_SIDE`."""
    image = Image.fromarray(picture)
    scale = SHORT_SIDE / min(image.size)
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
