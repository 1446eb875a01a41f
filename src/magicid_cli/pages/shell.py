"""What every page is made with: one template engine that escapes, one style sheet, one way to write a private file.

A page is a template in `templates/` that extends `shell.html`. Everything a user typed reaches it as plain data and is
escaped by Jinja (`autoescape` is on for every template); a name that a template misspells is an error, not an empty
string. A page carries its own style and script and a content security policy that lets nothing else in: no network, no
foreign script, not even an inline handler.
"""

import base64
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli.workspace import atomic_path

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
PRIVATE = 0o600


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


CONNECT, MEDIA = "'none'", "data: blob: file:"


def render(
    template: str,
    *,
    styles: tuple[str, ...] = (),
    scripts: tuple[str, ...] = (),
    connect: str = CONNECT,
    media: str = MEDIA,
    **values: Any,
) -> str:
    """A page as text.

    Args:
        template: its file in `templates/`; it extends `shell.html` and fills the blocks `title`, `banner` and `main`.
        styles: style sheets in `templates/` besides `shell.css`, in order.
        scripts: scripts in `templates/`, in order; the policy names each by its hash.
        connect: as in `policy`.
        media: as in `policy`.
        values: what the template shows. Plain data is escaped; only `markupsafe.Markup` is not.
    """
    from markupsafe import Markup

    sheets = [asset(name) for name in ("shell.css", *styles)]
    code = [asset(name) for name in scripts]
    # Our own files hold neither "</style" nor "</script"; a test reads them for it.
    return (
        _environment()
        .get_template(template)
        .render(
            styles=[Markup(sheet) for sheet in sheets],
            scripts=[Markup(one) for one in code],
            policy=policy(code, connect=connect, media=media),
            **values,
        )
    )


def asset(name: str) -> str:
    """The text of a style sheet or script in `templates/`."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def policy(scripts: list[str], *, connect: str = CONNECT, media: str = MEDIA) -> str:
    """The content security policy of a page: its own style, exactly these scripts, embedded pictures and videos.

    Args:
        scripts: the text of every script in the page, exactly as it stands between its tags.
        connect: where scripts may send requests to.
        media: where pictures and videos may come from.
    """
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts]
    return (
        f"default-src 'none'; img-src {media}; media-src {media}; style-src 'unsafe-inline'; "
        f"script-src {' '.join(hashes) or chr(39) + 'none' + chr(39)}; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )


def write_private(path: Path, page: str) -> None:
    """Write a page atomically, readable by its owner only: it may show a face.

    Args:
        path: the file; its folder is made.
        page: the text.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
        os.chmod(temporary, PRIVATE)
