"""The page of `ember-cassettes html` in a real browser, headless Chromium."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import re
import shutil
import sys
import time
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import ember_testing
from ember_testing.cassettes.calls import calls_of
from ember_testing.cassettes.file import CassetteFile
from ember_testing.cli import main
from ember_testing.cli.html import Report
from tests.loopback import Received, Reply, serving

pytest.importorskip("selenium", reason="in the extra dev")
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
DRIVER = shutil.which("chromedriver")
# In continuous integration a missing browser is a failure, not a reason to skip.
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not (os.environ.get("CI") and sys.platform == "linux"),
    reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)",
)
_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1300,1000",
)  # fmt: skip
HOSTILE = (
    "</script><script>document.title = 'owned'</script>"
    "<img src='http://192.0.2.1/x' onerror=\"document.title = 'owned'\">"
    "<!-- ${document.title = 'owned'} \u2028 \x1b[31m &lt;b&gt; \ud800"
)
IMAGE = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


def answer(request: Received) -> Reply:
    """Answer as a chat model that echoes, streams on request, and refuses one question."""
    body = request.json()
    question = body["messages"][-1]["content"]
    headers = {"content-type": "application/json"}
    if question == "Too much":
        error = {"message": "Slow down, please.", "type": "requests", "code": "rate_limit_exceeded"}
        return Reply(json.dumps({"error": error}).encode(), status=429, headers=headers)
    if body.get("stream"):
        return Reply(
            pieces=[
                _event({"choices": [{"index": 0, "delta": {"content": word}}]})
                for word in ("One ", "two ", "three")
            ]
            + [_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})]
            + [b"data: [DONE]\n\n"],
            headers={"content-type": "text/event-stream"},
            pause=0.03,
        )
    reply_text = f"You said: {question}" if isinstance(question, str) else "I see."
    message: dict[str, Any] = {"role": "assistant", "content": reply_text}
    if question == "Weather?":
        function = {"name": "weather", "arguments": '{"town": "Oslo"}'}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Reply(
        json.dumps({"model": body["model"], "choices": [choice], "usage": usage}).encode(),
        headers=headers,
    )


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def ask(url: str, content: Any, model: str = "gpt-5.6-sol", **more: Any) -> None:
    """Make one call with a system prompt."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    with httpx.Client() as client:
        body = json.dumps({"model": model, "messages": messages, **more})
        client.post(f"{url}/v1/chat/completions", content=body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record cassettes of all kinds of calls: hostile, streamed, refused, with image and tool."""
    folder = tmp_path_factory.mktemp("cassettes")
    picture = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": IMAGE}},
    ]
    with serving(answer) as server:
        with ember_testing.cassette(folder / "a.sqlite", record="all", record_errors=True):
            ask(server.url, "What is the capital of France?")
            ask(server.url, HOSTILE, user=HOSTILE)
            ask(server.url, "Count to three", stream=True)
            ask(server.url, "Too much")
            ask(server.url, picture)
            ask(server.url, "Weather?", model="gpt-6-luna")
        with ember_testing.cassette(folder / "b.sqlite", record="all"):
            ask(server.url, "What is the capital of France?")
            ask(server.url, "What is the capital of Spain?", temperature=0.5)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    """Make the page of these cassettes with the command."""
    target = folder / "report.html"
    result = CliRunner().invoke(main, ["html", str(folder), "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}: 8 calls of 2 cassettes\n"
    return target


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[webdriver.Chrome]:
    """Start one browser for all tests of this file."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def show(browser: webdriver.Chrome) -> Generator[Callable[[Path, str], webdriver.Chrome]]:
    """Open a page and wait until it is ready; any console message fails the test."""

    def open_page(path: Path, fragment: str = "") -> webdriver.Chrome:
        browser.get("about:blank")  # a changed fragment alone would not reload the page
        browser.get(f"{path.as_uri()}{fragment}")
        WebDriverWait(browser, 60).until(
            lambda driver: driver.execute_script("return document.documentElement.dataset.ready")
        )
        return browser

    yield open_page
    assert browser.get_log("browser") == []


Show = Callable[..., webdriver.Chrome]


def text_of(browser: webdriver.Chrome, selector: str) -> str:
    """Return the visible text of an element."""
    return "\n".join(texts_of(browser, selector))


def texts_of(browser: webdriver.Chrome, selector: str) -> list[str]:
    """Return the visible text of these elements in one step: the page may change meanwhile."""
    script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def titles(browser: webdriver.Chrome) -> list[str]:
    """Return the entries of the list of calls."""
    return texts_of(browser, "#list b")


def until(browser: webdriver.Chrome, condition: Callable[[], object]) -> None:
    """Wait for the effect of a key or a click."""
    WebDriverWait(browser, 20).until(lambda _: condition())


def press(browser: webdriver.Chrome, *keys: str) -> None:
    """Send keys to the focused element."""
    webdriver.ActionChains(browser).send_keys(*keys).perform()


def test_a_call_reads_as_a_conversation(show: Show, report: Path) -> None:
    """The page shows each role's text, the answer, tokens, cost, cassette and call number."""
    browser = show(report, "#call=1")
    detail = text_of(browser, "#detail")
    for words in ("system\nBe brief.", "user\nWhat is the capital of France?",
                  "You said: What is the capital of France?", "1,000 + 500", "a.sqlite, call 1",
                  "unknown/gpt-5.6-sol"):  # fmt: skip
        assert words in detail
    assert "8" in text_of(browser, "#sums")
    models = texts_of(browser, "#models tbody th button")
    assert models == ["unknown/gpt-5.6-sol", "unknown/gpt-6-luna"]
    bar = browser.find_element(By.CSS_SELECTOR, "#models .bars .in")
    assert bar.size["width"] > 50


def test_hostile_text_stays_text(show: Show, report: Path) -> None:
    """Markup in a recording is shown as text; it runs nothing and loads nothing."""
    browser = show(report, "#call=2")
    text = text_of(browser, "#detail .turn.user pre")
    assert "</script><script>document.title = 'owned'</script>" in text
    assert "&lt;b&gt;" in text
    for summary in browser.find_elements(By.CSS_SELECTOR, "#detail summary"):
        summary.click()
    assert "onerror" in text_of(browser, "#detail")
    assert browser.title == "Recorded calls"
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return document.querySelectorAll('img, script').length") == 5
    policy = browser.execute_script("return document.querySelector('meta[http-equiv]').content")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_a_stream_is_shown_on_a_time_line(show: Show, report: Path) -> None:
    """Each chunk is a mark; a slider, moved by keyboard, shows the text received by then."""
    browser = show(report, "#call=3")
    marks = browser.find_elements(By.CSS_SELECTOR, ".timeline rect")
    assert len(marks) == 5
    places = [mark.location["x"] for mark in marks]
    assert places == sorted(places)
    assert places[1] > places[0]
    output = browser.find_element(By.CSS_SELECTOR, ".timeline pre")
    assert output.get_attribute("textContent") == "One two three"
    slider = browser.find_element(By.CSS_SELECTOR, ".timeline input")
    slider.send_keys(Keys.HOME)
    assert output.get_attribute("textContent") == "One "
    slider.send_keys(Keys.ARROW_RIGHT)
    assert output.get_attribute("textContent") == "One two "
    assert slider.get_attribute("aria-valuetext").startswith("Piece 2 of 5: after ")
    browser.find_element(By.CSS_SELECTOR, ".timeline summary").click()
    until(browser, lambda: "three" in text_of(browser, ".timeline table"))


def test_errors_images_and_tools_are_shown(show: Show, report: Path) -> None:
    """A refusal shows its body, an image loads without a network, a tool shows its arguments."""
    browser = show(report, "#call=4")
    assert "Slow down, please." in text_of(browser, "#detail")
    assert "429" in text_of(browser, "#detail .facts .bad")
    browser = show(report, "#call=5")
    image = browser.find_element(By.CSS_SELECTOR, "#detail img")
    assert browser.execute_script("return arguments[0].naturalWidth", image) == 1
    assert image.get_attribute("alt")
    browser = show(report, "#call=6")
    assert "calls the tool weather" in text_of(browser, "#detail")
    assert '"town": "Oslo"' in text_of(browser, "#detail .turn.assistant .code")


def test_search_and_filters_narrow_the_list(show: Show, report: Path) -> None:
    """A search requires every word, a filter selects kinds, and clearing shows all calls."""
    browser = show(report)
    assert len(titles(browser)) == 8
    press(browser, "/")
    press(browser, "capital SPAIN")
    until(browser, lambda: titles(browser) == ["What is the capital of Spain?"])
    assert text_of(browser, "#found").startswith("1 call, 1,500 tokens")
    press(browser, Keys.ESCAPE)
    until(browser, lambda: len(titles(browser)) == 8)
    for outcome, title in (("error", "Too much"), ("streamed", "Count to three"),
                           ("tools", "Weather?")):  # fmt: skip
        Select(browser.find_element(By.ID, "outcome")).select_by_value(outcome)
        until(browser, lambda title=title: titles(browser) == [title])
    browser.find_element(By.CSS_SELECTOR, "#filter [type=reset]").click()
    until(browser, lambda: len(titles(browser)) == 8)
    browser.find_element(By.XPATH, "//button[text()='unknown/gpt-6-luna']").click()
    until(browser, lambda: titles(browser) == ["Weather?"])
    press(browser, "/")
    press(browser, "nowhere")
    until(browser, lambda: text_of(browser, "#found") == "No call matches.")


def test_the_page_works_by_keyboard_alone(show: Show, report: Path) -> None:
    """Tab reaches the skip link; arrows move through the list, j and k through the calls."""
    browser = show(report)
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the calls"
    press(browser, Keys.ENTER)
    assert browser.switch_to.active_element.text == "Calls"
    browser.find_element(By.CSS_SELECTOR, "#list a").send_keys(Keys.ARROW_DOWN)
    press(browser, Keys.ARROW_DOWN, Keys.ENTER)
    until(browser, lambda: text_of(browser, "#detail h3") == "3. Count to three")
    press(browser, "j")
    until(browser, lambda: text_of(browser, "#detail h3") == "4. Too much")
    press(browser, "kk")
    until(browser, lambda: text_of(browser, "#detail h3").startswith("2. </script>"))
    until(browser, lambda: text_of(browser, "#announced").startswith("2. </script>"))
    press(browser, "d")
    assert browser.switch_to.active_element.get_attribute("id") == "detail"
    current = browser.find_element(By.CSS_SELECTOR, "#list a[aria-current]")
    assert current.get_attribute("href").endswith("#call=2")


def test_two_calls_are_compared_side_by_side(show: Show, report: Path) -> None:
    """Equal parts are folded, differences are marked word by word, facts are in a table."""
    browser = show(report, "#call=1")
    press(browser, "c")
    for _ in range(7):
        press(browser, "j")
    until(browser, lambda: text_of(browser, "#detail h3").startswith("8."))
    press(browser, "c")
    until(browser, lambda: "side by side" in text_of(browser, "#detail h3"))
    assert browser.current_url.endswith("#compare=1,8")
    removed, added = texts_of(browser, "del"), texts_of(browser, "ins")
    assert removed == ["France", "France"]
    assert added[0] == added[-1] == "Spain"
    assert '"temperature": 0.5' in " ".join(added)
    assert "1. system: the same" in text_of(browser, "#detail")
    rows = texts_of(browser, "tr.differs th")
    assert "cassette (differs)" in rows
    assert "model (differs)" not in rows


def test_the_same_request_in_another_recording_is_offered(show: Show, report: Path) -> None:
    """A call that was recorded twice links to a comparison of the two."""
    browser = show(report, "#call=1")
    browser.find_element(By.PARTIAL_LINK_TEXT, "b.sqlite, call 1").click()
    until(browser, lambda: "side by side" in text_of(browser, "#detail h3"))
    assert not browser.find_elements(By.CSS_SELECTOR, "ins, del")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("fragment", ["#call=3", "#compare=1,8"])
def test_both_themes_are_accessible(show: Show, report: Path, theme: str, fragment: str) -> None:
    """Axe reports no violation, contrast included, in the theme of the system or the reader."""
    pytest.importorskip("axe_core_python", reason="in the extra dev")
    from axe_core_python.selenium import Axe

    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser = show(report, fragment)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    color = "return getComputedStyle(document.body).backgroundColor"
    by_system = browser.execute_script(color)
    found = Axe().run(browser)["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    other = {"light": "dark", "dark": "light"}[theme]
    Select(browser.find_element(By.ID, "theme")).select_by_value(other)
    assert browser.execute_script(color) != by_system
    Select(browser.find_element(By.ID, "theme")).select_by_value("")
    assert browser.execute_script(color) == by_system


def test_page_of_five_thousand_calls_is_usable(
    show: Show, folder: Path, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    """A page of 5,000 calls opens, searches and pages in seconds."""
    report = Report()
    report.add_cassette(folder / "b.sqlite")
    with CassetteFile(folder / "b.sqlite") as file:
        call = calls_of(file)[0]
    assert isinstance(call.body, str)
    words = random.Random(5)
    for number in range(5000):
        text = f"Question-{number}. {words.randbytes(500).hex(' ', 3)}"
        body = call.body.replace("What is the capital of France?", text)
        report.add_call(replace(call, id=number, body=body, test=f"tests/test_a.py::test_{number}"))
    target = tmp_path / "large.html"
    started = time.perf_counter()
    report.write(target)
    report.close()
    written_at = time.perf_counter()
    browser = show(target)
    opened = time.perf_counter()
    assert text_of(browser, "#found").startswith("5,002 calls")
    assert len(titles(browser)) == 100
    press(browser, "/")
    press(browser, "question-4321.")
    until(browser, lambda: len(titles(browser)) == 1)
    searched = time.perf_counter()
    press(browser, Keys.ESCAPE)
    until(browser, lambda: len(titles(browser)) == 100)
    browser.find_element(By.ID, "after").click()
    assert titles(browser)[0].startswith("Question-98.")
    figures(
        f"page of 5,000 calls: {target.stat().st_size / 1e6:.1f} MB, made in "
        f"{written_at - started:.1f} "
        f"s, opened in {opened - written_at:.1f} s, searched in {searched - opened:.1f} s"
    )
    assert opened - written_at < 20
    assert searched - opened < 10


def test_a_damaged_cassette_is_reported_and_the_others_are_shown(
    folder: Path, tmp_path: Path
) -> None:
    """The command names the damaged file, still writes the page, and exits with 1."""
    shutil.copy(folder / "b.sqlite", tmp_path)
    (tmp_path / "broken.sqlite").write_bytes(b"SQLite format 3\0" + bytes(500))
    target = tmp_path / "report.html"
    result = CliRunner().invoke(main, ["html", str(tmp_path), "-o", str(target), "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["cassettes"], report["calls"]) == (2, 2)
    assert "broken.sqlite is damaged" in report["errors"][0]
    assert target.stat().st_size > 10_000


def test_memory_does_not_grow_with_the_page(folder: Path, tmp_path: Path) -> None:
    """Of 24 MB of text in 600 calls, less than 3 MB stay in memory; equal texts are stored once."""
    with CassetteFile(folder / "b.sqlite") as file:
        call = calls_of(file)[0]
    assert isinstance(call.body, str)
    with closing(Report()) as report:
        report.add_call(call)
        tracemalloc.start()
        for number in range(600):
            content = f"{number:05}" * 3900
            body = call.body.replace("What is the capital of France?", content)
            report.add_call(replace(call, id=number, body=body))
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        report.write(tmp_path / "report.html")
    assert grown < 3e6
    texts = data_of(tmp_path / "report.html", "texts")
    assert len(texts) == len(set(texts)) > 1200


def data_of(page: Path, name: str) -> list[Any]:
    """Return one of a page's compressed lists."""
    found = re.search(rf'id="data-{name}">([^<]*)<', page.read_text(encoding="utf-8"))
    assert found
    loaded: list[Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return loaded


def test_page_states_the_length_of_omitted_text(folder: Path, tmp_path: Path) -> None:
    """For a text that is too long, and for bytes that are not text, the page states the length."""
    with CassetteFile(folder / "a.sqlite") as file:
        call = calls_of(file)[0]
    with closing(Report()) as report:
        report.add_call(replace(call, response_body=b"\xff\0" * 10, request_headers=()))
        report.add_call(replace(call, body="x" * 30_000))
        report.write(tmp_path / "report.html")
    texts = data_of(tmp_path / "report.html", "texts")
    assert "20 bytes that are no text" in texts
    assert any(
        text.endswith("... (30,000 characters; `show` prints all of them)") for text in texts
    )
