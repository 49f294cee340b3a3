"""Real recorded traffic, played to Ember through the public door.

The folder that `EMBER_CORPUS` names holds exchanges with providers (`dev.jsonl.gz`) and what the
official SDKs read from them (`dev.ref.jsonl.gz`). Nothing of it is part of the project.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
import respx

from ember.api import models
from ember.exceptions import EmberError, ProviderAPIError
from ember.providers.servers import SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ember.models.schemas import ChatResponse

FOLDER = os.environ.get("EMBER_CORPUS", "")
# In continuous integration a missing corpus is a failure, not a reason to pass.
needs_corpus = pytest.mark.skipif(
    not FOLDER and not os.environ.get("CI"),
    reason="EMBER_CORPUS does not name the folder of recorded provider traffic",
)

Row = dict[str, Any]
# The recorders stored decoded bodies, so these no longer say what the body is.
_OF_THE_CONNECTION = {"content-encoding", "content-length", "transfer-encoding"}
_WIRE_PREFIXES = {
    "openai.responses": "openai-responses",
    "anthropic.messages": "anthropic",
    "google.generate": "google",
}


@lru_cache(maxsize=1)
def rows() -> dict[str, Row]:
    """All recorded exchanges by id."""
    with gzip.open(Path(FOLDER) / "dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        return {row["id"]: row for row in map(json.loads, lines)}


@lru_cache(maxsize=1)
def references() -> dict[str, Row]:
    """What the official SDKs read, by id."""
    with gzip.open(Path(FOLDER) / "dev.ref.jsonl.gz", "rt", encoding="utf-8") as lines:
        return {row["id"]: row for row in map(json.loads, lines)}


@lru_cache(maxsize=1)
def unparsed() -> list[str]:
    """The ids of the exchanges that the SDKs could not read."""
    text = (Path(FOLDER) / "dev.unparsed.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["id"] for line in text.splitlines()]


def target(row: Row) -> tuple[str, str]:
    """The model's name and the base URL with which a caller reaches what was recorded."""
    url = httpx.URL(row["url"])
    origin = f"{url.scheme}://{url.netloc.decode()}"
    asked = re.search(r'"model": ?"([^"]+)"', row["request_body"] or "")
    model = asked[1] if asked else "unnamed"
    if row["wire"] == "google.generate":
        base, _, rest = re.split(r"(/v1[a-z0-9]*/)", url.path, maxsplit=1)
        version = url.path[len(base) :].split("/")[1]
        return f"google/{rest.rpartition(':')[0]}", f"{origin}{base}/{version}"
    if row["wire"] == "anthropic.messages":
        return f"anthropic/{model}", origin + url.path.removesuffix("/v1/messages")
    if row["wire"] == "openai.responses":
        return f"openai-responses/{model}", origin + url.path.removesuffix("/responses")
    provider = row["provider"] if row["provider"] in SERVERS else "openai"
    if provider == "google":
        provider = "openai"  # its OpenAI-compatible endpoint
    query = f"?{url.query.decode()}" if url.query else ""
    return f"{provider}/{model}", origin + url.path.removesuffix("/chat/completions") + query


class Player:
    """Answers every request with what was recorded, whatever was asked."""

    def __init__(self, router: respx.MockRouter) -> None:
        self.response = httpx.Response(500)
        self.requests: list[httpx.Request] = []
        router.route().mock(side_effect=self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests[:] = [request]
        return self.response

    def load(self, row: Row, body: bytes | None = None) -> None:
        """Take a row's answer as the next one; `body` replaces its body."""
        headers = {
            name: value
            for name, value in row["response_headers"].items()
            if name.lower() not in _OF_THE_CONNECTION
        }
        content = row["response_body"].encode() if body is None else body
        self.response = httpx.Response(row["status"], headers=headers, content=content)

    def load_pieces(self, row: Row, pieces: list[bytes]) -> None:
        """Take a row's answer as the next one, its body arriving in these pieces."""
        self.load(row, b"")
        self.response = httpx.Response(
            row["status"], headers=self.response.headers, stream=_Pieces(pieces)
        )

    def ask(self, row: Row) -> ChatResponse | EmberError:
        """What Ember makes of the answer that was loaded."""
        model, base_url = target(row)
        return ask(model, row["stream"], base_url=base_url)

    def play(self, row: Row, body: bytes | None = None) -> ChatResponse | EmberError:
        """What Ember makes of a row: its response, or the error that it raises."""
        self.load(row, body)
        return self.ask(row)

    async def aplay(self, row: Row) -> ChatResponse | EmberError:
        """`play` by the awaited functions."""
        self.load(row)
        model, base_url = target(row)
        try:
            if not row["stream"]:
                return await models.acall(model, "hi", base_url=base_url, api_key="sk-of-a-test")
            stream = models.astream(model, "hi", base_url=base_url, api_key="sk-of-a-test")
            pieces = [chunk.text async for chunk in stream]
        except EmberError as error:
            return error
        assert "".join(pieces) == stream.response.text
        return stream.response


class Sent(NamedTuple):
    """A request as it left."""

    url: str
    headers: dict[str, str]
    body: Any


def sent(model: str, prompt: Any = "hi", stream: bool = False, **params: Any) -> Sent:
    """What Ember sends for a call; an argument that cannot be sent raises."""
    params.setdefault("api_key", "sk-of-a-test")
    with player() as played:
        try:
            if stream:
                list(models.stream(model, prompt, **params))
            else:
                models(model, prompt, **params)
        except ProviderAPIError:
            pass  # it was answered with a 500
        (request,) = played.requests
    return Sent(str(request.url), dict(request.headers), json.loads(request.content))


def ask(
    model: str, stream: bool = False, prompt: Any = "hi", **params: Any
) -> ChatResponse | EmberError:
    """Call a model by the public function: its response, or the error that it raises."""
    params.setdefault("api_key", "sk-of-a-test")
    try:
        if not stream:
            return models(model, prompt, **params)
        streamed = models.stream(model, prompt, **params)
        pieces = [chunk.text for chunk in streamed]
    except EmberError as error:
        return error
    assert "".join(pieces) == streamed.response.text
    return streamed.response


class _Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def __aiter__(self) -> Any:
        for piece in self._pieces:
            yield piece


@contextmanager
def player() -> Iterator[Player]:
    """A `Player`; one respx router serves all that it plays."""
    with respx.mock(using="httpx", assert_all_called=False) as router:
        loaded = Player(router)
        # respx keeps every call with its answer, which nobody here looks at.
        router.calls.append = lambda *args: None  # type: ignore[method-assign]  # keeps none
        yield loaded
