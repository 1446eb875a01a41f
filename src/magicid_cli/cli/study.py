"""`magicid study`: people compare several methods' videos blind; the folder they get, and what came out of it."""

import secrets
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.errors import MagicIDError

if TYPE_CHECKING:
    from magicid_cli.pages.study import Candidate, Outcome
    from magicid_cli.workspace import Workspace

app = typer.Typer(
    help="People compare several methods' videos, blind and without a network.",
    context_settings={"help_option_names": ["--help", "-h"]},
)
_PHOTOS = 4  # shown beside the videos
Videos = Annotated[
    list[str] | None,
    typer.Option("--videos", metavar="METHOD=FOLDER", help="A method's name and its videos; give two to eight"),
]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="What the videos show: .json, .jsonl, .csv, or a prompt a line"),
]
Photos = Annotated[
    list[str] | None,
    typer.Option("--photos", metavar="PHOTOS", help="Photos of the person, to judge likeness by; may be repeated"),
]
Sets = Annotated[int, typer.Option("--sets", min=0, help="Most sets to ask about, chosen by the seed; 0 takes all")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Which sets, and their order; drawn when not given")]
Title = Annotated[str, typer.Option("--title", help="What raters read above the study")]
Files = Annotated[list[Path], typer.Argument(metavar="FILES", help="The study's key and the files of its raters")]


@app.command("build")
@options.command()
def build(
    terminal: Terminal,
    name: options.SomeIdentity = None,
    videos: Videos = None,
    prompts: Prompts = None,
    photos: Photos = None,
    sets: Sets = 0,
    seed: Seed = None,
    title: Title = "Which video is best?",
    output: options.Output = None,
) -> Result:
    """Pack a blind study: a folder with one page that works without a network and saves a rater's answers as a file.

    Compares what was made of an identity (final adapter, stage 1, untouched model, other methods), folders of videos,
    or both. Videos with the same file name, or else with the same prompt, form a set; of each set raters are asked four
    questions. Whose video is whose stands in a file beside the folder, which raters must not get.
    """
    from magicid_cli.destinations import free_name
    from magicid_cli.pages.study import build as pack
    from magicid_cli.pages.study import sets_of

    folder = output or free_name(Path("study"))
    for path in (folder, folder.with_name(f"{folder.name}.key.json")):
        if path.exists():
            raise MagicIDError("output-exists", f"{path} exists already.", "Choose another --output.")
    methods, of_person, workspace = _methods(terminal, name, videos or [], prompts)
    found, notes = sets_of(methods)
    if photos:
        from magicid_cli.photos import expand

        of_person = expand(photos, terminal.warn)
    built = pack(
        found,
        of_person[:_PHOTOS],
        folder,
        terminal.events,
        title=title,
        count=sets,
        seed=secrets.randbelow(2**31) if seed is None else seed,
    )
    if workspace is not None:
        from magicid_cli.cli.elsewhere import remember

        remember(terminal, workspace, [built.folder, built.key])
    for note in (*notes, *built.notes, *([] if of_person else ["There is no photo to judge likeness by (--photos)."])):
        terminal.warn(note)
    following = f"magicid study results {shlex.quote(str(built.key))} answers-*.json"
    said = (
        f"{built.sets} sets of {len(built.methods)} videos. Raters get the folder and open index.html in it; it shows "
        f"a face. Keep {built.key.name} to yourself.\nWhen their files are back: {following}"
    )
    return Result({**asdict(built), "next": following}, [str(built.folder)], [built.folder], hint=said)


def _methods(
    terminal: Terminal, name: str | None, folders: list[str], prompts: Path | None
) -> "tuple[dict[str, list[Candidate]], list[Path], Workspace | None]":
    """Videos by method, the identity's photos, and the identity itself, if one takes part."""
    from magicid_cli.evaluation import collecting
    from magicid_cli.pages.study import Candidate

    groups: dict[str, collecting.Collected] = {}
    photos: list[Path] = []
    workspace = None
    if name is not None or not folders:
        from magicid_cli.cli.evaluate import videos_of
        from magicid_cli.cli.identity import choose

        workspace = choose(name)
        groups |= videos_of(workspace, None)
        photos = collecting.photos_of(workspace)
    for folder in folders:
        label, equals, path = folder.partition("=")
        if not (label.strip() and equals and path) or label.strip() in groups:
            raise MagicIDError(
                "study-unusable",
                f"'{folder}' does not name a method of its own and its folder.",
                "Write it so, each method once: --videos dreambooth=FOLDER",
            )
        groups[label.strip()] = collecting.in_folder(Path(path).expanduser(), prompts)
    for label, collected in groups.items():
        for note in collected.notes:
            terminal.say(f"{label}: {note}")
    methods = {
        label: [Candidate(item.path, item.prompt) for item in collected.items]
        for label, collected in groups.items()
        if collected.items
    }
    return methods, photos, workspace


@app.command("results")
@options.command()
def results(terminal: Terminal, files: Files) -> Result:
    """Count a study's answers: how often each method won, with 95 % intervals, and how far raters agree.

    The intervals are of a bootstrap over raters and sets; agreement is Krippendorff's alpha, 1 if all agree and 0 if
    they agree as often as by chance.
    """
    from magicid_cli.pages.study import results as counted

    outcome = counted(files)
    for note in outcome.notes:
        terminal.warn(note)
    return Result(asdict(outcome), _blocks(outcome), _brief(outcome))


def _blocks(outcome: "Outcome") -> list[str | Table]:
    from magicid_cli.pages.study import QUESTIONS

    cells: list[tuple[Any, ...]] = []
    for question in QUESTIONS:
        rates = [rate for rate in outcome.rates if rate.question == question.id]
        for number, rate in enumerate(sorted(rates, key=lambda rate: -rate.rate)):
            interval = f"{_percent(rate.low)} to {_percent(rate.high)}"
            head = (question.title, rate.answers) if not number else ("", "")
            cells.append((head[0], rate.method, _percent(rate.rate), interval, head[1]))
    alphas = [(question.title, _alpha(outcome.agreement[question.id])) for question in QUESTIONS]
    chance = f"{_percent(1 / len(outcome.methods))} would be chance."
    return [
        f"{outcome.title} {outcome.raters} raters, {outcome.sets} sets, {len(outcome.methods)} methods; {chance}",
        Table(("QUESTION", "METHOD", "WON", "95 % INTERVAL", "ANSWERS"), cells),
        Table(("QUESTION", "AGREEMENT (KRIPPENDORFF'S ALPHA)"), alphas),
    ]


def _brief(outcome: "Outcome") -> list[str]:
    return [f"{rate.question} {rate.method} {rate.rate:.4f} {rate.low:.4f} {rate.high:.4f}" for rate in outcome.rates]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _alpha(value: float | None) -> str:
    return "not defined: two raters must differ or agree on a set" if value is None else f"{value:.3f}"
