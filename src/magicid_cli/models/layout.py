"""The files of a HunyuanVideo checkpoint that hold no weights: its index and its two tokenizers.

Llama's is byte-level BPE that knows every piece of the prompt template as one token, as the real one does, so that the
template has as many tokens as the pipeline crops. CLIP's is in its old layout (`vocab.json`, `merges.txt`).
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from diffusers import __version__ as diffusers_version
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

LLAMA_START, LLAMA_END, LLAMA_PAD = "<|begin_of_text|>", "<|end_of_text|>", "<pad>"
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"

_LLAMA_SPECIAL = {"bos_token": LLAMA_START, "eos_token": LLAMA_END, "pad_token": LLAMA_PAD}
_LLAMA_MARKS = [*_LLAMA_SPECIAL.values(), "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def write_index(folder: Path, *, tokenizer: str, version: str = diffusers_version) -> None:
    """Write `model_index.json`: which class reads which subfolder.

    Args:
        folder: of the checkpoint.
        tokenizer: class named for the first tokenizer. The real repository says `LlamaTokenizerFast`, which since
            transformers 5 replaces the file's byte-level splitting; `PreTrainedTokenizerFast` reads the file as it is.
        version: of diffusers that is named.
    """
    index = {
        "_class_name": "HunyuanVideoPipeline",
        "_diffusers_version": version,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "LlamaModel"],
        "text_encoder_2": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", tokenizer],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_llama_tokenizer(folder: Path, words: Sequence[str], *, kind: str) -> dict[str, int]:
    """Write Llama's tokenizer: every piece of the prompt template and every word after a space is one token.

    Args:
        folder: new, for the tokenizer alone.
        words: in the order in which they get their numbers.
        kind: the class that `tokenizer_config.json` names.

    Returns:
        Its vocabulary, token → number.
    """
    split = pre_tokenizers.Split(
        Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"
    )
    pieces = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    text = DEFAULT_PROMPT_TEMPLATE["template"].replace("{}", " " + " ".join(words))
    for mark in _LLAMA_MARKS:
        text = text.replace(mark, "\0")
    known = [piece for part in text.split("\0") if part for piece, _ in pieces.pre_tokenize_str(part)]
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = _chains([list(word) for word in known], vocabulary)
    # `ignore_merges` takes a known piece whole, whatever order its merges come in.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in _LLAMA_MARKS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{LLAMA_START} $A", special_tokens=[(LLAMA_START, tokenizer.token_to_id(LLAMA_START))]
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "added_tokens_decoder": {str(tokenizer.token_to_id(mark)): _added(mark, special=True) for mark in _LLAMA_MARKS},
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 8192,
        "padding_side": "right",
        "tokenizer_class": kind,
        **_LLAMA_SPECIAL,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", {name: _added(mark) for name, mark in _LLAMA_SPECIAL.items()})
    return tokenizer.get_vocab()


def write_clip_tokenizer(folder: Path, words: Sequence[str], *, whole: bool) -> dict[str, int]:
    """Write CLIP's tokenizer, in CLIP's order: bytes, bytes that end a word, merges, the two marks.

    Args:
        folder: new, for the tokenizer alone.
        words: in lower case.
        whole: every word is one token. Otherwise some are two, where the merges of an earlier word come in between.

    Returns:
        Its vocabulary, token → number.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = alphabet + [symbol + "</w>" for symbol in alphabet]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    build = _whole if whole else _chains
    merges = build([[*word[:-1], word[-1] + "</w>"] for word in words], vocabulary)
    vocabulary[CLIP_START] = len(vocabulary)
    vocabulary[CLIP_END] = len(vocabulary)
    marks = {"bos_token": CLIP_START, "eos_token": CLIP_END, "pad_token": CLIP_END, "unk_token": CLIP_END}
    folder.mkdir()
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(vocabulary[mark]): _added(mark, special=True) for mark in (CLIP_START, CLIP_END)},
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
        **marks,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", {name: _added(mark) for name, mark in marks.items()})
    return vocabulary


def _chains(words: list[list[str]], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Merges that build every word from its left end; each new symbol is added to `vocabulary`."""
    merges: dict[tuple[str, str], None] = {}
    for first, *rest in words:
        for symbol in rest:
            merges.setdefault((first, symbol))
            first += symbol
            vocabulary.setdefault(first, len(vocabulary))
    return list(merges)


def _whole(words: list[list[str]], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Merges that make every word one symbol, after those of the words before it were applied to it."""
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        while len(pieces := _merged(word, merges)) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
            vocabulary.setdefault(pieces[0] + pieces[1], len(vocabulary))
    return list(merges)


def _merged(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: while two neighbours have a merge, the one of the lowest rank is carried out."""
    while True:
        found = [(ranks[pair], place) for place, pair in enumerate(pairwise(pieces)) if pair in ranks]
        if not found:
            return pieces
        _, place = min(found)
        pieces = [*pieces[:place], pieces[place] + pieces[place + 1], *pieces[place + 2 :]]


def _added(content: str, **more: bool) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, **more}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
