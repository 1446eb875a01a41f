"""`magicid prepare`: weights, machine, disk, licences and photos, before anything takes long."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.config import Settings, resolve
from magicid_cli.errors import MagicIDError

if TYPE_CHECKING:
    from magicid_cli.faces import Faces


@options.command("photos", "model", "shape", "rewards")
def prepare(
    terminal: Terminal,
    flags: options.Flags,
    photos: options.SomePhotos = None,
    dry_run: options.DryRun = False,
) -> Result:
    """Bring the weights into the cache and check machine, disk and licences; with photos, judge each of them."""
    from magicid_cli import plan
    from magicid_cli.cli import estimate, weights
    from magicid_cli.photos import expand
    from magicid_cli.workspace import data_home

    settings = resolve(flags.values, preset=flags.preset).settings
    files = expand(photos) if photos else []
    chosen = weights.chosen(settings)
    estimated = plan.for_run(settings, photos=len(files), todo=plan.STAGES, home=data_home())
    shown = [weights.table(chosen), *estimate.blocks(estimated)]
    data: dict[str, Any] = {"weights": [one.as_dict() for one in chosen], "estimate": estimated.as_dict()}
    if dry_run:
        return Result(data, shown, list(estimated.downloads), error=next(iter(plan.check(estimated)), None))
    plan.require(estimated)
    terminal.say(*shown)
    return _verdicts(data, settings, files, terminal, _fetch(settings, terminal))


def _fetch(settings: Settings, terminal: Terminal) -> "Faces":
    """Bring everything into the cache; each opener also checks that what it got can be used."""
    from magicid_cli import models
    from magicid_cli.faces import open_faces
    from magicid_cli.models.catalog import video_model
    from magicid_cli.rewards.semantics import open_judge

    model, offline = video_model(settings.model.name), settings.model.offline
    faces = open_faces(settings.rewards, model, offline=offline, events=terminal.events)
    device = models.device_for(settings.model)
    open_judge(settings.rewards, model, device=device, offline=offline, events=terminal.events)
    models.open_family(settings.model, terminal.events)
    return faces


def _verdicts(
    data: dict[str, Any], settings: Settings, files: list[Path], terminal: Terminal, faces: "Faces"
) -> Result:
    """What became of each photo, and an error if none can be used."""
    from magicid_cli.hub import hub_cache
    from magicid_cli.models.catalog import video_model
    from magicid_cli.workspace import cache_home

    place = hub_cache() if video_model(settings.model.name).source else cache_home()
    done = f"The weights of {settings.model.name} are in {place}."
    if not files:
        return Result(data, [done], [place])
    from magicid_cli.stages import ingest

    verdicts = ingest.examine(files, settings, faces, terminal.events)
    table = Table(
        ("PHOTO", "VERDICT", "WHY", "ADVICE"), [(one.file, one.code, one.reason, one.advice or "-") for one in verdicts]
    )
    error = None
    try:
        ingest.refuse(verdicts)
    except MagicIDError as refused:
        error = refused
    usable = [one.file for one in verdicts if one.code == ingest.USED]
    data["photos"] = [asdict(one) for one in verdicts]
    return Result(data, [done, table, f"{len(usable)} of {len(verdicts)} photos can be used."], usable, error=error)
