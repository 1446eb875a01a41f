"""Evaluations as tables: metrics against methods for people, and CSV, Markdown, LaTeX and JSON for files."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from magicid_cli.evaluation.records import METRICS, Evaluation

PAPER = ("face_sim", "dynamic_degree", "consistency", "clip_t", "clip_i", "fvd")
"""The columns of the paper's table."""
_ROWS = ("face_sim", "face_found", "dynamic_degree", "dynamic_rate", "consistency", "clip_t", "clip_i")
_ROW_TITLES = tuple(METRICS[name].title.upper() for name in _ROWS)
_ARROWS = {"more": "↑", "less": "↓", "": ""}
_LATEX_ARROWS = {"more": r" $\uparrow$", "less": r" $\downarrow$", "": ""}
_ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_ESCAPES |= {char: "\\" + char for char in "&%$#_{}"}

_MARKS = {"<": "&lt;", **{char: "\\" + char for char in "\\|*_`"}}

Evaluations = Mapping[str, Evaluation]
"""What was evaluated, by its name in tables."""
Rows = list[tuple[str, ...]]


def by_metric(evaluations: Evaluations) -> tuple[tuple[str, ...], Rows]:
    """A header and a row for every metric: its mean and interval for every method, a dash where there is none."""
    header = ("METRIC", *evaluations)
    rows = [
        (title(name), *(_with_interval(evaluation, name) for evaluation in evaluations.values())) for name in METRICS
    ]
    return header, rows


def by_prompt(evaluation: Evaluation) -> tuple[tuple[str, ...], Rows]:
    """A header and a row for every prompt, which comes last because it is long."""
    rows = [
        (str(row["videos"]), *(number(row[name], name) for name in _ROWS), row["prompt"] or "(none is known)")
        for row in evaluation.prompts
    ]
    return ("VIDEOS", *_ROW_TITLES, "PROMPT"), rows


def by_video(evaluation: Evaluation) -> tuple[tuple[str, ...], Rows]:
    """A header and a row for every video."""
    rows = [(*(number(row[name], name) for name in _ROWS), str(row["video"])) for row in evaluation.videos]
    return (*_ROW_TITLES, "VIDEO"), rows


def title(name: str) -> str:
    """A metric's name with an arrow towards what is better."""
    metric = METRICS[name]
    return f"{metric.title} {_ARROWS[metric.better]}".strip()


def gaps(evaluation: Evaluation) -> list[str]:
    """What could not be measured, or not of all videos, and why."""
    return [f"{METRICS[name].title}: {figure.why}." for name, figure in evaluation.figures.items() if figure.why]


def judges(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Metrics that have one judge in common, and the judge."""
    found: dict[str, list[str]] = {}
    for name, made_by in evaluation.made_by.items():
        found.setdefault(made_by, []).append(METRICS[name].title)
    return [(", ".join(names), made_by) for made_by, names in found.items()]


def number(value: float | None, name: str) -> str:
    """A value with the metric's decimal places, or a dash."""
    return "-" if value is None else f"{value:.{METRICS[name].digits}f}"


def _with_interval(evaluation: Evaluation, name: str) -> str:
    figure = evaluation.figures[name]
    if figure.low is None:
        return number(figure.value, name)
    return f"{number(figure.value, name)} [{number(figure.low, name)}, {number(figure.high, name)}]"


# -------------------------------------------------------------------------------------------------------------- files


def as_json(evaluations: Evaluations) -> str:
    """Everything that was found."""
    whole = {name: evaluation.as_dict() for name, evaluation in evaluations.items()}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def as_csv(evaluations: Evaluations) -> str:
    """One row for each method's mean, its interval's ends, every prompt and every video; empty cells are gaps."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("method", "level", "video", "prompt", "fps", *METRICS))
    for method, evaluation in evaluations.items():
        for level, video, prompt, values in _levels(evaluation):
            cells = ["" if values.get(name) is None else repr(float(values[name])) for name in ("fps", *METRICS)]
            writer.writerow((_plain(method), level, _plain(video), _plain(prompt), *cells))
    return text.getvalue()


def _levels(evaluation: Evaluation) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    figures = evaluation.figures.items()
    yield "mean", "", "", {name: figure.value for name, figure in figures}
    yield "low", "", "", {name: figure.low for name, figure in figures}
    yield "high", "", "", {name: figure.high for name, figure in figures}
    for row in evaluation.prompts:
        yield "prompt", "", row["prompt"] or "", row
    for row in evaluation.videos:
        yield "video", row["video"], row["prompt"] or "", row


def _plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def as_markdown(evaluations: Evaluations) -> str:
    """The table, the gaps, who judged, and the prompts of each method."""
    header, rows = by_metric(evaluations)
    parts = [_markdown(("Metric", *header[1:]), rows), "Means over videos; in brackets, 95 % of the bootstrap draws."]
    for method, evaluation in evaluations.items():
        lines = [*evaluation.notes, *gaps(evaluation), *(f"{one.name}: {one.why}." for one in evaluation.set_aside)]
        judged = [f"{names}: {made_by}." for names, made_by in judges(evaluation)]
        parts += [
            f"## {_cell(method)}",
            *("\n".join(f"- {_cell(line)}" for line in part) for part in (lines, judged) if part),
        ]
        parts.append(_markdown(*by_prompt(evaluation)))
    return "\n\n".join(parts) + "\n"


def _markdown(header: Sequence[str], rows: Rows) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """A text on one line that Markdown takes as it is."""
    return " ".join("".join(_MARKS.get(char, char) for char in text).split())


def as_latex(evaluations: Evaluations) -> str:
    """The paper's table, a method a row; who judged and the gaps are comments. It needs the package booktabs."""
    lines = []
    for method, evaluation in evaluations.items():
        said = [f"{names}: {made_by}" for names, made_by in judges(evaluation)]
        lines += [f"% {_line(method)}: {_line(text)}" for text in (*said, *evaluation.notes, *gaps(evaluation))]
    columns = " & ".join(
        ["Method", *(_latex(METRICS[name].title) + _LATEX_ARROWS[METRICS[name].better] for name in PAPER)]
    )
    lines += [rf"\begin{{tabular}}{{l{'c' * len(PAPER)}}}", r"\toprule", rf"{columns} \\", r"\midrule"]
    for method, evaluation in evaluations.items():
        cells = [_latex(method), *(_latex_cell(evaluation, name) for name in PAPER)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_cell(evaluation: Evaluation, name: str) -> str:
    figure = evaluation.figures[name]
    if figure.value is None:
        return "--"
    shown = number(figure.value, name)
    if figure.low is None:
        return shown
    return rf"{shown} {{\scriptsize [{number(figure.low, name)}, {number(figure.high, name)}]}}"


def _latex(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in _line(text))


def _line(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


WRITERS: dict[str, Callable[[Evaluations], str]] = {
    ".csv": as_csv,
    ".json": as_json,
    ".md": as_markdown,
    ".tex": as_latex,
}
"""What writes a file, by its ending."""
