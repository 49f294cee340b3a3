"""`ember-cassettes show`: a conversation in any vendor's format as the same transcript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.testing.cli.command import run

PNG = "iVBORw0KGgo="
URL = f"data:image/png;base64,{PNG}"
ARGUMENTS = '{"city": "Paris"}'
REQUESTS: dict[str, Any] = {
    "https://api.anthropic.com/v1/messages": {"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Here?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ]},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Paris"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "sunny"},
        ]},
    ]},
    "https://api.openai.com/v1/chat/completions": {"model": "m", "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Here?"},
            {"type": "image_url", "image_url": {"url": URL}},
        ]},
        {"role": "assistant", "tool_calls": [
            {"id": "t", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
        ]},
        {"role": "tool", "tool_call_id": "t", "content": "sunny"},
    ]},
    "https://api.openai.com/v1/responses": {"model": "m", "input": [
        {"role": "user", "content": [
            {"type": "input_text", "text": "Here?"},
            {"type": "input_image", "image_url": URL},
        ]},
        {"type": "function_call", "call_id": "t", "name": "weather", "arguments": ARGUMENTS},
        {"type": "function_call_output", "call_id": "t", "output": "sunny"},
    ]},
    "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent": {"contents": [
        {"role": "user", "parts": [
            {"text": "Here?"}, {"inlineData": {"mimeType": "image/png", "data": PNG}},
        ]},
        {"role": "model", "parts": [
            {"functionCall": {"name": "weather", "args": {"city": "Paris"}}},
        ]},
        {"role": "user", "parts": [
            {"functionResponse": {"name": "weather", "response": {"output": "sunny"}}},
        ]},
    ]},
}  # fmt: skip


@pytest.mark.parametrize("url", REQUESTS)
def test_tools_and_images_have_one_form_on_every_wire(url: str, tmp_path: Path) -> None:
    """Tool calls, their results and images have one form in a transcript, on all four wires."""
    request = {"method": "POST", "uri": url, "body": json.dumps(REQUESTS[url]), "headers": {}}
    response = {"status": {"code": 200, "message": ""}, "headers": {}, "body": {"string": "{}"}}
    source = tmp_path / "c.json"
    source.write_text(json.dumps([{"request": request, "response": response}]))
    run("import", source, "--into", tmp_path)
    lines = run("show", tmp_path / "c.sqlite").stdout.splitlines()
    assert lines[2:5] == [
        "user: Here?",
        "    [image/png, 8 bytes]",
        'tool call: weather({"city": "Paris"})',
    ]
    assert lines[5].startswith("tool: ")
    assert "sunny" in lines[5]


def test_an_unknown_request_is_shown_as_it_is(tmp_path: Path) -> None:
    """A request that is no call of a model, and its answer, are shown as indented JSON."""
    request = {"method": "POST", "uri": "https://h.test/graphql", "body": '{"query": "{a}"}'}
    response = {"status": {"code": 200, "message": ""}, "body": {"string": "not JSON"}}
    source = tmp_path / "c.json"
    source.write_text(json.dumps([{"request": request, "response": response}]))
    run("import", source, "--into", tmp_path)
    lines = run("show", tmp_path / "c.sqlite").stdout.splitlines()
    assert lines[2:] == ["request: {", '      "query": "{a}"', "    }", "answer: not JSON"]
