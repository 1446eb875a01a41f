"""ID-Animator's repositories at tiny size, in exactly the real ones' layout: random weights of the real classes.

The image model is one file with the names of the original Stable Diffusion code, which diffusers' conversion reads.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from magicid_cli.models import layout

TEXT, TOKENS, RANK, INNER, IMAGE = 32, 4, 4, 64, 48
CHANNELS = (32, 32, 64, 64)
WORDS = ["a", "woman", "dances", "person"]
SPACE, MOTION, ENCODER = "spaces/ID-Animator/ID-Animator", "guoyww/animatediff-motion-adapter-v1-5-2", "h94/IP-Adapter"


def unet() -> Any:
    """Stable Diffusion 1.5's UNet, small."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=CHANNELS,
        layers_per_block=2,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def motion() -> Any:
    """AnimateDiff's second motion module, small: it has a middle block, too. Its last layers are not zero here."""
    adapter = MotionAdapter(
        block_out_channels=CHANNELS,
        motion_layers_per_block=2,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        motion_max_seq_length=32,
        use_motion_mid_block=True,
    )
    for name, value in adapter.named_parameters():
        if "proj_out" in name:
            torch.nn.init.normal_(value, std=0.1)
    return adapter


def vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
    )


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) / shape[-1] ** 0.5


def checkpoint(widths: list[int]) -> dict[str, torch.Tensor]:
    """`animator.ckpt`: `widths` are those of the cross-attentions in the authors' order."""
    state: dict[str, torch.Tensor] = {}
    for index, width in enumerate(widths):
        prefix = f"module.adapter_modules.{2 * index + 1}."
        for name, source in (("q", width), ("k", TEXT), ("v", TEXT), ("out", width)):
            state[f"{prefix}to_{name}_lora.down.weight"] = random(RANK, source)
            state[f"{prefix}to_{name}_lora.up.weight"] = random(width, RANK)
        for name in ("k", "v"):
            state[f"{prefix}to_{name}_face.weight"] = random(width, TEXT)
    parts: dict[str, tuple[int, ...]] = {"latents": (1, TOKENS, TEXT)}
    parts |= {"proj_in.weight": (TEXT, IMAGE), "proj_in.bias": (TEXT,)}
    parts |= {"proj_out.weight": (TEXT, TEXT), "proj_out.bias": (TEXT,)}
    parts |= {"norm_out.weight": (TEXT,), "norm_out.bias": (TEXT,)}
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            parts |= {f"layers.{layer}.{norm}.{kind}": (TEXT,) for kind in ("weight", "bias")}
        parts[f"layers.{layer}.0.to_q.weight"] = (INNER, TEXT)
        parts[f"layers.{layer}.0.to_kv.weight"] = (2 * INNER, TEXT)
        parts[f"layers.{layer}.0.to_out.weight"] = (TEXT, INNER)
        parts[f"layers.{layer}.1.1.weight"] = (4 * TEXT, TEXT)
        parts[f"layers.{layer}.1.3.weight"] = (TEXT, 4 * TEXT)
    return state | {f"module.image_proj_model.{name}": random(*shape) for name, shape in parts.items()}


def widths() -> list[int]:
    """Of the cross-attentions, in the authors' order: two a level down, three a level up, one in the middle."""
    return [width for width in CHANNELS[:3] for _ in range(2)] + [w for w in (64, 32, 32) for _ in range(3)] + [64]


def write(folder: Path) -> dict[str, Path]:
    """The three repositories, below a new folder: name → where it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return _write(folder)


def _write(folder: Path) -> dict[str, Path]:
    space, module, encoder = (folder / name for name in ("space", "motion", "encoder"))
    config = space / "animatediff" / "sd"
    config.mkdir(parents=True)
    vocabulary = layout.write_clip_tokenizer(config / "tokenizer", WORDS, whole=True)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=TEXT,
            intermediate_size=TEXT,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=TEXT,
            bos_token_id=vocabulary[layout.CLIP_START],
            eos_token_id=vocabulary[layout.CLIP_END],
            pad_token_id=vocabulary[layout.CLIP_END],
        )
    )
    text.config.save_pretrained(config / "text_encoder")
    image, codec = unet(), vae()
    for part, model in (("unet", image), ("vae", codec)):
        model.save_config(config / part)
    single = {f"model.diffusion_model.{key}": value for key, value in _original_unet(image.state_dict()).items()}
    single |= {f"first_stage_model.{key}": value for key, value in _original_vae(codec.state_dict()).items()}
    stem = "cond_stage_model.transformer.text_model."
    single |= {f"{stem}{key}": value for key, value in text.state_dict().items()}
    single[f"{stem}embeddings.position_ids"] = torch.arange(77)[None]
    save_file(
        {key: value.contiguous().half() for key, value in single.items()},
        space / "realisticVisionV60B1_v51VAE.safetensors",
    )
    torch.save({"state_dict": checkpoint(widths())}, space / "animator.ckpt")
    # What is there, too, and must not be fetched.
    for name in ("mm_sd_v15_v2.ckpt", "app.py", "image_encoder/pytorch_model.bin", "animatediff/sd/unet/model.bin"):
        (space / name).parent.mkdir(exist_ok=True)
        (space / name).write_bytes(b"not wanted")
    motion().save_pretrained(module)
    (module / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not wanted")
    vision = CLIPVisionConfig(
        hidden_size=IMAGE, intermediate_size=IMAGE, num_hidden_layers=3, num_attention_heads=2, patch_size=56,
        projection_dim=16,
    )  # fmt: skip
    CLIPVisionModelWithProjection(vision).save_pretrained(encoder / "models" / "image_encoder")
    (encoder / "models" / "ip-adapter_sd15.safetensors").write_bytes(b"not wanted")
    assert json.loads((config / "unet" / "config.json").read_text())["cross_attention_dim"] == TEXT
    return {SPACE: space, MOTION: module, ENCODER: encoder}


_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}
_RESNET |= {"time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}


def _original_unet(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    places = {"conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2."}
    places |= {"time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2."}
    for level in range(4):
        for number in range(2):
            places[f"down_blocks.{level}.resnets.{number}."] = f"input_blocks.{3 * level + number + 1}.0."
            places[f"down_blocks.{level}.attentions.{number}."] = f"input_blocks.{3 * level + number + 1}.1."
        for number in range(3):
            places[f"up_blocks.{level}.resnets.{number}."] = f"output_blocks.{3 * level + number}.0."
            places[f"up_blocks.{level}.attentions.{number}."] = f"output_blocks.{3 * level + number}.1."
        places[f"down_blocks.{level}.downsamplers.0.conv."] = f"input_blocks.{3 * (level + 1)}.0.op."
        places[f"up_blocks.{level}.upsamplers.0."] = f"output_blocks.{3 * level + 2}.{2 if level else 1}."
    places["mid_block.attentions.0."] = "middle_block.1."
    places |= {f"mid_block.resnets.{number}.": f"middle_block.{2 * number}." for number in range(2)}
    found = {}
    for key, value in state.items():
        place = next(one for one in places if key.startswith(one))
        rest = key.removeprefix(place)
        for new, old in _RESNET.items() if "resnets" in place else ():
            rest = rest.replace(new, old)
        found[places[place] + rest] = value
    return found


def _original_vae(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for key, value in state.items():
        name = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        for level in range(4):
            name = name.replace(f"up_blocks.{level}.", f"up.{3 - level}.").replace(
                f"down_blocks.{level}.", f"down.{level}."
            )
        name = name.replace("downsamplers.0.", "downsample.").replace("upsamplers.0.", "upsample.")
        if "mid_block" in name:
            name = name.replace("resnets.0.", "block_1.").replace("resnets.1.", "block_2.")
            name = name.replace("mid_block", "mid").replace("attentions.0.", "attn_1.")
            for new, old in (
                ("group_norm", "norm"),
                ("to_q", "q"),
                ("to_k", "k"),
                ("to_v", "v"),
                ("to_out.0", "proj_out"),
            ):
                name = name.replace(f"attn_1.{new}", f"attn_1.{old}")
            value = value[..., None, None] if "attn_1" in name and value.ndim == 2 else value
        found[name.replace("resnets.", "block.")] = value
    return found
