"""The model card that every export carries: what it is, what it may be used for, how to load it.

No photo, crop, caption, face embedding, file name, prompt or name of the identity goes into it.
"""

import json
from collections.abc import Mapping
from typing import Any

from magicid_cli import __version__, generation
from magicid_cli.baselines.registry import MAGICID, METHODS
from magicid_cli.models.catalog import DRAWN, FACE_MODELS, STAND_INS, VIDEO_MODELS, VideoModel
from magicid_cli.rounds import FIRST, recorded
from magicid_cli.workspace import Workspace, read_lines

_LOADING = {
    "diffusers": """```python
import torch
from diffusers import HunyuanVideoPipeline
from transformers import PreTrainedTokenizerFast

{base}
pipe = HunyuanVideoPipeline.from_pretrained(
    base,
    revision={revision!r},
    tokenizer=PreTrainedTokenizerFast.from_pretrained(base, subfolder="tokenizer", revision={revision!r}),
    dtype=torch.bfloat16,
)
pipe.load_lora_weights("path/to/this/folder", weight_name="pytorch_lora_weights.safetensors")
```

The tokenizer is passed explicitly because transformers 5 loads the one that the repository names with another
pre-tokenizer.""",
    "comfyui": """Put `adapter-comfyui.safetensors` into ComfyUI's `models/loras/` and load it with
*LoraLoaderModelOnly*, strength 1.0, after the HunyuanVideo model loader.""",
    "merged": """```python
import torch
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from transformers import PreTrainedTokenizerFast

{base}
transformer = HunyuanVideoTransformer3DModel.from_pretrained("path/to/this/folder/transformer", dtype=torch.bfloat16)
pipe = HunyuanVideoPipeline.from_pretrained(
    base,
    revision={revision!r},
    transformer=transformer,
    tokenizer=PreTrainedTokenizerFast.from_pretrained(base, subfolder="tokenizer", revision={revision!r}),
    dtype=torch.bfloat16,
)
```""",
}

# Where the maker's settings let the untouched model begin, which no file can carry.
_LATE = {
    "diffusers": """```python
steps, alone = {steps}, {alone}
pipe.disable_lora()


def switch_on(pipe, step, timestep, tensors):
    if step + 1 == alone:
        pipe.enable_lora()
    return {{}}


video = pipe("a person ...", num_inference_steps=steps, callback_on_step_end=switch_on).frames[0]
```""",
    "comfyui": """Cut the sigmas with *SplitSigmas* at step {alone}. A first *SamplerCustomAdvanced* takes the model
without the adapter and the high sigmas; a second one takes the model with it, the low sigmas, *DisableNoise* as its
noise, and the first one's `output` as its latent.""",
    "merged": "Merged weights cannot do that: export the adapter itself.",
}

_WHAT = {
    "diffusers": "A LoRA adapter",
    "comfyui": "A LoRA adapter",
    "merged": "A transformer with a LoRA adapter merged into its weights,",
}
# By whether the model knows the drawn world alone.
_WHOM = {
    False: "one person, whose consent is on record with the maker",
    True: "a drawn person of the miniature world that comes with magicid",
}
_USE = {
    False: "Videos made with it show a real person. Use it only with that person's permission, and say that the videos "
    "are generated.",
    True: "Videos made with it are small drawings: this model has never seen a real person. Say that they are "
    "generated.",
}


def text(workspace: Workspace, kind: str) -> str:
    """The card, Markdown with the Hub's front matter.

    Args:
        workspace: a customized identity.
        kind: the export's format.
    """
    manifest = workspace.manifest()
    model = VIDEO_MODELS[manifest["model"]]
    values = manifest["settings"]["values"]
    photos = sum(row["verdict"] == "used" for row in read_lines(workspace.references / "photos.jsonl"))
    base = [f"base_model: {model.source.repo}"] if model.source else []
    front = ["---", "library_name: diffusers", *base, "tags: [text-to-video, lora, magicid]", "---"]
    loading = _LOADING[kind].format(base=base_line(model), revision=model.source.revision if model.source else None)
    loading += _late(kind, values["generate"])
    sections = ("seed", "rounds", "shape", "adapter", "training", "reconstruct", "pairs", "prefer")
    shown = {name: values[name] for name in sections if name in values}  # an earlier version had no rounds
    facts = METHODS[workspace.method or MAGICID]
    preferred = bool(values["prefer"]["steps"])
    # Another method has no repository whose videos were scored.
    scores = (
        []
        if workspace.method
        else ["## Scores\n\n" + _scores(workspace.round(recorded(manifest)), preferred=preferred)]
    )
    parts = [
        "\n".join(front),
        f"# A {values['photos']['class_word']} for {model.source.repo if model.source else f'the {model.name} model'}",
        f"{_WHAT[kind]} made by magicid {__version__} ({facts.title}, {facts.paper}) from {photos} photos of "
        f"{_WHOM[model.drawn]}. In a prompt the person is called "
        f'"a {values["photos"]["class_word"]}".',
        "## Licences\n\n" + "\n".join(licences(manifest)),
        "## How to load\n\n" + loading,
        *scores,
        "## Settings\n\n```json\n" + json.dumps(shown, indent=2) + "\n```",
        "## Use\n\n" + use(model),
    ]
    return "\n\n".join(parts) + "\n"


def use(model: VideoModel) -> str:
    """What the videos may be used for."""
    return _USE[model.drawn]


def _late(kind: str, wanted: dict[str, Any]) -> str:
    """How to switch the adapter on late, if the maker does."""
    # A manifest of an earlier version does not name the setting.
    alone = generation.steps_alone(wanted.get("adapter_start", 0.0), wanted["steps"])
    if not alone:
        return ""
    steps = wanted["steps"]
    how = _LATE[kind].format(steps=steps, alone=alone)
    return (
        f"\n\nThe maker's settings leave the first {alone} of {steps} denoising steps to the base model alone.\n\n{how}"
    )


def base_line(model: VideoModel) -> str:
    """The line of Python that names the base model."""
    if model.packaged:
        place = f'str(importlib.resources.files("magicid_cli").joinpath("{model.packaged}"))'
        return f"import importlib.resources\n\nbase = {place}  # comes with magicid"
    return f'base = "{model.source.repo if model.source else f"path/to/the/{model.name}/model"}"'


def licences(manifest: Mapping[str, Any]) -> list[str]:
    """One line a part whose licence a user of the adapter must know."""
    model = VIDEO_MODELS[manifest["model"]]
    licence = "random weights made on this machine; no licence needed"
    if model.packaged:
        licence = "Apache-2.0, as magicid, with which it comes; it was trained on magicid's own drawings"
    elif model.source:
        licence = model.source.licence
    lines = [f"- base model: {licence}"]
    face = manifest["settings"]["values"]["rewards"]["face_model"]
    name = model.face_model if face == "auto" else face
    if name in FACE_MODELS:
        terms = FACE_MODELS[name].source
        note = "" if terms.commercial else " (**non-commercial**: it judged the training videos)"
        lines.append(f"- face recogniser {name}: {terms.licence}{note}")
    elif name not in (*STAND_INS, *DRAWN):
        lines.append("- face recogniser: a file of the maker's own; its licence is not known to magicid")
    return lines


def _scores(workspace: Workspace, *, preferred: bool) -> str:
    """Mean raw rewards of the repository by origin, and where stage 2 ended.

    Args:
        workspace: of the identity, as its last round sees it.
        preferred: whether the adapter went through stage 2; else what lies in the workspace belongs to another one.
    """
    origins = {row["id"]: row["origin"] for row in read_lines(workspace.repository / "videos.jsonl")}
    sums: dict[tuple[str, str], list[float]] = {}
    for row in read_lines(workspace.scores):
        sums.setdefault((origins.get(row["id"], "?"), row["reward"]), []).append(row["value"])
    if not preferred or not sums:
        return "No videos were scored: the adapter was trained by reconstruction alone."
    names = ("identity", "dynamics", "semantics")
    table = ["| videos | identity | dynamics | semantics |", "|---|---|---|---|"]
    tuned = "after stage 1" if workspace.number == FIRST else f"after round {workspace.number - 1}"
    for origin, label in (("initial", "untouched model"), ("tuned", tuned), ("static", "photos as clips")):
        cells = [sums.get((origin, name)) for name in names]
        if all(cells):
            table.append(f"| {label} | " + " | ".join(f"{sum(c) / len(c):.4g}" for c in cells if c) + " |")
    judges = sorted({f"{row['reward']}: {row['made_by']}" for row in read_lines(workspace.scores)})
    last = (read_lines(workspace.prefer / "metrics.jsonl") or [{}])[-1]
    ended = [f"{name} {last[name]:.4g}" for name in ("margin", "held_out_margin") if name in last]
    note = f"\n\nStage 2 ended at {', '.join(ended)}." if ended else ""
    return (
        "Mean raw rewards of the training repository (not of this adapter's own videos):\n\n"
        + "\n".join(table)
        + "\n\n"
        + "\n".join(f"- {judge}" for judge in judges)
        + note
    )
