"""The page of a study in a real browser, from the disk and without a network. Truth: the file that the rater saves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from album import drawn_photos
from judged import clip
from magicid_cli import video
from magicid_cli.events import Events
from magicid_cli.pages.study import QUESTIONS, Candidate, build, results, sets_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

METHODS = ("first", "second", "third")
SETS = 2


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two sets of three videos; its folder."""
    folder = tmp_path_factory.mktemp("studies")
    methods: dict[str, list[Candidate]] = {}
    for number, method in enumerate(METHODS):
        paths = [folder / method / f"{one}.mp4" for one in range(SETS)]
        for one, path in enumerate(paths):
            video.write_video(path, clip(3 * one + number), 8)
        methods[method] = [Candidate(path, f"A person & <i>a dog</i> {path.stem}") for path in paths]
    photos = drawn_photos(folder / "photos", 1)
    sets, _ = sets_of(methods)
    return build(sets, photos, folder / "study", Events(), title="Which <one>?", count=0, seed=5).folder


@pytest.fixture
def offline(chromium: "Browser") -> "Iterator[BrowserContext]":
    """A browser without a network, which may not say a word on the console."""
    context = chromium.new_context(offline=True, accept_downloads=True)
    context.set_default_timeout(30_000)
    said: list[str] = []

    def watch(page: "Page") -> None:
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))

    context.on("page", watch)
    yield context
    context.close()
    assert not said


def opened(context: "BrowserContext", study: Path) -> "Page":
    page = context.new_page()
    page.goto((study / "index.html").as_uri())
    return page


def saved(page: "Page", folder: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.click("#save")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def owners(study: Path) -> dict[str, str]:
    key = json.loads(study.with_name("study.key.json").read_text())
    return {name: told["method"] for one in key["sets"] for name, told in one["videos"].items()}


def choose(page: "Page", question: int, method: str, study: Path) -> None:
    """Answer with the letter under which the rater sees the method's video."""
    files = page.eval_on_selector_all("#stage video", "all => all.map((one) => one.getAttribute('src'))")
    names = [owners(study)[file.removeprefix("media/")] for file in files]
    assert sorted(names) == sorted(METHODS)
    page.keyboard.press("abc"[names.index(method)])
    page.wait_for_selector(f"#{QUESTIONS[question].id}.answered")


def test_a_rater_completes_it_by_keyboard_and_the_file_is_read_back(
    offline: "BrowserContext", study: Path, tmp_path: Path
) -> None:
    page = opened(offline, study)
    assert page.inner_text("h1") == "Which <one>?"
    page.fill("#rater", "Rater 7")
    page.click("#start")
    assert "& <i>a dog</i>" in page.inner_text("#prompt")
    page.wait_for_function("() => [...document.querySelectorAll('video')].every((one) => one.currentTime > 0)")
    assert page.eval_on_selector("#photos img", "one => one.complete && one.naturalWidth > 0")
    page.keyboard.press("Enter")  # nothing is answered yet: it stays
    assert page.inner_text("#title") == "Set 1 of 2"
    for _ in range(SETS):
        for question, method in enumerate(("first", "second", "third")):
            choose(page, question, method, study)
        page.keyboard.press("=")
        page.keyboard.press("u")
        page.keyboard.press("=")
        page.wait_for_selector("#overall.answered")
        page.keyboard.press("Enter")
    page.wait_for_selector("#end:not([hidden])")
    data = saved(page, tmp_path)
    assert data["rater"]["name"] == "Rater 7"
    assert len(data["answers"]) == SETS * len(QUESTIONS)
    outcome = results([study.with_name("study.key.json"), *tmp_path.glob("answers-*.json")])
    won = {(rate.question, rate.method): rate.rate for rate in outcome.rates}
    assert [won["identity", "first"], won["dynamics", "second"], won["text", "third"]] == [1.0, 1.0, 1.0]
    assert [won["overall", method] for method in METHODS] == pytest.approx([1 / 3] * 3)
    assert (outcome.raters, outcome.sets) == (1, SETS)


def test_a_rater_who_comes_back_goes_on(offline: "BrowserContext", study: Path, tmp_path: Path) -> None:
    page = opened(offline, study)
    page.click("#start")
    for question in range(len(QUESTIONS)):
        choose(page, question, "second", study)
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('title').textContent === 'Set 2 of 2'")
    order = page.eval_on_selector_all("#stage video", "all => all.map((one) => one.getAttribute('src'))")
    page.close()
    page = opened(offline, study)
    assert page.inner_text("#start") == "Go on"
    page.click("#start")
    assert page.inner_text("#title") == "Set 2 of 2"
    assert order == page.eval_on_selector_all("#stage video", "all => all.map((one) => one.getAttribute('src'))")
    page.click("#back")
    checked = page.eval_on_selector_all("input:checked", "all => all.map((one) => one.value)")
    assert {owners(study)[name] for name in checked} == {"second"} and len(checked) == len(QUESTIONS)


def test_two_people_in_one_browser_are_two_raters(offline: "BrowserContext", study: Path, tmp_path: Path) -> None:
    page = opened(offline, study)
    rated = []
    for rater, method in (("Ann", "first"), ("Bo", "second")):
        assert page.inner_text("#start") == "Start"
        page.fill("#rater", rater)
        page.click("#start")
        for _ in range(SETS):
            for question in range(len(QUESTIONS)):
                choose(page, question, method, study)
            page.keyboard.press("Enter")
        page.wait_for_selector("#end:not([hidden])")
        rated.append(saved(page, tmp_path))
        page.click("#other")
        page.wait_for_selector("#intro:not([hidden])")
        assert page.input_value("#rater") == ""
    assert [one["rater"]["name"] for one in rated] == ["Ann", "Bo"]
    assert rated[0]["rater"]["id"] != rated[1]["rater"]["id"]
    outcome = results([study.with_name("study.key.json"), *tmp_path.glob("answers-*.json")])
    overall = {rate.method: rate.rate for rate in outcome.rates if rate.question == "overall"}
    assert (outcome.raters, overall) == (2, {"first": 0.5, "second": 0.5, "third": 0.0})
    # Who comes back finds their own answers, and the browser remembers who was here last.
    page.fill("#rater", "Ann")
    assert page.inner_text("#start") == "Go on"
    page.close()
    page = opened(offline, study)
    assert page.input_value("#rater") == "Bo"


def test_a_rater_may_use_the_mouse_and_change_an_answer(offline: "BrowserContext", study: Path, tmp_path: Path) -> None:
    page = opened(offline, study)
    page.click("#start")
    for _ in range(SETS):
        for question in QUESTIONS:
            page.locator(f"#{question.id} label").nth(0).click()
            page.locator(f"#{question.id} label").last.click()
        page.click("#next")
    data = saved(page, tmp_path)
    assert {answer["choice"] for answer in data["answers"]} == {"none"}
    assert len(data["answers"]) == SETS * len(QUESTIONS)


def test_the_page_asks_the_network_for_nothing(chromium: "Browser", study: Path) -> None:
    context = chromium.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((study / "index.html").as_uri())
    page.click("#start")
    page.wait_for_function("() => [...document.querySelectorAll('video')].every((one) => one.readyState > 2)")
    assert asked and all(url.startswith(("file://", "data:", "blob:")) for url in asked)
    context.close()
