"""Asking the Hub: addresses, the token, polite retries, and what a refusal means.

Logins and connections are the Hub client's own. Its retries are not used: it gives up at once on the first listing,
waits without end for one that stalls, and prints.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from magicid_cli import __version__
from magicid_cli.errors import MagicIDError

if TYPE_CHECKING:
    import httpx2

DEFAULT_ENDPOINT = "https://huggingface.co"
ATTEMPTS = 5
BACKOFF_S = 1.0  # wait before the second attempt; doubled before each further one
LONGEST_WAIT_S = 300.0  # the Hub counts requests in windows of five minutes
STALL_S = 20.0  # silence after which a connection counts as dead
PROGRESS_BYTES = 8 << 20  # an attempt that brought this much does not count as failed
_SAME_COMMAND = "Run the same command again: what arrived is kept and the download goes on from there."

T = TypeVar("T")


class Stopped(Exception):
    """The transfer was given up because another one failed or the user stopped it."""


class Transient(Exception):
    """A failure that may pass; `brought` bytes arrived before it."""

    def __init__(self, reason: str, *, server: bool = False, wait_s: float | None = None, brought: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.server, self.wait_s, self.brought = reason, server, wait_s, brought


@dataclass(frozen=True)
class Link:
    """How to reach one repository.

    Attributes:
        repo: `owner/name`.
        revision: branch or commit, for messages.
        endpoint: URL of the Hub, without a slash at the end.
        say: called with a sentence that the user should read.
        stop: when set, waits and transfers end with `Stopped`.
    """

    repo: str
    revision: str
    endpoint: str
    say: Callable[[str], None]
    stop: threading.Event


def open_link(repo: str, revision: str, say: Callable[[str], None]) -> Link:
    """Prepare to ask the Hub that `HF_ENDPOINT` names now; nothing is sent yet.

    Raises:
        MagicIDError: `settings-invalid` if `HF_ENDPOINT` is no URL.
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise MagicIDError(
            "settings-invalid",
            f"HF_ENDPOINT is '{endpoint}', which is no web address.",
            f"Unset HF_ENDPOINT, or set it to {DEFAULT_ENDPOINT}",
        )
    return Link(repo, revision, endpoint, say, threading.Event())


def get_json(link: Link, url: str, attempts: int) -> tuple[Any, str | None]:
    """Ask for JSON; returns it and the address of the next page, if there is one.

    Raises:
        MagicIDError: one of the `weights-` codes.
    """

    def once() -> tuple[Any, str | None]:
        with answer(link, url, {}, None) as response:
            response.read()
            try:
                return response.json(), response.links.get("next", {}).get("url")
            except ValueError as error:
                raise not_a_hub(link) from error

    return retrying(link, "list of files", once, attempts)


def not_a_hub(link: Link) -> MagicIDError:
    """The error for an answer that a Hub would not give."""
    return MagicIDError(
        "weights-server",
        f"{link.endpoint} answered, but not as a Hub would, when asked for {link.repo}.",
        "Check HF_ENDPOINT, the proxy, and whether this network wants you to log in first.",
    )


@contextmanager
def answer(link: Link, url: str, headers: Mapping[str, str], path: str | None) -> Iterator["httpx2.Response"]:
    """Send a GET request; a good answer's body is still to be read.

    Args:
        link: the repository.
        url: the address; redirects are followed, and the token does not go along to another host.
        headers: sent in addition.
        path: the file that is asked for, or None for a question about the repository.

    Raises:
        MagicIDError: one of the `weights-` codes, when asking again would not help.
        Transient: when it may.
    """
    import httpx2
    from huggingface_hub.utils import build_hf_headers, get_session

    # The token is the Hub client's own. A compressed answer could not be resumed by byte position.
    known = build_hf_headers(
        library_name="magicid", library_version=__version__, headers={"accept-encoding": "identity"}
    )
    timeout = httpx2.Timeout(STALL_S, pool=None)
    try:
        with get_session().stream("GET", url, headers={**known, **headers}, timeout=timeout) as response:
            if not response.is_success:
                raise _refusal(link, response, path)
            yield response
    except httpx2.TimeoutException as error:
        raise Transient(f"nothing came for {STALL_S:.0f} s") from error
    except httpx2.RequestError as error:
        raise Transient(str(error) or type(error).__name__) from error


def _refusal(link: Link, response: "httpx2.Response", path: str | None) -> Exception:
    """What a status that is no success means."""
    status, kind = response.status_code, response.headers.get("x-error-code", "")
    if kind == "GatedRepo":
        return _gated(link)
    # The Hub answers 404, not 401, to a valid token that may not see a repository.
    if status in (401, 403) and "authorization" in response.request.headers:
        return _bad_token(link, response.headers.get("x-error-message", ""))
    if status == 404 and kind == "RevisionNotFound":
        return MagicIDError(
            "weights-missing-revision",
            f"{link.repo} has no revision '{link.revision}' at {link.endpoint}.",
            f"Look at {link.endpoint}/{link.repo}/commits/main, or update magicid.",
        )
    if status == 404 and path is not None and kind != "RepoNotFound":
        return missing_file(link.repo, path, link.revision)
    elsewhere = not str(response.url).startswith(link.endpoint + "/")
    if status in (401, 404) or (status == 403 and not elsewhere):
        return _missing_repo(link)
    # A content server's 403 means that its signed address ran out; the next attempt gets a new one.
    if status in (403, 408, 429) or status >= 500:
        return Transient(f"the server answers {status}", server=True, wait_s=_asked_wait(response))
    return MagicIDError(
        "weights-server", f"{link.endpoint} answers {status} when asked for {link.repo}.", "Try again later."
    )


def missing_file(repo: str, path: str, revision: str) -> MagicIDError:
    """The error for a file that the repository does not have."""
    return MagicIDError(
        "weights-missing-file",
        f"{repo} at '{revision}' has no file {path}.",
        "Update magicid: the repository may have been rearranged.",
    )


def _gated(link: Link) -> MagicIDError:
    page = f"{link.endpoint}/{link.repo}"
    return MagicIDError(
        "weights-gated",
        f"{link.repo} is gated: its licence must be accepted by a logged-in account before it may be fetched.",
        f"Accept the licence at {page}, then: hf auth login",
    )


def _bad_token(link: Link, detail: str) -> MagicIDError:
    because = f" ({detail})" if detail else ""
    source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the stored login"
    return MagicIDError(
        "weights-token",
        f"The Hub refuses the Hugging Face token from {source} for {link.repo}{because}: it is expired or revoked, or "
        "lacks the right to read this repository.",
        "Unset HF_TOKEN if it is set, then: hf auth login",
    )


def _missing_repo(link: Link) -> MagicIDError:
    return MagicIDError(
        "weights-missing-repo",
        f"{link.repo} does not exist at {link.endpoint}, or it is private.",
        f"Open {link.endpoint}/{link.repo} in a browser; if it is private: hf auth login",
    )


def _asked_wait(response: "httpx2.Response") -> float | None:
    """Seconds the server asks to wait, by `Retry-After` or the Hub's own `RateLimit` header."""
    from huggingface_hub.utils import parse_ratelimit_headers

    value = response.headers.get("retry-after", "").strip()
    if value.isdigit():
        return float(value)
    if value:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None
    limit = parse_ratelimit_headers(response.headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def retrying(link: Link, what: str, once: Callable[[], T], attempts: int) -> T:
    """Call `once` until it works, at most `attempts` times in a row without progress.

    Waits double from `BACKOFF_S`, or are what the server asks for.

    Raises:
        MagicIDError: `weights-network` or `weights-server` after the last attempt, or when the server asks to wait
            longer than `LONGEST_WAIT_S`.
        Stopped: `link.stop` was set.
    """
    failures = 0
    while True:
        if link.stop.is_set():
            raise Stopped
        try:
            return once()
        except Transient as problem:
            failures = 1 if problem.brought >= PROGRESS_BYTES else failures + 1
            wait_s = BACKOFF_S * 2 ** (failures - 1) if problem.wait_s is None else problem.wait_s
            if failures >= attempts or wait_s > LONGEST_WAIT_S:
                raise _gave_up(link, what, problem, wait_s) from problem
            link.say(f"{link.repo}, {what}: {problem.reason}; attempt {failures + 1} of {attempts} in {wait_s:.0f} s.")
            pause(link, wait_s)


def _gave_up(link: Link, what: str, problem: Transient, wait_s: float) -> MagicIDError:
    if problem.server:
        asked = f" and asks to wait {wait_s / 60:.0f} minutes" if wait_s > LONGEST_WAIT_S else ""
        return MagicIDError(
            "weights-server",
            f"{link.repo}, {what}: {problem.reason}{asked}. {link.endpoint} is overloaded or out of order.",
            f"Wait a few minutes. {_SAME_COMMAND}",
        )
    return MagicIDError(
        "weights-network",
        f"{link.repo}, {what}: {problem.reason}. {link.endpoint} cannot be reached reliably.",
        f"Check the network. {_SAME_COMMAND}",
    )


def pause(link: Link, seconds: float) -> None:
    """Wait, unless the transfer is to stop.

    Raises:
        Stopped: `link.stop` was set before the time was over.
    """
    if link.stop.wait(seconds):
        raise Stopped
