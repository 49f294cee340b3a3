"""Conversations translated from one wire to another: schemas, ids, media, results, reasoning."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ember.exceptions import ModelProviderError
from ember.models.schemas import ChatResponse
from tests.corpus import ask, player, sent

CLAUDE, GEMINI, CHAT, RESPONSES = (
    "claude-opus-4-8",
    "gemini-3-pro-preview",
    "gpt-4o",
    "openai-responses/gpt-5.6",
)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.mark.parametrize("content", [PNG, ["no", PNG]])
def test_failed_tool_result_with_an_image_is_sent_with_both(content: Any) -> None:
    """A failed result's picture is sent too, and its text says that it is an error."""
    call = {"id": "c1", "name": "f", "arguments": "{}"}
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": content, "is_error": True},
    ]
    tool, picture = sent(CHAT, prompt).body["messages"][-2:]
    assert tool["content"].startswith("Error: ")
    assert picture["content"][0]["type"] == "image_url"
    output = sent(RESPONSES, prompt).body["input"][-1]["output"]
    assert [part["type"] for part in output][:1] == ["input_text"]
    assert output[-1]["type"] == "input_image"


FAILED: list[tuple[Any, Any]] = [
    ("no such city", "Error: no such city"),
    ("ERROR 7: no such city", "ERROR 7: no such city"),
    ({"code": 7}, 'Error: {"code": 7}'),
    ([1, 2], "Error: [1, 2]"),
    ([{"type": "text", "text": "no"}], [{"type": "text", "text": "Error: "},
                                        {"type": "text", "text": "no"}]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "text"), FAILED)
def test_failed_tool_result_is_marked_in_the_text_where_the_wire_has_no_field(
    content: Any, text: Any
) -> None:
    """On OpenAI's wires the text says that a tool's result is an error; Claude has a field."""
    call = {"id": "c1", "name": "f", "arguments": "{}"}
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": content, "is_error": True},
    ]
    assert sent(CHAT, prompt).body["messages"][-1]["content"] == text
    output = sent(RESPONSES, prompt).body["input"][-1]["output"]
    assert output == ("Error: no" if isinstance(text, list) else text)
    (block,) = sent(CLAUDE, prompt).body["messages"][-1]["content"]
    assert block["is_error"] is True
    assert not str(block["content"]).startswith("Error: ")


REASONED: list[dict[str, Any]] = [
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "ENC"},
    {"type": "message", "id": "msg_1", "role": "assistant",
     "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"},
]  # fmt: skip


def second_turn(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """A conversation whose first answer is a Responses answer."""
    return [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": REASONED},
        *more,
        {"role": "tool", "tool_call_id": "call_1", "content": "grey"},
    ]


def test_store_false_sends_reasoning_encrypted_and_no_item_ids() -> None:
    """With store=False reasoning is sent back encrypted, and no item is referenced by id."""
    body = sent(RESPONSES, store=False).body
    assert body["include"] == ["reasoning.encrypted_content"]
    prompt = second_turn({"type": "item_reference", "id": "msg_1"})
    body = sent(RESPONSES, prompt, store=False, include=["file_search_call.results"]).body
    assert body["include"] == ["file_search_call.results", "reasoning.encrypted_content"]
    kinds = [item.get("type") for item in body["input"][1:]]
    assert kinds == ["reasoning", "message", "function_call", "function_call_output"]
    assert body["input"][1] == REASONED[1]
    assert not any(name in json.dumps(body) for name in ("rs_1", "msg_1", "fc_1"))
    assert sent(RESPONSES, prompt).body["input"][1:5] == REASONED
    assert "include" not in sent("openai-responses/gpt-4o", store=False).body


TOOLS = [{"name": "f", "parameters": {"type": "object", "properties": {}}}]


@pytest.mark.parametrize(
    ("given", "store"),
    [
        ({}, False), ({"store": True}, True), ({"store": False}, False),
        ({"previous_response_id": "resp_1"}, None), ({"conversation": "c"}, None),
        ({"background": True}, None),
    ],
)  # fmt: skip
def test_responses_api_chosen_by_ember_stores_nothing(
    given: dict[str, Any], store: bool | None
) -> None:
    """If Ember chooses the Responses API itself, it asks OpenAI not to store the answer."""
    body = sent("gpt-5.6", tools=TOOLS, **given).body
    assert body.get("store") is store
    assert ("include" in body) is (store is False)
    assert "store" not in sent(RESPONSES, tools=TOOLS).body


def image_results() -> dict[str, Any]:
    """A tool's picture in each of Ember's forms and in each provider's format."""
    encoded = base64.b64encode(PNG).decode()
    source = {"type": "base64", "media_type": "image/png", "data": encoded}
    return {
        "bytes": PNG,
        "list": [PNG],
        "text and bytes": ["a chart", PNG],
        "chat": [{"type": "image_url", "image_url": {"url": DATA_URL}}],
        "responses": [{"type": "input_image", "image_url": DATA_URL}],
        "anthropic": [{"type": "text", "text": "a chart"}, {"type": "image", "source": source}],
        "google": [{"inlineData": {"mimeType": "image/png", "data": encoded}}],
        "mcp": [{"type": "image", "data": encoded, "mimeType": "image/png"}],
    }


def asked_for(content: Any, results: int = 1) -> list[dict[str, Any]]:
    """A conversation in which tools were called and returned this."""
    ids = [f"call_{number}" for number in range(results)]
    calls = [{"id": each, "name": "shoot", "arguments": {}} for each in ids]
    return [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *({"role": "tool", "tool_call_id": each, "content": content} for each in ids),
    ]


@pytest.mark.parametrize("form", [*image_results(), "path", "pil"])
def test_images_in_tool_results_are_sent_as_images(form: str, tmp_path: Path) -> None:
    """A tool's picture, in any form, is sent as a picture on each wire."""
    if form == "path":
        content: Any = tmp_path / "a.png"
        content.write_bytes(PNG)
    elif form == "pil":
        content = pytest.importorskip("PIL.Image").open(io.BytesIO(PNG))
    else:
        content = image_results()[form]
    encoded = base64.b64encode(PNG).decode()
    text = ["a chart"] if form in ("text and bytes", "anthropic") else []
    prompt = asked_for(content)

    *_, result, image = sent(CHAT, prompt).body["messages"]
    assert (result["role"], image["role"]) == ("tool", "user")
    assert result["content"] == (text[0] if text else "The result is in the next message.")
    (picture,) = image["content"]
    assert picture["type"] == "image_url"
    if form != "pil":
        assert picture["image_url"]["url"] == DATA_URL

    output = sent(RESPONSES, prompt).body["input"][-1]["output"]
    assert [part["type"] for part in output] == [*(["input_text"] if text else []), "input_image"]

    (block,) = sent(CLAUDE, prompt).body["messages"][-1]["content"]
    assert [part["type"] for part in block["content"]] == [*(["text"] if text else []), "image"]
    assert block["content"][-1]["source"]["media_type"] == "image/png"

    (part,) = sent(GEMINI, prompt).body["contents"][-1]["parts"]
    (inside,) = part["functionResponse"]["parts"]
    assert inside["inlineData"]["mimeType"] == "image/png"
    if text:
        assert part["functionResponse"]["response"] == {"result": "a chart"}
    response, beside = sent("gemini-2.5-flash", prompt).body["contents"][-1]["parts"]
    assert "parts" not in response["functionResponse"]
    assert form == "pil" or beside["inlineData"]["data"] == encoded


def test_chat_images_follow_all_tool_results_of_the_turn() -> None:
    """On chat completions the images of a turn follow all of its results."""
    prompt = [*asked_for(PNG, 2), {"role": "user", "content": "Well?"}]
    roles = [message["role"] for message in sent(CHAT, prompt).body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "user", "user"]
    pictures = sent(CHAT, prompt).body["messages"][4]["content"]
    assert [part["type"] for part in pictures] == ["image_url", "image_url"]


LISTING = [{"type": "file", "path": "a.txt"}, {"type": "folder", "path": "b"}]


@pytest.mark.parametrize(
    "content",
    [
        ["a", "b"], {"type": "image"}, {"type": "image", "source": "camera"}, [{"a": 1}], 7, None,
        [], LISTING, LISTING[:1], {"type": "file", "file": "a.txt"},
        {"type": "document", "source": []},
    ],
)  # fmt: skip
def test_tool_result_that_is_not_an_image_is_sent_as_json(content: Any) -> None:
    """A result that is not a picture is sent as JSON on every wire."""
    prompt = asked_for(content)
    assert json.loads(sent(CHAT, prompt).body["messages"][-1]["content"]) == content
    assert json.loads(sent(RESPONSES, prompt).body["input"][-1]["output"]) == content


LONG = "call_" + "x" * 75


@pytest.mark.parametrize("call_id", ["toolu_01A09q90qw", LONG, "chatcmpl-tool:7.b", "a b", "é" * 9])
@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("mistral/mistral-large-latest", "[a-zA-Z0-9]{9}"),
        (CLAUDE, "[a-zA-Z0-9_-]{1,64}"),
        (RESPONSES, ".{1,64}"),
        (CHAT, ".{1,40}"),
    ],
)
def test_tool_call_ids_are_valid_and_equal_in_call_and_result(
    model: str, allowed: str, call_id: str
) -> None:
    """A call's id has the wire's characters and length, and is the same in call and result."""
    import re

    prompt = asked_for("grey")
    prompt[1]["tool_calls"][0]["id"] = prompt[2]["tool_call_id"] = call_id
    body = sent(model, prompt).body
    if model == RESPONSES:
        ids = [item["call_id"] for item in body["input"][1:]]
    elif model == CLAUDE:
        use, result = (message["content"][0] for message in body["messages"][1:])
        ids = [use["id"], result["tool_use_id"]]
    else:
        _, asked, result = body["messages"]
        ids = [asked["tool_calls"][0]["id"], result["tool_call_id"]]
    assert ids[0] == ids[1]
    assert re.fullmatch(allowed, ids[0])
    assert not re.fullmatch(allowed, call_id) or ids[0] == call_id


def test_custom_tool_call_ids_are_valid() -> None:
    """A custom tool's call, in chat's own format, has a valid id as well."""
    custom = {"id": "call_1", "type": "custom", "custom": {"name": "code", "input": "1"}}
    prompt = [
        {"role": "assistant", "content": None, "tool_calls": [custom]},
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
    ]
    asked, result = sent("mistral/mistral-large-latest", prompt).body["messages"]
    assert asked["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == 9


def test_gemini_3_gets_a_placeholder_signature_for_other_providers_calls() -> None:
    """The first call of a turn gets Google's placeholder signature; Gemini's own are kept."""
    prompt = asked_for("grey", 2)
    parts = sent(GEMINI, prompt).body["contents"][1]["parts"]
    calls = [part for part in parts if "functionCall" in part]
    assert [call.get("thoughtSignature") for call in calls] == [
        "skip_thought_signature_validator", None,
    ]  # fmt: skip
    older = sent("gemini-2.5-flash", prompt).body["contents"][1]["parts"]
    assert not any("thoughtSignature" in part for part in older)
    own = {"role": "model", "parts": [
        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "f", "args": {}}}]}  # fmt: skip
    assert sent(GEMINI, [own]).body["contents"] == [own]


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_details_are_merged(stream: bool) -> None:
    """OpenRouter's pieces of one entry are sent back as one: texts joined, the last signature."""

    def piece(**more: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "index": 0, "format": "f", **more}

    pieces = [piece(text="Let "), piece(text="me see."), piece(text="", signature="SIG"),
              {"type": "reasoning.encrypted", "index": 1, "data": "D"},
              {"type": "odd"}]  # fmt: skip
    whole = [piece(text="Let me see.", signature="SIG"), *pieces[3:]]
    deltas: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"reasoning_details": [each]}}]} for each in pieces
    ]
    end = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    message = {"role": "assistant", "content": "a", "reasoning_details": whole}
    raw = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
    if stream:
        raw = "".join(f"data: {json.dumps(each)}\n\n" for each in [*deltas, end]) + "data: [DONE]\n"
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": raw})
        response = ask("openrouter/anthropic/claude-sonnet-5", stream)
    assert isinstance(response, ChatResponse)
    assert response.message["reasoning_details"] == whole


@pytest.mark.parametrize("blank", ["", "\n", " \t\n"])
def test_blank_turns_are_omitted_for_claude(blank: str) -> None:
    """Text of only white space, which Anthropic refuses, is omitted as a turn and as a block."""
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": blank},
        {
            "role": "user",
            "content": [{"type": "text", "text": blank}, {"type": "text", "text": "b"}],
        },
    ]
    messages = sent(CLAUDE, turns).body["messages"]
    assert [message["content"] for message in messages] == ["a", "b"]
    begun = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "The answer is \n"}]
    assert sent(CLAUDE, begun).body["messages"][-1]["content"] == "The answer is"


def test_blank_blocks_of_claude_are_omitted() -> None:
    """A blank text with a cache marker and blanks after an answer with thinking are omitted."""
    blank = {"type": "text", "text": " ", "cache_control": {"type": "ephemeral"}}
    thought = {"type": "thinking", "thinking": "a", "signature": "s"}
    turns = [
        {"role": "user", "content": [blank, {"type": "text", "text": "a"}]},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "The answer is \n"}]},
    ]
    user, assistant = sent(CLAUDE, turns).body["messages"]
    assert user["content"] == "a"
    assert assistant["content"] == [thought, {"type": "text", "text": "The answer is"}]


@pytest.mark.parametrize("blank", ["", "\n", None])
def test_empty_assistant_turns_are_omitted_for_mistral(blank: str | None) -> None:
    """An empty assistant turn is omitted for Mistral, which refuses it, but not for OpenAI."""
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": blank},
        {"role": "user", "content": "b"},
    ]
    messages = sent("mistral/mistral-large-latest", turns).body["messages"]
    assert [message["content"] for message in messages] == ["a", "b"]


def test_other_keys_of_a_tool_are_sent() -> None:
    """A tool's other keys are sent to the providers that know them, in their wire's form."""
    schema = {"type": "object", "properties": {}}
    cache = {"cache_control": {"type": "ephemeral"}}
    tool = {"name": "f", "parameters": schema, **cache, "new_key": 1}
    assert sent(CLAUDE, tools=[tool]).body["tools"] == [
        {"name": "f", "input_schema": schema, **cache, "new_key": 1}
    ]
    assert sent(CHAT, tools=[tool]).body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": schema, "new_key": 1}}
    ]
    (declared,) = sent(GEMINI, tools=[tool]).body["tools"][0]["functionDeclarations"]
    assert declared == {"name": "f", "parametersJsonSchema": schema, "new_key": 1}
    theirs = {"name": "f", "input_schema": schema, **cache}
    assert sent(CLAUDE, tools=[theirs]).body["tools"] == [theirs]


KINDS = {
    "image/jpeg": [JPEG], "image/png": [PNG], "image/gif": [b"GIF89a\x01\x00"],
    "image/webp": [b"RIFF\x24\x00\x00\x00WEBPVP8 "],
    "image/heic": [b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"],
    "image/avif": [b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf",
                   b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf"],
    "image/bmp": [b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00"],
    "image/tiff": [b"II*\x00\x08\x00\x00\x00", b"MM\x00*\x00\x00\x00\x08"],
    "image/svg+xml": [b"<svg xmlns='http://www.w3.org/2000/svg'/>",
                      b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a -->\n<svg>"],
    "video/mp4": [b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41"],
    "audio/mp4": [b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00M4A mp42isom"],
    "video/quicktime": [b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  "],
    "video/webm": [b"\x1aE\xdf\xa3\x01\x00\x00\x00\x00\x00\x00\x1fB\x86\x81\x01B\x82\x84webm"],
    "audio/mpeg": [b"ID3\x04", b"\xff\xfb\x90", b"\xff\xf3\x44"], "audio/aac": [b"\xff\xf1\x50"],
    "audio/wav": [b"RIFF\x24\x00\x00\x00WAVEfmt "], "audio/flac": [b"fLaC"],
    "audio/ogg": [b"OggS"], "application/pdf": [b"%PDF-1.7"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "data"), [(k, data) for k, each in KINDS.items() for data in each]
)
def test_media_type_is_recognised_by_content(kind: str, data: bytes, tmp_path: Path) -> None:
    """Bytes, files and mislabelled data URLs are recognised by their content."""
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    safe = f"data:text/plain;base64,{base64.urlsafe_b64encode(data).decode().rstrip('=')}"
    file = tmp_path / "a.png"
    file.write_bytes(data)
    for given in (data, url, safe, file):
        (part,) = sent(GEMINI, [given]).body["contents"][0]["parts"]
        assert part["inlineData"]["mimeType"] == kind
        assert base64.b64decode(part["inlineData"]["data"]) == data


def test_many_xml_comments_without_an_svg_are_refused_quickly() -> None:
    """Bytes of nothing but comments are refused quickly, however many there are."""
    with pytest.raises(ModelProviderError, match="cannot tell what these"):
        sent(GEMINI, [b"<!---->" * 500])


def test_callers_media_type_applies_to_unrecognised_content() -> None:
    """Media of unrecognised content have the caller's type, as providers spell it."""
    data = base64.b64encode(b"\x00\x01\x02").decode()
    for label, kind in (("image/jpg", "image/jpeg"), ("image/x-icon", "image/x-icon")):
        (part,) = sent(GEMINI, [f"data:{label};base64,{data}"]).body["contents"][0]["parts"]
        assert part["inlineData"]["mimeType"] == kind
    svg = "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'/%3E"
    (part,) = sent(GEMINI, [svg]).body["contents"][0]["parts"]
    assert base64.b64decode(part["inlineData"]["data"]).startswith(b"<svg ")


def test_claude_gets_only_supported_image_formats() -> None:
    """A JPEG labelled PNG is sent as JPEG; formats that Claude lacks are refused."""
    body = sent(CLAUDE, ["see", "data:image/png;base64,/9j/4AAQ"]).body
    assert body["messages"][0]["content"][1]["source"]["media_type"] == "image/jpeg"
    with pytest.raises(ModelProviderError, match=r"anthropic cannot take .*image/heic.*image/webp"):
        sent(CLAUDE, [KINDS["image/heic"][0]])


@pytest.mark.parametrize(
    "name",
    ["shots/error.png", "C:\\shots\\error.PNG", "a.pdf", "/tmp/x.heic", "~/a.mp3", " b.webp\n"],
)
def test_part_that_is_only_a_media_file_name_is_refused(name: str) -> None:
    """A one-word part with a media suffix is refused, whether the file exists or not."""
    with pytest.raises(ModelProviderError, match=r"name of a file.*Path\("):
        sent(CHAT, ["What is this?", name])
    text = {"type": "text", "text": name}
    assert sent(CHAT, ["What is this?", text]).body["messages"][0]["content"][1] == text


@pytest.mark.parametrize("text", ["see shots/error.png", ".png", "png", "error.txt", "a.png?"])
def test_text_that_is_not_a_file_name_stays_text(text: str) -> None:
    """Only a part that is just a file name is taken for one; a string prompt is always text."""
    assert sent(CHAT, ["What?", text]).body["messages"][0]["content"][1]["text"] == text
    assert sent(CHAT, "error.png").body["messages"][0]["content"] == "error.png"


FOREIGN: dict[str, tuple[str, Any]] = {
    "anthropic image": (CLAUDE, {"type": "image", "source": {
        "type": "base64", "media_type": "image/png", "data": DATA_URL.partition(",")[2]}}),
    "anthropic url": (CLAUDE, {"type": "image", "source": {
        "type": "url", "url": "https://example.com/a.png"}}),
    "responses image": (RESPONSES, {"type": "input_image", "image_url": DATA_URL}),
    "chat file": (CHAT, {"type": "file", "file": {
        "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjc="}}),
    "responses file": (RESPONSES, {"type": "input_file", "filename": "a.pdf",
                                   "file_data": "data:application/pdf;base64,JVBERi0xLjc="}),
    "google inline": (GEMINI, {"inlineData": {
        "mimeType": "image/png", "data": DATA_URL.partition(",")[2]}}),
    "google snake": (GEMINI, {"inline_data": {
        "mime_type": "image/png", "data": DATA_URL.partition(",")[2]}}),
    "google file": (GEMINI, {"fileData": {
        "mimeType": "image/png", "fileUri": "https://example.com/a"}}),
}  # fmt: skip


@pytest.mark.parametrize("form", FOREIGN)
@pytest.mark.parametrize("model", [CLAUDE, RESPONSES, CHAT, GEMINI])
def test_media_in_any_providers_format_are_translated(model: str, form: str) -> None:
    """Media in one provider's format are translated for each wire, unchanged on their own."""
    own, part = FOREIGN[form]
    body = sent(model, [{"role": "user", "content": ["see", part]}]).body
    turn = (body.get("messages") or body.get("contents") or body["input"])[0]
    second_part = (turn.get("content") or turn["parts"])[1]
    if model == own:
        assert second_part == part
        return
    as_json = json.dumps(second_part)
    assert "pdf" in as_json or "image" in as_json
    words = {CLAUDE: "source", RESPONSES: "input_", CHAT: "url", GEMINI: "ata"}
    assert words[model] in as_json or "file" in as_json
