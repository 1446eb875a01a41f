"""The settings of the preference repository."""

from dataclasses import dataclass

from magicid_cli.config.declared import setting


@dataclass(frozen=True)
class RepositorySettings:
    """The preference repository: prompts and how many videos are sampled for them."""

    prompts: int = setting(
        20,
        "Prompts chosen by seed: from the shipped list, or for `mini` from what its drawn world has",
        flag="--prompt-count",
        low=1,
    )
    prompts_file: str = setting("", "File with one prompt a line, used instead of the shipped list", flag="--prompts")
    tuned: int = setting(100, "Videos sampled from the stage-1 model", flag="--tuned", low=0)
    initial: int = setting(20, "Videos sampled from the untouched model", flag="--initial", low=0)
    steps: int = setting(50, "Denoising steps of a repository video", flag="--sample-steps", low=1)
    guidance: float = setting(7.5, "Embedded guidance of a repository video", flag="--sample-guidance", low=0)
    step_cache: float = setting(
        0.0,
        "Inexact: a denoising step whose first block changes less than this reuses the step before; 0 computes all",
        flag="--step-cache",
        low=0,
    )
