"""Settings of the methods that MagicID is compared with. Steps are none of them: all get as many as MagicID."""

from dataclasses import dataclass

from magicid_cli.config.declared import setting


@dataclass(frozen=True)
class DreamBoothSettings:
    """DreamBooth-LoRA; its rates and batch are those of stage 1."""

    class_clips: int = setting(
        0,
        "Clips of anybody, made by the untouched model, for prior preservation; 0 leaves it out, as the paper does",
        flag="--class-clips",
        low=0,
    )
    class_weight: float = setting(
        1.0, "Weight of a class clip's error beside a photo's", flag="--class-weight", low=0, high=100
    )


@dataclass(frozen=True)
class MagicMeSettings:
    """Magic-Me: keywords before the class word, trained with the video model and its text encoder frozen."""

    keywords: int = setting(4, "Keywords that stand for the person", flag="--keywords", low=1, high=64)
    kind: str = setting(
        "input",
        "What a keyword is: an input embedding of Llama (which is then in memory, too), or a state at its output",
        flag="--keyword-kind",
        choices=("input", "output"),
    )
    learning_rate: float = setting(
        1e-3, "Learning rate of the keywords, in parts of the size they begin with", flag="--keyword-lr", low=0
    )
    weight_decay: float = setting(
        0.01, "Weight decay of the keywords, towards the class word", flag="--keyword-weight-decay", low=0
    )
    batch: int = setting(1, "Clips a step", flag="--keyword-batch", low=1)
    mask: str = setting(
        "person",
        "Where the error counts: within an outline of the person around the face, or everywhere",
        flag="--keyword-mask",
        choices=("person", "everywhere"),
    )
    unmasked: float = setting(
        0.05, "Share of the samples whose error counts everywhere all the same", flag="--unmasked", low=0, high=1
    )


@dataclass(frozen=True)
class IdAnimatorSettings:
    """ID-Animator, which trains nothing.

    Frames, size, steps, guidance and the photo's weight are those of its authors' `infer.py`, the negative prompt is
    that of their adapter class, the frame rate AnimateDiff's (their saver's default is 9).
    """

    frames: int = setting(16, "Frames of an ID-Animator video; its motion module knows 32 at most", low=1, high=32)
    size: str = setting("512x512", "Size of an ID-Animator video, WIDTHxHEIGHT, multiples of 16")
    fps: int = setting(8, "Frames per second of an ID-Animator video", low=1, high=120)
    steps: int = setting(30, "Denoising steps of ID-Animator", low=1)
    guidance: float = setting(8.0, "Classifier-free guidance of ID-Animator", low=1)
    photo_scale: float = setting(0.8, "Weight of the photo in ID-Animator's cross-attention", low=0, high=2)
    negative_prompt: str = setting(
        "monochrome, lowres, bad anatomy, worst quality, low quality", "What an ID-Animator video shall avoid"
    )


@dataclass(frozen=True)
class ConsisIdSettings:
    """ConsisID, which trains nothing; the values are those of its authors' example."""

    frames: int = setting(49, "Frames of a ConsisID video (4k + 1)", low=5)
    size: str = setting("720x480", "Size of a ConsisID video, WIDTHxHEIGHT, multiples of 16")
    fps: int = setting(8, "Frames per second of a ConsisID video", low=1, high=120)
    steps: int = setting(50, "Denoising steps of ConsisID", low=1)
    guidance: float = setting(6.0, "Classifier-free guidance of ConsisID", low=1)
    negative_prompt: str = setting("", "What a ConsisID video shall avoid")


@dataclass(frozen=True)
class CompareSettings:
    """`magicid compare`: what every method is asked for. Training and videos are as the identity's own."""

    prompts: int = setting(
        10, "Prompts that every method gets; none of them is one that MagicID practised", flag="--test-prompts", low=1
    )
    prompts_file: str = setting("", "File with one prompt a line, used instead", flag="--test-prompts-file")
    videos: int = setting(1, "Videos of each prompt", flag="--videos", low=1)
    test_seed: int = setting(
        1, "Seed of each prompt's first video; the same for all methods", flag="--test-seed", low=0
    )
