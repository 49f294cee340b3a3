"""Calls that are cancelled, timed out or left early leave no connection open."""

from __future__ import annotations

import asyncio
import signal
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

import httpx
import pytest
import trio

from ember.api import models
from ember.api.exceptions import ProviderAPIError
from tests.loopback import Received, Reply, serving
from tests.ways import (
    ALL,
    KEY,
    MODEL,
    WHOLE,
    acall,
    answering,
    astream,
    call,
    completion,
    stream,
)

# httpx leaves its generators to the garbage collector if a body ends early, and trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")
every_way = pytest.mark.parametrize("way", ALL.values(), ids=ALL)


@pytest.mark.parametrize("streamed", [False, True])
def test_cancelled_task_leaves_no_connection(streamed: bool) -> None:
    """A call whose task is cancelled closes its connection, and the next one works."""

    async def main() -> None:
        way = astream if streamed else acall
        task = asyncio.create_task(way(server.url, prompt="wait"))
        assert await asyncio.to_thread(asked.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.settles_at, 0)
        await way(server.url)
        assert server.open == 1

    asked = threading.Event()

    def answer(received: Received) -> Reply:
        if b"wait" not in received.body:
            return answering(received)
        asked.set()
        return Reply(delay=0.3)

    with serving(answer) as server:
        asyncio.run(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_cancel_scope_leaves_no_connection(streamed: bool) -> None:
    """A call in a cancelled scope of trio closes its connection, and the next one works."""

    async def main() -> None:
        way = astream if streamed else acall
        with trio.move_on_after(0.1) as scope:
            await way(server.url, prompt="wait")
        assert scope.cancelled_caught
        assert await trio.to_thread.run_sync(server.settles_at, 0)
        await way(server.url)
        assert server.open == 1

    def answer(received: Received) -> Reply:
        return Reply(delay=0.3) if b"wait" in received.body else answering(received)

    with serving(answer) as server:
        trio.run(main)


@pytest.mark.parametrize("proxied", [False, True])
def test_task_cancelled_twice_leaves_nothing_half_read(
    proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a call is cancelled again during its cleanup, the next call does not get its answer."""

    async def main(url: str) -> None:
        await acall(url)
        task = asyncio.create_task(acall(url, prompt="wait"))
        assert await asyncio.to_thread(begun.wait, 5)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await acall(url, timeout=5) == completion()["choices"][0]["message"]["content"]

    begun = threading.Event()

    def answer(received: Received) -> Reply:
        if b"wait" not in received.body:
            return answering(received)
        begun.set()
        return Reply(pieces=[WHOLE[:10], WHOLE[10:]], pause=0.4)

    with serving(answer) as server:
        url = server.url
        if proxied:
            monkeypatch.setenv("HTTP_PROXY", server.url)
            url = f"http://api{server.port}.invalid"
        asyncio.run(main(url))


@every_way
def test_timed_out_call_leaves_no_connection(way: Callable[..., str]) -> None:
    """A call that has timed out closes its connection at once."""
    with serving(lambda received: Reply(delay=0.3)) as server:
        with pytest.raises(ProviderAPIError, match="in time"):
            way(server.url, timeout={"read": 0.05})
        assert server.settles_at(0)


def test_failure_above_the_connection_leaves_it_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails before it is sent, as with a cassette, keeps the idle connection."""

    def fail(self: object, request: httpx.Request) -> NoReturn:
        raise httpx.ReadError("broken")

    async def afail(self: object, request: httpx.Request) -> NoReturn:
        fail(self, request)

    async def main() -> None:
        await acall(server.url)
        with monkeypatch.context() as patched, pytest.raises(ProviderAPIError):
            patched.setattr(httpx.AsyncHTTPTransport, "handle_async_request", afail)
            await acall(server.url)
        await acall(server.url)

    with serving(answering) as server:
        call(server.url)
        with monkeypatch.context() as patched, pytest.raises(ProviderAPIError):
            patched.setattr(httpx.HTTPTransport, "handle_request", fail)
            call(server.url)
        call(server.url)
        asyncio.run(main())
        assert (server.connections, len(server.received)) == (2, 4)


def test_stream_left_early_closes_its_connection() -> None:
    """Leaving a stream's block early closes the connection; reading it to its end keeps it."""
    with serving(answering) as server:
        with models.stream(MODEL, "Hi", base_url=f"{server.url}/v1") as answer:
            assert next(answer).text == "Once"
        assert server.settles_at(0)
        assert answer.text == answer.response.text == "Once"
        stream(server.url)
        assert server.open == 1


@pytest.mark.parametrize("run", ["asyncio", "trio"])
def test_awaited_stream_left_early_closes_its_connection(run: str) -> None:
    """The same for event loops, before the block ends."""

    async def main() -> None:
        async with models.astream(MODEL, "Hi", base_url=f"{server.url}/v1") as answer:
            async for chunk in answer:
                assert chunk.text == "Once"
                break
        assert server.settles_at(0)
        assert answer.text == answer.response.text == "Once"

    with serving(answering) as server:
        if run == "trio":
            trio.run(main)
        else:
            asyncio.run(main())


def test_abandoned_stream_leaves_no_connection() -> None:
    """A stream that is garbage-collected unclosed closes its connection, without a warning."""
    with serving(answering) as server:
        answer = models.stream(MODEL, "Hi", base_url=f"{server.url}/v1")
        assert next(answer).text == "Once"
        del answer
        assert server.settles_at(0)


def test_abandoned_awaited_stream_leaves_no_connection() -> None:
    """The same for asyncio, which closes it a moment later."""

    async def main() -> None:
        async for chunk in models.astream(MODEL, "Hi", base_url=f"{server.url}/v1"):
            assert chunk.text == "Once"
            break
        assert await asyncio.to_thread(server.settles_at, 0)

    with serving(answering) as server:
        asyncio.run(main())


def test_unread_stream_opens_nothing() -> None:
    """A stream that is never read sends nothing, and closing it gives an empty answer."""
    with serving(answering) as server:
        with models.stream(MODEL, "Hi", base_url=f"{server.url}/v1") as answer:
            pass
        assert answer.response.text == ""
        assert server.connections == 0


# --- keys in the frames of interrupted calls -----------------------------------------------------


class Interrupted(BaseException):
    """An interrupt like Ctrl-C: not an error of Ember's, so its frames are not cleared."""


def printed_values(error: BaseException) -> list[str]:
    """The variables of Ember's and httpx's frames, as pytest would print them."""
    frames = traceback.walk_tb(error.__traceback__)
    inside = [frame for frame, _ in frames if frame.f_code.co_filename != __file__]
    return [repr(value) for frame in inside for value in frame.f_locals.values()]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no such signal")
def test_an_interrupted_call_shows_no_key() -> None:
    """After Ctrl-C during a call, no variable of any frame shows the key."""

    def interrupt(*_: object) -> NoReturn:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with serving(lambda _: Reply(b"", delay=1)) as server, pytest.raises(Interrupted) as caught:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            call(server.url)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    values = printed_values(caught.value)
    assert any("memory at" in value for value in values)  # sent, and waiting for the answer
    assert not [value for value in values if KEY[3:] in value]


def test_a_cancelled_call_shows_no_key() -> None:
    """The same for a task that is cancelled."""
    errors: list[BaseException] = []

    async def calling(url: str) -> None:
        try:
            await models.acall(MODEL, "Hi", base_url=f"{url}/v1", api_key=KEY)
        except asyncio.CancelledError as error:
            errors.append(error)
            raise

    async def main(url: str) -> None:
        task = asyncio.create_task(calling(url))
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with serving(lambda _: Reply(b"", delay=1)) as server:
        asyncio.run(main(server.url))
    values = printed_values(errors[0])
    assert any("memory at" in value for value in values)
    assert not [value for value in values if KEY[3:] in value]
