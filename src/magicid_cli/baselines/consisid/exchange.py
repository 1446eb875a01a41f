"""The files through which magicid asks the other environment, format 1.

Every question has a folder of its own, which only its owner may read: a face is biometric data.

    request.json            {"format": 1, "task": "face" | "tokens", "weights": FOLDER, "answer": FOLDER, …}
                            face: "photo" (a picture's path), "device", "dtype"; tokens: "prompts", "length"
    tensors.safetensors     the answer's tensors, named in `other_side.py`
    answer.json             {"format": 1, "task": …, "sha256": of tensors.safetensors, "versions": {…}}; written last
    log.txt                 what the other side said

All files are written whole or not at all. The folder is named after the content of the question, so a question that was
answered is not asked again.
"""

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli.baselines import environments
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.workspace import digest, file_digest, read_json, write_json

if TYPE_CHECKING:
    import torch

FORMAT = 1
OTHER_SIDE = Path(__file__).with_name("other_side.py")
_SAID = 3  # last lines of the log that an error quotes


def ask(
    name: str, folder: Path, task: str, question: dict[str, Any], content: Any, events: Events
) -> "dict[str, torch.Tensor]":
    """The answer's tensors, asked for now or before.

    Args:
        name: of the environment.
        folder: below which each question has its folder.
        task: `face` or `tokens`.
        question: what the task needs; paths and devices are part of it.
        content: what of the question decides the answer, as plain data.
        events: hears that the other side is at work.

    Raises:
        MagicIDError: `baseline-missing` without the environment, `baseline-failed` if the other side fails.
    """
    python = environments.python_of(name)
    place = folder / digest([FORMAT, task, content, file_digest(OTHER_SIDE), environments.content_of(name)])[:24]
    if (found := _answer(place, task)) is not None:
        return found
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o700)
    (place / "answer.json").unlink(missing_ok=True)
    request = {"format": FORMAT, "task": task, **question, "answer": str(place.absolute())}
    write_json(place / "request.json", request)
    events.notice(
        {"face": "Preparing the face in ConsisID's own environment.", "tokens": "Cutting the prompt into tokens."}[task]
    )
    _run(python, place)
    found = _answer(place, task)
    if found is None:
        raise _failed(place, "it ended without an answer that can be read")
    return found


def _run(python: Path, place: Path) -> None:
    """Let the other side answer the request in a folder.

    `-I` keeps this program's own packages away from it. Its checkpoints are pickled: torch is told to take nothing but
    tensors from them, whatever its callers ask for.
    """
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "MAGICID_"))
    }
    surroundings |= {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    with (place / "log.txt").open("wb") as log:
        done = subprocess.run(
            [str(python), "-I", str(OTHER_SIDE), str(place / "request.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=surroundings,
            cwd=place,
            check=False,
        )
    if done.returncode:
        raise _failed(place, f"it ended with exit code {done.returncode}")


def _failed(place: Path, why: str) -> MagicIDError:
    said = (place / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_SAID:]
    quoted = f" It said: {' / '.join(said)}" if said else ""
    return MagicIDError(
        "baseline-failed",
        f"The other environment of ConsisID gave no answer: {why}.{quoted}",
        f"All that it said is in {place / 'log.txt'}. The environment anew: magicid baseline install consisid --force",
    )


def _answer(place: Path, task: str) -> "dict[str, torch.Tensor] | None":
    """The tensors of a complete answer, or None."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = place / "tensors.safetensors"
    try:
        told = read_json(place / "answer.json")
        whole = told["format"] == FORMAT and told["task"] == task and told["sha256"] == file_digest(path)
        return dict(load_file(path)) if whole else None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
