"""What ConsisID needs from the other environment: a face, and a prompt's tokens. Run by that environment's Python.

    python -I other_side.py REQUEST.json

This file knows nothing of magicid, and magicid imports nothing of it: both know the files, which `exchange.py`
describes. What goes wrong ends the process with a traceback, which is kept.
"""

import hashlib
import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

FORMAT = 1
PACKAGES = ("torch", "diffusers", "transformers", "insightface", "facexlib", "consisid_eva_clip", "onnxruntime")


def main(request_path: Path) -> None:
    """Answer one request."""
    request = json.loads(request_path.read_text(encoding="utf-8"))
    if request["format"] != FORMAT:
        raise SystemExit(f"a request of format {request['format']}; this side knows format {FORMAT}")
    tensors = {"face": face, "tokens": tokens}[request["task"]](request)
    folder = Path(request["answer"])
    content = write(folder / "tensors.safetensors", serialised(tensors))
    answer = {"format": FORMAT, "task": request["task"], "sha256": content, "versions": versions()}
    write(folder / "answer.json", (json.dumps(answer, indent=2) + "\n").encode())


def face(request: dict[str, Any]) -> dict[str, Any]:
    """The person's face, as ConsisID's authors prepare it.

    Returns:
        `id_cond` (1, 1280): InsightFace's and CLIP's embedding; `id_vit_hidden.<n>` (1, 577, 1024) for n from 0 to 4:
        CLIP's hidden states; `picture` uint8 (H, W, 3): the aligned face on white; `keypoints` (5, 2): x, y of eyes,
        nose and mouth in the photo, which may be made smaller before.
    """
    import numpy as np
    import torch
    from diffusers.pipelines.consisid.consisid_utils import prepare_face_models, process_face_embeddings_infer

    device, dtype = request["device"], getattr(torch, request["dtype"])
    helper, recogniser, clip, analysis, mean, deviation = prepare_face_models(request["weights"], device, dtype)
    with torch.no_grad():
        id_cond, hidden, picture, keypoints = process_face_embeddings_infer(
            helper, clip, recogniser, mean, deviation, analysis, device, dtype, request["photo"], is_align_face=True
        )
    found = {f"id_vit_hidden.{number}": value.float().cpu() for number, value in enumerate(hidden)}
    return found | {
        "id_cond": id_cond.float().cpu(),
        "picture": torch.from_numpy(np.array(picture.convert("RGB"))),
        "keypoints": torch.from_numpy(np.array(keypoints, np.float32)),
    }


def tokens(request: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the prompts' tokens.

    Returns:
        `input_ids` (prompts, length), padded and cut to `length`; `lengths` (prompts,) before that.
    """
    import torch
    from transformers import T5Tokenizer

    tokenizer = T5Tokenizer.from_pretrained(Path(request["weights"]) / "tokenizer", local_files_only=True)
    prompts, length = request["prompts"], request["length"]
    ids = tokenizer(prompts, padding="max_length", max_length=length, truncation=True).input_ids
    whole = [len(tokenizer(prompt).input_ids) for prompt in prompts]
    return {"input_ids": torch.tensor(ids), "lengths": torch.tensor(whole)}


def serialised(tensors: dict[str, Any]) -> bytes:
    """The content of a safetensors file."""
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in tensors.items()})


def versions() -> dict[str, str]:
    """Of the packages that decide what comes out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            found[name] = "?"
    return found


def write(path: Path, content: bytes) -> str:
    """Write a whole file or none; returns its SHA-256."""
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name, path)
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
