"""A finished tiny identity with its report, and what its tests read from the page."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from magicid_cli.cli.identity import recorded_settings
from magicid_cli.pages import report, shell
from magicid_cli.workspace import Workspace, append_line, read_lines, write_json, write_lines

HOSTILE = '<script>window.hacked=1</script>"\'><img src=x onerror="window.hacked=2">\n</style>{{ 7*7 }}\u2028&amp;'


@dataclass
class Parsed(HTMLParser):
    """A page taken apart by Python's own parser, which knows nothing of how it was made."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = "" if tag == self._in else self._in

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif not self._in:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def parsed(page: str) -> Parsed:
    """Take a page apart."""
    found = Parsed()
    found.feed(page)
    found.close()
    return found


def page_of(workspace: Workspace, *, compared: Any = (), **options: Any) -> str:
    """The report's page; by default without the videos of a comparison."""
    settings = recorded_settings(workspace, {})
    return report.build(workspace, settings, compared, target=workspace.path / "report" / "report.html", **options).page


def written(workspace: Workspace, **options: Any) -> Path:
    """The report on disk, as a browser opens it."""
    path = workspace.path / "report" / "report.html"
    shell.write_private(path, page_of(workspace, **options))
    return path


def with_guards(workspace: Workspace, signs: dict[int, list[str]], chosen: int) -> None:
    """Let the guards have seen these signs; likeness and motion are invented."""
    rows = [{"step": 0, "key": "k", "likeness": 0.5, "motion": 2.0, "videos": []}]
    rows += [{"step": step, "key": "k", "likeness": 0.5, "motion": 1.0, "videos": []} for step in signs]
    write_lines(workspace.prefer / "looks.jsonl", rows)
    looks = [{"step": step, "signs": found} for step, found in signs.items()]
    why = f"the adapter of step {chosen}: it loses the least"
    write_json(workspace.prefer / "guards.json", {"step": chosen, "steps": 8, "why": why, "looks": looks})


def poison(workspace: Workspace) -> None:
    """Put hostile text wherever a user's text can come from."""
    videos = read_lines(workspace.repository / "videos.jsonl")
    write_lines(workspace.repository / "videos.jsonl", [{**row, "prompt": HOSTILE} for row in videos])
    photos = read_lines(workspace.references / "photos.jsonl")
    hostile = {"file": HOSTILE, "reason": HOSTILE, "advice": HOSTILE, "remarks": [HOSTILE]}
    bad = {**photos[-1], **hostile, "verdict": "blurred"}
    write_lines(workspace.references / "photos.jsonl", [*photos[:-1], bad])
    captions = read_lines(workspace.references / "captions.jsonl")
    write_lines(workspace.references / "captions.jsonl", [{**row, "caption": HOSTILE} for row in captions])
    pairs = read_lines(workspace.pairs)
    write_lines(workspace.pairs, [{**row, "why": HOSTILE, "prompt": HOSTILE} for row in pairs])
    append_line(workspace.set_aside, {"id": "x", "clip": HOSTILE, "why": HOSTILE})
    workspace.update(fallbacks=[HOSTILE])
    recorded = workspace.manifest()["settings"]
    recorded["values"]["repository"]["prompts_file"] = HOSTILE
    recorded["origins"]["repository.prompts_file"] = HOSTILE
    workspace.update(settings=recorded)
