"""The report: one HTML file that shows an identity from its answer down to its settings.

Built from what lies on disk; what a run lacks becomes a section that says so. Everything in the page is embedded but
the videos themselves, which are linked beside it: each has a poster, and as many as fit have a short preview.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from magicid_cli import __version__
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.pages import previews, shell
from magicid_cli.pages.charts import Chart, number
from magicid_cli.pages.report import answer, making, photos, repository, training
from magicid_cli.pages.report.answer import CALLED, Compared
from magicid_cli.pages.report.repository import Listed
from magicid_cli.rounds import FIRST, recorded
from magicid_cli.workspace import Workspace

ROOM_FOR_PREVIEWS = 11_000_000
"""Bytes of the page that previews may take; the page stays below 20 MB."""

ROOM_FOR_POSTERS = 4_000_000


@dataclass(frozen=True)
class Built:
    """A report.

    Attributes:
        page: the HTML.
        charts: every chart in it, in order.
        embedded: videos with a preview in the page.
        linked: videos that are linked beside it.
    """

    page: str
    charts: list[Chart]
    embedded: int
    linked: int


@dataclass
class Shown:
    """A video as the page shows it.

    Attributes:
        id: its name in the page.
        href: address of the file relative to the page; empty where it must not be linked, or is missing.
        poster: a picture as a `data:` address; empty without one.
        preview: the short clip as a `data:` address; empty without one.
        width: of the poster, in pixels.
        height: of the poster.
        still: whether it is a photo as a clip.
    """

    id: str
    href: str = ""
    poster: str = ""
    preview: str = ""
    width: int = 0
    height: int = 0
    still: bool = False


def build(
    workspace: Workspace,
    settings: Settings,
    compared: Sequence[Compared],
    *,
    target: Path,
    show: bool = True,
    gpu: str | None = None,
    without: str = "",
    number_of_round: int = FIRST,
) -> Built:
    """Make the report.

    Args:
        workspace: the identity.
        settings: of its last run.
        compared: the videos of the comparison, if there are any.
        target: where the page will lie; links are relative to it.
        show: whether pictures of the person may be in it: photos, posters, previews, links to videos.
        gpu: name of this machine's GPU, for the estimate of energy.
        without: why there is no comparison, a sentence; empty if there is one.
        number_of_round: whose repository and stage 2 are shown.
    """
    manifest = workspace.manifest()
    newest = workspace.round(number_of_round)
    wanted = repository.wanted(manifest)
    listed = repository.videos(newest, settings) if wanted else []
    sections: dict[str, Any] = {
        "answer": answer.section(workspace, manifest, compared),
        "photos": photos.section(workspace, photos=show),
        "repository": repository.section(newest, listed, prompts=show, wanted=wanted),
        "training": training.section(newest, manifest),
        "making": making.section(newest, manifest, gpu, private=show),
    }
    by_frame = answer.by_frame(_along(compared, listed, newest.number))
    if by_frame is not None:
        sections["training"]["charts"].append(by_frame)
    shown = _shown(workspace, compared, listed, sections["repository"]["pairs"], target) if show else {}
    page = shell.render(
        "report.html",
        styles=("report.css",),
        scripts=("report.js",),
        name=workspace.name,
        version=__version__,
        show=show,
        shown=shown,
        without=without,
        rounds=recorded(manifest),
        round=newest.number,
        finished=bool(manifest.get("finished")),
        number=number,
        data=_data(shown, listed, sections["repository"]["pairs"]),
        **sections,
    )
    charts = [chart for name in ("answer", "repository", "training") for chart in sections[name]["charts"]]
    embedded = sum(bool(one.preview) for one in shown.values())
    return Built(page, charts, embedded, sum(bool(one.href) for one in shown.values()))


def _along(
    compared: Sequence[Compared], listed: Sequence[Listed], number: int
) -> Mapping[str, list[tuple[tuple[int, ...], tuple[float | None, ...]]]]:
    """Likeness frame by frame: of the comparison, or, without one, of the repository."""
    if any(one.cosines for one in compared):
        return {
            label: [(one.frames, one.cosines) for one in compared if one.method == method and one.cosines]
            for method, label in CALLED.items()
        }
    origins = {
        "initial": "repository, untouched model",
        "tuned": "repository, stage 1" if number == FIRST else f"repository, adapter of round {number - 1}",
    }
    return {
        label: [(one.frames, one.cosines) for one in listed if one.origin == origin and one.cosines]
        for origin, label in origins.items()
    }


def _shown(
    workspace: Workspace, compared: Sequence[Compared], listed: Sequence[Listed], pairs: Sequence[Any], target: Path
) -> dict[str, Shown]:
    """Every video with its link, and as much of it as the page has room for: the compared first, then pairs'."""
    paired = {name for pair in pairs for name in (pair.winner, pair.rejected)}
    order: list[tuple[str, Path, str, bool]] = [(one.id, one.clip, one.content, False) for one in compared]
    repository_first = sorted(listed, key=lambda one: (one.id not in paired, one.origin == "static"))
    order += [(one.id, one.clip, one.content, one.origin == "static") for one in repository_first]
    found: dict[str, Shown] = {}
    folder, names = workspace.path / "report" / "previews", {content[:32] or name for name, _, content, _ in order}
    posters, clips = 0, 0
    for name, clip, content, still in order:
        one = Shown(name, still=still)
        found[name] = one
        if not clip.is_file():
            continue
        one.href = quote(os.path.relpath(clip, target.parent))
        if posters > ROOM_FOR_POSTERS:
            continue
        moving = not still and clips < ROOM_FOR_PREVIEWS
        try:
            made = previews.make(clip, folder, content[:32] or name, moving=moving)
        except MagicIDError as error:
            if error.code not in ("video-unreadable", "video-unwritable"):
                raise
            continue
        one.poster, one.width, one.height = previews.data_uri(made.poster, "image/webp"), made.width, made.height
        posters += len(one.poster)
        if moving:
            one.preview = previews.data_uri(made.clip, "video/mp4")
            clips += len(one.preview)
    previews.keep(folder, names)
    return found


def _data(shown: Mapping[str, Shown], listed: Iterable[Listed], pairs: Iterable[Any]) -> dict[str, Any]:
    """What the page's script reads."""
    return {
        "videos": {
            one.id: {
                "said": one.point.said if one.point else one.id,
                "origin": one.origin,
                "prompt": one.prompt if shown or one.origin != "static" else "",
                "group": None if one.prompt_id is None else str(one.prompt_id),
            }
            for one in listed
        },
        "pairs": {
            pair.id: {"kind": pair.kind, "winner": pair.winner, "rejected": pair.rejected, "why": pair.why}
            for pair in pairs
        },
        "previews": {one.id: one.preview for one in shown.values() if one.preview},
    }
