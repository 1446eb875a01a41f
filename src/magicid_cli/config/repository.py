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
        "Inexact: strength of the cache by which denoising steps reuse those before them; 0 computes every step",
        flag="--step-cache",
        low=0,
    )
    step_cache_kind: str = setting(
        "first-block",
        "Step cache, and what its strength is: the largest change of the first block, the largest error of known "
        "ratios (the first fifth of the steps is computed, and one step in four), or the steps from one computed "
        "step to the next (steps 1, 2, 3 and 5 are computed)",
        flag="--step-cache-kind",
        choices=("first-block", "magcache", "taylorseer"),
    )
