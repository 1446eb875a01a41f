"""Both trainings: curves, what the guards saw, and the alarms where they fired."""

from collections.abc import Mapping, Sequence
from typing import Any

from magicid_cli.pages.charts import Chart, lines
from magicid_cli.pages.charts.lines import Axis, Curve, Mark
from magicid_cli.workspace import Workspace, read_json, read_lines

ALARMS = {
    "displacement": "the winners' error rises with the rejected videos' while the margin still falls",
    "saturation": "the pairs are learnt, and nothing is being taught any more",
    "motion-lost": "motion of the watched videos fell far below stage 1's",
    "likeness-lost": "likeness of the watched videos fell far below stage 1's",
    "over-fitting": "the held-out margin rose while the training margin fell",
}
"""The signs of harm that guards know, in words."""

Rows = Sequence[Mapping[str, Any]]


def section(workspace: Workspace, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The charts of both stages, and what to say of the alarms."""
    wanted = manifest.get("settings", {}).get("values", {}).get("prefer", {}).get("steps", 1)
    stage_1 = read_lines(workspace.reconstruct / "metrics.jsonl")
    # Without stage 2 what lies there belongs to an earlier run.
    stage_2 = read_lines(workspace.prefer / "metrics.jsonl") if wanted else []
    looks = read_lines(workspace.prefer / "looks.jsonl") if wanted else []
    path = workspace.prefer / "guards.json"
    guards = read_json(path) if wanted and path.is_file() else None
    charts = [*_first(stage_1), *_second(stage_2, guards), *_watched(looks, guards)]
    fired = [(look["step"], rule) for look in (guards or {}).get("looks", []) for rule in look["signs"]]
    return {
        "charts": charts,
        "stage_1": len(stage_1),
        "stage_2": len(stage_2),
        "wanted": wanted,
        "guards": guards,
        "alarms": [{"step": step, "rule": rule, "means": ALARMS.get(rule, "")} for step, rule in fired],
    }


def _curve(name: str, rows: Rows, key: str) -> Curve:
    return Curve(name, [(float(row["step"]), float(row[key])) for row in rows if row.get(key) is not None])


def _first(rows: Rows) -> list[Chart]:
    if not rows:
        return []
    return [
        lines.chart(
            "stage-1-loss",
            "Stage 1: loss",
            "Mean squared error of the denoiser on the static clips. It is noisy, because every step draws its own "
            "noise level; the bold line is the mean of equal parts.",
            [_curve("loss", rows, "loss")],
            Axis("Step", "Loss"),
        )
    ]


def _second(rows: Rows, guards: Mapping[str, Any] | None) -> list[Chart]:
    if not rows:
        return []
    step = Axis("Step", "Margin")
    return [
        chart
        for chart in (
            _chart(
                "margin",
                "Stage 2: margin",
                "How much more the policy improves on the preferred video than on the other one, against the "
                "reference: the lower, the better the pairs are learnt. Held-out pairs are never trained on; where "
                "their line turns up, the policy over-fits.",
                [_curve("training pairs", rows, "margin"), _curve("held-out pairs", rows, "held_out_margin")],
                step,
                _alarms(guards, "over-fitting"),
                0.0,
            ),
            _chart(
                "implicit-accuracy",
                "Stage 2: implicit accuracy",
                "Share of pairs in which the policy, against the reference, prefers the winner.",
                [
                    _curve("training pairs", rows, "implicit_accuracy"),
                    _curve("held-out pairs", rows, "held_out_accuracy"),
                ],
                Axis("Step", "Share of pairs", zero=True),
            ),
            _chart(
                "gradient-factor",
                "Stage 2: gradient factor",
                "How strongly a pair still pulls: 0.5 at the start, near 0 when it is learnt.",
                [_curve("gradient factor", rows, "gradient_factor")],
                Axis("Step", "Gradient factor", zero=True),
                _alarms(guards, "saturation"),
            ),
            _chart(
                "errors",
                "Stage 2: errors against the reference",
                "The policy's error minus the reference's. The winners' should fall below 0 and the rejected videos' "
                "rise; both rising means that the policy only pushes away.",
                [_curve("winner", rows, "winner_shift"), _curve("rejected", rows, "rejected_shift")],
                Axis("Step", "Change of the error"),
                _alarms(guards, "displacement"),
                0.0,
            ),
        )
        if chart is not None
    ]


def _watched(looks: Rows, guards: Mapping[str, Any] | None) -> list[Chart]:
    if not looks:
        return []
    said = (
        "Mean over the watched videos, the same prompts and seeds at every look (the paper's figure 2b). Step 0 is the "
        "model that stage 2 started from, whose value is the dashed line."
    )
    found = []
    for key, title in (("likeness", "Likeness"), ("motion", "Motion")):
        chart = _chart(
            f"watched-{key}",
            f"{title} of the watched videos",
            said,
            [_curve(title.lower(), looks, key)],
            Axis("Step of stage 2", title, zero=True),
            [*_alarms(guards, f"{key}-lost"), *_choice(guards)],
            looks[0][key],
        )
        found += [chart] if chart else []
    return found


def _chart(
    id: str,
    title: str,
    caption: str,
    curves: Sequence[Curve],
    axis: Axis,
    marks: Sequence[Mark] = (),
    level: float | None = None,
) -> Chart | None:
    known = [curve for curve in curves if curve.points]
    return lines.chart(id, title, caption, known, axis, marks, level) if known else None


def _alarms(guards: Mapping[str, Any] | None, rule: str) -> list[Mark]:
    """Where an alarm fired, and where it ended the training."""
    if guards is None:
        return []
    steps = [look["step"] for look in guards["looks"] if rule in look["signs"]]
    return [Mark(step, rule, f"alarm at step {step}, {rule}: {ALARMS.get(rule, rule)}") for step in steps]


def _choice(guards: Mapping[str, Any] | None) -> list[Mark]:
    if guards is None:
        return []
    step = guards["step"]
    return [Mark(step, "chosen", f"step {step} was chosen: {guards['why']}", alarm=False)]
