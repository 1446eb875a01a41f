"""What `magicid prepare` says about photos: a table, what would help most, and the contact sheet."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError

if TYPE_CHECKING:
    import numpy as np

    from magicid_cli.choosing.looking import Box, Verdict
    from magicid_cli.contact_sheet import Shown, Tile
    from magicid_cli.stages.ingest import Examined

Sheet = Annotated[
    Path | None,
    typer.Option(
        "--sheet",
        help="Where to write the contact sheet of the photos, a PNG; magicid-sheet.png in this folder by default. "
        "An earlier sheet is replaced, any other file is not",
    ),
]

_HEADER = ("#", "PHOTO", "VERDICT", "FACE", "SHARP", "LIGHT", "TURN", "NOD", "TILT", "LIKE", "WHY", "ADVICE")
_LEGEND = (
    "FACE: its shorter side in pixels. SHARP: its fine detail in percent of its contrast. LIGHT: how bright its "
    "brightest twentieth is, 0 to 255. TURN, NOD, TILT: degrees to the right, up and clockwise as you see it, an "
    "estimate from five points. LIKE: similarity to the mean of the other photos."
)
_LONGEST = 40  # characters of a file's name in the table
_SPARE = ("over-limit", "near-duplicate")


def destination(sheet: Path | None, terminal: Terminal) -> Path | None:
    """Where the contact sheet goes; None, with a warning, if none was asked for and this folder cannot be written.

    An earlier sheet is replaced, so that no more pictures of a person lie about than are wanted; nothing else is.

    Raises:
        MagicIDError: `output-exists`, `output-invalid`: before the work and not after it.
    """
    from magicid_cli.destinations import require_writable

    if sheet is None or os.path.isdir(sheet):
        path = _free_or_a_sheet((sheet or Path()).absolute())
        try:
            require_writable(path, "--sheet")
        except MagicIDError as error:
            if sheet is not None:
                raise
            terminal.warn(f"No contact sheet is written. {error.message} {error.hint}")
            return None
        return path
    if sheet.suffix.lower() != ".png":
        raise MagicIDError(
            "output-invalid", f"'{sheet.name}' is not a name for a contact sheet.", "Name a .png file or a folder."
        )
    require_writable(sheet, "--sheet")
    if not _may_be_written(sheet):
        raise MagicIDError(
            "output-exists", f"{sheet} exists already and is no contact sheet.", "Choose another --sheet, or remove it."
        )
    return sheet


def _free_or_a_sheet(folder: Path) -> Path:
    """The first of magicid-sheet.png, magicid-sheet-2.png, … that is free or a sheet already."""
    from magicid_cli.photos import SHEET

    names = chain([f"{SHEET}.png"], (f"{SHEET}-{number}.png" for number in count(2)))
    return next(path for name in names if _may_be_written(path := folder / name))


def _may_be_written(path: Path) -> bool:
    from magicid_cli.photos import says_sheet

    return not os.path.lexists(path) or says_sheet(path)


def add(done: Result, settings: Settings, files: list[Path], sheet: Path | None, terminal: Terminal) -> Result:
    """Add a verdict for each photo and what would help most, write the sheet; an error if none can be used."""
    from magicid_cli.faces import open_faces
    from magicid_cli.models.catalog import video_model
    from magicid_cli.stages import ingest

    model = video_model(settings.model.name)
    faces = open_faces(settings.rewards, model, offline=settings.model.offline, events=terminal.events)
    pictures = _Pictures(settings.shape.width / settings.shape.height)
    keep = None if sheet is None else pictures.keep
    examined = ingest.examine(files, settings, faces, terminal.events, keep)
    error = None
    try:
        ingest.refuse(examined.verdicts, "Add photos that show the face from the front, large, sharp and well lit.")
    except MagicIDError as refused:
        error = refused
    usable = [one.file for one in examined.verdicts if one.code == ingest.USED]
    summary = f"Photos that can be used: {len(usable)} of {len(files)}."
    data: dict[str, Any] = {
        "photos": [asdict(one) for one in examined.verdicts],
        "advice": [asdict(one) for one in examined.advice],
        "rule": examined.rule,
        "sheet": sheet,
    }
    blocks: list[str | Table] = [*done.blocks, _table(examined.verdicts), _LEGEND, *_said(examined), summary]
    if sheet is not None:
        _draw(sheet, files, examined, summary, pictures)
        blocks.append(f"Contact sheet: {sheet}")
    return replace(done, data={**done.data, **data}, blocks=blocks, brief=usable, error=error)


class _Pictures:
    """What the sheet will show of each photo, made while the photo is decoded."""

    def __init__(self, aspect: float) -> None:
        self.aspect = aspect
        self.of: dict[Path, Shown] = {}

    def keep(self, path: Path, rgb: "np.ndarray", box: "Box | None") -> None:
        from magicid_cli import contact_sheet

        if len(self.of) < contact_sheet.MOST:
            self.of[path] = contact_sheet.shown(rgb, box, self.aspect)


def _table(verdicts: "Sequence[Verdict]") -> Table:
    return Table(_HEADER, [_row(number, one) for number, one in enumerate(verdicts, 1)])


def _row(number: int, one: "Verdict") -> tuple[object, ...]:
    face = one.face or {}
    side = f"{min(face['box'][2:]):.0f}" if face else "-"
    pose = face.get("pose") or {}
    turned = [f"{pose[name]:+.0f}" if pose else "-" for name in ("yaw", "pitch", "roll")]
    like = f"{face['likeness']:.2f}" if "likeness" in face else "-"
    measured = [f"{face[name]:.0f}" if face else "-" for name in ("sharpness", "light")]
    return number, _short(one.file), one.code, side, *measured, *turned, like, _why(one), one.advice or "-"


def _short(name: str) -> str:
    """A file's name that leaves room for the other columns; names differ at both ends."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-(_LONGEST // 2) + 1 :]}"


def _why(one: "Verdict") -> str:
    return " ".join([one.reason, *one.notes, *one.remarks])


def _said(examined: "Examined") -> list[str]:
    """By which rule photos were left out, and what would help most."""
    said = [f"Chosen: {examined.rule}"] if examined.rule else []
    if examined.advice:
        listed = [f"{number}. {one.text}" for number, one in enumerate(examined.advice, 1)]
        said.append("\n".join(["What would help most:", *listed]))
    return said


def _draw(sheet: Path, files: list[Path], examined: "Examined", summary: str, pictures: _Pictures) -> None:
    from magicid_cli import contact_sheet

    rows = enumerate(zip(files, examined.verdicts, strict=True), 1)
    tiles = [_tile(number, one, pictures.of.get(path)) for number, (path, one) in rows]
    heading = [summary, *(line for block in _said(examined) for line in block.split("\n"))]
    contact_sheet.write(sheet, tiles, heading, pictures.aspect)


def _tile(number: int, one: "Verdict", shown: "Shown | None") -> "Tile":
    from magicid_cli import contact_sheet
    from magicid_cli.choosing.looking import USED

    colours = {USED: contact_sheet.GOOD, **dict.fromkeys(_SPARE, contact_sheet.SPARE)}
    row = dict(zip(_HEADER, _row(number, one), strict=True))
    facts = [f"face {row['FACE']} px, sharp {row['SHARP']}, light {row['LIGHT']}"] if one.face else []
    if one.face and one.face.get("pose"):
        facts.append(f"turn {row['TURN']}°, nod {row['NOD']}°, tilt {row['TILT']}°")
    why = [" ".join([*one.notes, *one.remarks])] if one.code == USED else [_why(one), one.advice]
    return contact_sheet.Tile(
        f"{number}. {one.file}",
        one.code,
        colours.get(one.code, contact_sheet.BAD),
        tuple(line for line in (*facts, *why) if line),
        shown,
    )
