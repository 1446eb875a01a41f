"""HunyuanVideo's tokenizers and text encoders, read so that the prompt reaches them as it was in training."""

from pathlib import Path
from typing import Any

import torch
from diffusers import HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from transformers import CLIPTextModel, CLIPTokenizer, LlamaModel, PreTrainedTokenizerFast

from magicid_cli.errors import MagicIDError
from magicid_cli.models.loading import load_weights, reading

Text = dict[str, torch.Tensor]

# The pipeline drops this many tokens of every prompt, the template's beginning, and then keeps this many.
TEMPLATE_TOKENS: int = DEFAULT_PROMPT_TEMPLATE["crop_start"]
TEXT_TOKENS = 256

PROMPT_TEMPLATE: str = DEFAULT_PROMPT_TEMPLATE["template"]


def unpadded(text: Text, device: torch.device, dtype: torch.dtype) -> Text:
    """A batch of one without padding, which `hunyuan_attention` takes for granted."""
    length = int(text["prompt_attention_mask"].sum())
    padded = ("prompt_embeds", "prompt_attention_mask")
    text = {name: value[:length] if name in padded else value for name, value in text.items()}
    return {name: value[None].to(device, dtype) for name, value in text.items()}


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Llama's tokenizer, by its file.

    The class that `model_index.json` names replaces the file's byte-level splitting since transformers 5, silently;
    the template's length, on which the pipeline's cropping rests, shows it.

    Raises:
        MagicIDError: `model-unusable` or `model-tokenizer`.
    """
    with reading(folder, "tokenizer"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    count = len(tokenizer(PROMPT_TEMPLATE.split("{}")[0]).input_ids)
    if count != TEMPLATE_TOKENS or tokenizer.padding_side != "right":
        raise MagicIDError(
            "model-tokenizer",
            f"The prompt template is {count} tokens padded on the {tokenizer.padding_side}; HunyuanVideo needs "
            f"{TEMPLATE_TOKENS}, padded on the right. Prompts would be cut at the wrong place.",
            "Install the tested versions (see the README), then fetch the model again: magicid prepare",
        )
    return tokenizer


def read_encoders(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    scheduler: Any,
    device: torch.device,
    dtype: torch.dtype,
) -> HunyuanVideoPipeline:
    """A pipeline of nothing but tokenizers and text encoders.

    Args:
        folder: of the checkpoint.
        tokenizer: from `read_tokenizer`.
        scheduler: which the pipeline insists on.
        device: where the encoders run.
        dtype: of their activations.
    """
    with reading(folder, "tokenizer_2"):
        tokenizer_2 = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer_2", local_files_only=True)
    return HunyuanVideoPipeline(
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        text_encoder=load_weights(LlamaModel, folder, "text_encoder", dtype).to(device),
        text_encoder_2=load_weights(CLIPTextModel, folder, "text_encoder_2", dtype).to(device),
        transformer=None,
        vae=None,
        scheduler=scheduler,
    )
