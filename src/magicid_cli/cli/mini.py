"""`magicid mini`: the drawn world of the miniature model: photos of nobody who exists, and training it again."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Terminal

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
Size = Annotated[int, typer.Option("--size", min=64, max=2048, help="Their side in pixels")]


@app.command("photos")
@options.command()
def photos(
    terminal: Terminal,
    out: Folder,
    seed: Seed = None,
    count: Count = 10,
    size: Size = 512,
    force: options.Force = False,
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
    album = write_album(out, seed=seed, count=count, size=size, force=force)
    following = f"magicid customize {shlex.quote(str(out))} --name alice --model mini"
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
