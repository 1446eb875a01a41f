"""The report in a real browser, against the files that it was made from: what no parser can tell."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from magicid_cli import comparison
from magicid_cli.cli.identity import recorded_settings
from magicid_cli.events import Events
from magicid_cli.pages.charts.lines import MOST_POINTS
from magicid_cli.workspace import Workspace, read_lines
from report_cases import poison, with_guards, written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.xdist_group("browser")
_SIZES = [(1280, 900), (390, 844)]


@pytest.fixture(scope="module")
def reported(finished_home: Path, chromium: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished tiny identity with a comparison, alarms and its report; never changed."""
    home = tmp_path_factory.mktemp("reported") / "home"
    shutil.copytree(finished_home, home)
    workspace = Workspace("alice", home)
    settings = recorded_settings(workspace, {})
    recorded = workspace.manifest()["settings"]
    recorded["values"]["prefer"]["watch_videos"] = 1
    workspace.update(settings=recorded)
    settings = recorded_settings(workspace, {})
    comparison.make(workspace, settings, Events())
    with_guards(workspace, {4: ["saturation"], 8: ["saturation"]}, chosen=4)
    written(workspace, compared=comparison.found(workspace, settings))
    return workspace


@pytest.fixture
def open_page(chromium: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Opens a file and fails the test, in the end, for anything the console said and any request but the file's own."""
    complaints: list[str] = []
    contexts = []

    def open_file(path: Path, *, size: tuple[int, int] = _SIZES[0], **options: Any) -> "Page":
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        page = context.new_page()
        own = path.as_uri()
        page.on("console", lambda said: complaints.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda asked: (
                None if asked.url == own or asked.url.startswith(("data:", "blob:")) else complaints.append(asked.url)
            ),
        )
        page.goto(own)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not complaints


def until(page: "Page", expression: str) -> None:
    """Wait for something to be true; Playwright's own way evaluates text in the page, which the policy forbids."""
    deadline = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def report_of(workspace: Workspace) -> Path:
    return workspace.path / "report" / "report.html"


def scored(workspace: Workspace) -> list[str]:
    """The videos that have all three scores."""
    found = [row["id"] for row in read_lines(workspace.scores)]
    return [name for name in dict.fromkeys(found) if found.count(name) == 3]


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_word_and_fits(
    reported: Workspace, open_page: Callable[..., "Page"], size: tuple[int, int], scheme: str
) -> None:
    page = open_page(report_of(reported), size=size, color_scheme=scheme)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    # A chart's text has the colour of the page's theme.
    ink = page.evaluate("getComputedStyle(document.body).color")
    title = page.locator("[data-chart=repository] .role-axis-title text").first
    assert title.evaluate("one => getComputedStyle(one).fill") == ink
    assert (ink == "rgb(27, 31, 39)") == (scheme == "light")


def test_charts_have_the_points_of_the_data(reported: Workspace, open_page: Callable[..., "Page"]) -> None:
    page = open_page(report_of(reported))

    def marks(chart: str) -> list[str]:
        found = page.locator(f"[data-chart='{chart}'] [data-mark][aria-label]")
        return [str(name) for name in found.evaluate_all("all => all.map(one => one.dataset.mark)")]

    assert sorted(name for name in marks("repository") if not name.startswith(("pair-", "front-"))) == sorted(
        scored(reported)
    )
    pairs = len(read_lines(reported.pairs))
    assert pairs and sum(name.startswith("pair-") for name in marks("repository")) == pairs
    compared = read_lines(reported.path / "comparison" / "videos.jsonl")
    assert len(marks("compared-likeness")) == len(marks("compared-motion")) == len(compared) == 3
    stage_1 = read_lines(reported.reconstruct / "metrics.jsonl")
    stage_2 = read_lines(reported.prefer / "metrics.jsonl")
    assert len(marks("stage-1-loss")) == min(MOST_POINTS, len(stage_1))
    held_out = sum("held_out_margin" in row for row in stage_2)
    assert len(marks("margin")) == len(stage_2) + held_out
    assert len(marks("errors")) == 2 * len(stage_2)
    assert [name for name in marks("gradient-factor") if name.startswith("mark:")] == [
        "mark:saturation:4",
        "mark:saturation:8",
    ]
    looks = read_lines(reported.prefer / "looks.jsonl")
    assert len([name for name in marks("watched-motion") if not name.startswith("mark:")]) == len(looks)


def test_the_keyboard_walks_every_point_and_opens_its_row(
    reported: Workspace, open_page: Callable[..., "Page"]
) -> None:
    page = open_page(report_of(reported))
    page.locator("#kind").focus()
    focused = "document.activeElement.dataset.mark"
    page.keyboard.press("Tab")
    seen = [page.evaluate(focused)]
    names = scored(reported)
    assert seen[0] in names
    for _ in range(200):
        page.keyboard.press("ArrowRight")
        name = page.evaluate(focused)
        if name == seen[0]:
            break
        seen.append(name)
    pairs = [f"pair-{number}" for number in range(len(read_lines(reported.pairs)))]
    # Frontiers that have no length, being of a single video, have no line to stand on.
    assert set(seen) - {"front-upper-all", "front-lower-all"} == {*names, *pairs}
    page.keyboard.press("Home")
    first = page.evaluate(focused)
    assert page.locator("#panel figcaption").first.text_content().startswith(first)  # type: ignore[union-attr]
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == first
    assert page.locator(f"[id='{first}']").is_visible()
    # One stop a chart: the next Tab leaves it.
    page.locator(f"[data-chart=repository] [data-mark='{first}']").focus()
    page.keyboard.press("Tab")
    assert page.evaluate(focused) is None


def test_filters_show_what_they_say(reported: Workspace, open_page: Callable[..., "Page"]) -> None:
    page = open_page(report_of(reported))
    rows = {row["id"]: row for row in read_lines(reported.repository / "videos.jsonl")}
    pairs = [(row["winner"]["id"], row["rejected"]["id"], row) for row in read_lines(reported.pairs)]

    def expected(keep: Callable[[dict[str, Any]], bool], kind: Callable[[dict[str, Any]], bool]) -> str:
        videos = [name for name in scored(reported) if keep(rows[name])]
        shown = [one for one in pairs if one[0] in videos and one[1] in videos and kind(one[2])]
        return f"{len(videos)} videos, {len(shown)} pairs"

    said = page.locator("#counted")
    assert said.text_content() == expected(lambda row: True, lambda pair: True)
    page.locator("#origins button[data-origin=static]").focus()
    page.keyboard.press("Space")
    assert said.text_content() == expected(lambda row: row["origin"] != "static", lambda pair: True)
    page.keyboard.press("Space")
    page.locator("#prompt").select_option("1")
    assert said.text_content() == expected(lambda row: row["prompt_id"] in (1, None), lambda pair: True)
    lines = page.locator("[data-chart=repository] [data-mark^=front-upper]:not(.off)")
    assert lines.evaluate_all("all => all.map(one => one.dataset.mark)") in (["front-upper-1"], [])
    page.locator("#kind").select_option("held-out")
    assert said.text_content() == expected(
        lambda row: row["prompt_id"] in (1, None), lambda pair: pair["split"] == "held-out"
    )


def test_previews_play_alone_together_and_beside_the_chart(
    reported: Workspace, open_page: Callable[..., "Page"]
) -> None:
    page = open_page(report_of(reported))
    moving = "one => !one.paused && one.readyState >= 2 && one.currentTime > 0"
    button = page.locator("button.play").first
    button.focus()
    page.keyboard.press("Enter")
    until(page, f"({moving})(document.querySelector('video.player'))")
    assert button.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Enter")
    assert page.locator("video.player").first.evaluate("one => one.paused")
    page.locator("#together").press("Enter")
    until(page, f"[...document.querySelectorAll('video.player')].every({moving})")
    assert page.locator("video.player").count() == 3
    page.locator("#together").press("Enter")
    assert page.locator("video.player").evaluate_all("all => all.every(one => one.paused)")
    moved = next(name for name in scored(reported) if name.startswith("tuned"))
    page.locator(f"[data-chart=repository] [data-mark='{moved}'][aria-label]").focus()
    until(page, f"({moving})(document.querySelector('#panel video'))")


def test_hostile_text_does_nothing(finished_home: Path, tmp_path: Path, open_page: Callable[..., "Page"]) -> None:
    home = tmp_path / "hostile"
    shutil.copytree(finished_home, home)
    workspace = Workspace("alice", home)
    poison(workspace)
    page = open_page(written(workspace))
    page.locator("[data-chart=repository] [data-mark^=pair-][aria-label]").first.focus()
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert "window.hacked" in (page.locator("#panel").text_content() or "")
    assert page.locator("#panel script").count() == 0


def test_in_print_nothing_is_left_that_only_works_on_a_screen(
    reported: Workspace, open_page: Callable[..., "Page"]
) -> None:
    page = open_page(report_of(reported), color_scheme="dark")
    page.emulate_media(media="print")
    for gone in ("#together", "#panel", "nav", "#prompt"):
        assert not page.locator(gone).first.is_visible(), gone
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 39)"
    assert page.locator("video.player").first.is_visible()
    assert page.locator("[data-chart=repository] svg").is_visible()


def test_every_control_and_picture_has_a_name(reported: Workspace, open_page: Callable[..., "Page"]) -> None:
    page = open_page(report_of(reported))
    tree = page.locator("body").aria_snapshot()
    nameless = re.findall(r"^\s*- (?:button|link|combobox|img|video|listitem link)\s*:?$", tree, re.MULTILINE)
    assert not nameless
    headings = page.locator("h1, h2, h3").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(headings, headings[1:], strict=False))
    assert page.evaluate("document.documentElement.lang") == "en"
