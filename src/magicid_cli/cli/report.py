"""`magicid report`: an identity on one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Terminal
from magicid_cli.errors import MACHINE, WEIGHTS, MagicIDError

if TYPE_CHECKING:
    from magicid_cli.config import Settings
    from magicid_cli.pages.report import Built
    from magicid_cli.plan import Estimate
    from magicid_cli.workspace import Workspace

NoPhotos = Annotated[
    bool,
    typer.Option("--no-photos", help="The form to share: no photo, no video, no frame of one, no file name, no path"),
]
NoVideos = Annotated[
    bool, typer.Option("--no-videos", help="Make no videos to compare; those that were made before are shown")
]
Png = Annotated[bool, typer.Option("--png", help="Also write every chart as a picture, into a folder beside the page")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Where to write; by default into the identity's folder, in place of the last report",
    ),
]
_SHAREABLE = "report-to-share.html"


@options.command("model.device", "model.offline", recorded=True)
def report(
    terminal: Terminal,
    flags: options.Flags,
    name: options.SomeIdentity = None,
    number: options.Round = None,
    output: Output = None,
    force: options.Force = False,
    no_photos: NoPhotos = False,
    no_videos: NoVideos = False,
    png: Png = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> Result:
    """Write what happened to one HTML file: results, photos, repository, training, settings; it opens from disk.

    The first report makes a few videos with the untouched model, with stage 1 and with the final adapter, on the same
    prompts and seeds, and judges them; later ones find them there.
    """
    from magicid_cli.cli.identity import as_round, choose, recorded_settings, stage_states

    workspace = choose(name)
    shown_round = as_round(workspace, number, stage_states(workspace.manifest()), "score").number
    settings = recorded_settings(workspace, flags.values)
    target = _target(workspace, output, force=force, share=no_photos)
    from magicid_cli.cli import estimate as estimates

    estimate, without = _plan(workspace, settings, wanted=not no_videos)
    if dry_run:
        shown = estimates.blocks(estimate) if estimate else [without or "No video has to be made."]
        data: dict[str, Any] = {"report": target, "estimate": estimate.as_dict() if estimate else None}
        return Result(data, [*shown, f"page: {target}"], [target])
    made = 0
    if estimate is not None:
        estimates.approve(terminal, estimate, yes=yes)
        made, without = _make(terminal, workspace, settings)
    if without:
        terminal.warn(without)
    built = _write(workspace, settings, target, show=not no_photos, without=without, number=shown_round)
    if not no_photos:
        from magicid_cli.cli.elsewhere import remember

        remember(terminal, workspace, [target])
    pictures = _pictures(target, built.charts) if png else []
    data = {
        "identity": workspace.name,
        "report": target,
        "bytes": target.stat().st_size,
        "photos": not no_photos,
        "videos_made": made,
        "charts": [chart.id for chart in built.charts],
        "pictures": pictures,
    }
    hint = "" if no_photos else f"It shows a face. To share it: magicid report {workspace.name} --no-photos"
    return Result(data, ["\n".join(map(str, [target, *pictures]))], [target], hint=hint)


def _write(
    workspace: "Workspace", settings: "Settings", target: Path, *, show: bool, without: str, number: int
) -> "Built":
    """Build the page of a round and write it."""
    from magicid_cli import comparison
    from magicid_cli.pages import report as pages
    from magicid_cli.pages import shell
    from magicid_cli.plan.machine import this_machine

    found = comparison.found(workspace, settings)
    built = pages.build(
        workspace,
        settings,
        found,
        target=target,
        show=show,
        gpu=this_machine(settings.model.device).gpu,
        without="" if found else without,
        number_of_round=number,
    )
    shell.write_private(target, built.page)
    return built


def _target(workspace: "Workspace", output: Path | None, *, force: bool, share: bool) -> Path:
    """Where the page goes; an earlier report in the identity's folder is replaced, any other file is not.

    Raises:
        MagicIDError: `output-exists`, `output-invalid`: before the work and not after it.
    """
    from magicid_cli.destinations import require_writable

    own = _SHAREABLE if share else "report.html"
    if output is None:
        return workspace.path / "report" / own
    path = (output / f"{workspace.name}-{own}" if output.is_dir() else output).absolute()
    if path.suffix.lower() not in (".html", ".htm"):
        raise MagicIDError(
            "output-invalid", f"'{path.name}' is not a name for a page.", "Name a .html file or an existing folder."
        )
    require_writable(path)
    if path.exists() and not force:
        raise MagicIDError("output-exists", f"{path} exists already.", "Choose another --output, or add --force.")
    return path


def _plan(workspace: "Workspace", settings: "Settings", *, wanted: bool) -> tuple["Estimate | None", str]:
    """What making the missing videos takes, or None and why there will be none."""
    from magicid_cli import comparison, plan
    from magicid_cli.cli.identity import holder

    if not comparison.items(workspace, settings):
        return None, "There is nothing to compare: stage 1 is not finished, or the file of prompts is gone."
    if not comparison.to_do(workspace, settings):
        return None, ""
    if not wanted:
        return None, "No videos were made to compare (--no-videos)."
    owner = holder(workspace)
    if owner is not None:
        return None, f"No videos were made to compare: {owner} is working on '{workspace.name}'."
    estimate = comparison.estimate(workspace, settings)
    problems = plan.check(estimate)
    if problems:
        return None, f"No videos were made to compare. {problems[0].message}"
    return estimate, ""


def _make(terminal: Terminal, workspace: "Workspace", settings: "Settings") -> tuple[int, str]:
    """Make the videos; what the machine or the weights do not allow is told, and the report comes all the same."""
    from magicid_cli import comparison

    try:
        return comparison.make(workspace, settings, terminal.events), ""
    except MagicIDError as error:
        if error.exit_code not in (MACHINE, WEIGHTS) and error.code != "model-mismatch":
            raise
        return 0, f"No videos were made to compare. {error.message} {error.hint}"


def _pictures(target: Path, charts: list[Any]) -> list[Path]:
    """The charts as PNG in a folder beside the page."""
    from magicid_cli.workspace import atomic_path

    folder = target.with_name(f"{target.stem}-charts")
    paths = []
    for chart in charts:
        path = folder / f"{chart.id}.png"
        with atomic_path(path) as temporary:
            temporary.write_bytes(chart.png)
        paths.append(path)
    return paths
