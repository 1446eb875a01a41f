"""What was found about single videos → figures with intervals, rows, and what a reader must know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from magicid_cli.config import Settings
from magicid_cli.evaluation import frechet, statistics
from magicid_cli.evaluation.likeness import JUDGE, REWARD, Likeness
from magicid_cli.evaluation.measure import Measure
from magicid_cli.evaluation.motion import Motion
from magicid_cli.evaluation.records import METRICS, Evaluation, Figure, SetAside
from magicid_cli.models.catalog import video_model

if TYPE_CHECKING:
    from magicid_cli.evaluation.harness import Measured

_BY_VIDEO = [name for name in METRICS if name != "fvd"]
_GAPS = {
    "dynamic_degree": "no video has two frames 1/8 s apart",
    "dynamic_rate": "no video has two frames 1/8 s apart",
    "consistency": "no video has two frames",
    "consistency_eighth": "no video has two frames 1/8 s apart",
    "clip_t": "no prompt is known, or none asks for anything that can be seen",
}
_NO_FACE = "the person's face is in no frame"
_DETAILS = ("frames", "cosines", "relative", "halves", "camera", "subject", "pairs", "stride", "cut")


def evaluation(
    rows: "Sequence[Measured]",
    reference: "Sequence[Measured]",
    measures: Sequence[Measure],
    photos: Mapping[str, Any],
    aside: Sequence[SetAside],
    no_fvd: str,
    settings: Settings,
    about_reference: str = "",
) -> Evaluation:
    """The whole evaluation.

    Args:
        rows: the videos.
        reference: those of FVD's reference set.
        measures: who looked.
        photos: from `Likeness.about_photos`.
        aside: videos that could not be measured.
        no_fvd: why there is no FVD, if nobody measured features.
        settings: of the evaluation.
        about_reference: what is to be known of the reference set.
    """
    videos = [_video(row) for row in rows]
    figures = {name: _figure(name, videos) for name in _BY_VIDEO}
    figures["fvd"], fvd = _fvd(rows, reference, no_fvd)
    notes = [
        *_of_judges(measures, settings),
        *_of_photos(photos),
        *_of_videos(videos),
        *([f"Videos that could not be read, and count nowhere: {len(aside)}."] if aside else []),
        *_of_fvd(fvd, about_reference),
    ]
    return Evaluation(
        figures=figures,
        prompts=tuple(_prompts(videos)),
        videos=tuple(videos),
        made_by=_made_by(measures),
        set_aside=tuple(aside),
        notes=tuple(notes),
        fvd=fvd,
        photos=photos,
    )


def _video(row: "Measured") -> dict[str, Any]:
    found = {name: value for part in row.found.values() for name, value in part.items()}
    return {
        "video": row.item.name,
        "prompt": row.item.prompt,
        "content": row.content,
        "fps": found["fps"],
        **{name: found.get(name) for name in _BY_VIDEO},
        "details": {name: found[name] for name in _DETAILS if name in found},
    }


def _group(row: Mapping[str, Any]) -> str:
    """What videos of one prompt have in common; without a prompt a video stands alone."""
    return f"prompt {row['prompt']}" if row["prompt"] is not None else f"video {row['video']}"


def _figure(name: str, videos: Sequence[dict[str, Any]]) -> Figure:
    rows = [row for row in videos if row[name] is not None]
    if not rows:
        return Figure(None, 0, 0, why=_GAPS.get(name, _NO_FACE))
    values, groups = [row[name] for row in rows], [_group(row) for row in rows]
    low, high = statistics.interval(values, groups) or (None, None)
    missing = len(videos) - len(rows)
    return Figure(
        float(np.mean(values)),
        len(rows),
        len(set(groups)),
        low,
        high,
        why=f"{missing} of {len(videos)} videos have no value" if missing else "",
    )


def _prompts(videos: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means by prompt, in the order in which prompts come."""
    groups: dict[str | None, list[dict[str, Any]]] = {}
    for row in videos:
        groups.setdefault(row["prompt"], []).append(row)
    return [
        {"prompt": prompt, "videos": len(group), **{name: _mean(group, name) for name in _BY_VIDEO}}
        for prompt, group in groups.items()
    ]


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(values)) if values else None


def _made_by(measures: Sequence[Measure]) -> dict[str, str]:
    """Who made each metric, by its name."""
    names: dict[str, str] = {}
    for measure in measures:
        names |= dict.fromkeys(measure.metrics, measure.made_by)
        if isinstance(measure, Likeness):
            for metric in measure.metrics:
                which = REWARD if metric.startswith(REWARD) else JUDGE
                names[metric] = measure.describe(which)
    return {name: names[name] for name in METRICS if name in names}


def _fvd(rows: "Sequence[Measured]", reference: "Sequence[Measured]", why: str) -> tuple[Figure, dict[str, Any]]:
    if why:
        return Figure(None, 0, 0, why=why), {}
    sets = [[row.found["features"]["vector"] for row in part] for part in (rows, reference)]
    short = sum(vector is None for part in sets for vector in part)
    one, other = (np.array([vector for vector in part if vector is not None]) for part in sets)
    facts: dict[str, Any] = {"videos": len(one), "reference": len(other), "too_short": short}
    facts["in_both"] = len({row.content for row in rows} & {row.content for row in reference})
    rates = [sorted({row.found["features"]["fps"] for row in part}) for part in (rows, reference)]
    facts |= {"fps": rates[0], "reference_fps": rates[1]}
    if min(len(one), len(other)) < 2:
        what = f"{len(one)} videos and {len(other)} of the reference set have enough frames; 2 of each are needed"
        return Figure(None, 0, 0, why=what), facts
    facts |= {"dimensions": one.shape[1], "infinite": frechet.extrapolated(one, other)}
    prompts = len({_group(vars(row.item) | {"video": row.item.name}) for row in rows})
    return Figure(frechet.distance(one, other), len(one), prompts), facts


# -------------------------------------------------------------------------------------------------------------- notes


def _of_judges(measures: Sequence[Measure], settings: Settings) -> list[str]:
    model = video_model(settings.model.name)
    notes = []
    if model.evaluation_clip == "stand-in":
        notes.append(f"The judges of the model '{model.name}' are stand-ins: their numbers say nothing about a person.")
    if model.drawn:
        notes.append(
            f"The judges of the model '{model.name}' know its drawn world only. In the place of CLIP is the prompt "
            "scorer (CLIP-T: the probability of what is asked for), in that of I3D what it reads its answers from: "
            "these numbers compare with no others."
        )
    motion = next((measure for measure in measures if isinstance(measure, Motion)), None)
    if motion is not None and motion.flow != "raft":
        notes.append("VBench measures by RAFT: by DIS, the dynamic rate is not VBench's number.")
    return notes


def _of_photos(photos: Mapping[str, Any]) -> list[str]:
    notes = [f"{name} cannot be read: {why}." for name, why in photos["unreadable"].items()]
    faceless = photos["photos"] - photos["with_face"] - len(photos["unreadable"])
    if faceless:
        notes.append(f"Photos without a face, which count for CLIP-I only: {faceless} of {photos['photos']}.")
    return notes


def _of_videos(videos: Sequence[dict[str, Any]]) -> list[str]:
    notes = []
    known = [row for row in videos if row["prompt"] is not None]
    if 0 < len(known) < len(videos):
        notes.append(f"Videos without a prompt, and so without CLIP-T: {len(videos) - len(known)} of {len(videos)}.")
    cut = {row["prompt"] for row in known if row["details"].get("cut")}
    if cut:
        of = len({row["prompt"] for row in known})
        notes.append(f"CLIP reads 77 tokens: {len(cut)} of {of} prompts are longer, and their ends do not count.")
    groups = len({_group(row) for row in videos})
    if len(videos) == 1:
        notes.append("One video has no interval: nothing says how much another one would differ.")
    elif groups == 1:
        notes.append("All videos have one prompt: the intervals say nothing about other prompts.")
    return notes + _of_rates(sorted({row["fps"] for row in videos}))


def _of_rates(rates: Sequence[float]) -> list[str]:
    if len(rates) < 2:
        return []
    return [f"The videos' frame rates differ ({_rates(rates)} a second), and with them what T. Cons. compares."]


def beside(evaluations: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """The same for one table: a column of another frame rate than the first one's says so in its notes."""
    first = next(iter(evaluations.items()), None)
    if first is None:
        return {}
    name, rates = first[0], first[1].rates
    return {
        label: one if one.rates == rates else replace(one, notes=(*one.notes, _of_another_rate(one.rates, name, rates)))
        for label, one in evaluations.items()
    }


def _of_another_rate(rates: Sequence[float], first: str, others: Sequence[float]) -> str:
    eighth = METRICS["consistency_eighth"].title
    return (
        f"Frames a second: {_rates(rates)}; of {first}: {_rates(others)}. T. Cons. compares neighbouring frames, so "
        f"only {eighth} compares with that column; FVD's network sees so many frames, not so many seconds."
    )


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def _of_fvd(fvd: Mapping[str, Any], about_reference: str) -> list[str]:
    if "dimensions" not in fvd:
        return []
    notes = [
        f"FVD of {fvd['videos']} videos against {fvd['reference']} is too large by an amount that falls with their "
        "number: compare it only with FVDs of as many videos against the same set."
    ]
    notes += [about_reference] if about_reference else []
    if fvd["fps"] != fvd["reference_fps"]:
        own, other = (_rates(fvd[name]) for name in ("fps", "reference_fps"))
        notes.append(
            f"FVD's network sees so many frames: the videos have {own} a second, the reference set {other}, so it is "
            "shown other lengths of time."
        )
    infinite = fvd["infinite"]
    if infinite is None:
        notes.append(f"With {frechet.LEAST_TO_EXTRAPOLATE} videos in each set it is extrapolated to infinitely many.")
    else:
        notes.append(
            f"Extrapolated to infinitely many videos it is {infinite['value']:.2f} (a straight line in 1/N, root mean "
            f"square error {infinite['error']:.2g})."
        )
    said: dict[str, Callable[[int], str]] = {
        "too_short": lambda number: f"Videos too short for FVD: {number}.",
        "in_both": lambda number: f"Videos that are also in the reference set: {number}. FVD is too small.",
    }
    return notes + [text(fvd[name]) for name, text in said.items() if fvd[name]]
