"""Ember sends to OpenAI and Azure what OpenAI's own SDK sends for the same call."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ember.api import models
from ember.exceptions import ModelProviderError
from ember.models.schemas import ToolCall
from ember_testing import Answer, FakeModel
from tests.corpus import Sent, sent

PNG = b"\x89PNG\r\n\x1a\n0000"
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**SCHEMA, "additionalProperties": False}
TOOL = {"name": "weather", "description": "The weather.", "parameters": SCHEMA}
USER = [{"role": "user", "content": "hi"}]


def sdk() -> Any:
    """OpenAI's SDK, which takes long to load: not when this file is collected."""
    return pytest.importorskip("openai", reason="OpenAI's SDK is a development dependency")


def by_sdk(method: str, client: Any = None, **arguments: Any) -> Sent:
    """What the SDK sends for a call of one of its methods."""
    httpx2 = pytest.importorskip("httpx2", reason="the SDK's HTTP library is not installed")
    requests: list[Any] = []

    def answer(request: Any) -> Any:
        requests.append(request)
        return httpx2.Response(200, json={})

    http_client = httpx2.Client(transport=httpx2.MockTransport(answer))
    make = client or sdk().OpenAI
    vendor_client = make(api_key="sk-of-a-test", http_client=http_client, max_retries=0)
    call = vendor_client.chat.completions if method == "chat" else vendor_client.responses
    call.create(**arguments)
    request = requests[0]
    return Sent(str(request.url), dict(request.headers), json.loads(request.content))


def same(ours: Sent, theirs: Sent) -> None:
    """Check that both send the same JSON to the same URL with the same key."""
    assert ours.body == theirs.body
    assert ours.url == theirs.url
    for header in ("authorization", "api-key", "content-type"):
        assert ours.headers.get(header) == theirs.headers.get(header)


CHAT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("gpt-4", {}, {}),
    ("gpt-4", {"max_tokens": 9}, {"max_completion_tokens": 9}),
    (
        "gpt-4o",
        {"temperature": 0.5, "top_p": 0.9, "stop": ["a"], "seed": 3, "n": 2, "logprobs": True},
        {"temperature": 0.5, "top_p": 0.9, "stop": ["a"], "seed": 3, "n": 2, "logprobs": True},
    ),
    ("gpt-5.5", {"reasoning_effort": "low", "verbosity": "low"},
     {"reasoning_effort": "low", "verbosity": "low"}),
    ("gpt-4o", {"tools": [TOOL]}, {"tools": [{"type": "function", "function": TOOL}]}),
    (
        "gpt-4o",
        {"tools": [{"type": "function", "function": {**TOOL, "strict": True}}],
         "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [{"type": "function",
                    "function": {**TOOL, "parameters": CLOSED, "strict": True}}],
         "tool_choice": "required", "parallel_tool_calls": False},
    ),
    (
        "gpt-4o",
        {"tools": [{"name": "weather", "input_schema": SCHEMA}], "tool_choice": "weather"},
        {"tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
         "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    ),
    ("gpt-4o", {"response_format": {"type": "json_object"}},
     {"response_format": {"type": "json_object"}}),
    (
        "gpt-4o",
        {"response_format": {**SCHEMA, "title": "A city"}},
        {"response_format": {"type": "json_schema", "json_schema": {
            "name": "A_city", "schema": {**SCHEMA, "title": "A city"}}}},
    ),
    (
        "gpt-4o",
        {"response_format": {"type": "json_schema",
                             "json_schema": {"name": "c", "schema": SCHEMA, "strict": True}}},
        {"response_format": {"type": "json_schema",
                             "json_schema": {"name": "c", "schema": CLOSED, "strict": True}}},
    ),
    ("gpt-4o", {"service_tier": "flex", "a_new_field": {"x": [1]}},
     {"service_tier": "flex", "extra_body": {"a_new_field": {"x": [1]}}}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "ours", "theirs"), CHAT)
def test_chat_parameters_are_sent_as_by_the_sdk(
    model: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """Each parameter of a chat completion is sent as the SDK sends it."""
    same(sent(model, "hi", **ours), by_sdk("chat", model=model, messages=USER, **theirs))


def test_streamed_chat_requests_usage() -> None:
    """A stream requests its usage, so that the counts are those of a plain answer."""
    theirs = by_sdk("chat", model="gpt-4", messages=USER, stream=True,
                    stream_options={"include_usage": True})  # fmt: skip
    same(sent("gpt-4", stream=True), theirs)


@pytest.mark.parametrize(
    ("model", "role"),
    [("gpt-4", "system"), ("gpt-4o", "system"), ("o3", "developer"), ("gpt-5.5", "developer"),
     ("gpt-6-luna", "developer"), ("gpt-6.1-sol", "developer")],
)  # fmt: skip
def test_system_message(model: str, role: str) -> None:
    """`system` is the first message, with the model's name for that role."""
    messages = [{"role": role, "content": "Be brief."}, *USER]
    same(sent(model, system="Be brief."), by_sdk("chat", model=model, messages=messages))


def test_conversation_with_tools() -> None:
    """A response's tool call and its result are sent back as OpenAI requires."""
    call = ToolCall("call_1", "weather", {"city": "Köln"})
    prompt = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": {"sky": "grey"}},
    ]
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function",
             "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "grey"}'},
    ]  # fmt: skip
    same(sent("gpt-4o", prompt), by_sdk("chat", model="gpt-4o", messages=messages))


class Picture:
    """The part of PIL's image interface that Ember uses."""

    mode = "RGB"

    def save(self, to: io.BytesIO, format: str) -> None:
        """Write the image."""
        assert format == "PNG"
        to.write(PNG)


@pytest.mark.parametrize("form", ["bytes", "path", "url", "data url", "PIL", "openai", "responses"])
def test_images_are_sent_in_every_form(form: str, tmp_path: Path) -> None:
    """An image in any form is sent as the part that OpenAI documents."""
    (tmp_path / "a.png").write_bytes(PNG)
    link = "https://example.com/a.png?size=1"
    image: Any = {
        "bytes": PNG,
        "path": tmp_path / "a.png",
        "url": link,
        "data url": DATA_URL,
        "PIL": Picture(),
        "openai": {"type": "image_url", "image_url": {"url": DATA_URL}},
        "responses": {"type": "input_image", "image_url": DATA_URL},
    }[form]
    url = link if form == "url" else DATA_URL
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": parts}]
    same(sent("gpt-4o", ["What?", image]), by_sdk("chat", model="gpt-4o", messages=messages))
    parts = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": url}]
    theirs = by_sdk("responses", model="gpt-4o", input=[{"role": "user", "content": parts}])
    same(sent("openai-responses/gpt-4o", ["What?", image]), theirs)


def test_pdf_and_audio_are_sent(tmp_path: Path) -> None:
    """A PDF is sent as a file with its name, audio with its format."""
    pdf, wav = b"%PDF-1.7", b"RIFF0000WAVEfmt "
    (tmp_path / "a.pdf").write_bytes(pdf)
    data = "data:application/pdf;base64," + base64.b64encode(pdf).decode()
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": data}}
    sound = {"data": base64.b64encode(wav).decode(), "format": "wav"}
    parts = [file, {"type": "input_audio", "input_audio": sound}]
    theirs = by_sdk("chat", model="gpt-audio", messages=[{"role": "user", "content": parts}])
    same(sent("gpt-audio", [tmp_path / "a.pdf", wav]), theirs)
    item = {"type": "input_file", "filename": "a.pdf", "file_data": data}
    theirs = by_sdk("responses", model="gpt-5.5", input=[{"role": "user", "content": [item]}])
    same(sent("openai-responses/gpt-5.5", [tmp_path / "a.pdf"]), theirs)
    item = {"type": "input_file", "file_url": "https://example.com/a.pdf"}
    theirs = by_sdk("responses", model="gpt-5.5", input=[{"role": "user", "content": [item]}])
    same(sent("openai-responses/gpt-5.5", ["https://example.com/a.pdf"]), theirs)


def test_pdf_url_and_other_audio_are_refused_on_chat() -> None:
    """A PDF's URL and audio in other formats are refused before anything is sent."""
    with pytest.raises(ModelProviderError, match="openai-responses/"):
        sent("gpt-4o", ["https://example.com/a.pdf"])
    with pytest.raises(ModelProviderError, match="wav or mp3"):
        sent("gpt-4o", [b"OggS0000"])
    with pytest.raises(ModelProviderError, match="sound"):
        sent("openai-responses/gpt-4o", [b"ID3 mp3"])


RESPONSES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"max_tokens": 20, "temperature": 0.5}, {"max_output_tokens": 20, "temperature": 0.5}),
    ({"system": "Be brief."}, {"instructions": "Be brief."}),
    ({"reasoning_effort": "max", "reasoning": {"summary": "auto"}},
     {"reasoning": {"effort": "max", "summary": "auto"}}),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}},
         "verbosity": "low"},
        {"text": {"format": {"type": "json_schema", "name": "c", "schema": SCHEMA},
                  "verbosity": "low"}},
    ),
    ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
    (
        {"tools": [TOOL, {"type": "web_search"}], "tool_choice": "weather"},
        {"tools": [{"type": "function", **TOOL, "strict": None}, {"type": "web_search"}],
         "tool_choice": {"type": "function", "name": "weather"}},
    ),
    ({"tools": [{**TOOL, "strict": True}], "tool_choice": "required"},
     {"tools": [{"type": "function", **TOOL, "parameters": CLOSED, "strict": True}],
      "tool_choice": "required"}),
    ({"store": False, "include": ["reasoning.encrypted_content"], "truncation": "auto"},
     {"store": False, "include": ["reasoning.encrypted_content"], "truncation": "auto"}),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), RESPONSES)
def test_responses_parameters_are_sent_as_by_the_sdk(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """Each parameter of the Responses API is sent as the SDK sends it."""
    expected = by_sdk("responses", model="gpt-5.5", input="hi", **theirs)
    same(sent("openai-responses/gpt-5.5", **ours), expected)


def test_model_of_the_responses_api_alone_needs_no_prefix() -> None:
    """Calls can be streamed; a model that only this API serves needs no prefix.

    If Ember chose the API, nothing is stored unless the caller requests it.
    """
    asked = {"model": "o3-pro", "input": "hi"}
    unstored = {"store": False, "include": ["reasoning.encrypted_content"]}
    same(sent("o3-pro", stream=True), by_sdk("responses", **asked, **unstored, stream=True))
    same(sent("openai/o3-pro"), by_sdk("responses", **asked, **unstored))
    same(sent("openai-responses/o3-pro"), by_sdk("responses", **asked))
    same(sent("o3-pro", store=True), by_sdk("responses", **asked, store=True))
    same(
        sent("o3-pro", previous_response_id="resp_1"),
        by_sdk("responses", **asked, previous_response_id="resp_1"),
    )


def test_responses_conversation_is_sent_as_items() -> None:
    """Turns, calls and results become items; an answer's items are sent back unchanged."""
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather",
         "arguments": "{}", "status": "completed"},
    ]  # fmt: skip
    prompt = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": items},
        {"role": "tool", "tool_call_id": "call_1", "content": "grey"},
        {"role": "assistant", "content": "Grey."},
        {"role": "user", "content": "Thanks"},
    ]
    expected = [
        {"role": "user", "content": "Weather?"},
        *items,
        {"type": "function_call_output", "call_id": "call_1", "output": "grey"},
        {"role": "assistant", "content": "Grey."},
        {"role": "user", "content": "Thanks"},
    ]
    theirs = by_sdk("responses", model="gpt-5.5", input=expected)
    same(sent("openai-responses/gpt-5.5", prompt), theirs)


@pytest.mark.parametrize(
    ("model", "arguments", "responses"),
    [
        ("gpt-6-luna", {"tools": [TOOL]}, True),
        ("gpt-6.1-sol", {"tools": [TOOL], "reasoning_effort": "low"}, True),
        ("openai/gpt-5.6-terra", {"tools": [TOOL]}, True),
        ("gpt-6-luna", {"tools": [TOOL], "base_url": "https://eu.api.openai.com/v1"}, True),
        ("gpt-6-luna", {"tools": [TOOL], "base_url": "https://x.test/v1"}, False),
        ("gpt-6-luna", {"tools": [TOOL], "reasoning_effort": "none"}, False),
        ("gpt-6-luna", {"reasoning_effort": "low"}, False),
        ("gpt-5.4", {"tools": [TOOL], "reasoning_effort": "low"}, True),
        ("gpt-5.4", {"tools": [TOOL]}, False),
        ("gpt-5", {"tools": [TOOL], "reasoning_effort": "low"}, False),
        ("gpt-4o", {"tools": [TOOL]}, False),
    ],
)
def test_reasoning_models_with_tools_use_the_responses_api(
    model: str, arguments: dict[str, Any], responses: bool
) -> None:
    """Models whose chat completions reject tools with reasoning use the Responses API."""
    for stream in (False, True):
        ours = sent(model, stream=stream, **arguments)
        assert ours.url.endswith("/responses" if responses else "/chat/completions")
        assert ("input" in ours.body) is responses


def test_a_tool_loop_over_the_responses_api(fake_model: FakeModel) -> None:
    """A reasoning model of OpenAI's calls its tool and gets the result, without a prefix."""
    call = ToolCall("call_1", "weather", {"city": "Ulm"})
    fake_model("gpt-6-luna", Answer("", tool_calls=[call]), "Grey.")
    turns: list[Any] = [{"role": "user", "content": "Weather in Ulm?"}]
    answer = models("gpt-6-luna", turns, tools=[TOOL])
    assert [*answer.tool_calls] == [call]
    turns += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": "grey"}]
    with models.stream("gpt-6-luna", turns, tools=[TOOL]) as stream:
        assert "".join(chunk.text for chunk in stream) == "Grey."
    items = fake_model.calls[1].body["input"]
    assert [item.get("type", item.get("role")) for item in items] == [
        "user",
        "function_call",
        "function_call_output",
    ]


@pytest.mark.parametrize("name", ["stop", "seed"])
def test_parameters_that_responses_lacks_are_refused(name: str) -> None:
    """`stop` and `seed` are refused, since the API would silently ignore them."""
    with pytest.raises(ModelProviderError, match=f"no {name}"):
        sent("openai-responses/gpt-5.5", **{name: 1})


def test_azure_with_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a version the dated API is called: deployment in the path, key in api-key."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com/")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")

    def azure(**arguments: Any) -> Any:
        return sdk().AzureOpenAI(azure_endpoint="https://r.openai.azure.com",
                                 api_version="2024-10-21", **arguments)  # fmt: skip

    theirs = by_sdk("chat", azure, model="my-gpt", messages=USER, max_completion_tokens=5)
    same(sent("azure/my-gpt", max_tokens=5), theirs)


def test_azure_without_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a version the v1 API is called, whatever form the endpoint has."""
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    for endpoint in ("https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/"):
        ours = sent("azure/my-gpt", base_url=endpoint)
        assert ours.url == "https://r.openai.azure.com/openai/v1/chat/completions"
        assert ours.headers["api-key"] == "sk-of-a-test"
        assert ours.body == {"model": "my-gpt", "messages": USER}


def test_azure_base_url_with_a_deployment_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base URL that names a deployment is used unchanged, with the configured version."""
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    base = "https://r.openai.azure.com/openai/deployments/d"
    assert sent("azure/m", base_url=base).url == f"{base}/chat/completions"
    for version in ("?api-version=2024-10-21", "/?api-version=2024-10-21"):
        ours = sent("azure/m", base_url=base + version)
        assert ours.url == f"{base}/chat/completions?api-version=2024-10-21"


def test_azure_token_is_a_bearer_and_mistral_keeps_its_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An Entra token is sent as a bearer; a Mistral deployment gets its own field."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "entra-token")
    ours = sent("azure/Mistral-large", api_key=None, max_tokens=7)
    assert ours.headers["authorization"] == "Bearer entra-token"
    assert "api-key" not in ours.headers
    assert ours.body["max_tokens"] == 7


def test_organisation_and_project_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ember reads the same variables for headers as the SDK."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    ours, theirs = sent("gpt-4"), by_sdk("chat", model="gpt-4", messages=USER)
    azure = sent("azure/my-gpt", base_url="https://r.openai.azure.com")
    for header in ("openai-organization", "openai-project"):
        assert ours.headers[header] == azure.headers[header] == theirs.headers[header]


def test_pydantic_model_is_sent_as_its_schema() -> None:
    """A pydantic model as response_format is sent as its schema with its name."""
    for name, sent_as in (("City", "City"), ("Box[City]", "Box_City_"), ("Größe", "Gr__e")):
        model = SimpleNamespace(model_json_schema=lambda: SCHEMA, __name__=name)
        body = sent("gpt-4o", response_format=model).body
        assert body["response_format"]["json_schema"] == {"name": sent_as, "schema": SCHEMA}
