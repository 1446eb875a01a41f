"""`magicid prepare --write-prompts N`: a file of new prompts, for `--prompts`."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli.cli.output import Result, Terminal
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.models.catalog import video_model

if TYPE_CHECKING:
    from magicid_cli.prompts.invent import Writer
    from magicid_cli.rewards.qwen import Qwen

_TOKENS = 120  # of an answer; 60 words are about 80
_DEFAULT_NAME = "prompts-{word}{end}.txt"


def check(settings: Settings, count: int | None, output: Path | None) -> None:
    """Refuse before anything is fetched what could only fail after it.

    Args:
        settings: model and writer.
        count: how many prompts are wanted; None if none are.
        output: the file that was named for them.

    Raises:
        MagicIDError: `usage`, `settings-unknown`, `settings-invalid`, `prompts-too-few`, `output-exists`,
            `output-invalid`.
    """
    from magicid_cli.destinations import require_writable
    from magicid_cli.prompts import drawn
    from magicid_cli.prompts.describe import writer_name

    if count is None:
        if output is not None:
            command = "magicid prepare --write-prompts 20 --output FILE"
            raise MagicIDError("usage", "--output is the file of --write-prompts, which is not given.", command)
        return
    model = video_model(settings.model.name)
    writer_name(settings.rewards, model)
    if model.drawn:
        drawn.require(count, "--write-prompts")
    if output is not None and output.exists():
        raise MagicIDError("output-exists", f"{output} exists already.", "Choose another --output.")
    require_writable(output or Path(_DEFAULT_NAME.format(word=settings.photos.class_word, end="")))


def write(settings: Settings, count: int, output: Path | None, terminal: Terminal) -> dict[str, Any]:
    """Write the prompts into a file.

    Args:
        settings: model, class word and seed; a seed is drawn where there is none.
        count: how many prompts.
        output: the file; by default one of a free name in the current folder.
        terminal: who is told.

    Returns:
        `path`, `prompts`, `seed` and `made_by`.

    Raises:
        MagicIDError: `prompts-not-written`, `output-exists`, or weights are missing.
    """
    from magicid_cli.prompts import drawn, invent

    word = settings.photos.class_word
    seed = secrets.randbelow(2**31) if settings.seed is None else settings.seed
    if video_model(settings.model.name).drawn:
        prompts, made_by = drawn.pick(count, seed, word), "the grammar of the drawn world"
    else:
        qwen = _opened(settings, terminal)
        made_by = qwen.made_by
        prompts = invent.invent(count, word, seed=seed, write=_with(qwen), events=terminal.events)
        qwen.close()
    text = invent.listing(prompts, [f"{len(prompts)} prompts about a {word}, seed {seed}, by {made_by}."])
    return {"path": _save(text, output, word), "prompts": prompts, "seed": seed, "made_by": made_by}


def add(done: Result, settings: Settings, count: int, output: Path | None, terminal: Terminal) -> Result:
    """What was done so far, and the file of new prompts."""
    made = write(settings, count, output, terminal)
    text = f"{len(made['prompts'])} prompts are in {made['path']}: read them, then use --prompts {made['path']}."
    data = {**done.data, "prompts": made}
    return replace(done, data=data, blocks=[*done.blocks, text], brief=[*done.brief, made["path"]])


def _opened(settings: Settings, terminal: Terminal) -> "Qwen":
    from magicid_cli import models
    from magicid_cli.prompts.describe import writer_name
    from magicid_cli.rewards.qwen import open_qwen

    name = writer_name(settings.rewards, video_model(settings.model.name))
    device, offline = models.device_for(settings.model), settings.model.offline
    return open_qwen(name, device=device, offline=offline, events=terminal.events)


def _with(qwen: "Qwen") -> "Writer":
    """The model as `invent` wants it."""
    from magicid_cli.rewards.qwen import Question

    return lambda asked, seed: qwen.write(
        [Question((text,), answer=start) for text, start in asked], tokens=_TOKENS, seed=seed
    )


def _save(text: str, output: Path | None, word: str) -> Path:
    """Write a file that is not there yet; nothing is ever overwritten."""
    ends = ("", *(f"-{number}" for number in range(2, 1000)))
    names = [output] if output else [Path(_DEFAULT_NAME.format(word=word, end=end)) for end in ends]
    names[0].parent.mkdir(parents=True, exist_ok=True)
    for path in names:
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            continue
        return path
    raise MagicIDError("output-exists", f"{names[-1]} exists already.", "Choose another --output.")
