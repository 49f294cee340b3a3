"""`fake_model` answers the vendors' packages: sync, async, streamed, and with a 429."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from ember_testing import Answer, FakeModel, UnansweredCall, fake_model
from ember_testing.faults import cut, rate_limit

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the packages' own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # clients that are never closed
]


class Way(NamedTuple):
    """Calls of a vendor's package; each function returns the text of the answer."""

    model: str
    plain: Callable[[], str]
    awaited: Callable[[], Any]
    streamed: Callable[[], list[str]]
    awaited_stream: Callable[[], Any]
    refusal: Callable[[], type[Exception]]
    status: str


def _turn() -> list[Any]:
    return [{"role": "user", "content": "Where is the Louvre?"}]


def _openai() -> Way:
    openai = pytest.importorskip("openai")
    asked: dict[str, Any] = {"model": "gpt-4", "messages": _turn()}

    def client() -> Any:
        return openai.OpenAI(max_retries=0).chat.completions

    def awaited_client() -> Any:
        return openai.AsyncOpenAI(max_retries=0).chat.completions

    def text(chunk: Any) -> str:
        return (chunk.choices[0].delta.content or "") if chunk.choices else ""

    async def awaited() -> str:
        answer = await awaited_client().create(**asked)
        return str(answer.choices[0].message.content)

    async def awaited_stream() -> list[str]:
        stream = await awaited_client().create(**asked, stream=True)
        return [text(chunk) async for chunk in stream]

    return Way(
        "gpt-4",
        lambda: client().create(**asked).choices[0].message.content,
        awaited,
        lambda: [text(chunk) for chunk in client().create(**asked, stream=True)],
        awaited_stream,
        lambda: openai.RateLimitError,
        "status_code",
    )


def _anthropic() -> Way:
    anthropic = pytest.importorskip("anthropic")
    asked: dict[str, Any] = {"model": "claude-3-opus", "max_tokens": 9, "messages": _turn()}

    def client() -> Any:
        return anthropic.Anthropic(max_retries=0).messages

    def awaited_client() -> Any:
        return anthropic.AsyncAnthropic(max_retries=0).messages

    def streamed() -> list[str]:
        with client().stream(**asked) as stream:
            return [*stream.text_stream]

    async def awaited() -> str:
        return str((await awaited_client().create(**asked)).content[0].text)

    async def awaited_stream() -> list[str]:
        async with awaited_client().stream(**asked) as stream:
            return [text async for text in stream.text_stream]

    return Way(
        "claude-3-opus",
        lambda: client().create(**asked).content[0].text,
        awaited,
        streamed,
        awaited_stream,
        lambda: anthropic.RateLimitError,
        "status_code",
    )


def _google() -> Way:
    genai = pytest.importorskip("google.genai")
    asked: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "Where is the Louvre?"}
    clients: list[Any] = []  # a client closes its connections when garbage-collected

    def client() -> Any:
        clients.append(genai.Client())
        return clients[-1].models

    def awaited_client() -> Any:
        clients.append(genai.Client())  # uses aiohttp if it is installed
        return clients[-1].aio.models

    async def awaited() -> str:
        return str((await awaited_client().generate_content(**asked)).text)

    async def awaited_stream() -> list[str]:
        stream = await awaited_client().generate_content_stream(**asked)
        return [chunk.text or "" async for chunk in stream]

    return Way(
        "gemini-2.5-flash",
        lambda: client().generate_content(**asked).text,
        awaited,
        lambda: [chunk.text or "" for chunk in client().generate_content_stream(**asked)],
        awaited_stream,
        lambda: genai.errors.ClientError,
        "code",
    )


WAYS: dict[str, Callable[[], Way]] = {"openai": _openai, "anthropic": _anthropic, "google": _google}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    """Return the calls of one vendor's package."""
    return WAYS[request.param]()


def test_vendors_package_gets_faked_answers(way: Way, fake_model: FakeModel) -> None:
    """Sync, async and streamed calls are answered in order, with no key and no network."""
    fake_model(way.model, "one", "two", ["thr", "ee"], ["fo", "ur"])
    assert way.plain() == "one"
    assert asyncio.run(way.awaited()) == "two"
    assert [text for text in way.streamed() if text] == ["thr", "ee"]
    assert [text for text in asyncio.run(way.awaited_stream()) if text] == ["fo", "ur"]
    assert [call.prompt for call in fake_model.calls] == ["Where is the Louvre?"] * 4
    assert [call.stream for call in fake_model.calls] == [False, False, True, True]


def test_vendors_package_raises_its_own_rate_limit_error(way: Way, fake_model: FakeModel) -> None:
    """A 429 raises the package's own error, with its status; the next call is answered."""
    fake_model(way.model, rate_limit(retry_after=1), rate_limit(), "Paris")
    for call in (way.plain, lambda: asyncio.run(way.awaited())):
        with pytest.raises(way.refusal()) as refused:
            call()
        assert getattr(refused.value, way.status) == 429
    assert way.plain() == "Paris"


def test_vendors_package_raises_on_a_broken_stream(way: Way, fake_model: FakeModel) -> None:
    """A broken stream raises in the package instead of appearing complete."""
    fake_model(way.model, cut(after_chunks=2), cut(after_chunks=2))
    with pytest.raises(Exception, match=r"peer closed|Connection error|Response payload"):
        way.streamed()
    with pytest.raises(Exception, match=r"peer closed|Connection error|Response payload"):
        asyncio.run(way.awaited_stream())


def test_an_unanswered_call_is_not_swallowed(way: Way) -> None:
    """The package's retries and error handling do not swallow an unanswered call."""
    with pytest.raises(UnansweredCall, match="nothing is set up"), fake_model() as fake:
        fake("another-model", lambda call: Answer("x"))
        way.plain()
