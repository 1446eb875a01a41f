"""The answer first: what the adapter does on the same prompts and seeds as the untouched model and stage 1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from magicid_cli.pages.charts import Chart, lines, number, strips
from magicid_cli.workspace import Workspace, read_json

CALLED = {"base": "untouched model", "stage-1": "stage 1", "final": "final adapter"}
COLOURS = {"base": "mark", "stage-1": "c2", "final": "c1"}
"""What a method's videos are drawn in, in every chart."""

_MEASURES = (
    ("likeness", "Likeness", "Cosine of the faces to the photos, mean over frames; a frame without a face counts 0."),
    ("motion", "Motion", "Optical flow of the fastest 5 % of the picture, in pixels per 1/8 s."),
    ("following", "Prompt following", "What the judge says of the video and its prompt, 1 to 10."),
)


@dataclass(frozen=True)
class Compared:
    """A video of the comparison and what the judges say of it.

    Attributes:
        id: its name.
        method: a key of `CALLED`.
        prompt: what it should show.
        seed: of its noise.
        clip: the file.
        content: SHA-256 of the file.
        likeness: mean over the frames; None while it is not judged.
        motion: as selection takes it.
        following: of the prompt.
        face_found: share of frames with the person's face.
        frames: which frames were looked at.
        cosines: to the photos, frame by frame; None without a face.
    """

    id: str
    method: str
    prompt: str
    seed: int
    clip: Path
    content: str
    likeness: float | None
    motion: float | None
    following: float | None
    face_found: float | None
    frames: tuple[int, ...]
    cosines: tuple[float | None, ...]


def section(workspace: Workspace, manifest: Mapping[str, Any], compared: Sequence[Compared]) -> dict[str, Any]:
    """What the report says first.

    Returns:
        `headline`, sentences; `chosen`, which checkpoint and why; `methods`, rows of the table; `groups`, the videos by
        prompt; `charts`; `why_empty`, why there is no comparison, or nothing.
    """
    methods = [name for name in CALLED if any(one.method == name for one in compared)]
    wishes = list(dict.fromkeys((one.prompt, one.seed) for one in compared))
    groups = [
        {
            "number": place,
            "prompt": prompt,
            "seed": seed,
            "videos": [one for one in compared if (one.prompt, one.seed) == (prompt, seed)],
        }
        for place, (prompt, seed) in enumerate(wishes)
    ]
    return {
        "headline": _headline(compared, methods),
        "chosen": chosen(workspace, manifest),
        "methods": [{"name": CALLED[name], **_means(compared, name)} for name in methods],
        "prompts": len(wishes),
        "groups": groups,
        "called": CALLED,
        "charts": _charts(compared, methods, wishes),
    }


def chosen(workspace: Workspace, manifest: Mapping[str, Any]) -> str:
    """Which checkpoint is the adapter and why, in a sentence."""
    adapter = str(manifest.get("adapter") or "")
    if not adapter:
        return "The customization is not finished, so there is no adapter to judge yet."
    if not adapter.endswith("prefer/adapter.safetensors"):
        return "The adapter is that of stage 1: this run has no preference optimization."
    path = (workspace.path / adapter).with_name("guards.json")
    if not path.is_file():
        return "The adapter is that of the last step of stage 2; the guards were off."
    found = read_json(path)
    if not found["step"]:
        return f"Chosen: what stage 2 started from. {_sentence(found['why'])}"
    return f"Chosen: step {found['step']} of {found['steps']} in stage 2. {_sentence(found['why'])}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _means(compared: Sequence[Compared], method: str) -> dict[str, Any]:
    some = [one for one in compared if one.method == method]
    found: dict[str, Any] = {"videos": len(some)}
    for name in ("likeness", "motion", "following", "face_found"):
        known = [value for one in some if (value := getattr(one, name)) is not None]
        found[name] = fmean(known) if known else None
    return found


def _headline(compared: Sequence[Compared], methods: Sequence[str]) -> list[str]:
    """The last method against each earlier one, in figures."""
    if len(methods) < 2:
        return []
    last = _means(compared, methods[-1])
    said = []
    for name in reversed(methods[:-1]):
        other = _means(compared, name)
        parts = []
        for measure, title, _ in _MEASURES:
            if last[measure] is None or other[measure] is None:
                continue
            parts.append(
                f"{title.lower()} {number(other[measure])} → {number(last[measure])}{_share(other, last, measure)}"
            )
        if parts:
            said.append(f"{CALLED[methods[-1]].capitalize()} against {CALLED[name]}: {'; '.join(parts)}.")
    return said


def _share(before: Mapping[str, Any], after: Mapping[str, Any], measure: str) -> str:
    """The change in percent, where what was before is large enough to be divided by."""
    if before[measure] < 0.05:
        return ""
    share = after[measure] / before[measure] - 1
    rounded = round(100 * share)
    return f" ({rounded:+d}\u00a0%)".replace("-", "−") if rounded else " (±0\u00a0%)"


def _charts(compared: Sequence[Compared], methods: Sequence[str], wishes: Sequence[tuple[str, int]]) -> list[Chart]:
    called = {CALLED[name]: COLOURS[name] for name in methods}
    charts = []
    for measure, title, caption in _MEASURES:
        found = [
            strips.Value(CALLED[one.method], wishes.index((one.prompt, one.seed)), value)
            for one in compared
            if (value := getattr(one, measure)) is not None
        ]
        if found:
            more = " A point is a video, a line joins one prompt and seed, the bar is the mean."
            charts.append(strips.chart(f"compared-{measure}", title, caption + more, found, called, title))
    return charts


def by_frame(groups: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float | None]]]]) -> Chart | None:
    """Likeness against frame index (the paper's figure 2a).

    Args:
        groups: name → for each video the frames that were looked at and their cosines; a frame without the face, or
            with a cosine below 0, counts 0, as in the reward.
    """
    curves = []
    for (name, videos), colour in zip(groups.items(), COLOURS.values(), strict=False):
        found: dict[int, list[float]] = {}
        for frames, cosines in videos:
            for frame, cosine in zip(frames, cosines, strict=True):
                found.setdefault(frame, []).append(max(0.0, cosine or 0.0))
        if found:
            curves.append(
                lines.Curve(name, [(float(frame), fmean(some)) for frame, some in sorted(found.items())], colour)
            )
    if not curves:
        return None
    return lines.chart(
        "likeness-by-frame",
        "Likeness along the video",
        "Mean cosine to the photos at each frame that the judge looked at (the paper's figure 2a). A falling line "
        "means that the person fades as the video goes on.",
        curves[:3],
        lines.Axis("Frame", "Likeness", zero=True, unit="frame"),
    )
