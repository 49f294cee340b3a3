"""Answers in OpenAI's, Anthropic's and Google's wire formats, which most clients use."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from tests.loopback import Reply
from tests.matrix.formats import VECTOR, arguments_for, event_stream, split_words

# OpenAI's chat completions and compatible providers


def chat(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = body.get("tools") or []
    answered = any(message["role"] == "tool" for message in body.get("messages", ()))
    usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    if "[[ ## answer ## ]]" in json.dumps(body):  # as DSPy asks for
        text = f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]"
    head = {"id": "chatcmpl-1", "created": 1764000000, "model": body.get("model", "")}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    finish = "stop"
    if tools and not answered:
        function = tools[0]["function"]
        arguments = json.dumps(arguments_for(function.get("parameters", {}), text))
        called = {"name": function["name"], "arguments": arguments}
        calls = [{"id": "call_1", "type": "function", "index": 0, "function": called}]
        message, finish = {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"
    elif "json_schema" in json.dumps(body.get("response_format") or {}):
        schema = body["response_format"]["json_schema"]["schema"]
        message["content"] = json.dumps(arguments_for(schema, text))
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if finish == "tool_calls":
        pieces = split_words(calls[0]["function"].pop("arguments"))
        deltas = [message]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": p}}]} for p in pieces]
    else:
        deltas += [{"content": word} for word in split_words(message["content"])]
    chunks = [
        head
        | {
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
        }
        for delta, end in [*((each, None) for each in deltas), ({}, finish)]
    ]
    chunks[-1]["usage"] = usage
    return event_stream(chunks, done=True)


def embeddings(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    vector: Any = VECTOR
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()
    asked = body.get("input")
    count = len(asked) if isinstance(asked, list) and isinstance(asked[0], str | list) else 1
    data = [{"object": "embedding", "index": n, "embedding": vector} for n in range(count)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {
        "id": "emb-1",
        "object": "list",
        "data": data,
        "model": body.get("model", ""),
        "usage": usage,
    }


def responses(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools, asked = body.get("tools") or [], body.get("input")
    answered = "function_call_output" in json.dumps(asked)
    item: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }
    if tools and not answered:
        arguments = json.dumps(arguments_for(tools[0].get("parameters", {}), text))
        item = {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": tools[0]["name"],
            "arguments": arguments,
        }
    whole = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1764000000,
        "status": "completed",
        "model": body.get("model", ""),
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": tools,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 9,
        },
    }
    if not body.get("stream"):
        return whole
    events = _response_events(whole, item, text)
    return event_stream(
        [event | {"sequence_number": n} for n, event in enumerate(events)], named=True
    )


def _response_events(
    whole: dict[str, Any], item: dict[str, Any], text: str
) -> Iterator[dict[str, Any]]:
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    place = {"item_id": item["id"], "output_index": 0}
    fresh = item | ({"content": []} if "content" in item else {"arguments": ""})
    yield {"type": "response.output_item.added", "output_index": 0, "item": fresh}
    if "content" in item:
        part = item["content"][0]
        spot = place | {"content_index": 0}
        yield spot | {"type": "response.content_part.added", "part": part | {"text": ""}}
        for word in split_words(text):
            yield spot | {"type": "response.output_text.delta", "delta": word, "logprobs": []}
        yield spot | {"type": "response.output_text.done", "text": text, "logprobs": []}
        yield spot | {"type": "response.content_part.done", "part": part}
    else:
        arguments = {"arguments": item["arguments"]}
        yield place | {"type": "response.function_call_arguments.done"} | arguments
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": whole}


# Anthropic's messages


def messages(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = body.get("tools") or []
    answered = "tool_result" in json.dumps(body.get("messages", ()))
    block: dict[str, Any] = {"type": "text", "text": text}
    reason = "end_turn"
    if tools and not answered:
        filled = arguments_for(tools[0].get("input_schema", {}), text)
        block = {"type": "tool_use", "id": "toolu_1", "name": tools[0]["name"], "input": filled}
        reason = "tool_use"
    usage = {"input_tokens": 5, "output_tokens": 4}
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", ""),
        "content": [block],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage,
    }
    if not body.get("stream"):
        return whole
    empty = whole | {"content": [], "stop_reason": None}
    if reason == "tool_use":
        start = block | {"input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    else:
        start = block | {"text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in split_words(text)]
    ended = {"stop_reason": reason, "stop_sequence": None}
    return event_stream(
        [
            {"type": "message_start", "message": empty},
            {"type": "content_block_start", "index": 0, "content_block": start},
            *({"type": "content_block_delta", "index": 0, "delta": each} for each in deltas),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 4}},
            {"type": "message_stop"},
        ],
        named=True,
    )


# Google's generateContent


def generate(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = body.get("tools") or []
    answered = "functionResponse" in json.dumps(body.get("contents", ()))
    part: dict[str, Any] = {"text": text}
    if tools and not answered:
        function = tools[0]["functionDeclarations"][0]
        schema = function.get("parameters") or function.get("parametersJsonSchema") or {}
        part = {"functionCall": {"name": function["name"], "args": arguments_for(schema, text)}}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 4, "totalTokenCount": 9}
    model = path.rpartition("/")[2].partition(":")[0]

    def whole(part: dict[str, Any], **more: Any) -> dict[str, Any]:
        candidate = {"index": 0, "content": {"role": "model", "parts": [part]}, **more}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}

    if not path.endswith(":streamGenerateContent"):
        return whole(part, finishReason="STOP")
    parts = [{"text": word} for word in split_words(text)] if "text" in part else [part]
    chunks = [whole(each) for each in parts]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    return event_stream(chunks)


def google_embeddings(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    if path.endswith(":embedContent"):
        return {"embedding": {"values": VECTOR}}
    return {"embeddings": [{"values": VECTOR} for _ in body["requests"]]}
