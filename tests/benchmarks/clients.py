"""The clients that the benchmarks compare, each called as its own documentation shows.

What cannot be imported does not take part.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

PROMPT = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": PROMPT}]
BODY = {"model": "gpt-4", "messages": MESSAGES}
HEADERS = {"authorization": "Bearer sk-benchmark"}

Call = Callable[[], Any]
AsyncCall = Callable[[], Awaitable[Any]]


class Client(NamedTuple):
    """How a client is used.

    Args:
        package: What must be importable.
        load: A statement that imports it.
        ask: Statements that make a first call after that, with `URL` and `BODY` at hand.
        sync: Makes a function that makes one call.
        awaited: The same for an event loop.
        streamed: Makes a function that reads one streamed answer.
    """

    package: str
    load: str
    ask: str
    sync: Callable[[], Call] | None = None
    awaited: Callable[[], AsyncCall] | None = None
    streamed: Callable[[], Call] | None = None


def url() -> str:
    """Where the benchmark's server answers chat completions."""
    return os.environ["OPENAI_BASE_URL"] + "/chat/completions"


def _httpx() -> Call:
    import httpx

    client = httpx.Client(limits=httpx.Limits(max_connections=None), timeout=60)
    where = url()
    return lambda: client.post(where, headers=HEADERS, json=BODY).json()


def _httpx_async() -> AsyncCall:
    import httpx

    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60)
    where = url()

    async def call() -> Any:
        return (await client.post(where, headers=HEADERS, json=BODY)).json()

    return call


def _httpx_stream() -> Call:
    import httpx

    client = httpx.Client(timeout=60)
    where = url()
    body = BODY | {"stream": True, "stream_options": {"include_usage": True}}

    def call() -> str:
        text: list[str] = []
        rest = b""
        with client.stream("POST", where, headers=HEADERS, json=body) as response:
            for piece in response.iter_bytes():
                *events, rest = (rest + piece).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]" and (choices := json.loads(event[6:])["choices"]):
                        text.append(choices[0]["delta"].get("content", ""))
        return "".join(text)

    return call


def _ember() -> Call:
    from ember.api import models

    return lambda: models("gpt-4", PROMPT)


def _ember_async() -> AsyncCall:
    from ember.api import models

    return lambda: models.acall("gpt-4", PROMPT)


def _ember_stream() -> Call:
    from ember.api import models

    return lambda: "".join([chunk.text for chunk in models.stream("gpt-4", PROMPT)])


def _openai() -> Call:
    import openai

    client = openai.OpenAI()
    return lambda: client.chat.completions.create(model="gpt-4", messages=MESSAGES)


def _openai_async() -> AsyncCall:
    import openai

    client = openai.AsyncOpenAI()
    return lambda: client.chat.completions.create(model="gpt-4", messages=MESSAGES)


def _openai_stream() -> Call:
    import openai

    client = openai.OpenAI()

    def call() -> str:
        chunks = client.chat.completions.create(model="gpt-4", messages=MESSAGES, stream=True)
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

    return call


def _anthropic() -> Call:
    import anthropic

    client = anthropic.Anthropic()
    return lambda: client.messages.create(
        model="claude-3-opus-20240229", max_tokens=500, messages=MESSAGES
    )


def _anthropic_async() -> AsyncCall:
    import anthropic

    client = anthropic.AsyncAnthropic()
    return lambda: client.messages.create(
        model="claude-3-opus-20240229", max_tokens=500, messages=MESSAGES
    )


def _transport() -> Call:
    import httpx

    transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=None))
    request = httpx.Request("POST", url(), headers=HEADERS, json=BODY)
    return lambda: transport.handle_request(request).read()


def _transport_async() -> AsyncCall:
    import httpx

    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None))
    request = httpx.Request("POST", url(), headers=HEADERS, json=BODY)

    async def call() -> bytes:
        return await (await transport.handle_async_request(request)).aread()

    return call


def _llm() -> Call:
    from llm.default_plugins.openai_models import Chat

    model = Chat("gpt-4", model_name="gpt-4", api_base=os.environ["OPENAI_BASE_URL"])
    model.key = "sk-benchmark"
    return lambda: model.prompt(PROMPT, stream=False).text()


def _litellm() -> Call:
    import litellm

    return lambda: litellm.completion(model="gpt-4", messages=MESSAGES)


def _litellm_async() -> AsyncCall:
    import litellm

    return lambda: litellm.acompletion(model="gpt-4", messages=MESSAGES)


CLIENTS = {
    "ember": Client(
        "ember",
        "from ember.api import models",
        'models("gpt-4", BODY["messages"][0]["content"])',
        _ember,
        _ember_async,
        _ember_stream,
    ),
    "httpx": Client(
        "httpx",
        "import httpx",
        "httpx.Client().post(URL, headers=HEADERS, json=BODY).json()",
        _httpx,
        _httpx_async,
        _httpx_stream,
    ),
    # The least that httpx can do: a ready request, sent, and the body read.
    "transport": Client("httpx", "", "", _transport, _transport_async),
    "openai": Client(
        "openai",
        "import openai",
        "openai.OpenAI().chat.completions.create(**BODY)",
        _openai,
        _openai_async,
        _openai_stream,
    ),
    "anthropic": Client(
        "anthropic",
        "import anthropic",
        'anthropic.Anthropic().messages.create(model="claude-3-opus-20240229", max_tokens=500,'
        ' messages=BODY["messages"])',
        _anthropic,
        _anthropic_async,
    ),
    "litellm": Client(
        "litellm", "import litellm", "litellm.completion(**BODY)", _litellm, _litellm_async
    ),
    "llm": Client(
        "llm",
        "import llm; from llm.default_plugins.openai_models import Chat",
        'base = URL.removesuffix("/chat/completions")\n'
        'model = Chat("gpt-4", model_name="gpt-4", api_base=base)\n'
        'model.key = "sk-benchmark"\n'
        'model.prompt(BODY["messages"][0]["content"], stream=False).text()',
        _llm,
    ),
}
PEERS = [
    name
    for name, client in CLIENTS.items()
    if name not in ("ember", "httpx", "transport") and importlib.util.find_spec(client.package)
]
