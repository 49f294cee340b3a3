"""All providers of the matrix in one server: each wire's answers, made from its published format.

A prompt holds `echo(WORDS)` and is answered with "You said WORDS.", so that a wrong answer cannot
pass for the right one. `status(429)` in it is refused with that status, and tools are called until
their result has come back. Whatever was received is kept, for the count of calls.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from tests.loopback import Received, Reply

# The hosts that the clients call, which the loopback server stands for.
HOSTS = (
    "api-inference.together.ai",
    "api.ai21.com",
    "api.anthropic.com",
    "api.cohere.ai",
    "api.cohere.com",
    "api.groq.com",
    "api.mistral.ai",
    "api.openai.com",
    "api.portkey.ai",
    "api.replicate.com",
    "api.together.ai",
    "api.together.xyz",
    "api.voyageai.com",
    "api.z.ai",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "dashscope.aliyuncs.com",
    "generativelanguage.googleapis.com",
    "huggingface.co",
    "ollama.com",
    "open.bigmodel.cn",
    "router.huggingface.co",
)
VECTOR = [0.25, -0.5, 1.0]
EVENT_STREAM, LINES, FRAMES = (
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
)


def answer(request: Received) -> Reply:
    """What the provider at this path says."""
    body = json.loads(request.body) if request.body.startswith(b"{") else {}
    path = request.path.partition("?")[0]
    text = request.body.decode("utf-8", "replace")
    if refused := re.search(r"status\((\d+)\)", text):
        return _refusal(path, int(refused[1]))
    for ending, reply in WIRES:
        if re.search(ending, path):
            response = reply(body, path, _echo(text))
            return response if isinstance(response, Reply) else _json(response)
    return _json({"error": {"message": f"no such path: {path}"}}, 404)


def _echo(text: str) -> str:
    words = re.findall(r"echo\(([^()]*)\)", text)
    return f"You said {words[-1]}." if words else "You said nothing."


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(
        json.dumps(body).encode(),
        status=status,
        headers={"content-type": "application/json", **(headers or {})},
    )


def _refusal(path: str, status: int) -> Reply:
    kind, message = {
        401: ("authentication_error", "the key is not valid"),
        429: ("rate_limit_error", "too many requests"),
    }[status]
    body: dict[str, Any] = {"error": {"message": message, "type": kind, "code": kind}}
    headers = {"retry-after": "0"} if status == 429 else {}
    if path.endswith("/messages"):
        body["type"] = "error"
    elif path.startswith("/model/"):
        name = "ThrottlingException" if status == 429 else "UnrecognizedClientException"
        return _json({"message": message}, status, {**headers, "x-amzn-errortype": name})
    elif path.startswith("/v1beta/models/"):
        words = "RESOURCE_EXHAUSTED" if status == 429 else "UNAUTHENTICATED"
        body = {"error": {"code": status, "message": message, "status": words}}
    elif path.startswith("/v2/"):
        body = {"message": message}
    elif path.startswith("/api/"):
        body = {"error": message}
    return _json(body, status, headers)


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def _events(events: Iterable[Any], *, named: bool = False, done: bool = False) -> Reply:
    """An event stream, an event in a piece."""
    pieces = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    if done:
        pieces.append("data: [DONE]\n\n")
    return _pieces([piece.encode() for piece in pieces], EVENT_STREAM)


def _pieces(pieces: list[bytes], content_type: str) -> Reply:
    return Reply(pieces=pieces, headers={"content-type": content_type}, pause=0.002)


def _filled(schema: dict[str, Any], text: str) -> dict[str, Any]:
    """Arguments that a tool's schema accepts."""
    values: dict[str, Any] = {"string": text, "integer": 1, "number": 1.5, "boolean": True}
    values |= {"array": [], "object": {}}
    return {
        name: values[str(kind.get("type", "string")).lower()]
        for name, kind in schema.get("properties", {}).items()
    }


# OpenAI's chat completions, and all that speak them.


def _chat(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
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
        arguments = json.dumps(_filled(function.get("parameters", {}), text))
        called = {"name": function["name"], "arguments": arguments}
        calls = [{"id": "call_1", "type": "function", "index": 0, "function": called}]
        message, finish = {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"
    elif "json_schema" in json.dumps(body.get("response_format") or {}):
        schema = body["response_format"]["json_schema"]["schema"]
        message["content"] = json.dumps(_filled(schema, text))
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return head | {"object": "chat.completion", "choices": [choice], "usage": usage}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if finish == "tool_calls":
        pieces = _words(calls[0]["function"].pop("arguments"))
        deltas = [message]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": p}}]} for p in pieces]
    else:
        deltas += [{"content": word} for word in _words(message["content"])]
    chunks = [
        head
        | {
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
        }
        for delta, end in [*((each, None) for each in deltas), ({}, finish)]
    ]
    chunks[-1]["usage"] = usage
    return _events(chunks, done=True)


def _embeddings(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
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


def _responses(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
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
        arguments = json.dumps(_filled(tools[0].get("parameters", {}), text))
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
    return _events([event | {"sequence_number": n} for n, event in enumerate(events)], named=True)


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
        for word in _words(text):
            yield spot | {"type": "response.output_text.delta", "delta": word, "logprobs": []}
        yield spot | {"type": "response.output_text.done", "text": text, "logprobs": []}
        yield spot | {"type": "response.content_part.done", "part": part}
    else:
        arguments = {"arguments": item["arguments"]}
        yield place | {"type": "response.function_call_arguments.done"} | arguments
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": whole}


# Anthropic's messages


def _messages(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = body.get("tools") or []
    answered = "tool_result" in json.dumps(body.get("messages", ()))
    block: dict[str, Any] = {"type": "text", "text": text}
    reason = "end_turn"
    if tools and not answered:
        filled = _filled(tools[0].get("input_schema", {}), text)
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
        deltas = [{"type": "text_delta", "text": word} for word in _words(text)]
    ended = {"stop_reason": reason, "stop_sequence": None}
    return _events(
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


def _generate(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = body.get("tools") or []
    answered = "functionResponse" in json.dumps(body.get("contents", ()))
    part: dict[str, Any] = {"text": text}
    if tools and not answered:
        function = tools[0]["functionDeclarations"][0]
        schema = function.get("parameters") or function.get("parametersJsonSchema") or {}
        part = {"functionCall": {"name": function["name"], "args": _filled(schema, text)}}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 4, "totalTokenCount": 9}
    model = path.rpartition("/")[2].partition(":")[0]

    def whole(part: dict[str, Any], **more: Any) -> dict[str, Any]:
        candidate = {"index": 0, "content": {"role": "model", "parts": [part]}, **more}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}

    if not path.endswith(":streamGenerateContent"):
        return whole(part, finishReason="STOP")
    parts = [{"text": word} for word in _words(text)] if "text" in part else [part]
    chunks = [whole(each) for each in parts]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    return _events(chunks)


def _google_embeddings(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    if path.endswith(":embedContent"):
        return {"embedding": {"values": VECTOR}}
    return {"embeddings": [{"values": VECTOR} for _ in body["requests"]]}


# Cohere's version 2


def _cohere(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
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
        arguments = json.dumps(_filled(function.get("parameters", {}), text))
        called = {"name": function["name"], "arguments": arguments}
        calls = [{"id": "call_1", "type": "function", "function": called}]
        message, reason = {"role": "assistant", "tool_calls": calls}, "TOOL_CALL"
    if not body.get("stream"):
        return {"id": "c1", "finish_reason": reason, "message": message, "usage": usage}
    start = {"message": {"content": {"type": "text", "text": ""}}}
    return _events(
        [
            {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}},
            {"type": "content-start", "index": 0, "delta": start},
            *(
                {
                    "type": "content-delta",
                    "index": 0,
                    "delta": {"message": {"content": {"text": word}}},
                }
                for word in _words(text)
            ),
            {"type": "content-end", "index": 0},
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
        ],
        named=True,
        done=True,
    )


def _cohere_embeddings(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    texts = body.get("texts") or [""]
    return {
        "id": "e1",
        "texts": texts,
        "embeddings": {"float": [VECTOR for _ in texts]},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3}},
        "response_type": "embeddings_by_type",
    }


# Ollama's own wire: streamed unless `stream` is false, a line an event


def _ollama(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
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
        called = {"name": function["name"], "arguments": _filled(function["parameters"], text)}
        whole = line("", **end)
        whole["message"]["tool_calls"] = [{"function": called}]
    if body.get("stream") is False:
        return whole
    lines = [line(word) for word in _words(text)] + [line("", **end)]
    return _pieces([json.dumps(each).encode() + b"\n" for each in lines], LINES)


def _ollama_embeddings(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
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


def _converse(body: dict[str, Any], path: str, text: str) -> Reply | dict[str, Any]:
    tools = (body.get("toolConfig") or {}).get("tools", [])
    answered = "toolResult" in json.dumps(body.get("messages", ()))
    usage = {"inputTokens": 5, "outputTokens": 4, "totalTokens": 9}
    block: dict[str, Any] = {"text": text}
    reason = "end_turn"
    if tools and not answered:
        spec = tools[0]["toolSpec"]
        filled = _filled(spec["inputSchema"]["json"], text)
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
            for word in _words(text)
        ),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": reason}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 7}}),
    ]
    return _pieces([_frame(name, payload) for name, payload in events], FRAMES)


def _frame(event: str, payload: Any) -> bytes:
    """A message of `application/vnd.amazon.eventstream`."""
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


def _invoke(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    return {"embedding": VECTOR, "inputTextTokenCount": 3}


# Hugging Face


def _features(body: dict[str, Any], path: str, text: str) -> Reply:
    return Reply(json.dumps(VECTOR).encode(), headers={"content-type": "application/json"})


def _hub_model(body: dict[str, Any], path: str, text: str) -> dict[str, Any]:
    task = "feature-extraction" if "embed" in path else "conversational"
    provider = {"providerId": "m", "status": "live", "task": task}
    return {
        "id": path.partition("/models/")[2],
        "pipeline_tag": task,
        "tags": [],
        "inferenceProviderMapping": {"hf-inference": provider},
    }


WIRES = (
    (r"/chat/completions$", _chat),
    (r"/v1/responses$", _responses),
    (r"/pipeline/feature-extraction", _features),
    (r"^/api/models/", _hub_model),
    (r"^/api/(chat|generate)$", _ollama),
    (r"^/api/embed$", _ollama_embeddings),
    (r"^/v2/chat$", _cohere),
    (r"^/v2/embed$", _cohere_embeddings),
    (r"/embeddings$", _embeddings),
    (r"/messages$", _messages),
    (r":(stream)?[gG]enerateContent$", _generate),
    (r":(batchEmbedContents|embedContent)$", _google_embeddings),
    (r"/converse(-stream)?$", _converse),
    (r"/invoke$", _invoke),
)
