"""A page of videos side by side: a row for every prompt, a column for every method, and the table above them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magicid_cli import __version__
from magicid_cli.pages import previews, shell
from magicid_cli.workspace import file_digest


@dataclass(frozen=True)
class Column:
    """A method: its title, what it trains, and its videos in the order of the prompts."""

    title: str
    trains: str
    videos: Sequence[Path]


@dataclass(frozen=True)
class Line:
    """A prompt and the seed that all methods used for it."""

    prompt: str
    seed: int


def write(
    path: Path,
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    columns: Sequence[Column],
    lines: Sequence[Line],
) -> None:
    """Write the page, readable by its owner only; previews are kept beside it and made once.

    Args:
        path: of the page.
        name: of the identity.
        header: of the table of metrics.
        rows: of that table.
        notes: what a reader of the numbers must know.
        columns: the methods.
        lines: the prompts, one for each video of a method.

    Raises:
        MagicIDError: `video-unreadable`, `video-unwritable`.
    """
    cards = [
        {
            "number": number,
            "prompt": line.prompt,
            "seed": line.seed,
            "videos": [{"method": column.title, **_shown(path, column.videos[number - 1])} for column in columns],
        }
        for number, line in enumerate(lines, 1)
    ]
    page = shell.render(
        "compare.html",
        styles=("compare.css",),
        scripts=("compare.js",),
        name=name,
        version=__version__,
        header=header,
        rows=rows,
        notes=notes,
        methods=[{"title": column.title, "trains": column.trains} for column in columns],
        cards=cards,
    )
    shell.write_private(path, page)


def _shown(page: Path, file: Path) -> dict[str, str | int]:
    """A video in the page: poster and preview inside, the file itself by its address relative to the page."""
    made = previews.make(file, page.parent / "previews", file_digest(file)[:24])
    return {
        "poster": previews.data_uri(made.poster, "image/webp"),
        "clip": previews.data_uri(made.clip, "video/mp4"),
        "href": Path(os.path.relpath(file, page.parent)).as_posix(),
        "width": made.width,
        "height": made.height,
    }
