"""One kind of error for the user: what happened, why, and the next command to type.

Every error code lives in `CODES`; a test compares the registry with the codes that are raised. The exit code
belongs to the error code, so that a shell script can rely on either.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
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
    "manifest-unreadable": Code(FAILED, "an identity's manifest is damaged"),
    "manifest-format": Code(FAILED, "an identity was made by another version of magicid"),
    "round-missing": Code(USAGE, "an identity's last run had fewer rounds than the one asked for"),
    "prompt-empty": Code(USAGE, "a prompt without a word in it"),
    "prompts-too-few": Code(USAGE, "more prompts are wanted than magicid ships"),
    "prompts-not-written": Code(FAILED, "a model was asked for new prompts, and nothing that it wrote can be used"),
    "prompts-file": Code(REFUSED, "the file of prompts cannot be read, is not text, is empty or is far too long"),
    "model-unusable": Code(WEIGHTS, "a model's files are missing, damaged or of another model"),
    "model-tokenizer": Code(WEIGHTS, "a model's tokenizer does not cut the prompt template as the model expects"),
    "memory": Code(MACHINE, "the plan needs more main memory than this machine has"),
    "disk-space": Code(MACHINE, "the plan needs more disk than is free"),
    "fp8-products": Code(MACHINE, "the GPU cannot multiply in fp8, which was asked for"),
    "gpu-missing": Code(MACHINE, "no CUDA GPU, but the model needs one or one was asked for"),
    "adapter-mismatch": Code(FAILED, "adapter weights do not fit the model or are not finite"),
    "baseline-missing": Code(MACHINE, "the environment that another method needs is not there, unfinished or outdated"),
    "baseline-failed": Code(FAILED, "another method's environment could not be made, or gave no answer"),
    "keywords-unreadable": Code(FAILED, "a file of trained keywords is missing, damaged or of an unknown format"),
    "adapter-unreadable": Code(FAILED, "an adapter file is missing, damaged or of an unknown format"),
    "disk-full": Code(MACHINE, "no space left on the disk; what was saved before is untouched"),
    "checkpoint-format": Code(FAILED, "a checkpoint was written in a format of another version"),
    "checkpoint-incomplete": Code(FAILED, "a checkpoint lacks a state that an exact resume needs, or it does not fit"),
    "training-diverged": Code(FAILED, "a loss or gradient is not a finite number; the last checkpoint is kept"),
    "weights-missing-repo": Code(WEIGHTS, "the Hub has no such repository, or it is private"),
    "weights-missing-revision": Code(WEIGHTS, "the repository has no such branch or commit"),
    "weights-missing-file": Code(WEIGHTS, "the repository has no such file"),
    "weights-gated": Code(WEIGHTS, "the repository's licence must be accepted on its page first"),
    "weights-token": Code(WEIGHTS, "the Hub refuses the Hugging Face token: expired, revoked or without the right"),
    "weights-offline": Code(WEIGHTS, "weights are not in the cache, and magicid was told to stay offline"),
    "weights-incomplete": Code(WEIGHTS, "only a part of the weights is in the cache, and magicid is offline"),
    "weights-network": Code(WEIGHTS, "the Hub cannot be reached, or the connection was cut or stalled too often"),
    "weights-server": Code(WEIGHTS, "the Hub answers with an error or with something that is no answer"),
    "weights-corrupt": Code(WEIGHTS, "a file's content is not what the Hub lists; it was deleted"),
    "weights-unsafe": Code(WEIGHTS, "a file of a kind that could run code, or with a name that leaves its folder"),
    "cache-missing": Code(USAGE, "no weights of that repository are in the cache"),
    "cache-unwritable": Code(MACHINE, "the folder that keeps weights cannot be written"),
    "attention-kernel": Code(MACHINE, "the attention kernel that was asked for, or every fast one, is refused here"),
    "gpu-memory": Code(MACHINE, "the GPU's memory does not suffice"),
    "videos-unusable": Code(FAILED, "no video of the repository can be scored: all are damaged or foreign"),
    "scores-missing": Code(FAILED, "an identity has no scored videos yet"),
    "pairs-none": Code(FAILED, "no preference pair satisfies the rules of selection"),
    "study-unusable": Code(USAGE, "videos that cannot be compared in a study"),
    "answers-unusable": Code(REFUSED, "files that are no answers to a study, or whose key is missing"),
    "port-busy": Code(FAILED, "another program uses the port, or it may not be used"),
    "beta-undetermined": Code(FAILED, "the probe steps did not bring the margin below 0, so beta cannot be solved for"),
    "identity-other-photos": Code(USAGE, "another method is asked to learn from photos other than the identity's"),
    "identity-unfinished": Code(FAILED, "an identity has no finished adapter yet"),
    "model-mismatch": Code(USAGE, "the identity was trained on another model than the one asked for"),
    "output-exists": Code(USAGE, "the output exists already"),
    "output-invalid": Code(USAGE, "the output's name is none for this kind of file"),
    "folder-busy": Code(FAILED, "another process is training in the same folder"),
    "training-order": Code(USAGE, "a part is to be trained before the parts it needs"),
    "training-damaged": Code(FAILED, "a file of the miniature's training is cut short or overwritten"),
    "export-unfaithful": Code(FAILED, "an export, loaded back, is not the adapter; nothing was published"),
    "captions-unusable": Code(
        REFUSED, "an edited captions.jsonl lacks a photo's caption, or the word keywords stand before"
    ),
    "photos-missing": Code(REFUSED, "an argument names no photo"),
    "photos-none-usable": Code(REFUSED, "none of the photos can be used; each is named with its reason"),
    "photos-several-people": Code(REFUSED, "the photos seem to show different people"),
    "face-model-missing": Code(WEIGHTS, "a face recogniser that is neither a known name nor a file"),
    "face-model-unusable": Code(WEIGHTS, "a file that is no face detector or recogniser that OpenCV can run"),
    "raft-missing": Code(WEIGHTS, "RAFT was asked for, but torchvision or its weights are not installed"),
    "ffmpeg-missing": Code(MACHINE, "there is no ffmpeg that can be started"),
    "videos-missing": Code(REFUSED, "no video to evaluate: an empty folder, or an identity without any"),
    "features-unusable": Code(WEIGHTS, "a file that is no I3D network whose features FVD could compare"),
    "video-unreadable": Code(FAILED, "a video file is missing, damaged or no video"),
    "video-unwritable": Code(FAILED, "a video file cannot be written"),
    "consent-missing": Code(REFUSED, "nobody said that the photos' person agrees, and nobody could be asked"),
    "declined": Code(FAILED, "a question was answered with no; nothing was started or deleted"),
    "confirmation-missing": Code(USAGE, "a question that needs an answer could not be asked: there is no terminal"),
    "platform-unsupported": Code(MACHINE, "this operating system lacks what magicid needs"),
    "file-access": Code(FAILED, "the operating system refused to read or write a file"),
    "interrupted": Code(INTERRUPTED, "stopped by Ctrl-C or SIGTERM; the hint is the command that goes on"),
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


# How CUDA itself and its libraries, which torch passes on as they are, say that memory ran out.
_RAN_OUT = re.compile(r"CUDA error: out of memory|CU[A-Z]+_STATUS_\w*ALLOC")


@contextmanager
def memory_told() -> Iterator[None]:
    """Let everybody who says inside the block that a GPU's memory ran out say it in one way.

    Torch's own allocator raises `torch.OutOfMemoryError`; what a library could not allocate, and what could not be
    page-locked, is a plain `RuntimeError`.

    Raises:
        torch.OutOfMemoryError: for any of them.
    """
    try:
        yield
    except RuntimeError as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError) or not _RAN_OUT.search(str(error)):
            raise
        raise torch.OutOfMemoryError(str(error)) from error
