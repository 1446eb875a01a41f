"""One kind of error for the user: what happened, why, and the next command to type.

Every error code lives in `CODES`; a test compares the registry with the codes that are raised. The exit code
belongs to the error code, so that a shell script can rely on either.
"""

from dataclasses import dataclass

FAILED, USAGE, MACHINE, REFUSED, WEIGHTS, INTERRUPTED = 1, 2, 3, 4, 5, 130


@dataclass(frozen=True)
class Code:
    """An error code: its exit code and, for the reference page, when it is raised."""

    exit_code: int
    when: str


CODES: dict[str, Code] = {
    "internal": Code(FAILED, "a bug: an exception that magicid did not expect"),
    "usage": Code(USAGE, "the command line could not be understood"),
    "settings-invalid": Code(USAGE, "a setting has a value that cannot be used"),
    "settings-unknown": Code(USAGE, "a setting, preset or model name that does not exist"),
    "settings-unreadable": Code(USAGE, "a configuration file is not valid TOML"),
    "name-invalid": Code(USAGE, "an identity's name breaks the naming rule"),
    "identity-missing": Code(USAGE, "no identity of that name, or none at all"),
    "identity-ambiguous": Code(USAGE, "several identities and none chosen, or two in one prompt"),
    "identity-busy": Code(FAILED, "another process is working on the same identity"),
    "manifest-unreadable": Code(FAILED, "an identity's manifest is damaged or of an unknown format"),
    "interrupted": Code(INTERRUPTED, "stopped by Ctrl-C or SIGTERM; the same command resumes"),
}


class MagicIDError(Exception):
    """An error that the user can act on.

    Args:
        code: a key of `CODES`.
        message: what happened and why, one or two sentences.
        hint: what to do next, preferably a command to type.
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """The process exit code that belongs to this error."""
        return CODES[self.code].exit_code
