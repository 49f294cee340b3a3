"""Answers in the wire formats of single vendors: Cohere, Ollama, Bedrock, Replicate, Alibaba."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

from tests.loopback import Reply
from tests.matrix.formats import (
    EVENT_STREAM,
    FRAMES,
    LINES,
    VECTOR,
    arguments_for,
    event_stream,
    split_words,
    streamed,
)
from tests.matrix.wires import messages

# Cohere's version 2


def cohere(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = body.get("tools") or []
    answered = any(message["role"] == "tool" for message in body["messages"])
    usage = {
        "billed_units": {"input_tokens": 5, "output_tokens": 4},
        "tokens": {"input_tokens": 5, "output_tokens": 4},
    }
    message: dict[str, Any] = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    reason = "COMPLETE"
    if tools and not answered:
        function = tools[0]["function"]
        arguments = json.dumps(arguments_for(function.get("parameters", {}), text))
        called = {"name": function["name"], "arguments": arguments}
        calls = [{"id": "call_1", "type": "function", "function": called}]
        message, reason = {"role": "assistant", "tool_calls": calls}, "TOOL_CALL"
    if not body.get("stream"):
        return {"id": "c1", "finish_reason": reason, "message": message, "usage": usage}
    start = {"message": {"content": {"type": "text", "text": ""}}}
    return event_stream(
        [
            {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}},
            {"type": "content-start", "index": 0, "delta": start},
            *(
                {
                    "type": "content-delta",
                    "index": 0,
                    "delta": {"message": {"content": {"text": word}}},
                }
                for word in split_words(text)
            ),
            {"type": "content-end", "index": 0},
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
        ],
        named=True,
        done=True,
    )


def cohere_embeddings(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    texts = body.get("texts") or [""]
    return {
        "id": "e1",
        "texts": texts,
        "embeddings": {"float": [VECTOR for _ in texts]},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3}},
        "response_type": "embeddings_by_type",
    }


# Ollama's wire format: streamed unless `stream` is false, one line per event


def ollama(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = body.get("tools") or []
    answered = any(message["role"] == "tool" for message in body.get("messages", ()))
    head = {"model": body["model"], "created_at": "2026-11-27T00:00:00Z"}
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 4}

    def line(content: str, **more: Any) -> dict[str, Any]:
        if path.endswith("/generate"):
            return head | {"response": content, "done": False} | more
        message: dict[str, Any] = {"role": "assistant", "content": content}
        return head | {"message": message, "done": False} | more

    whole = line(text, **end)
    if tools and not answered:
        function = tools[0]["function"]
        called = {
            "name": function["name"],
            "arguments": arguments_for(function["parameters"], text),
        }
        whole = line("", **end)
        whole["message"]["tool_calls"] = [{"function": called}]
    if body.get("stream") is False:
        return whole
    lines = [line(word) for word in split_words(text)] + [line("", **end)]
    return streamed([json.dumps(each).encode() + b"\n" for each in lines], LINES)


def ollama_embeddings(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    asked = body["input"]
    count = len(asked) if isinstance(asked, list) else 1
    return {
        "model": body["model"],
        "embeddings": [VECTOR] * count,
        "prompt_eval_count": 3,
        "total_duration": 1,
        "load_duration": 1,
    }


# Bedrock


def converse(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = (body.get("toolConfig") or {}).get("tools", [])
    answered = "toolResult" in json.dumps(body.get("messages", ()))
    usage = {"inputTokens": 5, "outputTokens": 4, "totalTokens": 9}
    block: dict[str, Any] = {"text": text}
    reason = "end_turn"
    if tools and not answered:
        spec = tools[0]["toolSpec"]
        filled = arguments_for(spec["inputSchema"]["json"], text)
        block = {"toolUse": {"toolUseId": "tooluse_1", "name": spec["name"], "input": filled}}
        reason = "tool_use"
    if path.endswith("/converse"):
        message = {"role": "assistant", "content": [block]}
        return {
            "output": {"message": message},
            "stopReason": reason,
            "usage": usage,
            "metrics": {"latencyMs": 7},
        }
    events = [
        ("messageStart", {"role": "assistant"}),
        *(
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}})
            for word in split_words(text)
        ),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": reason}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 7}}),
    ]
    return streamed([_frame(name, payload) for name, payload in events], FRAMES)


def _frame(event: str, payload: Any) -> bytes:
    """Return a message of `application/vnd.amazon.eventstream`."""
    headers = b"".join(
        bytes([len(name)])
        + name.encode()
        + b"\x07"
        + struct.pack(">H", len(value))
        + value.encode()
        for name, value in (
            (":event-type", event),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    framed = prelude + headers + body
    return framed + struct.pack(">I", zlib.crc32(framed))


def invoke(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    if "anthropic_version" in body:  # Anthropic's format; a stream's events are in frames
        reply = messages(body | {"stream": path.endswith("-stream"), "model": ""}, path, text)
        if isinstance(reply, dict):
            return reply
        events = [piece.partition(b"data: ")[2].strip() for piece in reply.pieces or ()]
        frames = [_frame("chunk", {"bytes": base64.b64encode(each).decode()}) for each in events]
        return streamed(frames, FRAMES)
    return {"embedding": VECTOR, "inputTextTokenCount": 3}


# Replicate: a stream has its own URL, which is in the answer


def replicate(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    if path.startswith("/stream/"):
        words = base64.urlsafe_b64decode(path.rpartition("/")[2]).decode()
        lines = [f"event: output\nid: {n}\ndata: {w}\n\n" for n, w in enumerate(split_words(words))]
        lines.append("event: done\nid: 9\ndata: {}\n\n")
        return streamed([line.encode() for line in lines], EVENT_STREAM)
    own = base64.urlsafe_b64encode(text.encode()).decode()
    return {
        "id": "p1",
        "model": "meta/meta-llama-3-8b-instruct",
        "version": "v1",
        "status": "succeeded",
        "input": body["input"],
        "output": split_words(text),
        "error": None,
        "logs": "",
        "created_at": "2026-11-27T00:00:00Z",
        "metrics": {"input_token_count": 5, "output_token_count": 4},
        "urls": {
            "get": "https://api.replicate.com/v1/predictions/p1",
            "cancel": "https://api.replicate.com/v1/predictions/p1/cancel",
            "stream": f"https://stream.replicate.com/stream/{own}",
        },
    }


# Alibaba's generation


def generation(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    usage = {"input_tokens": 5, "output_tokens": 4, "total_tokens": 9}

    def whole(content: str, finish: str, **more: Any) -> dict[str, Any]:
        message = {"role": "assistant", "content": content, **more}
        choices = [{"finish_reason": finish, "message": message}]
        return {"output": {"choices": choices}, "usage": usage, "request_id": "r1"}

    parameters = body.get("parameters", {})
    answered = any(message["role"] == "tool" for message in body["input"]["messages"])
    if parameters.get("tools") and not answered:
        function = parameters["tools"][0]["function"]
        arguments = json.dumps(arguments_for(function["parameters"], text))
        called = {"name": function["name"], "arguments": arguments}
        call = {"id": "call_1", "type": "function", "index": 0, "function": called}
        return whole("", "tool_calls", tool_calls=[call])
    if not parameters.get("incremental_output"):
        return whole(text, "stop")
    events = [whole(word, "null") for word in split_words(text)] + [whole("", "stop")]
    return streamed(
        [
            f"id:{n}\nevent:result\n:HTTP_STATUS/200\ndata:{json.dumps(event)}\n\n".encode()
            for n, event in enumerate(events, 1)
        ],
        EVENT_STREAM,
    )


def text_embedding(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    found = [{"text_index": 0, "embedding": VECTOR}]
    return {"output": {"embeddings": found}, "usage": {"total_tokens": 3}, "request_id": "r2"}


# Hugging Face


def features(body: dict[str, Any], path: str, text: str) -> Reply:
    return Reply(json.dumps(VECTOR).encode(), headers={"content-type": "application/json"})


def hub_model(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    task = "feature-extraction" if "embed" in path else "conversational"
    provider = {"providerId": "m", "status": "live", "task": task}
    return {
        "id": path.partition("/models/")[2],
        "pipeline_tag": task,
        "tags": [],
        "inferenceProviderMapping": {"hf-inference": provider},
    }
