"""A random CLIP checkpoint of a few hundred kilobytes, in the file layout of the real repositories.

The real ones' markers, lower-casing byte-level tokenizer with `</w>` at the end of words, old-style configuration (an
end token of 2, which is none) and image processor.
"""

import json
from pathlib import Path
from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = "the bridge a photo of person man woman in red coat runs walks across beach at night smiling video description"
CONTEXT = 24  # tokens; 77 in the real ones


def build(folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint.

    Args:
        folder: is made.
        seed: of the random weights.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _tokenizer(folder)
    common: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    common |= {"hidden_act": "gelu", "initializer_range": 0.3, "initializer_factor": 8.0}
    text = {**common, "vocab_size": vocabulary, "max_position_embeddings": CONTEXT, "eos_token_id": 2}
    vision = {**common, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    pixels: dict[str, Any] = {"do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3}
    pixels |= {"crop_size": 32, "size": 32, "feature_extractor_type": "CLIPFeatureExtractor"}
    pixels |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels), encoding="utf-8")
    return folder


def _tokenizer(folder: Path) -> int:
    """The tokenizer's file; returns how many tokens there are. The end marker has the highest number, as always."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS.split():
        parts = [*word[:-1], word[-1] + "</w>"]
        for end in range(1, len(parts)):
            merges["".join(parts[:end]), parts[end]] = None
    tokens = [*letters, *(letter + "</w>" for letter in letters), *dict.fromkeys("".join(pair) for pair in merges)]
    ids = {text: number for number, text in enumerate([*tokens, START, END])}
    tokenizer = Tokenizer(models.BPE(ids, list(merges), unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([START, END])
    markers = [(text, ids[text]) for text in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=markers)
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(ids)
