"""Photos of nobody, for tests, and the tiny customization that most end-to-end tests start from."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Small enough for seconds, large enough that every stage has several items.
SMALL = {
    "model.name": "tiny",
    "seed": 7,
    "training.save_every": 3,
    "reconstruct.steps": 8,
    "repository.prompts": 4,
    "repository.tuned": 8,
    "repository.initial": 4,
    "repository.steps": 2,
    "pairs.count": 6,
    "pairs.held_out": 1,
    "prefer.steps": 8,
    "prefer.probe_steps": 4,
    "prefer.held_out_every": 4,
}


def drawn_photos(folder: Path, count: int = 3) -> list[Path]:
    """Write `count` pictures of the demo's drawn person."""
    spec = importlib.util.spec_from_file_location("draw", ROOT / "demo" / "draw.py")
    assert spec is not None and spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo {number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        draw.photo(number).save(path)
    return paths
