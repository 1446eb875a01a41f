"""Draw a small photo album of a person who does not exist: `python draw.py FOLDER`."""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIZE = 256


def photo(number: int) -> Image.Image:
    """One picture: the same face before another background, in another place and other clothes."""
    chance = random.Random(number)
    image = Image.new("RGB", (SIZE, SIZE), tuple(chance.randrange(40, 220) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, r = chance.randrange(SIZE), chance.randrange(SIZE), chance.randrange(4, 40)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(chance.randrange(256) for _ in range(3)))
    x, y = SIZE // 2 + chance.randrange(-24, 25), SIZE // 2 + chance.randrange(-16, 17)
    draw.ellipse((x - 100, y + 60, x + 100, y + 240), fill=tuple(chance.randrange(256) for _ in range(3)))
    draw.ellipse((x - 74, y - 92, x + 74, y + 96), fill=(60, 35, 20))
    draw.ellipse((x - 58, y - 70, x + 58, y + 84), fill=(224, 178, 150))
    for side in (-1, 1):
        draw.ellipse((x + side * 24 - 11, y - 18, x + side * 24 + 11, y - 2), fill="white")
        draw.ellipse((x + side * 24 - 5, y - 15, x + side * 24 + 5, y - 5), fill=(40, 90, 60))
        draw.line((x + side * 24 - 13, y - 28, x + side * 24 + 13, y - 30), fill=(60, 35, 20), width=4)
    draw.line((x, y - 4, x - 6, y + 24, x + 4, y + 26), fill=(190, 140, 110), width=3)
    draw.arc((x - 24, y + 26, x + 24, y + 26 + chance.randrange(16, 34)), 10, 170, fill=(170, 60, 60), width=5)
    return image.filter(ImageFilter.GaussianBlur(0.6))


def main() -> None:
    """Write four pictures into the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        photo(number).save(folder / f"drawn-{number}.png")


if __name__ == "__main__":
    main()
