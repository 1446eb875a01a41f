"""`magicid mini`: the drawn world of the miniature model: photos of nobody who exists, and training it again."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from magicid_cli.cli import options
from magicid_cli.cli.estimate import LONG_S
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.cli.progress import spoken

app = typer.Typer(
    help="The miniature model and its drawn world: photos of a drawn person, and the training.",
    context_settings={"help_option_names": ["--help", "-h"]},
)
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="A new folder; what is missing above it is made, too")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Which drawn person: a number; drawn and shown when it is not given"),
]
Count = Annotated[int, typer.Option("--count", min=1, max=200, help="How many photos")]
PartName = Literal["codec", "base", "finder", "encoder", "judge", "scorer", "pack"]
Studio = Annotated[Path, typer.Argument(metavar="OUT", help="A folder for everything; the same one goes on")]
Only = Annotated[PartName | None, typer.Option("--only", help="Train this part alone; what it needs must be there")]
Scale = Annotated[
    float,
    typer.Option("--scale", min=0.001, max=10, help="Steps and clips, times this: 0.01 is a trial of the machinery"),
]
Device = Annotated[
    Literal["cuda", "cpu"] | None, typer.Option("--device", help="Device; the GPU, if there is one, when not given")
]
Replace = Annotated[
    bool, typer.Option("--force", help="Replace the album that is in OUT; a folder with anything else in it never is")
]
Size = Annotated[int, typer.Option("--size", min=64, max=2048, help="Their side in pixels")]


@app.command("photos")
@options.command()
def photos(
    terminal: Terminal,
    out: Folder,
    seed: Seed = None,
    number: Count = 10,
    size: Size = 512,
    force: Replace = False,
) -> Result:
    """Draw a photo album of one person who exists nowhere, to customize a model without anybody's photos.

    The same seed is the same person and the same album.
    """
    import random

    from magicid_cli.world.albums import write_album
    from magicid_cli.world.captions import looks
    from magicid_cli.world.people import HELD_OUT, TRAINED

    if seed is None:
        seed = random.choice(HELD_OUT)
    if seed in TRAINED:
        terminal.warn(f"Person {seed} is one of those that the miniature was trained on; {_spoken(HELD_OUT)} are not.")
    album = write_album(out, seed=seed, count=number, size=size, force=force)
    following = f"magicid customize {shlex.quote(str(out))} --name alice --model mini --class-word {album.person.kind}"
    data = {
        "folder": album.folder,
        "files": album.files,
        "seed": seed,
        "size": size,
        "drawn": True,
        "person": {
            "looks": looks(album.person),
            "kind": album.person.kind,
            "hair": album.person.hair_name,
            "style": album.person.style,
            "beard": album.person.beard,
            "glasses": album.person.glasses,
        },
        "next": following,
    }
    hint = f"Person {seed} is drawn and exists nowhere: {looks(album.person)}.\nNext: {following}"
    return Result(data, [str(album.folder)], [album.folder], hint=hint)


def _spoken(seeds: range) -> str:
    return f"{seeds[0]} to {seeds[-1]}"


@app.command("train")
@options.command()
def train(
    terminal: Terminal,
    out: Studio,
    only: Only = None,
    scale: Scale = 1.0,
    device: Device = None,
    yes: options.Yes = False,
) -> Result:
    """Train the miniature and its judges from nothing; for hours on a CPU.

    The weights in the package were trained in parts by earlier forms of this recipe, which was never run in one go.
    The same command goes on where it was interrupted. The result is in OUT/weights, laid out as the package has it.
    """
    from magicid_cli import models
    from magicid_cli.cli.identity import gigabytes
    from magicid_cli.config import ModelSettings
    from magicid_cli.world.training import recipe

    where = models.device_for(ModelSettings(name="mini", device=device) if device else ModelSettings(name="mini"))
    seconds = recipe.seconds_left(out, only=only, scale=scale) if where == "cpu" else None
    _approve(terminal, seconds, least=scale < 1, yes=yes)
    done = recipe.train(out, device=where, only=only, scale=scale, events=terminal.events)
    files = {str(path.relative_to(done.weights)): path.stat().st_size for path in done.files}
    data: dict[str, Any] = {
        "weights": done.weights,
        "files": files,
        "figures": done.figures,
        "device": where,
        "scale": scale,
        "seconds": done.seconds,
    }
    measured = [(part, name, f"{value:g}") for part, found in done.figures.items() for name, value in found.items()]
    blocks: list[str | Table] = [
        str(done.weights),
        Table(("FILE", "SIZE"), [(f, gigabytes(n)) for f, n in files.items()]),
    ]
    return Result(data, [*blocks, Table(("PART", "FIGURE", "VALUE"), measured)], [done.weights])


def _approve(terminal: Terminal, seconds: float | None, *, least: bool, yes: bool) -> None:
    """On a terminal, ask before work of more than 30 minutes, or of unknown length.

    Args:
        terminal: to ask on.
        seconds: as estimated.
        least: whether it takes longer: measurements and the fewest clips are the same at any scale.
        yes: whether the answer is given.

    Raises:
        MagicIDError: `declined`.
    """
    time = f"{'at least' if least else 'about'} {spoken(seconds)} on one core, as estimated"
    terminal.say(f"The training takes {'an unknown time on this GPU' if seconds is None else time}.")
    if terminal.interactive and (seconds is None or seconds > LONG_S):
        terminal.confirm("Start?", yes=yes, declined="Nothing was started.")
