"""Prompts of several lengths through text encoders of the model's size, for the segment of `benchmarks.gpu`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from benchmarks._gpu_model import Bench
from magicid_cli.models.hunyuan_text import Text

# Words of the prompts: a short one, two as people write them, one that is written to be long. The text encoder's 256
# tokens are never full, so nothing is cut.
WORDS = (8, 30, 60, 150)
_SENTENCE = "a man walks in the city at night and looks on the street of a forest with the woman"

# Facts of the checkpoint's encoders, by their `config.json`: Llama 3 8B without its last layer, CLIP's large one.
_LLAMA = {
    "vocab_size": 128_320,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}
_CLIP = {
    "vocab_size": 49_408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}


def prompts() -> list[str]:
    """One of each length."""
    return [" ".join(islice(cycle(_SENTENCE.split()), words)) for words in WORDS]


def encoded(bench: Bench, texts: Sequence[str]) -> tuple[list[Text], float]:
    """The prompts' conditioning, and seconds that one took; loading is not in it, nor the first one of all."""
    family = bench.family
    family.load("text")
    assert family._text is not None
    if bench.name == "hunyuan-video":
        llama, clip = random_encoders(family.device, family.dtype)
        family._text.register_modules(text_encoder=llama, text_encoder_2=clip)
    family.encode_text(texts[0])
    begun = time.perf_counter()
    found = [family.encode_text(text) for text in texts]
    took = (time.perf_counter() - begun) / len(texts)
    family.unload("text")
    return found, took


def random_encoders(device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Both text encoders with random weights, made on the device."""
    with torch.device(device), _default(dtype):
        found = LlamaModel(LlamaConfig(**_LLAMA)), CLIPTextModel(CLIPTextConfig(**_CLIP))
    return tuple(one.requires_grad_(False).eval() for one in found)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
