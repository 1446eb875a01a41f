"""Draw the picture of docs/explanation/miniature.md.

python docs/draw_world.py     writes docs/explanation/world.png

A row for each action, its nine frames; then a row of places and outfits, and one of faces in an album.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from magicid_cli.world import clips
from magicid_cli.world.actions import ACTIONS
from magicid_cli.world.outfits import OUTFITS
from magicid_cli.world.people import HELD_OUT
from magicid_cli.world.places import PLACES

PICTURE = Path(__file__).parent / "explanation" / "world.png"
_SIDE = 80


def sheet() -> np.ndarray:
    """The picture, uint8 RGB `(H, W, 3)`."""
    rows = []
    for number, action in enumerate(ACTIONS):
        what = replace(clips.scene(number, people=HELD_OUT), action=action, light="clear")
        rows.append(list(clips.render(what, size=_SIDE).frames))
    pairs = zip([*PLACES, "beach"], [*OUTFITS, "red sweater"], strict=True)
    scenes = [
        replace(clips.scene(100 + number, people=HELD_OUT), place=place, outfit=outfit, action="still")
        for number, (place, outfit) in enumerate(pairs)
    ]
    rows.append([clips.render(what, size=_SIDE, frames=1).frames[0] for what in scenes])
    rows.append(clips.album(7, clips.FRAMES, _SIDE))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def main() -> None:
    """Write the picture."""
    cv2.imwrite(str(PICTURE), cv2.cvtColor(sheet(), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
