"""A random Qwen3-VL checkpoint of a few hundred kilobytes, in the file layout of the real repository.

The real one's names, special tokens, old-style configuration (`rope_scaling`, an image processor named after its
torchvision class) and tied output layer.
"""

import json
from pathlib import Path
from typing import Any

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
WORDS = (
    "user assistant a photo of the video shows person man woman walks runs in at one whole number frames description"
)
# What the real template does with conversations of text and pictures: no system message of its own, a text or a list
# of parts, a picture by its type or by its key, numbered only if asked to.
TEMPLATE = """
{%- set seen = namespace(pictures=0) -%}
{%- for message in messages -%}
  {{- '<|im_start|>' ~ message.role ~ '\n' -}}
  {%- if message.content is string -%}
    {{- message.content -}}
  {%- else -%}
    {%- for part in message.content -%}
      {%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
        {%- set seen.pictures = seen.pictures + 1 -%}
        {{- 'Picture ' ~ seen.pictures ~ ': ' if add_vision_id else '' -}}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- elif 'text' in part -%}
        {{- part.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt else '' -}}
"""


def build(folder: Path, *, sharded: bool = False, seed: int = 0) -> Path:
    """Write the checkpoint.

    Args:
        folder: is made.
        sharded: several weight files and an index, as the 4B repository has; else one file, as the 2B one.
        seed: of the random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = _tokenizer(folder)
    config = _config(tokens)
    _weights(folder, config, sharded, seed)
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"do_sample": True, "temperature": 0.7, "eos_token_id": [1, 0]})
    _write(folder / "chat_template.json", {"chat_template": TEMPLATE})
    pixels: dict[str, Any] = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16}
    pixels |= {"temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pixels |= {"processor_class": "Qwen3VLProcessor"}
    _write(folder / "preprocessor_config.json", {**pixels, "image_processor_type": "Qwen2VLImageProcessorFast"})
    _write(folder / "video_preprocessor_config.json", {**pixels, "video_processor_type": "Qwen3VLVideoProcessor"})
    return folder


def _tokenizer(folder: Path) -> dict[str, int]:
    """The tokenizer's files; returns every token's number."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    # Words, single digits, and the rest; the split that matters here is that of the digits.
    split = pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|\s*[\r\n]+|[^\p{L}\p{N}]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "vocab.json", model["vocab"])
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges + "\n", encoding="utf-8")
    tokens = tokenizer.get_vocab()
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {str(tokens[text]): {"content": text, **flags} for text in SPECIAL},
            "additional_special_tokens": list(SPECIAL[1:]),
            "bos_token": None,
            "chat_template": TEMPLATE,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 262144,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    return tokens


def _config(tokens: dict[str, int]) -> dict[str, Any]:
    text = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokens["<|endoftext|>"],
        "dtype": "bfloat16",
        "eos_token_id": tokens["<|im_end|>"],
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.3,
        "intermediate_size": 64,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": len(tokens) + 6,  # the real table has unused rows, too
    }
    vision = {
        "deepstack_visual_indexes": [0, 1],
        "depth": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 32,
        "in_channels": 3,
        "initializer_range": 0.3,
        "intermediate_size": 64,
        "model_type": "qwen3_vl",
        "num_heads": 2,
        "num_position_embeddings": 64,
        "out_hidden_size": 32,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": tokens["<|image_pad|>"],
        "model_type": "qwen3_vl",
        "text_config": text,
        "tie_word_embeddings": True,
        "transformers_version": "4.57.0.dev0",
        "video_token_id": tokens["<|video_pad|>"],
        "vision_config": vision,
        "vision_end_token_id": tokens["<|vision_end|>"],
        "vision_start_token_id": tokens["<|vision_start|>"],
    }


def _weights(folder: Path, config: dict[str, Any], sharded: bool, seed: int) -> None:
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**json.loads(json.dumps(config))))
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="100KB" if sharded else "1GB")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
