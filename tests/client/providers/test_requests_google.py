"""Ember sends to Google what Google's own SDK sends for the same call."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from ember.exceptions import ModelProviderError
from tests.corpus import Sent, sent

PNG = b"\x89PNG\r\n\x1a\n0000"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "description": "The weather.", "parameters": SCHEMA}
DECLARATIONS = {"function_declarations": [
    {"name": "weather", "description": "The weather.", "parameters_json_schema": SCHEMA}
]}  # fmt: skip
MODEL = "gemini-3.8-flash"


def sdk() -> Any:
    """Google's SDK, which takes long to load: not when this file is collected."""
    return pytest.importorskip("google.genai", reason="Google's SDK is a development dependency")


def by_sdk(contents: Any = "hi", stream: bool = False, model: str = MODEL, **config: Any) -> Sent:
    """What the SDK sends for `generate_content`."""
    genai = sdk()
    httpx2 = pytest.importorskip("httpx2", reason="the SDK's HTTP library is not installed")
    requests: list[Any] = []

    def answer(request: Any) -> Any:
        requests.append(request)
        return httpx2.Response(200, json={})

    http_client = httpx2.Client(transport=httpx2.MockTransport(answer))
    # Its default is v1, Ember's is v1beta: only that serves previews.
    options = genai.types.HttpOptions(httpx_client=http_client, api_version="v1beta")
    client = genai.Client(api_key="sk-of-a-test", http_options=options)
    settings = genai.types.GenerateContentConfig(**config)
    if stream:
        list(client.models.generate_content_stream(model=model, contents=contents, config=settings))
    else:
        client.models.generate_content(model=model, contents=contents, config=settings)
    request = requests[0]
    return Sent(str(request.url), dict(request.headers), json.loads(request.content))


def camel(value: Any) -> Any:
    """JSON with the names that Google documents; it accepts those with underscores as well."""
    if isinstance(value, dict):
        return {re.sub("_([a-z])", lambda m: m[1].upper(), k): camel(v) for k, v in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


def same(ours: Sent, theirs: Sent) -> None:
    """Check that both send the same JSON to the same URL with the same key."""
    theirs = theirs._replace(body=camel(theirs.body))
    # Without meaning: the system's role, an empty object, the order of the kinds of tools.
    theirs.body.get("systemInstruction", {}).pop("role", None)
    if not theirs.body["generationConfig"]:
        del theirs.body["generationConfig"]
    for body in (ours.body, theirs.body):
        body.get("tools", []).sort(key=str)
    assert ours.body == theirs.body
    assert ours.url == theirs.url
    assert ours.headers["x-goog-api-key"] == theirs.headers["x-goog-api-key"]


PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"system": "Be brief."}, {"system_instruction": "Be brief."}),
    (
        {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "max_tokens": 20, "stop": "END", "seed": 3,
         "n": 2, "presence_penalty": 0.1, "frequency_penalty": 0.2},
        {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "max_output_tokens": 20,
         "stop_sequences": ["END"], "seed": 3, "candidate_count": 2, "presence_penalty": 0.1,
         "frequency_penalty": 0.2},
    ),
    ({"response_format": {"type": "json_object"}}, {"response_mime_type": "application/json"}),
    ({"response_format": {"type": "text"}}, {}),
    ({"response_format": SCHEMA},
     {"response_mime_type": "application/json", "response_json_schema": SCHEMA}),
    ({"reasoning_effort": "low"}, {"thinking_config": {"thinking_level": "LOW"}}),
    ({"tools": [TOOL]}, {"tools": [DECLARATIONS]}),
    (
        {"tools": [TOOL, {"googleSearch": {}}], "tool_choice": "weather"},
        {"tools": [DECLARATIONS, {"google_search": {}}],
         "tool_config": {"function_calling_config": {
             "mode": "ANY", "allowed_function_names": ["weather"]}}},
    ),
    ({"tools": [TOOL], "tool_choice": "none"},
     {"tools": [DECLARATIONS],
      "tool_config": {"function_calling_config": {"mode": "NONE"}}}),
    ({"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
      "mediaResolution": "MEDIA_RESOLUTION_LOW"},
     {"safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
      "media_resolution": "MEDIA_RESOLUTION_LOW"}),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), PARAMETERS)
def test_parameters_are_sent_as_by_the_sdk(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Each parameter is sent as the SDK sends it."""
    same(sent(MODEL, **ours), by_sdk(**theirs))


def test_thinking_effort_is_a_budget_or_a_level() -> None:
    """Gemini 2.5 gets a number of tokens, later models get a level."""
    ours = sent("gemini-2.5-flash", reasoning_effort="none")
    theirs = by_sdk(model="gemini-2.5-flash", thinking_config={"thinking_budget": 0})
    same(ours, theirs)
    with pytest.raises(ModelProviderError, match="'extreme'"):
        sent("gemini-2.5-flash", reasoning_effort="extreme")


def test_thinking_config_and_effort_are_merged() -> None:
    """Both are merged in either order, and the caller's dict is not modified."""
    given = {"includeThoughts": True}
    for arguments in (
        {"thinkingConfig": given, "reasoning_effort": "low"},
        {"reasoning_effort": "low", "thinkingConfig": given},
    ):
        config = sent(MODEL, **arguments).body["generationConfig"]
        assert config == {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "LOW"}}
    assert given == {"includeThoughts": True}


def test_declarations_in_googles_format_are_sent_unchanged() -> None:
    """Tools in Google's own form are sent unchanged, whatever the spelling of their keys."""
    declaration = {"name": "f", "parameters": {"type": "OBJECT"}}
    snake = {"function_declarations": [{"name": "f", "parameters_json_schema": SCHEMA}]}
    for tool in ({"functionDeclarations": [declaration], "googleSearch": {}}, snake):
        assert sent(MODEL, tools=[tool]).body["tools"] == [tool]
    tools = sent("gpt-4o", tools=[snake]).body["tools"]
    assert tools == [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]


def test_stream_is_requested_as_events() -> None:
    """A stream is requested as server-sent events."""
    same(sent(MODEL, stream=True), by_sdk(stream=True))


@pytest.mark.parametrize("model", ["models/gemini-3.8-flash", "tunedModels/mine"])
def test_model_name_with_a_kind_is_kept(model: str) -> None:
    """A name with its kind as a prefix is kept."""
    same(sent(f"google/{model}"), by_sdk(model=model))


def test_version_and_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version comes from the variable, unless the base URL has one."""
    path = f"models/{MODEL}:generateContent"
    assert sent(MODEL, base_url="https://x.test/v1").url == f"https://x.test/v1/{path}"
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v1alpha")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "https://x.test/")
    assert sent(MODEL).url == f"https://x.test/v1alpha/{path}"
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    monkeypatch.setenv("GOOGLE_API_KEY", "first")
    assert sent(MODEL, api_key=None).headers["x-goog-api-key"] == "first"


def test_media_are_sent_inline_or_by_uri() -> None:
    """Images, PDFs and audio are sent as inline data or by URI."""
    pdf, mp3 = b"%PDF-1.7", b"ID3 mp3"
    types = sdk().types
    part = types.Part
    contents = [types.Content(role="user", parts=[
        part(text="What?"),
        *[part(inline_data=types.Blob(mime_type=kind, data=data))
          for kind, data in (("image/png", PNG), ("application/pdf", pdf), ("audio/mpeg", mp3))],
        part(file_data=types.FileData(mime_type="image/jpeg",
                                            file_uri="https://example.com/a.jpg")),
    ])]  # fmt: skip
    ours = sent(MODEL, ["What?", PNG, pdf, mp3, "https://example.com/a.jpg"])
    same(ours, by_sdk(contents))
    assert (
        ours.body["contents"][0]["parts"][1]["inlineData"]["data"] == base64.b64encode(PNG).decode()
    )


def test_conversation_with_tools() -> None:
    """Signatures are sent back on their parts; one turn's results are one content."""
    signature = base64.b64encode(b"signature").decode()
    turn = {"role": "model", "parts": [
        {"text": "hm", "thought": True},
        {"text": "Let me see.", "thoughtSignature": signature},
        {"functionCall": {"name": "weather", "args": {"city": "a"}, "id": "ember_r_0"},
         "thoughtSignature": signature},
        {"functionCall": {"name": "time", "args": {}, "id": "abc"}},
    ]}  # fmt: skip
    prompt = [
        {"role": "user", "content": "Weather?"},
        turn,
        {"role": "tool", "tool_call_id": "ember_r_0", "content": {"sky": "grey"}},
        {"role": "tool", "tool_call_id": "abc", "content": "12:00", "is_error": False},
        {"role": "user", "content": "And?"},
    ]
    types = sdk().types
    content, part = types.Content, types.Part
    contents = [
        content(role="user", parts=[part(text="Weather?")]),
        content(role="model", parts=[
            part(text="hm", thought=True),
            part(text="Let me see.", thought_signature=b"signature"),
            part(function_call={"name": "weather", "args": {"city": "a"}},
                 thought_signature=b"signature"),
            part(function_call={"name": "time", "args": {}, "id": "abc"}),
        ]),
        content(role="user", parts=[
            part(function_response={"name": "weather", "response": {"sky": "grey"}}),
            part(function_response={"name": "time", "response": {"result": "12:00"}, "id": "abc"}),
        ]),
        content(role="user", parts=[part(text="And?")]),
    ]  # fmt: skip
    same(sent(MODEL, prompt), by_sdk(contents))


def test_failed_tool_result_is_sent_in_the_error_field() -> None:
    """A tool's failure is sent in the field that Google documents for it."""
    prompt = [
        {"role": "user", "content": "?"},
        {"role": "tool", "tool_call_id": "x", "name": "weather", "content": "no", "is_error": True},
    ]
    part = sent(MODEL, prompt).body["contents"][1]["parts"][0]["functionResponse"]
    assert part["response"] == {"error": "no"}
