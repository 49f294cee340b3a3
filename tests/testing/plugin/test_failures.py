"""The reported reason of a failure, if a miss was turned into another error."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
import tenacity
import trio

# Imported here, because each of the runs below unloads the modules that it imports first.
LOADED = (anyio, tenacity, trio)

Run = Callable[..., pytest.RunResult]

HEAD = """
import asyncio, contextlib, queue, threading, unittest
import anyio, httpx, pytest, tenacity, trio

pytestmark = pytest.mark.ember_replay
URL = "http://127.0.0.1:9/v1"

def ask():
    with httpx.Client(verify=False) as client:
        return client.post(URL, json={"q": 1})

async def ask_async():
    async with httpx.AsyncClient(verify=False) as client:
        return await client.post(URL, json={"q": 1})

"""

TURNED = {
    "answer that is missing": """
def test_one():
    answer = None
    with contextlib.suppress(BaseException):
        answer = ask()
    answer.choices
""",
    "raise from": """
def test_one():
    try:
        ask()
    except BaseException as error:
        raise RuntimeError("call failed") from error
""",
    "raise from None": """
def test_one():
    try:
        ask()
    except BaseException:
        raise RuntimeError("call failed") from None
""",
    "expected error": """
def test_one():
    with pytest.raises(RuntimeError):
        try:
            ask()
        except BaseException:
            raise RuntimeError("call failed") from None
""",
    "retries": """
@tenacity.retry(
    stop=tenacity.stop_after_attempt(3), retry=tenacity.retry_if_exception_type(BaseException)
)
def test_one():
    ask()
""",
    "pytest.fail": """
def test_one():
    with contextlib.suppress(BaseException):
        ask()
    pytest.fail("no answer")
""",
    "gathered": """
def test_one():
    async def main():
        await asyncio.gather(ask_async(), ask_async())
    asyncio.run(main())
""",
    "group of anyio": """
def test_one():
    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_async)
            tasks.start_soon(anyio.sleep, 30)
    anyio.run(main)
""",
    "group of trio": """
def test_one():
    async def main():
        async with trio.open_nursery() as tasks:
            tasks.start_soon(ask_async)
            tasks.start_soon(trio.sleep, 30)
    trio.run(main)
""",
    "portal, whose caller is cancelled": """
def test_one():
    from anyio.from_thread import start_blocking_portal
    with start_blocking_portal() as portal:
        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask_async)
        with contextlib.suppress(BaseException):
            portal.call(main)
        raise asyncio.CancelledError
""",
    "task that nobody awaits": """
def test_one():
    async def main():
        task = asyncio.create_task(ask_async())
        await asyncio.sleep(0.1)
    asyncio.run(main())
""",
    "queue that stays empty": """
def test_one():
    answers = queue.Queue()
    thread = threading.Thread(target=lambda: answers.put(ask()))
    thread.start()
    thread.join()
    answers.get_nowait()
""",
    "skip in a fixture": """
@pytest.fixture
def answer():
    with contextlib.suppress(BaseException):
        return ask()
    pytest.skip("no answer")

def test_one(answer):
    pass
""",
    "error in a fixture": """
@pytest.fixture
def answer():
    with contextlib.suppress(BaseException):
        ask()
    raise ValueError("no answer")

def test_one(answer):
    pass
""",
    "error in a teardown": """
@pytest.fixture
def answer():
    yield
    with contextlib.suppress(BaseException):
        ask()
    raise ValueError("no answer")

def test_one(answer):
    pass
""",
    "unittest": """
class TestOne(unittest.IsolatedAsyncioTestCase):
    async def test_one(self):
        await ask_async()
""",
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("how", TURNED)
def test_a_miss_is_the_headline(run: Run, how: str) -> None:
    """The miss comes first, also in the summary, with its line; the raised error follows."""
    result = run(HEAD + TURNED[how], "-W", "ignore")
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    lines = [line for line in result.outlines if line]
    title = next(i for i, line in enumerate(lines) if line.startswith("___"))
    assert lines[title + 1] == "no recording for POST http://127.0.0.1:9/v1"
    assert lines[title + 3].startswith("to record it: pytest --ember-record test_it.py::")
    assert lines[title + 4].startswith("test_it.py:")
    if pytest.version_tuple >= (9, 0):
        result.stdout.fnmatch_lines(["[FE][AR]*test_it.py::*test_one - no recording for POST*"])


def test_error_raised_after_a_miss_is_reported_below_it(run: Run) -> None:
    """A line names the error; a section shows where, unless it was raised from the miss."""
    result = run(HEAD + TURNED["answer that is missing"])
    result.stdout.fnmatch_lines(
        [
            "no recording for POST*",
            "then raised: AttributeError: 'NoneType' object has no attribute 'choices'",
            "*raised after the miss*",
            "test_it.py:*: in test_one",
        ]
    )
    result = run(HEAD + TURNED["raise from"])
    result.stdout.fnmatch_lines(["no recording*", "then raised: RuntimeError: call failed"])
    result.stdout.no_fnmatch_line("*raised after the miss*")


AFTER_ANOTHER = """
@pytest.fixture(scope="module")
async def shared():  # the runner of the tests lives as long as this
    yield 1

@pytest.fixture
async def answer():
    yield await ask_async()

@pytest.fixture
async def asks_at_its_end():
    yield
    await ask_async()

@pytest.fixture(scope="module")
async def shared_answer():
    return await ask_async()

@pytest.mark.anyio
async def test_miss(shared): await ask_async()
@pytest.mark.anyio
async def test_1(shared): assert shared == 1
@pytest.mark.anyio
async def test_group(shared):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask_async)
        tasks.start_soon(anyio.sleep, 30)
@pytest.mark.anyio
async def test_2(shared): await anyio.sleep(0)
@pytest.mark.anyio
async def test_fixture(shared, answer): pass
@pytest.mark.anyio
async def test_3(shared): await anyio.sleep(0)
@pytest.mark.anyio
async def test_teardown(shared, asks_at_its_end): pass
@pytest.mark.anyio
async def test_4(shared): await anyio.sleep(0)
@pytest.mark.anyio
async def test_shared(shared, shared_answer): pass
@pytest.mark.anyio
async def test_5(shared): await anyio.sleep(0)
@pytest.mark.anyio
async def test_cancelled(shared):
    with contextlib.suppress(BaseException):
        await ask_async()
    raise asyncio.CancelledError
@pytest.mark.anyio
async def test_6(shared): await anyio.sleep(0)

class TestMethods:
    @pytest.fixture
    async def own(self):
        self.answer = await ask_async()
    @pytest.mark.anyio
    async def test_own(self, own): pass
    @pytest.mark.anyio
    async def test_7(self, shared): await anyio.sleep(0)
"""


def test_miss_fails_no_other_async_test(run: Run) -> None:
    """On each backend, tests of anyio that share a runner with a missed one run as usual."""
    result = run(HEAD + AFTER_ANOTHER, "-p", "anyio", "-W", "ignore")
    # On each backend 8 pass, including one with a failing teardown, 3 fail, and 4 have a fixture
    # that fails.
    result.assert_outcomes(passed=16, failed=6, errors=8)
    text = result.stdout.str()
    assert text.count("to record it: pytest --ember-record") == 14


def test_async_fixture_behaves_as_without_a_marker(run: Run) -> None:
    """Its arguments, its `self` and its teardown are the same as without a marker."""
    module = (
        HEAD
        + """
class TestOne:
    over = []
    @pytest.fixture
    async def value(self, tmp_path):
        self.mine = tmp_path
        yield 7
        self.over.append(7)
    @pytest.mark.anyio
    async def test_one(self, value, tmp_path): assert (value, self.mine) == (7, tmp_path)
    def test_two(self): assert self.over[-1] == 7
"""
    )
    run(module, "-p", "anyio").assert_outcomes(passed=3)


def test_unanswered_async_fake_fails_no_other_test(run: Run) -> None:
    """An unanswered fake fails only its own test, in a run without a marked test."""
    module = (
        HEAD.replace("pytestmark", "_")
        + """
@pytest.fixture(scope="module")
async def shared(): yield 1
@pytest.mark.anyio
async def test_one(shared, fake_model): await ask_async()
@pytest.mark.anyio
async def test_two(shared): await anyio.sleep(0)
"""
    )
    run(module, "-p", "anyio").assert_outcomes(passed=2, failed=2)
