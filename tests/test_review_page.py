"""The review page in a real browser. Truth: the lines of `votes.jsonl` and what the server holds of the pairs."""

import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from judged import judged, reviewing, served
from magicid_cli import votes
from magicid_cli.events import Events
from magicid_cli.stages import select
from magicid_cli.workspace import Workspace, read_lines
from small_repository import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_MS = 30_000
PLAYING = """() => ["left", "right"].every((id) => {
  const video = document.getElementById(id);
  return !video.paused && video.currentTime > 0;
})"""


@pytest.fixture
def alice() -> Workspace:
    return judged()


@pytest.fixture
def page(chromium: "Browser") -> "Iterator[Page]":
    """A page that may not say a word on the console."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    # The server ends before the browser does; that the browser says so is no fault of the page.
    assert not [text for text in said if "ERR_CONNECTION_REFUSED" not in text]


def opened(page: "Page", url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#pair:not([hidden])")


def voted(page: "Page", number: int) -> None:
    page.wait_for_function("number => document.title.startsWith(`${number}/`)", arg=number)


def standing(workspace: Workspace) -> list[votes.Vote]:
    return list(votes.read(workspace).standing.values())


def test_a_person_votes_takes_back_and_goes_on_after_the_server_was_killed(alice: Workspace, page: "Page") -> None:
    with reviewing() as (url, process):
        opened(page, url)
        assert "<b>smiling</b> & waving" in page.inner_text("#prompt")  # as text, not as markup
        first = page.get_attribute("#left", "src")
        page.wait_for_function(PLAYING)
        for number, key in enumerate(("ArrowLeft", "ArrowRight", "=", "x"), 1):
            page.keyboard.press(key)
            voted(page, number)
        assert [vote.choice for vote in standing(alice)] == ["left", "right", "equal", "drop"]
        page.keyboard.press("u")
        voted(page, 3)
        page.keyboard.press("u")
        voted(page, 2)
        assert [vote.choice for vote in standing(alice)] == ["left", "right"]
        assert page.get_attribute("#left", "src") != first
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("#trouble:not([hidden])")
        assert "Your votes are saved; start it again: magicid review alice" in page.inner_text("#trouble")
    assert len(standing(alice)) == 2
    page.context.clear_cookies()
    with served(alice) as server:
        opened(page, server.url)
        voted(page, 2)
        page.keyboard.press("ArrowLeft")
        voted(page, 3)
        page.keyboard.press("u")
        voted(page, 2)
        page.keyboard.press("u")  # of the session before
        voted(page, 1)
    assert [vote.choice for vote in standing(alice)] == ["left"]


def test_all_pairs_to_the_end_by_the_keyboard_alone(alice: Workspace, page: "Page") -> None:
    total = len(read_lines(alice.pairs))
    with served(alice) as server:
        opened(page, server.url)
        for number in range(1, total + 1):
            page.keyboard.press("=")
            voted(page, number)
        page.wait_for_selector("#done:not([hidden])")
        assert f"All {total} selected pairs are judged" in page.inner_text("#done-text")
        page.keyboard.press("p")  # the last one, with what was said of it
        page.wait_for_selector("#pair:not([hidden])")
        assert "The scores prefer" in page.inner_text("#hint")
        assert "identity" in page.inner_text("#told-left")
    assert {vote.effect for vote in standing(alice)} == {"equal"}


def test_nothing_is_told_before_the_vote_and_both_videos_keep_step(alice: Workspace, page: "Page") -> None:
    with served(alice) as server:
        opened(page, server.url)
        page.wait_for_function(PLAYING)
        text = page.inner_text("body")
        assert page.inner_text("#told-left") == page.inner_text("#told-right") == ""
        assert not [word for word in ("static-", "tuned-", "identity 9", "prefer") if word in text]
        page.keyboard.press("Space")
        page.wait_for_function("() => document.getElementById('play').textContent === 'Play'")
        page.locator("#seek").fill("500")
        place = "() => ['left', 'right'].map((id) => document.getElementById(id))"
        page.wait_for_function(f"() => ({place})().every((video) => !video.seeking && video.currentTime > 0.2)")
        times = page.evaluate(f"() => ({place})().map((video) => [video.currentTime, video.paused])")
        assert times[0] == times[1] and times[0][1]
        page.keyboard.press("ArrowRight")  # the slider's own key, and no vote
        page.wait_for_function("() => document.getElementById('seek').value !== '500'")
        assert not standing(alice)


def test_two_tabs_and_a_closed_one(alice: Workspace, page: "Page", chromium: "Browser") -> None:
    with served(alice) as server:
        opened(page, server.url)
        other = page.context.new_page()
        opened(other, server.url)
        key = "() => document.getElementById('left').getAttribute('src')"
        assert other.evaluate(key) == page.evaluate(key)  # a page that is loaded again shows the same sides
        page.keyboard.press("ArrowLeft")
        voted(page, 1)
        other.keyboard.press("ArrowRight")
        voted(other, 1)
        other.close()
        page.keyboard.press("x")
        voted(page, 2)
    assert [vote.choice for vote in standing(alice)] == ["right", "drop"]
    assert len(read_lines(alice.votes)) == 3


def test_what_just_missed_is_offered_and_added(page: "Page") -> None:
    workspace = judged()
    workspace.update(settings={"values": {"pairs": {"count": 4, "held_out": 0}, "model": {"name": "tiny"}, "seed": 7}})
    select.run(workspace, settings(**{"pairs.count": 4, "pairs.held_out": 0}), Events())
    with served(workspace, missed=2) as server:
        opened(page, server.url)
        for number in range(1, 5):
            page.keyboard.press("ArrowLeft")
            voted(page, number)
        page.wait_for_selector("#done:not([hidden])")
        assert "2 more just missed selection" in page.inner_text("#done-text")
        page.click("#go-on")
        page.wait_for_selector("#pair:not([hidden])")
        assert "0 of 2 candidates that just missed" in page.inner_text("#count")
        page.keyboard.press("ArrowLeft")
        voted(page, 1)
    assert standing(workspace)[-1].effect in ("added", "added flipped")


def test_a_vote_on_what_had_just_missed_stays_one_where_fewer_are_offered() -> None:
    workspace = judged()
    workspace.update(settings={"values": {"pairs": {"count": 4, "held_out": 0}, "model": {"name": "tiny"}, "seed": 7}})
    select.run(workspace, settings(**{"pairs.count": 4, "pairs.held_out": 0}), Events())
    with served(workspace, missed=2) as server:
        missed = [one for one in server.sheet.shown.values() if not one.selected]
        assert server.sheet.vote(missed[0].key, missed[0].proposed)
    assert [vote.effect for vote in standing(workspace)] == ["added"]
    select.run(workspace, settings(**{"pairs.count": 4, "pairs.held_out": 0, "pairs.use_votes": True}), Events())
    with served(workspace, missed=0) as server:
        shown = server.sheet.shown[missed[0].key]
        assert (shown.selected, shown.proposed) == (False, missed[0].proposed)
        assert [one for one in server.sheet.shown.values() if not one.selected] == [shown]
        assert server.sheet.vote(shown.key, "right" if shown.proposed == "left" else "left")
    assert [vote.effect for vote in standing(workspace)] == ["added flipped"]


def test_a_foreign_page_in_the_same_browser_gets_nothing(alice: Workspace, chromium: "Browser") -> None:
    """Another origin knows even the address: it can neither read nor vote, nor show the page in a frame."""
    context = chromium.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    context.route("http://evil.example/", lambda route: route.fulfill(body="<h1>evil</h1>", content_type="text/html"))
    with served(alice) as server:
        url = server.url
        key = next(iter(page.request.get(url + "state").json()["pairs"]))["key"]
        page.goto("http://evil.example/")
        tried = page.evaluate(
            """async ([url, key]) => {
              const tries = [
                fetch(url + "state").then((answer) => answer.text()),
                fetch(url + "vote", {method: "POST", mode: "no-cors", body: JSON.stringify({key, choice: "drop"})})
                  .then((answer) => answer.type),
                new Promise((done) => {
                  const image = new Image();
                  image.onload = () => done("loaded"); image.onerror = () => done("failed"); image.src = url + "state";
                }),
              ];
              return Promise.all(tries.map((one) => one.catch(() => "failed")));
            }""",
            [url, key],
        )
        assert tried[0] == tried[2] == "failed"
        assert tried[1] in ("failed", "opaque")
        page.set_content(f'<iframe src="{url}"></iframe>')
        time.sleep(1)
        assert not [frame for frame in page.frames if frame.locator("#question").count()]
        wrong = page.goto(url[:-2] + "/")
        assert wrong is not None and wrong.status == 404
    assert not standing(alice)
    context.close()
