"""`magicid evaluate`: the paper's table for an identity's videos, or for anybody's."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.errors import MagicIDError
from magicid_cli.repeating import customize

if TYPE_CHECKING:
    from magicid_cli.config import Settings
    from magicid_cli.evaluation import Evaluation
    from magicid_cli.evaluation.collecting import Collected
    from magicid_cli.hub import Commits
    from magicid_cli.workspace import Workspace

_VALUES = ("csv", "json", "md", "tex")
Videos = Annotated[Path | None, typer.Option("--videos", metavar="FOLDER", help="Evaluate the videos of this folder")]
References = Annotated[
    list[str] | None,
    typer.Option(
        "--references", metavar="PHOTOS", help="Photos of the person in --videos: a folder or a file; may be repeated"
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="What they should show: .json, .jsonl, .csv, or a prompt a line"),
]
Method = Annotated[
    list[str] | None,
    typer.Option("--method", help="Only the identity's videos by this method; may be repeated; all by default"),
]
FvdReference = Annotated[
    Path | None,
    typer.Option(
        "--fvd-reference",
        metavar="FOLDER",
        help="Videos that FVD compares with; the untouched model's by default, where NAME has a repository",
    ),
]
PerVideo = Annotated[bool, typer.Option("--per-video", help="Print a row for every video, too")]
Files = Annotated[
    list[Path] | None,
    typer.Option("--output", "-o", help="Write the tables here: .csv, .md, .tex or .json; may be repeated"),
]


@dataclass(frozen=True)
class _Subject:
    """What is to be evaluated.

    Attributes:
        groups: videos by what made them.
        photos: of the person.
        settings: of the judges.
        store: where results of single videos are kept.
        fvd_reference: videos that FVD compares with.
        untouched: the identity whose untouched model made those; None where the user gave them.
    """

    groups: "dict[str, Collected]"
    photos: list[Path]
    settings: "Settings"
    store: Path
    fvd_reference: list[Path]
    untouched: "Workspace | None" = None

    def about_reference(self, videos: "Collected") -> str:
        """In what FVD's reference set differs from videos beside what made them."""
        from magicid_cli.evaluation import collecting

        if self.untouched is None:
            return ""
        prompts = {item.prompt for item in videos.items if item.prompt is not None}
        return collecting.untouched_apart(self.untouched, self.settings, videos.settings, prompts)


@options.command(
    *("rewards.face_detector", "rewards.face_model", "rewards.flow", "evaluate", "model.name", "model.device"),
    "model.offline",
    recorded=True,
)
def evaluate(
    terminal: Terminal,
    flags: options.Flags,
    name: options.SomeIdentity = None,
    videos: Videos = None,
    references: References = None,
    prompts: Prompts = None,
    method: Method = None,
    fvd_reference: FvdReference = None,
    per_video: PerVideo = False,
    output: Files = None,
    force: options.Force = False,
) -> Result:
    """Measure videos as the paper's table does: likeness, motion, consistency, prompt, photos and FVD.

    The videos of an identity by every method that has made some; or with --videos those of any folder, which belong to
    the identity NAME or, without one, to the person in --references. What was measured before is not measured again.
    """
    _require_files(output or [], force=force)
    _require_fitting(name, videos, references, prompts, method)
    subject = _subject(name, videos, references, prompts, method, fvd_reference, flags.values)
    from magicid_cli.evaluation import evaluate as measure
    from magicid_cli.evaluation import sheet
    from magicid_cli.evaluation.summary import beside
    from magicid_cli.workspace import write_text

    found: dict[str, Evaluation] = {}
    commits: Commits = {}  # the same judges for every group, whatever a branch of the Hub means meanwhile
    for label, collected in subject.groups.items():
        for note in collected.notes:
            terminal.say(f"{label}: {note}" if len(subject.groups) > 1 else note)
        if not collected.items:
            continue
        found[label] = measure(
            collected.items,
            subject.photos,
            subject.settings,
            store=subject.store,
            events=terminal.events,
            fvd_reference=subject.fvd_reference,
            about_reference=subject.about_reference(collected),
            commits=commits,
        )
    found = beside(found)
    for path in output or []:
        write_text(path, sheet.WRITERS[path.suffix.lower()](found))
        path.chmod(0o644)  # written private; what a user asked for is theirs to share
    blocks = _blocks(found, per_video)
    written = [path.absolute() for path in output or []]
    if written:
        blocks.append("Written: " + ", ".join(map(str, written)))
    data: dict[str, Any] = {"evaluations": {label: one.as_dict() for label, one in found.items()}, "files": written}
    return Result(data, blocks, written)


def _blocks(found: "dict[str, Evaluation]", per_video: bool) -> list[str | Table]:
    """What a person reads: the table, the gaps, who judged, and rows by prompt and by video."""
    from magicid_cli.evaluation import sheet

    blocks: list[str | Table] = [Table(*sheet.by_metric(found))]
    blocks.append("Means over videos; in brackets where 95 % of the bootstrap draws over prompts and videos lie.")
    for label, one in found.items():
        head = f"{label}: " if len(found) > 1 else ""
        said = [*one.notes, *sheet.gaps(one)]
        blocks += [head + "\n".join(said)] if said else []
        blocks.append(head + "\n".join(f"{names} by {made_by}" for names, made_by in sheet.judges(one)))
        blocks.append(Table(*sheet.by_prompt(one)))
        if per_video:
            blocks.append(Table(*sheet.by_video(one)))
        if one.set_aside:
            blocks.append(Table(("SET ASIDE", "WHY"), [(aside.name, aside.why) for aside in one.set_aside]))
    return blocks


def _require_files(paths: list[Path], *, force: bool) -> None:
    """Refuse before the work a file that could not be written after it."""
    from magicid_cli.destinations import require_writable

    for path in paths:
        if path.suffix.lower()[1:] not in _VALUES:
            endings = ", ".join(f".{value}" for value in _VALUES)
            what = f"'{path.name}' does not say what to write."
            raise MagicIDError("output-invalid", what, f"Let it end in one of {endings}.")
        if os.path.lexists(path) and not force:
            raise MagicIDError("output-exists", f"{path} exists already.", "Choose another --output, or add --force.")
        require_writable(path)


def _require_fitting(
    name: str | None,
    videos: Path | None,
    references: list[str] | None,
    prompts: Path | None,
    method: list[str] | None,
) -> None:
    """Refuse options that do not go together."""
    if videos is None and (references or prompts):
        what = "--references and --prompts belong to --videos, which is missing."
        raise MagicIDError("usage", what, "magicid evaluate --videos FOLDER --references PHOTOS --prompts FILE")
    if videos is not None and method:
        raise MagicIDError("usage", "--method chooses among an identity's videos, not in --videos.", "Leave it out.")
    if videos is not None and (name is None) == (not references):
        what = "--videos needs to know the person: either --references with photos, or the name of an identity."
        raise MagicIDError("usage", what, "magicid evaluate --videos FOLDER --references PHOTOS --prompts FILE")


def _subject(
    name: str | None,
    videos: Path | None,
    references: list[str] | None,
    prompts: Path | None,
    method: list[str] | None,
    fvd_reference: Path | None,
    flags: dict[str, Any],
) -> _Subject:
    from magicid_cli.cli.identity import choose, recorded_settings
    from magicid_cli.config import resolve
    from magicid_cli.evaluation import collecting
    from magicid_cli.photos import expand
    from magicid_cli.workspace import cache_home

    reference = collecting.video_files(fvd_reference) if fvd_reference else []
    groups = {videos.name or str(videos): collecting.in_folder(videos, prompts)} if videos else {}
    if references:
        settings, store = resolve(flags).settings, cache_home() / "evaluation"
        return _Subject(groups, expand(references), settings, store, reference)
    workspace = choose(name)
    groups = groups or videos_of(workspace, method)
    photos = collecting.photos_of(workspace)
    if not photos:
        raise MagicIDError(
            "identity-unfinished",
            f"'{workspace.name}' has no photos yet: its customization was not begun, or not far enough.",
            f"Run or resume: {customize(workspace)}",
        )
    settings = recorded_settings(workspace, flags)
    own = None if reference else workspace
    reference = reference or collecting.untouched(workspace)
    return _Subject(groups, photos, settings, workspace.path / "evaluation", reference, own)


def videos_of(workspace: "Workspace", method: list[str] | None) -> "dict[str, Collected]":
    """The identity's videos by what made them: its own first, then those of other methods.

    A group of which nothing remains has notes alone.
    """
    from magicid_cli.evaluation import collecting
    from magicid_cli.workspace import Workspace

    folder = workspace.path / "methods"
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    groups = collecting.of_identity(workspace, *(Workspace(workspace.name, method=path.name) for path in paths))
    there = [collected.by for collected in groups.values() if collected.items]
    there = list(dict.fromkeys(there))
    groups = {label: collected for label, collected in groups.items() if not method or collected.by in method}
    unknown = [label for label in method or [] if label not in there]
    if not there or unknown:
        by = f" by {', '.join(unknown)}" if unknown else ""
        left = [f" {label}: {note}" for label, one in groups.items() if one.by not in there for note in one.notes]
        some = f" It has some by: {', '.join(there)}." if there else ""
        raise MagicIDError(
            "videos-missing",
            f"'{workspace.name}' has no videos{by}.{''.join(left)}{some}",
            f'Make some: magicid generate --name {workspace.name} --prompt "…"',
        )
    return groups
