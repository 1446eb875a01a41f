"""The plan of a run as people read it, and the question before a long one."""

from typing import TYPE_CHECKING, Any

from magicid_cli.cli.output import Table, Terminal
from magicid_cli.cli.progress import spoken

if TYPE_CHECKING:
    from magicid_cli.pipeline import StageState
    from magicid_cli.plan import Estimate

LONG_S = 1800.0


def blocks(
    estimate: "Estimate", stages: "list[StageState] | None" = None, *, at_most: bool = False
) -> list[str | Table]:
    """Stages with what each takes, then the totals; every figure says if it was measured or estimated.

    Args:
        estimate: what the stages to do take.
        stages: all stages, the cached ones too; by default those of the estimate.
        at_most: whether it may take less, also where the stages do not tell.
    """
    rows = {row["stage"]: row for row in estimate.as_rows()}
    if stages is None:
        cells = [(name, "todo", *_cost(row), row["note"]) for name, row in rows.items()]
    else:
        cells = [(one.name, one.state, *_cost(rows.get(one.name)), one.why) for one in stages]
    table = Table(("STAGE", "STATE", "TIME", "MEMORY", "FIGURES", "WHY" if stages else "WHAT"), cells)
    if not rows:
        return [table, "Nothing is left to do."]
    return [
        table,
        Table(
            ("IN ALL", "", "FIGURE"),
            _totals(estimate, at_most=at_most or estimate.at_most or _may_be_less(stages or [])),
        ),
        "\n".join(estimate.assumptions),
    ]


def _cost(row: dict[str, Any] | None) -> tuple[str, str, str]:
    return (row["time"], row["memory"], row["basis"]) if row else ("-", "-", "-")


def _may_be_less(stages: "list[StageState]") -> bool:
    """Whether a stage may turn out to be fresh: what the one before it makes again may be what it made before."""
    first = next((one for one in stages if one.state != "cached"), None)
    follow = any(one.why.startswith("follows ") for one in stages)
    return follow and first is not None and first.state == "todo" and first.why != "not begun"


def _totals(estimate: "Estimate", *, at_most: bool) -> list[tuple[str, str, str]]:
    from magicid_cli.cli.identity import gigabytes

    bases = {row.basis for row in estimate.rows}
    time_basis = "unknown" if estimate.seconds is None else "measured" if bases == {"measured"} else "estimated"
    machine = estimate.machine
    free = "in all" if machine.asked else "of one; none is here" if machine.assumed else "free"
    where = (
        f"GPU memory ({machine.gpu}, {machine.gpu_memory_gb:.0f} GB {free})"
        if machine.gpu
        else "memory of the model, on the CPU"
    )
    downloads = [(f"download {repo}", gigabytes(size * 1e9), "estimated") for repo, size in estimate.downloads.items()]
    return [
        ("time, at most" if at_most and estimate.seconds is not None else "time", spoken(estimate.seconds), time_basis),
        (where, gigabytes(estimate.memory_gb * 1e9), "estimated"),
        *_plans(estimate),
        (
            "disk" if machine.asked else f"disk ({machine.data_disk_gb:.0f} GB free)",
            gigabytes(estimate.data_gb * 1e9),
            "estimated",
        ),
        *(downloads or [("downloads", "none", "measured")]),
    ]


def _plans(estimate: "Estimate") -> list[tuple[str, str, str]]:
    """How the model is held on the GPU: the memory plan, for each stage if they differ, and what it locks elsewhere."""
    from magicid_cli.cli.identity import gigabytes

    plans = estimate.memory_plans
    if not plans:
        return []
    same = len(set(plans.values())) == 1
    names = next(iter(plans.values())) if same else ", ".join(f"{stage} {plan}" for stage, plan in plans.items())
    rows = [("memory plan", names, "chosen" if estimate.settings.model.memory_plan == "auto" else "set")]
    if estimate.attention:
        rows.append(("attention kernel", estimate.attention, "expected"))
    if estimate.pinned_gb:
        rows.append(("main memory for what leaves the GPU", gigabytes(estimate.pinned_gb * 1e9), "estimated"))
    return rows


def approve(terminal: Terminal, estimate: "Estimate", *, yes: bool) -> None:
    """On a terminal, ask before work of more than 30 minutes, or of unknown length.

    Raises:
        MagicIDError: `declined`.
    """
    long = bool(estimate.rows) and (estimate.seconds is None or estimate.seconds > LONG_S)
    if long and terminal.interactive:
        time = "for an unknown time" if estimate.seconds is None else f"for about {spoken(estimate.seconds)}"
        terminal.confirm(f"This runs {time}. Start?", yes=yes, declined="Nothing was started.")
