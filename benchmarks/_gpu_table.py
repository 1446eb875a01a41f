"""The table of `benchmarks.gpu`: every target beside what was predicted and measured, beside plain and the floor."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import _gpu_segment
from benchmarks._gpu_against import (
    LARGEST,
    SMALLEST,
    Rows,
    compiling_saves,
    hours,
    left_out,
    measured,
    mfu,
    peaks_off,
    seconds,
    segment_off,
)
from benchmarks._gpu_model import BASES, PLAIN, cap_of, option_of
from benchmarks._gpu_rows import DONE, NO_MEMORY, predictions
from benchmarks._gpu_steps import OPTIMIZER, SEGMENT
from magicid_cli.models.execution import Kernel
from magicid_cli.plan import costs
from magicid_cli.plan.known import TRAINING_KINDS
from magicid_cli.plan.machine import REFERENCE_GPU

# Seconds of a preference step by shape, and of a large video by its attention kernel; the rest is in words below.
TARGET_S = {"61x320x544": 4.3, "33x544x960": 9.6, "61x544x960": 25.4, "61x720x1280": 70.0}
VIDEO_S: dict[Kernel, float] = {"cudnn": 345, "flash-3": 300}
_VIDEO = "{:.0f} s (50 x a step + decoding)"
SAMPLING_STEPS, PEAK_GB = 50, 76.0
STEPS = ("sampling step", *TRAINING_KINDS)
UNMEASURED = "unmeasured"

Value = float | str | None


def _nothing(_: Rows) -> None:
    return None


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        what: is measured.
        target: in words.
        value: of it, from rows; None without them.
        form: of a number.
        met: whether a number meets the target; None where the target is no bound.
        plain: the same of plain diffusers, in seconds.
        floor: of the same work, in seconds.
        predicts: whether predicted rows say anything of it.
        kernel: of attention, whose predictions are meant.
        note: what stands beside a measured number.
    """

    what: str
    target: str
    value: Callable[[Rows], Value]
    form: str = "{:.2f} s"
    met: Callable[[float], bool] | None = None
    plain: Callable[[Rows], float | None] = _nothing
    floor: Callable[[Rows], float | None] = _nothing
    predicts: bool = True
    kernel: Kernel = "cudnn"
    note: Callable[[Rows], str] | None = None

    def line(self, rows: Rows, expected: Rows) -> dict[str, str]:
        """The line as it is printed.

        Args:
            rows: that were measured.
            expected: every row as it was predicted.
        """
        value = self.value(rows)
        met = "" if self.met is None or not isinstance(value, float) else "yes" if self.met(value) else "NO"
        return {
            "what": self.what,
            "target": self.target,
            "predicted": self._text(self.value(expected), "-") if self.predicts else "-",
            "measured": self._text(value, UNMEASURED) + (f" ({self.note(rows)})" if self.note and value else ""),
            "met": met,
            "plain": _seconds(self.plain(rows), self.plain(expected)),
            "floor": _seconds(self.floor(expected), None),
        }

    def _text(self, value: Value, otherwise: str) -> str:
        return otherwise if value is None else value if isinstance(value, str) else self.form.format(value)


def _seconds(value: float | None, predicted: float | None) -> str:
    if value is None:
        return "" if predicted is None else f"{predicted:.2f} s predicted"
    return f"{value:.2f} s"


def _at_most(most: float) -> Callable[[float], bool]:
    return lambda value: value <= most


def claims(rows: Rows, gpu: str) -> list[dict[str, str]]:
    """The whole table from rows of a GPU, which may be none: `unmeasured` stands where one is missing."""
    expected: dict[Kernel, Rows] = {kernel: predictions(kernel) for kernel in VIDEO_S}
    return [figure.line(rows, expected[figure.kernel]) for figure in _figures(gpu)]


def _figures(gpu: str) -> Iterator[Figure]:
    yield from _steps()
    yield from _peaks()
    yield from _videos()
    share = "share of peak, stage-1 step, " + LARGEST
    yield Figure(
        share, ">= 55 %", partial(mfu, shape=LARGEST, kind="stage-1 step", gpu=gpu), "{:.0%}", lambda got: got >= 0.55
    )
    yield from _whole(gpu)
    yield from _planned(gpu)
    yield from _options()


def _steps() -> Iterator[Figure]:
    for shape, most in TARGET_S.items():
        find = partial(seconds, shape=shape, kind="preference step")
        yield Figure(
            f"preference step {shape}",
            f"<= {most:g} s",
            find,
            met=_at_most(most),
            plain=partial(find, way=PLAIN),
            floor=partial(_floor, shape=shape),
        )
        target = ">= 1.6 where it fits"
        yield Figure(f"plain / ours {shape}", target, partial(_ratio, shape=shape), "{:.2f}", lambda got: got >= 1.6)


def _floor(rows: Rows, shape: str) -> float | None:
    return measured(rows, shape, "preference step").get("floor_s")


def _ratio(rows: Rows, shape: str) -> Value:
    """How many times as fast ours is as plain diffusers, or why there is no comparison."""
    ours, plain = (seconds(rows, shape, "preference step", way) for way in ("80gb", PLAIN))
    if ours and plain:
        return plain / ours
    states = [row["state"] for row in rows if (row["shape"], row["way"]) == (shape, PLAIN)]
    return f"plain: {states[0]}" if states and states[0] != DONE else None


def _peaks() -> Iterator[Figure]:
    for shape in TARGET_S:
        yield Figure(
            f"peak memory {shape}, plan 80gb",
            f"<= {PEAK_GB:g} GB",
            partial(_peak, way="80gb", shape=shape),
            "{:.1f} GB",
            _at_most(PEAK_GB),
        )
    for way in ("48gb", "24gb"):
        yield _capped(f"peak memory, plan {way}", way, "allocated_gb")
    # What torch keeps for later counts, too, where others want memory.
    for way in ("80gb", "48gb", "24gb"):
        yield _capped(f"reserved memory, plan {way}", way, "reserved_gb")


def _capped(what: str, way: str, which: str) -> Figure:
    most = cap_of(way) / costs.GB
    value = partial(_peak, way=way, which=which)
    return Figure(what, f"<= {most:.1f} GB", value, "{:.1f} GB", _at_most(most))


def _peak(rows: Rows, way: str, shape: str = "", which: str = "allocated_gb") -> Value:
    """The most of all rows in a way, at a shape if one is given; None before the row that takes the most."""
    there = [row for row in rows if row["way"] == way and row["shape"].startswith(shape)]
    lost = [row for row in there if row["state"] == NO_MEMORY]
    if lost:
        return f"out of memory: {lost[0]['row']} {lost[0]['shape']}"
    if not measured(rows, shape or LARGEST, "preference step", way):  # which takes the most
        return None
    return max((row[which] for row in there if row["state"] == DONE and row[which]), default=None)


def _videos() -> Iterator[Figure]:
    for shape in TARGET_S:
        if shape != LARGEST:
            yield Figure(f"50-step video {shape}", "", partial(_video, shape=shape), _VIDEO, floor=_video_floor(shape))
        for kernel, most in VIDEO_S.items() if shape == LARGEST else ():
            value = partial(_video, shape=shape, kernel=kernel)
            what, floor = f"50-step video {shape}, {kernel}", _video_floor(shape)
            yield Figure(what, f"<= {most} s", value, _VIDEO, _at_most(most), floor=floor, kernel=kernel)
        yield Figure(f"decoding's share of it {shape}", "", partial(_decoding, shape=shape), "{:.1%}")
    yield Figure(
        f"outside the transformer {SMALLEST}: prompts, decoding, writing",
        "< 8 %",
        _outside,
        "{:.1%}",
        lambda got: got < 0.08,
    )


def _video(rows: Rows, shape: str, kernel: str | None = None, which: str = "seconds") -> float | None:
    step, decode = measured(rows, shape, "sampling step", kernel=kernel), measured(rows, shape, "decode")
    return SAMPLING_STEPS * step[which] + decode[which] if step and decode else None


def _video_floor(shape: str) -> Callable[[Rows], float | None]:
    return partial(_video, shape=shape, which="floor_s")


def _decoding(rows: Rows, shape: str) -> float | None:
    whole, decode = _video(rows, shape), seconds(rows, shape, "decode")
    return decode / whole if whole and decode else None


def _outside(rows: Rows) -> float | None:
    parts = measured(rows, SMALLEST, SEGMENT).get("parts_s")
    return _gpu_segment.share_outside(parts) if parts else None


def _whole(gpu: str) -> Iterator[Figure]:
    for name in dict.fromkeys((gpu, REFERENCE_GPU)):
        yield Figure(
            f"default preset, whole pipeline, {name}",
            "<= 8 h",
            partial(hours, gpu=gpu, wanted=name),
            "{:.1f} h, planned from single steps" if name == gpu else "{:.1f} h, estimated from " + gpu,
            _at_most(8),
        )


def _planned(gpu: str) -> Iterator[Figure]:
    def within(most: float) -> dict[str, Any]:
        return {"form": "{:+.1%}", "met": lambda off: abs(off) <= most, "predicts": False}

    for kind in STEPS:
        for shape in TARGET_S:
            what = f"planned from the other shapes, {kind} {shape}"
            yield Figure(
                what,
                "within 15 %",
                partial(_left_out, gpu=gpu, kind=kind, shape=shape),
                **within(0.15),
            )
    segment = "plan against a segment of 20 steps + 2 videos"
    yield Figure(f"{segment}: time", "within 15 %", partial(segment_off, gpu=gpu), **within(0.15))
    key = f"{SMALLEST} {SEGMENT} 80gb"
    yield Figure(f"{segment}: peak", "within 10 %", lambda rows: peaks_off(rows).get(key), **within(0.10))
    yield Figure("plan against peak memory, worst row", "within 10 %", _worst_peak, note=_worst, **within(0.10))


def _left_out(rows: Rows, gpu: str, kind: str, shape: str) -> float | None:
    return left_out(rows, gpu, kind).get(shape)


def _worst(rows: Rows) -> str:
    missed = peaks_off(rows)
    return max(missed, key=lambda name: abs(missed[name]), default="")


def _worst_peak(rows: Rows) -> float | None:
    return peaks_off(rows).get(_worst(rows))


def _options() -> Iterator[Figure]:
    """What measuring decides: whether blocks are compiled by default, and in which numbers plan `24gb` is best."""
    step = "preference step"
    yield Figure(f"optimizer step by preference step {SMALLEST}", "negligible", partial(_share_of, kind=step), "{:.2%}")
    for kind in STEPS:
        yield Figure(
            f"compiled blocks save, default preset, {kind}",
            "",
            partial(compiling_saves, kind=kind),
            "{:+.2f} h, compiling counted",
        )
    yield Figure(
        "compiled blocks save, default preset, all", "> 0 h to be the default", _compiling, "{:+.2f} h", lambda h: h > 0
    )
    for kind in ("sampling step", step):
        for shape in (SMALLEST, LARGEST):
            best = partial(_best_base, shape=shape, kind=kind)
            yield Figure(f"base of plan 24gb, {kind} {shape}", "the fastest", best)


def _share_of(rows: Rows, kind: str) -> float | None:
    optimizer, step = seconds(rows, SMALLEST, OPTIMIZER), seconds(rows, SMALLEST, kind)
    return optimizer / step if optimizer and step else None


def _compiling(rows: Rows) -> float | None:
    saved = [compiling_saves(rows, kind) for kind in STEPS]
    return sum(one for one in saved if one is not None) if None not in saved else None


def _best_base(rows: Rows, shape: str, kind: str) -> str | None:
    """Every way of storing the base, fastest first, with what each took; None until all of them were tried."""
    tried = {way: row for row in rows for way in ("24gb", *BASES) if _is(row, shape, kind, way)}
    if len(tried) < 1 + len(BASES):
        return None
    order = sorted(tried, key=lambda way: seconds(rows, shape, kind, way) or float("inf"))
    return ", ".join(f"{option_of(way) or 'full'} {_took(rows, shape, kind, way, tried[way])}" for way in order)


def _is(row: Any, shape: str, kind: str, way: str) -> bool:
    return (row["shape"], row["row"], row["way"]) == (shape, kind, way) and row["state"] in (DONE, NO_MEMORY)


def _took(rows: Rows, shape: str, kind: str, way: str, row: Any) -> str:
    found = seconds(rows, shape, kind, way)
    return row["state"] if found is None else f"{found:.2f} s"
