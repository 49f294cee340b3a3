"""Google's generateContent and streamGenerateContent; pure.

Source: the `google-genai` 3.4.0 package (`types.py`, `models.py`) and ai.google.dev, read on
2026-11-22.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ember.conversation.messages import Message
from ember.conversation.parts import NativePart, Part, Text, ToolResult, json_or_text
from ember.conversation.tools import Choice, JsonFormat, NativeTool, as_choice, as_format, as_tools
from ember.exceptions import ModelProviderError
from ember.models.schemas import ToolCall
from ember.providers.arguments import as_object, as_stops
from ember.providers.google_answers import MADE_UP, ContentStreamReader
from ember.providers.json_values import fields
from ember.providers.wire import Answer, Call, Wire

__all__ = ["GoogleGenerate"]

_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
# What google-genai calls its generation parameters: they live inside generationConfig.
_CONFIG_FIELDS = frozenset(
    [
        "candidateCount",
        "maxOutputTokens",
        "temperature",
        "topP",
        "topK",
        "stopSequences",
        "seed",
        "presencePenalty",
        "frequencyPenalty",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseModalities",
        "speechConfig",
        "imageConfig",
        "mediaResolution",
        "thinkingConfig",
        "responseLogprobs",
        "logprobs",
    ]
)
_VERSION_AT_END = re.compile(r"/v\d+(alpha|beta)?\d*$")
_LEVELS = ["minimal", "low", "medium", "high", "xhigh"]
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}


class GoogleGenerate(Wire):
    """Google's generateContent."""

    def url(self, call: Call) -> str:
        """See `Wire.url`."""
        base = call.base_url
        if not _VERSION_AT_END.search(base):
            # google-genai 3 defaults to v1, which lacks what is in preview.
            base = f"{base}/{os.environ.get('GOOGLE_GENAI_API_VERSION', '').strip() or 'v1beta'}"
        kept = call.model.startswith(("models/", "tunedModels/", "projects/", "publishers/"))
        path = call.model if kept else f"models/{call.model}"
        method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
        return f"{base}/{path}:{method}"

    def body(self, call: Call) -> dict[str, Any]:
        """See `Wire.body`."""
        body: dict[str, Any] = {"contents": _contents(call.messages)}
        system = [p for m in call.messages if m.role == "system" for p in m.spoken("google")]
        if system:
            body["systemInstruction"] = {"parts": [_part(part) for part in system]}
        config: dict[str, Any] = {}
        for name, value in call.params.items():
            _add(body, config, call.model, name, value)
        if config:
            given = as_object("generationConfig", body.get("generationConfig", {}))
            body["generationConfig"] = {**config, **given}
        return body

    def read(self, body: Mapping[str, Any]) -> Answer | None:
        """See `Wire.read`."""
        reader = ContentStreamReader()
        reader.read("", body)
        return reader.answer() if reader.started else None

    def stream_reader(self) -> ContentStreamReader:
        """See `Wire.stream_reader`."""
        return ContentStreamReader()


# --- requests ----------------------------------------------------------------------------------


def _contents(messages: Sequence[Message]) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = [_part(part) for part in message.spoken("google")]
        if not parts:
            continue
        if message.role == "tool" and contents and _holds_results(contents[-1]):
            contents[-1]["parts"] += parts  # the results of one turn's calls go together
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _holds_results(content: Mapping[str, Any]) -> bool:
    return all("functionResponse" in part for part in content["parts"])


# How ids begin that Ember, OpenAI or Anthropic made: Google links calls and results by name.
_NOT_GOOGLES = (MADE_UP, "call_", "toolu_")


def _part(part: Part) -> Mapping[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, ToolCall):
        call: dict[str, Any] = {"name": part.name, "args": fields(json_or_text(part.arguments))}
        if part.id and not part.id.startswith(_NOT_GOOGLES):
            call["id"] = part.id
        made: dict[str, Any] = {"functionCall": call}
        if part.signature is not None:
            made["thoughtSignature"] = part.signature
        return made
    if isinstance(part, ToolResult):
        result = part.content
        if part.is_error or not isinstance(result, Mapping):
            # A response must be an object; these two keys are Google's for what is none.
            said = part.text if part.text_parts else result
            result = {"error" if part.is_error else "result": said}
        response: dict[str, Any] = {"name": part.name, "response": result}
        if part.id and part.id != part.name and not part.id.startswith(_NOT_GOOGLES):
            response["id"] = part.id
        return {"functionResponse": response}
    if isinstance(part, NativePart):
        return part.value
    if part.data is None:
        file = {"fileUri": part.url}
        if part.mime_type:
            file["mimeType"] = part.mime_type
        return {"fileData": file}
    return {"inlineData": {"mimeType": part.mime_type, "data": part.base64}}


def _add(body: dict[str, Any], config: dict[str, Any], model: str, name: str, value: Any) -> None:
    if name in _CONFIG:
        config[_CONFIG[name]] = value
    elif name == "stop":
        config["stopSequences"] = as_stops(value)
    elif name == "tools":
        body["tools"] = _tools(value)
    elif name == "tool_choice":
        body["toolConfig"] = _choice(as_choice(value))
    elif name == "response_format":
        config.update(_format(as_format(value)))
    elif name == "reasoning_effort":
        config["thinkingConfig"] = {**config.get("thinkingConfig", {}), **_thinking(model, value)}
    elif name == "thinkingConfig":
        config[name] = {**config.get(name, {}), **as_object(name, value)}
    elif name in _CONFIG_FIELDS:
        config[name] = value
    else:
        body[name] = value


def _thinking(model: str, effort: object) -> dict[str, Any]:
    """The effort as the model's generation has it: a number of tokens, or a level."""
    words = [*_BUDGETS] if "2.5" in model else _LEVELS
    if effort not in words:
        raise ModelProviderError(
            f"{model} takes reasoning_effort {', '.join(words)}, not {effort!r}; what else it "
            "takes goes into thinkingConfig= as it is",
            {"provider": "google", "param": "reasoning_effort"},
        )
    if "2.5" in model:
        return {"thinkingBudget": _BUDGETS[str(effort)]}
    return {"thinkingLevel": str(effort).upper()}


def _tools(value: object) -> list[Mapping[str, Any]]:
    declarations: list[Mapping[str, Any]] = []
    native: list[Mapping[str, Any]] = []
    for tool in as_tools(value, "google"):
        if isinstance(tool, NativeTool):
            native.append(tool.value)
            continue
        made: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            made["description"] = tool.description
        made["parametersJsonSchema"] = tool.parameters
        declarations.append(made)
    return [*([{"functionDeclarations": declarations}] if declarations else []), *native]


def _choice(choice: Choice | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(choice, Choice):
        return choice
    calling: dict[str, Any] = {"mode": "ANY" if choice.mode == "required" else choice.mode.upper()}
    if choice.name is not None:
        calling["allowedFunctionNames"] = [choice.name]
    return {"functionCallingConfig": calling}


def _format(wanted: JsonFormat | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(wanted, JsonFormat):
        return wanted
    made: dict[str, Any] = {"responseMimeType": "application/json"}
    if wanted.schema is not None:
        made["responseJsonSchema"] = wanted.schema
    return made
