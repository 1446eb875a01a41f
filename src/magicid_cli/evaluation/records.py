"""What an evaluation takes and gives, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

FORMAT = 2


@dataclass(frozen=True)
class Item:
    """A video to evaluate.

    Attributes:
        path: the file.
        name: what it is called in tables; unique in an evaluation.
        prompt: what it should show; None if nobody says.
    """

    path: Path
    name: str
    prompt: str | None = None


@dataclass(frozen=True)
class Metric:
    """A column of the table.

    Attributes:
        title: its name for people.
        better: whether `more` or `less` is better, or neither.
        digits: decimal places that are shown.
        means: what it is, one sentence.
    """

    title: str
    better: Literal["more", "less", ""]
    digits: int
    means: str


METRICS: dict[str, Metric] = {
    "face_sim": Metric(
        "Face Sim", "more", 3, "cosine of the person's face with the photos, by a recogniser that no reward used"
    ),
    "face_sim_skipped": Metric(
        "Face Sim, faceless skipped, unclipped",
        "more",
        3,
        "the mean cosine over frames with a face only, as some published code does; raw, not clipped at 0",
    ),
    "face_sim_reward": Metric("Face Sim (reward)", "more", 3, "the same as Face Sim by the reward's recogniser"),
    "face_sim_reward_skipped": Metric(
        "Face Sim (reward), faceless skipped, unclipped",
        "more",
        3,
        "that over frames with a face only; raw, not clipped at 0",
    ),
    "face_found": Metric("Face found", "more", 3, "share of frames in which the person's face is found"),
    "dynamic_degree": Metric(
        "Dyna. Deg.", "more", 2, "mean of the top 5 % of optical flow, pixels per 1/8 s with the shorter side at 256"
    ),
    "dynamic_rate": Metric("Dynamic rate", "more", 3, "share of videos that VBench's rule calls dynamic"),
    "consistency": Metric("T. Cons.", "more", 4, "cosine of neighbouring frames"),
    "consistency_eighth": Metric(
        "T. Cons. at 8/s", "more", 4, "the same of frames about 1/8 s apart, whatever the frame rate"
    ),
    "clip_t": Metric("CLIP-T", "more", 2, "100 times the cosine of frames and prompt"),
    "clip_i": Metric("CLIP-I", "more", 2, "100 times the cosine of frames and photos"),
    "fvd": Metric("FVD", "less", 2, "Fréchet distance of video features to those of a reference set"),
}
"""What is measured, by the name that rows, files and programs use. All but `fvd` are means over videos."""


@dataclass(frozen=True)
class Figure:
    """A metric of a set of videos.

    Attributes:
        value: the mean over videos, or a distance of the set; None if it could not be measured, `why` then says why.
        videos, prompts: from how many.
        low, high: where 95 % of the bootstrap draws lie; None where there is no interval.
        why: what is missing; empty if nothing is.
    """

    value: float | None
    videos: int
    prompts: int
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True)
class SetAside:
    """A video that could not be measured; it counts nowhere, not even as 0."""

    name: str
    why: str


@dataclass(frozen=True)
class Evaluation:
    """What was found about some videos of one person.

    Attributes:
        figures: by the names of `METRICS`, in their order.
        prompts: a row for every prompt: `prompt`, `videos`, and the mean of each metric but `fvd`.
        videos: a row for every video: `video`, `prompt`, `content` (SHA-256), `fps`, each metric but `fvd`, and what
            stands behind it (`details`).
        made_by: which models and versions made a metric, by its name.
        set_aside: videos that could not be measured.
        notes: what a reader of the numbers must know, a sentence each: gaps, truncation, sample sizes.
        fvd: what stands behind `fvd`: sizes of both sets, the extrapolation `infinite` with its points, or `{}`.
        photos: how many photos of the person were compared with, how many have a face, and how alike they are.
    """

    figures: Mapping[str, Figure]
    prompts: tuple[dict[str, Any], ...]
    videos: tuple[dict[str, Any], ...]
    made_by: Mapping[str, str]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()
    fvd: Mapping[str, Any] = field(default_factory=dict)
    photos: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rates(self) -> list[float]:
        """The frame rates of the videos, frames per second, each once."""
        return sorted({row["fps"] for row in self.videos})

    def as_dict(self) -> dict[str, Any]:
        """Everything, JSON-serialisable."""
        return {"format": FORMAT, **asdict(self)}
