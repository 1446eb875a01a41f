"""Prompt following by CLIP, for small machines: how near frames and prompt lie in CLIP's common space.

It sees frames one by one and so knows nothing of motion, and it reads the first 77 tokens of a prompt; in return it has
0.15 billion parameters where a vision-language model has billions.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from magicid_cli import hub
from magicid_cli.events import Events
from magicid_cli.models.catalog import JUDGES
from magicid_cli.rewards.base import Clip, evenly_spaced
from magicid_cli.rewards.loading import loading, release, require_kind, require_whole, unusable

_START, _END = "<|startoftext|>", "<|endoftext|>"
_AT_ONCE = 32  # pictures


class ClipJudge:
    """CLIP as a judge, loaded when the first clip is scored.

    Attributes:
        name: `semantics`.
        made_by: model, commit, how many frames, and the unit of the value.
    """

    name = "semantics"

    def __init__(self, folder: Path, *, name: str, commit: str, device: str, frames: int, events: Events) -> None:
        self._folder, self._device, self._frames, self._events = folder, device, frames, events
        self._model: Any = None
        self._told = False
        self.made_by = f"{name} {commit} float32 {frames} frames 100 x cosine"

    def load(self) -> None:
        """Bring the model into memory; nothing happens if it is there.

        Raises:
            MagicIDError: `model-unusable` if files are missing, damaged or of another model.
        """
        if self._model is not None:
            return
        from transformers import CLIPImageProcessorPil, CLIPModel

        with loading(self._folder):
            require_kind(self._folder, "clip", "CLIP")
            self._images = CLIPImageProcessorPil.from_pretrained(self._folder, local_files_only=True)
            self._tokenizer = Tokenizer.from_buffer((self._folder / "tokenizer.json").read_bytes())
            model, info = CLIPModel.from_pretrained(
                self._folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        require_whole(self._folder, info)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        ends = [self._tokenizer.token_to_id(text) for text in (_START, _END)]
        if None in ends or self._tokenizer.encode("").ids != ends:
            raise unusable(self._folder, "has a tokenizer that is not CLIP's")
        self._model = model.to(self._device).eval().requires_grad_(False)

    def close(self) -> None:
        """Drop the model and give its memory back; the next score loads it again."""
        self._model = None
        release(self._device)

    def score(self, clip: Clip) -> dict[str, Any]:
        """How near the frames are to the prompt.

        Returns:
            `value`, 100 times the mean cosine of frames and prompt (the unit of the paper's CLIP-T, not 1 to 10);
            `cosines`, of each frame; `frames`, the indices that were shown; `cut`, how many tokens of the prompt did
            not fit.

        Raises:
            MagicIDError: `model-unusable`.
        """
        shown = evenly_spaced(len(clip.frames), self._frames)
        pictures, (words, cut) = self.pictures(clip.frames[shown]), self.words(clip.prompt)
        cosines = torch.cosine_similarity(torch.from_numpy(pictures), torch.from_numpy(words)[None]).tolist()
        return {"value": 100 * float(np.mean(cosines)), "cosines": cosines, "frames": shown, "cut": cut}

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        """Where pictures lie in CLIP's space.

        Args:
            frames: uint8 RGB `(F, H, W, 3)`.

        Returns:
            float64 `(F, D)`, not normalised.

        Raises:
            MagicIDError: `model-unusable`.
        """
        self.load()
        features = []
        for start in range(0, len(frames), _AT_ONCE):
            images = [Image.fromarray(frame) for frame in frames[start : start + _AT_ONCE]]
            pixels = self._images(images=images, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                features.append(self._model.get_image_features(pixels.to(self._device)).pooler_output.double().cpu())
        return self._finite(torch.cat(features).numpy())

    def words(self, prompt: str) -> tuple[np.ndarray, int]:
        """Where a prompt lies in CLIP's space, float64 `(D,)`, not normalised; and how many tokens did not fit.

        Raises:
            MagicIDError: `model-unusable`.
        """
        self.load()
        ids, cut = self._ids(prompt)
        with torch.inference_mode():
            words = self._model.get_text_features(torch.tensor([ids], device=self._device)).pooler_output
        return self._finite(words[0].double().cpu().numpy()), cut

    def _finite(self, features: np.ndarray) -> np.ndarray:
        if not np.isfinite(features).all():
            raise unusable(self._folder, "answers with values that are not finite")
        return features

    def _ids(self, prompt: str) -> tuple[list[int], int]:
        """The prompt's tokens between their markers, and how many had to be left out."""
        # Split, so that no prompt can end itself.
        ids: list[int] = self._tokenizer.encode(prompt.replace("<|", "< |")).ids
        most = self._model.config.text_config.max_position_embeddings
        cut = max(0, len(ids) - most)
        if cut and not self._told:
            self._told = True
            self._events.notice(f"CLIP reads {most} tokens: the end of a longer prompt does not count.")
        return [*ids[: most - 1], ids[-1]] if cut else ids, cut


def open_clip(name: str, *, frames: int, device: str, offline: bool, events: Events) -> ClipJudge:
    """A CLIP of the catalog, its weights on disk and not yet in memory.

    Raises:
        MagicIDError: what `hub.fetch_repo` raises.
    """
    judge = JUDGES[name]
    fetched = hub.fetch_repo(judge.source, patterns=judge.files, offline=offline, events=events)
    return ClipJudge(
        fetched.path, name=judge.source.repo, commit=fetched.commit, device=device, frames=frames, events=events
    )
