"""The miniature HunyuanVideo: the real classes at a size that a laptop trains, and its checkpoint in the Hub's layout.

Only sizes and files are here. What it is trained on is the business of `world`, which passes its words in.
"""

import copy
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, PreTrainedModel

from magicid_cli.models import layout, loading

TEXT_WIDTH = 96
POOLED_WIDTH = 64
LATENT_CHANNELS = 8
SHIFT = 2.0
"""Of the sampler's noise levels, towards the noisy end; HunyuanVideo has 7, at far more tokens."""

_TOKENIZER = "PreTrainedTokenizerFast"


def transformer() -> HunyuanVideoTransformer3DModel:
    """The untrained denoiser: 192 wide, two double-stream and four single-stream blocks, with embedded guidance."""
    return HunyuanVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=6,
        attention_head_dim=32,
        num_layers=2,
        num_single_layers=4,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        patch_size=4,
        rope_axes_dim=(8, 12, 12),
        guidance_embeds=True,
    )


def vae(*, widths: Sequence[int] = (16, 48, 64), scaling_factor: float = 1.0) -> AutoencoderKLHunyuanVideo:
    """The untrained autoencoder: 2 pixels a side and 4 frames (after the first) become one latent.

    Args:
        widths: channels of its three levels, each a multiple of 8.
        scaling_factor: one over the standard deviation of its latents, once that is known.
    """
    levels = len(widths)
    return AutoencoderKLHunyuanVideo(
        latent_channels=LATENT_CHANNELS,
        down_block_types=("HunyuanVideoDownBlock3D",) * levels,
        up_block_types=("HunyuanVideoUpBlock3D",) * levels,
        block_out_channels=tuple(widths),
        layers_per_block=1,
        norm_num_groups=8,
        scaling_factor=scaling_factor,
        spatial_compression_ratio=2,
        mid_block_add_attention=False,
        temporal_compression_ratio=4,
    )


def llama(vocabulary: dict[str, int]) -> LlamaModel:
    """The untrained text encoder; the pipeline takes what its second of four layers gives.

    Args:
        vocabulary: of its tokenizer, from `write_tokenizers`.
    """
    return LlamaModel(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=TEXT_WIDTH,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            bos_token_id=vocabulary[layout.LLAMA_START],
            eos_token_id=vocabulary[layout.LLAMA_END],
            pad_token_id=vocabulary[layout.LLAMA_PAD],
        )
    )


def clip(vocabulary: dict[str, int]) -> CLIPTextModel:
    """The untrained second text encoder; one vector a prompt.

    Args:
        vocabulary: of its tokenizer, from `write_tokenizers`.
    """
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=POOLED_WIDTH,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=POOLED_WIDTH,
            bos_token_id=vocabulary[layout.CLIP_START],
            eos_token_id=vocabulary[layout.CLIP_END],
            pad_token_id=vocabulary[layout.CLIP_END],
        )
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The sampler's noise levels."""
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def write_tokenizers(folder: Path, words: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Write `tokenizer/` and `tokenizer_2/`, in which every word is one token.

    Args:
        folder: of the checkpoint; the two must not be there yet.
        words: the words of the captions, in any order, capitalised too where a caption begins with one.

    Returns:
        The vocabularies of Llama and CLIP, token → number.
    """
    ordered = sorted(set(words))
    folder.mkdir(parents=True, exist_ok=True)
    llama_tokens = layout.write_llama_tokenizer(folder / "tokenizer", ordered, kind=_TOKENIZER)
    lower = sorted({word.lower() for word in words})
    return llama_tokens, layout.write_clip_tokenizer(folder / "tokenizer_2", lower, whole=True)


def write(
    folder: Path,
    *,
    transformer: HunyuanVideoTransformer3DModel,
    vae: AutoencoderKLHunyuanVideo,
    text_encoder: LlamaModel,
    text_encoder_2: CLIPTextModel,
    words: Sequence[str],
    readme: str,
) -> None:
    """Write the whole checkpoint, weights in float16; what was in the folder is replaced. The models are left as is.

    Args:
        folder: where the checkpoint shall be.
        transformer: of the size above, trained or not, on any device; so are the other three.
        vae: its `scaling_factor` is kept.
        text_encoder: from `llama`.
        text_encoder_2: from `clip`.
        words: from which the text encoders' vocabularies were made.
        readme: text of its README.md: what it is and what it was trained on.
    """
    loading.silence_libraries()
    folder.parent.mkdir(parents=True, exist_ok=True)
    parts = {"transformer": transformer, "vae": vae, "text_encoder": text_encoder, "text_encoder_2": text_encoder_2}
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent, ignore_cleanup_errors=True) as name:
        temporary = Path(name) / folder.name
        write_tokenizers(temporary, words)
        for part, model in parts.items():
            _save(model, temporary / part)
        scheduler().save_pretrained(temporary / "scheduler")
        layout.write_index(temporary, tokenizer=_TOKENIZER)
        (temporary / "README.md").write_text(readme, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)


def _save(model: Any, folder: Path) -> None:
    if isinstance(model, PreTrainedModel):
        # The configuration keeps the model's own float32, in which plain transformers then computes, as we do on a CPU.
        model = copy.deepcopy(model).to("cpu").float()
        model.save_pretrained(folder, state_dict={name: value.half() for name, value in model.state_dict().items()})
    else:
        stored = copy.deepcopy(model).to("cpu").half()
        if "_name_or_path" in stored.config:
            # A model that was read from a checkpoint would say where that was.
            stored.register_to_config(_name_or_path="")
        stored.save_pretrained(folder)
