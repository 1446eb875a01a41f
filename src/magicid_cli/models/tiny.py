"""A random-weight checkpoint of the real HunyuanVideo classes, small enough for tests and a first look.

Same files, names and configuration keys as `hunyuanvideo-community/HunyuanVideo`, so that everything that runs on it
runs on the real one: sharded transformer and Llama with their indexes, a Llama-3-style byte-level tokenizer whose
prompt template has the same number of tokens, and CLIP's tokenizer in its old layout (`vocab.json`, `merges.txt`).
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from magicid_cli.models import loading

# Part of the cache folder's name; raise it when the files that are built change.
FORMAT = 1

WIDTH = 32
POOLED_WIDTH = 16
SHARD_SIZE = "120KB"
SEED = 0

_WORDS = "a the person man woman in on at and is with of video photo city street forest night walks runs smiles looks"
_LLAMA_SPECIAL = {
    "bos_token": "<|begin_of_text|>",
    "eos_token": "<|end_of_text|>",
    "pad_token": "<pad>",
}
_LLAMA_MARKS = [*_LLAMA_SPECIAL.values(), "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"
_MODEL_INDEX = {
    "_class_name": "HunyuanVideoPipeline",
    "_diffusers_version": "0.32.0.dev0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "LlamaModel"],
    "text_encoder_2": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "LlamaTokenizerFast"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
}


def build(folder: Path) -> Path:
    """Write the checkpoint to `folder`, whole or not at all; an existing folder is left as it is.

    The weights come from a fixed seed and leave the global random state untouched.

    Args:
        folder: where the checkpoint shall be.

    Returns:
        `folder`.
    """
    if folder.exists():
        return folder
    loading.silence_libraries()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent, ignore_cleanup_errors=True) as name:
        temporary = Path(name) / folder.name
        temporary.mkdir()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            _write(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            # Somebody else may have built it meanwhile: theirs has the same content.
            if not folder.exists():
                raise
    return folder


def _write(folder: Path) -> None:
    llama = _write_llama_tokenizer(folder / "tokenizer")
    clip = _write_clip_tokenizer(folder / "tokenizer_2")
    _transformer().save_pretrained(folder / "transformer", max_shard_size=SHARD_SIZE)
    _vae().save_pretrained(folder / "vae")
    # The real encoders are stored as float16, too.
    _llama(llama).half().save_pretrained(folder / "text_encoder", max_shard_size="60KB")
    _clip(clip).half().save_pretrained(folder / "text_encoder_2")
    FlowMatchEulerDiscreteScheduler(shift=7.0).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_MODEL_INDEX, indent=2) + "\n", encoding="utf-8")
    (folder / "config.json").write_text('{"_class_name": "HunyuanVideoPipeline"}', encoding="utf-8")
    (folder / "README.md").write_text("Random weights of the HunyuanVideo classes, for tests.\n", encoding="utf-8")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n", encoding="utf-8")


def _transformer() -> HunyuanVideoTransformer3DModel:
    """Two blocks of each kind: every kind of module exists, and what only shows between blocks shows."""
    return HunyuanVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        rope_axes_dim=(4, 6, 6),
    )


def _vae() -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4)


def _llama(tokens: dict[str, int]) -> LlamaModel:
    """Three layers: the pipeline takes the hidden states before the last two."""
    return LlamaModel(
        LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            bos_token_id=tokens["<|begin_of_text|>"],
            eos_token_id=tokens["<|end_of_text|>"],
            pad_token_id=tokens["<pad>"],
        )
    )


def _clip(tokens: dict[str, int]) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=POOLED_WIDTH,
            intermediate_size=2 * POOLED_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=POOLED_WIDTH,
            bos_token_id=tokens[_CLIP_START],
            eos_token_id=tokens[_CLIP_END],
            pad_token_id=tokens[_CLIP_END],
        )
    )


def _write_llama_tokenizer(folder: Path) -> dict[str, int]:
    """Byte-level BPE that knows every piece of the prompt template as one token, as the real one does."""
    split = pre_tokenizers.Split(
        Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"
    )
    pieces = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    text = DEFAULT_PROMPT_TEMPLATE["template"].replace("{}", " " + _WORDS)
    for mark in _LLAMA_MARKS:
        text = text.replace(mark, "\0")
    words = [piece for part in text.split("\0") if part for piece, _ in pieces.pre_tokenize_str(part)]
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = _chains([list(word) for word in words], vocabulary)
    # `ignore_merges` takes a known piece whole, whatever order its merges come in.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in _LLAMA_MARKS])
    begin = _LLAMA_SPECIAL["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "added_tokens_decoder": {str(tokenizer.token_to_id(mark)): _added(mark, special=True) for mark in _LLAMA_MARKS},
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 8192,
        "padding_side": "right",
        "tokenizer_class": "LlamaTokenizer",
        **_LLAMA_SPECIAL,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", {name: _added(mark) for name, mark in _LLAMA_SPECIAL.items()})
    return tokenizer.get_vocab()


def _write_clip_tokenizer(folder: Path) -> dict[str, int]:
    """CLIP's order: bytes, bytes that end a word, merges, the two marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = alphabet + [symbol + "</w>" for symbol in alphabet]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    merges = _chains([[*word[:-1], word[-1] + "</w>"] for word in _WORDS.split()], vocabulary)
    vocabulary[_CLIP_START] = len(vocabulary)
    vocabulary[_CLIP_END] = len(vocabulary)
    marks = {"bos_token": _CLIP_START, "eos_token": _CLIP_END, "pad_token": _CLIP_END, "unk_token": _CLIP_END}
    folder.mkdir()
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(vocabulary[mark]): _added(mark, special=True) for mark in (_CLIP_START, _CLIP_END)
        },
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


def _added(content: str, **more: bool) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, **more}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
