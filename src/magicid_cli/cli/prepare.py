"""`magicid prepare`: weights, machine, disk, licences and photos, before anything takes long."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from magicid_cli.cli import invention, options, verdicts
from magicid_cli.cli.output import Result, Terminal
from magicid_cli.config import Settings, resolve
from magicid_cli.errors import MagicIDError

WritePrompts = Annotated[
    int | None,
    typer.Option("--write-prompts", min=1, max=1000, help="Write so many new prompts into a file, for --prompts"),
]


@options.command("photos", "model", "seed", "shape", "rewards")
def prepare(
    terminal: Terminal,
    flags: options.Flags,
    photos: options.SomePhotos = None,
    write_prompts: WritePrompts = None,
    output: options.Output = None,
    sheet: verdicts.Sheet = None,
    dry_run: options.DryRun = False,
    gpu: options.Gpu = None,
) -> Result:
    """Bring the weights into the cache and check machine, disk and licences; with photos, judge each of them.

    Verdicts stand in a table and, with the crops, on a contact sheet that only you can read. On a machine that cannot
    run the model, photos are judged all the same, and the weights are not fetched. With
    `--write-prompts`, the model of `--vlm` also writes new prompts, into `--output` or a file of a free name.
    """
    from magicid_cli import pipeline, plan
    from magicid_cli.cli import estimate, weights
    from magicid_cli.faces import require_names
    from magicid_cli.models.catalog import video_model
    from magicid_cli.photos import expand
    from magicid_cli.workspace import data_home

    settings = resolve(flags.values, preset=flags.preset).settings
    options.require_dry_run(gpu, dry_run)
    require_names(settings.rewards, video_model(settings.model.name))
    invention.check(settings, write_prompts, output)
    files = expand(photos, terminal.warn) if photos else []
    if sheet and not files:
        raise MagicIDError("usage", "There are no photos to show on a sheet.", "magicid prepare PHOTOS --sheet FILE")
    place = None
    if files and not dry_run:
        place = verdicts.destination(sheet, terminal)
    chosen = weights.chosen(settings)
    todo = (*pipeline.needed(settings), "generate")[0 if files else 1 :]  # without photos there are none to look at
    estimated = plan.for_run(settings, photos=len(files), todo=todo, home=data_home(), gpu=gpu)
    problem = next(iter(plan.check(estimated)), None)
    shown = [weights.table(chosen), *estimate.blocks(estimated)]
    data: dict[str, Any] = {"weights": [one.as_dict() for one in chosen], "estimate": estimated.as_dict()}
    if dry_run:
        return Result(data, shown, list(estimated.downloads), error=problem)
    if not terminal.json:  # the object has it
        terminal.say(*shown)
    # Weights for a machine that cannot use them are not fetched; photos are judged anywhere.
    done = Result(data, []) if problem else _fetch(data, settings, terminal)
    if files:
        done = verdicts.add(done, settings, files, place, terminal)
    if write_prompts:
        done = invention.add(done, settings, write_prompts, output, terminal)
    return replace(done, error=problem or done.error)


def _fetch(data: dict[str, Any], settings: Settings, terminal: Terminal) -> Result:
    """Bring everything into the cache; each opener also checks that what it got can be used."""
    from magicid_cli import models
    from magicid_cli.faces import open_faces
    from magicid_cli.hub import hub_cache
    from magicid_cli.models.catalog import video_model
    from magicid_cli.rewards.semantics import open_judge
    from magicid_cli.workspace import cache_home

    model, offline = video_model(settings.model.name), settings.model.offline
    open_faces(settings.rewards, model, offline=offline, events=terminal.events)
    device = models.device_for(settings.model)
    open_judge(settings.rewards, model, device=device, offline=offline, events=terminal.events)
    models.open_family(settings.model, terminal.events)
    place = hub_cache() if model.source else models.packaged_folder(model) if model.packaged else cache_home()
    return Result({**data, "path": place}, [f"The weights of {model.name} are in {place}."], [place])
