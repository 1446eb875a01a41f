"""Settings of `magicid evaluate`. None of them changes what a run makes."""

from dataclasses import dataclass

from magicid_cli.config.declared import setting


@dataclass(frozen=True)
class EvaluateSettings:
    """How many frames are looked at, and by which networks."""

    face_frames: int = setting(
        16,
        "Most frames of a video in which faces are looked for, every k-th from the first; 0 looks at all",
        flag="--face-frames",
        low=0,
        result=False,
    )
    clip: str = setting(
        "auto", "CLIP of T. Cons., CLIP-T and CLIP-I: auto or a name of the catalog", flag="--clip", result=False
    )
    fvd_features: str = setting(
        "auto",
        "What FVD compares: auto, or a file with I3D (TorchScript as .pt, or safetensors)",
        flag="--fvd-features",
        result=False,
    )
    fvd_frames: int = setting(
        16, "Frames of a video, from its beginning, that I3D is shown", flag="--fvd-frames", low=10, result=False
    )
