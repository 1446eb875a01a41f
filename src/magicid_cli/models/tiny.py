"""A random-weight checkpoint of the real HunyuanVideo classes, small enough for tests and a first look.

Same files, names and configuration keys as `hunyuanvideo-community/HunyuanVideo`, so that everything that runs on it
runs on the real one: sharded transformer and Llama with their indexes, a Llama-3-style byte-level tokenizer whose
prompt template has the same number of tokens, and CLIP's tokenizer in its old layout (`vocab.json`, `merges.txt`).
"""

import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from magicid_cli.models import layout, loading

# Part of the cache folder's name; raise it when the files that are built change.
FORMAT = 1

WIDTH = 32
POOLED_WIDTH = 16
SHARD_SIZE = "120KB"
SEED = 0
_REAL_VERSION = "0.32.0.dev0"  # the diffusers that the real repository's index names

_WORDS = "a the person man woman in on at and is with of video photo city street forest night walks runs smiles looks"


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
    words = _WORDS.split()
    llama = layout.write_llama_tokenizer(folder / "tokenizer", words, kind="LlamaTokenizer")
    clip = layout.write_clip_tokenizer(folder / "tokenizer_2", words, whole=False)
    _transformer().save_pretrained(folder / "transformer", max_shard_size=SHARD_SIZE)
    _vae().save_pretrained(folder / "vae")
    # The real encoders are stored as float16, too.
    _llama(llama).half().save_pretrained(folder / "text_encoder", max_shard_size="60KB")
    _clip(clip).half().save_pretrained(folder / "text_encoder_2")
    FlowMatchEulerDiscreteScheduler(shift=7.0).save_pretrained(folder / "scheduler")
    layout.write_index(folder, tokenizer="LlamaTokenizerFast", version=_REAL_VERSION)
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
            bos_token_id=tokens[layout.LLAMA_START],
            eos_token_id=tokens[layout.LLAMA_END],
            pad_token_id=tokens[layout.LLAMA_PAD],
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
            bos_token_id=tokens[layout.CLIP_START],
            eos_token_id=tokens[layout.CLIP_END],
            pad_token_id=tokens[layout.CLIP_END],
        )
    )
