"""Photos of nobody, for tests, and the tiny customization that most end-to-end tests start from."""

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

_SIDE = 256

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
    """Write `count` pictures of one person who does not exist, for stand-ins: they tell pictures apart, not people."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo {number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        _photo(number).save(path)
    return paths


def _photo(number: int) -> Image.Image:
    """One picture: the same face before another background, in another place and other clothes."""
    chance = random.Random(number)
    image = Image.new("RGB", (_SIDE, _SIDE), _colour(chance, 40, 220))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, r = chance.randrange(_SIDE), chance.randrange(_SIDE), chance.randrange(4, 40)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(chance, 0, 256))
    x, y = _SIDE // 2 + chance.randrange(-24, 25), _SIDE // 2 + chance.randrange(-16, 17)
    draw.ellipse((x - 100, y + 60, x + 100, y + 240), fill=_colour(chance, 0, 256))
    draw.ellipse((x - 74, y - 92, x + 74, y + 96), fill=(60, 35, 20))
    draw.ellipse((x - 58, y - 70, x + 58, y + 84), fill=(224, 178, 150))
    for side in (-1, 1):
        draw.ellipse((x + side * 24 - 11, y - 18, x + side * 24 + 11, y - 2), fill="white")
        draw.ellipse((x + side * 24 - 5, y - 15, x + side * 24 + 5, y - 5), fill=(40, 90, 60))
        draw.line((x + side * 24 - 13, y - 28, x + side * 24 + 13, y - 30), fill=(60, 35, 20), width=4)
    draw.line((x, y - 4, x - 6, y + 24, x + 4, y + 26), fill=(190, 140, 110), width=3)
    draw.arc((x - 24, y + 26, x + 24, y + 26 + chance.randrange(16, 34)), 10, 170, fill=(170, 60, 60), width=5)
    return image.filter(ImageFilter.GaussianBlur(0.6))


def _colour(chance: random.Random, low: int, high: int) -> tuple[int, int, int]:
    return chance.randrange(low, high), chance.randrange(low, high), chance.randrange(low, high)
