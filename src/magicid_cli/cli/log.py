"""The log that stays on this machine: which commands ran, how they ended, and where a bug was.

At the default level it holds no photo path and no prompt: of an exception only its type and the places in the code,
not its message, and nothing of what other libraries say.
"""

import logging
import traceback
from logging.handlers import RotatingFileHandler
from pathlib import Path

from magicid_cli import __version__
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event
from magicid_cli.workspace import data_home

_LOGGER = logging.getLogger("magicid")
_FORMAT = "%(asctime)s %(process)d %(levelname)s %(message)s"


def path() -> Path:
    """The log file."""
    return data_home() / "logs" / "magicid.log"


def start(command: str, *, debug: bool) -> None:
    """Open the log for one command; a folder that cannot be written must not keep the command from running."""
    logging.raiseExceptions = False  # a full disk must not print tracebacks between the results
    _LOGGER.propagate = False
    _LOGGER.setLevel(logging.DEBUG if debug else logging.INFO)
    for handler in list(_LOGGER.handlers):
        _LOGGER.removeHandler(handler)
        handler.close()
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path(), maxBytes=1_000_000, backupCount=3, encoding="utf-8", delay=True)
    except OSError:
        _LOGGER.addHandler(logging.NullHandler())
        return
    handler.setFormatter(logging.Formatter(_FORMAT))
    _LOGGER.addHandler(handler)
    _LOGGER.info("magicid %s: %s", __version__, command)


def listen(event: Event) -> None:
    """Keep which stages ran; everything else only in a detailed log."""
    if event.kind == "stage":
        _LOGGER.info("stage %s: %s", event.data["stage"], event.data["state"])
    else:
        _LOGGER.debug("%s %s", event.kind, event.data)


def ended(error: MagicIDError | None) -> None:
    """Keep how the command ended."""
    _LOGGER.info("done" if error is None else f"ended with {error.code}, exit code {error.exit_code}")


def failure(error: BaseException) -> None:
    """Keep where an exception came from."""
    if _LOGGER.isEnabledFor(logging.DEBUG):
        _LOGGER.error("".join(traceback.format_exception(error)))
        return
    seen: BaseException | None = error
    while seen is not None:
        _LOGGER.error("%s at\n%s", type(seen).__name__, "".join(traceback.format_tb(seen.__traceback__)))
        seen = seen.__cause__ or seen.__context__
