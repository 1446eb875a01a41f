"""What the tests of `magicid_cli.hub` share: a repository with everything a real one has, and short calls."""

import hashlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from magicid_cli import hub as weights
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.catalog import Source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "opencv/face_detection_yunet"  # a repository of the catalog, so that `cached` and `remove` know it
PINNED = Source(REPO, COMMIT, "MIT", 0.001)
BRANCH = Source(REPO, "main", "MIT", 0.001)
CODE = ("pipeline.py", "modeling.py", "pytorch_model.bin", "optimizer.pt", "model.pkl")


class Log(list[Event]):
    """A listener that keeps what it heard."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: str) -> list[dict[str, object]]:
        return [event.data for event in self if event.kind == kind]


def fill(root: Path) -> Path:
    """A repository with everything a real one has, code and pickles included."""
    rng = random.Random(0)
    files: dict[str, bytes] = {
        "model_index.json": b'{"_class_name": "HunyuanVideoPipeline"}',
        "config.json": json.dumps({"auto_map": {"AutoModel": "modeling.Model"}}).encode(),
        "README.md": b"# Model",
        "tokenizer/merges.txt": b"#version: 0.2\n",
        "tokenizer/spiece.model": rng.randbytes(2_000),
        "tokenizer_2/merges.txt": b"#version: 0.2\n",
        "transformer/weights.safetensors": rng.randbytes(300_000),
        "vae/weights.safetensors": rng.randbytes(100_000),
        "vae/empty.txt": b"",
        "face.onnx": rng.randbytes(50_000),
        **dict.fromkeys(CODE, b"raise SystemExit('canary')"),
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def fetch(log: Log, source: Source = PINNED, patterns: list[str] | None = None, *, offline: bool = False) -> Path:
    return weights.fetch_repo(source, patterns=patterns, offline=offline, events=Events(log)).path


def fetch_onnx(log: Log, source: Source = PINNED, *, offline: bool = False) -> Path:
    return weights.fetch_file(source, "face.onnx", offline=offline, events=Events(log)).path


def contents(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def data_of(folder: Path) -> dict[str, str]:
    """What a fetch of the whole repository should bring."""
    return {name: digest for name, digest in contents(folder).items() if name.endswith(weights.FORMATS)}


def refused(code: str, call: Callable[[], object]) -> MagicIDError:
    with pytest.raises(MagicIDError) as caught:
        call()
    assert caught.value.code == code, caught.value.message
    return caught.value


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
