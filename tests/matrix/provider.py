"""All providers of the matrix in one server, which answers in their published wire formats.

A prompt with `echo(WORDS)` is answered with "You said WORDS.", so that a wrong answer cannot pass
for the right one. A prompt with `status(429)` is refused with that status. Tools are called until
their result has been sent back. Received requests are kept, to count the calls.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.loopback import Received, Reply
from tests.matrix import other_wires, wires
from tests.matrix.formats import json_reply

# The hosts that the clients call, in whose place the loopback server answers.
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
    "stream.replicate.com",
)


def answer(request: Received) -> Reply:
    """Return the answer of the provider at this path."""
    body = json.loads(request.body) if request.body.startswith(b"{") else {}
    path = request.path.partition("?")[0]
    text = request.body.decode("utf-8", "replace")
    if refused := re.search(r"status\((\d+)\)", text):
        return _refusal(path, int(refused[1]))
    for ending, reply in WIRES:
        if re.search(ending, path):
            response = reply(body, path, _echo(text))
            return response if isinstance(response, Reply) else json_reply(response)
    return json_reply({"error": {"message": f"no such path: {path}"}}, 404)


def _echo(text: str) -> str:
    words = re.findall(r"echo\(([^()]*)\)", text)
    return f"You said {words[-1]}." if words else "You said nothing."


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
        return json_reply({"message": message}, status, {**headers, "x-amzn-errortype": name})
    elif path.startswith("/v1beta/models/"):
        words = "RESOURCE_EXHAUSTED" if status == 429 else "UNAUTHENTICATED"
        body = {"error": {"code": status, "message": message, "status": words}}
    elif path.startswith("/v2/"):
        body = {"message": message}
    elif path.startswith("/api/"):
        body = {"error": message}
    return json_reply(body, status, headers)


WIRES = (
    (r"/chat/completions$", wires.chat),
    (r"/predictions$|^/stream/", other_wires.replicate),
    (r"/text-generation/generation$", other_wires.generation),
    (r"/text-embedding/text-embedding$", other_wires.text_embedding),
    (r"/v1/responses$", wires.responses),
    (r"/pipeline/feature-extraction", other_wires.features),
    (r"^/api/models/", other_wires.hub_model),
    (r"^/api/(chat|generate)$", other_wires.ollama),
    (r"^/api/embed$", other_wires.ollama_embeddings),
    (r"^/v2/chat$", other_wires.cohere),
    (r"^/v2/embed$", other_wires.cohere_embeddings),
    (r"/embeddings$", wires.embeddings),
    (r"/messages$", wires.messages),
    (r":(stream)?[gG]enerateContent$", wires.generate),
    (r":(batchEmbedContents|embedContent)$", wires.google_embeddings),
    (r"/converse(-stream)?$", other_wires.converse),
    (r"/invoke(-with-response-stream)?$", other_wires.invoke),
)
