"""`--format diffusers` of trained keywords: one safetensors file, and on its card how plain diffusers uses it."""

import shutil
from pathlib import Path
from typing import Any

import torch

from magicid_cli import __version__, keywords
from magicid_cli.baselines.registry import method
from magicid_cli.errors import MagicIDError
from magicid_cli.export import card
from magicid_cli.models.base import Family
from magicid_cli.models.catalog import VIDEO_MODELS
from magicid_cli.workspace import Workspace

NAME = "keywords.safetensors"

_INPUT = """    embeds = llama.get_input_embeddings()(torch.tensor(found["input_ids"], device=llama.device))
    embeds = torch.cat((embeds[:place], keywords.to(embeds), embeds[place:]))
    with torch.no_grad():
        states = llama(inputs_embeds=embeds[None], output_hidden_states=True).hidden_states[-3][:, crop:]"""
_OUTPUT = """    ids = torch.tensor([found["input_ids"]], device=llama.device)
    with torch.no_grad():
        states = llama(input_ids=ids, output_hidden_states=True).hidden_states[-3][:, crop:]
    place -= crop
    states = torch.cat((states[:, :place], keywords.to(states)[None], states[:, place:]), dim=1)"""

_LOADING = """```python
import re

import torch
from diffusers import HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

{base}
pipe = HunyuanVideoPipeline.from_pretrained(
    base,
    revision={revision!r},
    tokenizer=PreTrainedTokenizerFast.from_pretrained(base, subfolder="tokenizer", revision={revision!r}),
    dtype=torch.bfloat16,
)
keywords = load_file("path/to/this/folder/keywords.safetensors")["keywords"]


def spoken(prompt, class_word={class_word!r}):
    template, crop = DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"]
    said = re.search(rf"(?<!\\w){{re.escape(class_word)}}(?!\\w)", prompt, re.IGNORECASE)
    assert said, f"the keywords stand before the word {{class_word}}: say it"
    first = template.index("{{}}") + said.start()
    found = pipe.tokenizer(template.format(prompt), return_offsets_mapping=True)
    place = next(number for number, (_, end) in enumerate(found["offset_mapping"]) if end > first)
    llama = pipe.text_encoder
{states}
    pooled = pipe.encode_prompt(prompt, device=llama.device)[1]
    mask = torch.ones(states.shape[:2], device=llama.device, dtype=torch.int64)
    return {{"prompt_embeds": states, "prompt_attention_mask": mask, "pooled_prompt_embeds": pooled}}


video = pipe(**spoken("A {class_word} walks along a beach.")).frames[0]
```"""


def write(folder: Path, workspace: Workspace, file: Path, family: Family) -> dict[str, Any]:
    """Write keywords and their card, and prove that the copy encodes a prompt as the original does.

    Args:
        folder: where the files go.
        workspace: of the method.
        file: its keywords.
        family: with which they were trained.

    Returns:
        What the proof found.

    Raises:
        MagicIDError: `keywords-unreadable`, or `export-unfaithful`.
    """
    own = keywords.load(file)
    shutil.copyfile(file, folder / NAME)
    prompt = f"A {own.spec.class_word} walks along a beach."
    encoder = keywords.open_encoder(family)
    first, again = (keywords.encode(encoder, prompt, one)[0] for one in (own, keywords.load(folder / NAME)))
    encoder.close()
    if not all(torch.equal(again[name], value) for name, value in first.items()):
        raise MagicIDError(
            "export-unfaithful",
            f"Loaded back, {NAME} does not encode a prompt as the keywords that were exported.",
            "This is a bug of magicid: report it with `magicid doctor`.",
        )
    (folder / "README.md").write_text(text(workspace, own.spec), encoding="utf-8")
    return {"keywords": own.spec.count, "same_prompt": True}


def text(workspace: Workspace, spec: keywords.KeywordSpec) -> str:
    """The card of exported keywords, Markdown; nothing of the identity's name, photos or prompts is in it."""
    manifest, facts = workspace.manifest(), method(str(workspace.method))
    model = VIDEO_MODELS[manifest["model"]]
    states = {"input": _INPUT, "output": _OUTPUT}[spec.kind]
    loading = _LOADING.format(
        base=card.base_line(model),
        revision=model.source.revision if model.source else None,
        class_word=spec.class_word,
        states=states,
    )
    where = {
        "input": "rows among the input embeddings of its Llama",
        "output": "rows among the states that its Llama gives",
    }[spec.kind]
    parts = [
        f"# {spec.count} keywords for {model.source.repo if model.source else f'the {model.name} model'}",
        f"Trained by magicid {__version__} with {facts.title} ({facts.paper}): {where}, which stand before the word "
        f'"{spec.class_word}" where a prompt says it first. Nothing else of the model was changed.',
        "## Licences\n\n" + "\n".join(card.licences(manifest)),
        "## How to load\n\n" + loading,
        "## Use\n\n" + card.use(model),
    ]
    return "\n\n".join(parts) + "\n"
