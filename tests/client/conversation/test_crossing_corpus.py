"""Recorded conversations sent to each other wire, validated with the vendors' own types."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from ember.api.models import ModelRegistry
from ember.exceptions import EmberError, ModelProviderError
from tests.corpus import needs_corpus, player, rows

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    needs_corpus,
    # Old models, and servers without published prices.
    pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning"),
]

TURNS = {
    "openai.chat": "messages",
    "openai.responses": "input",
    "anthropic.messages": "messages",
    "google.generate": "contents",
}
TARGETS = {
    "openai.chat": ("openai", "gpt-4o", "messages"),
    "openai.responses": ("openai-responses", "gpt-5.5", "input"),
    "anthropic.messages": ("anthropic", "claude-opus-4-8", "messages"),
    "google.generate": ("google", "gemini-3-pro-preview", "contents"),
}


@lru_cache(maxsize=4)
def judge(wire: str) -> TypeAdapter[Any]:
    """The vendor's own type for one turn."""
    if wire == "openai.chat":
        from openai.types.chat import ChatCompletionMessageParam

        return TypeAdapter(ChatCompletionMessageParam)
    if wire == "openai.responses":
        from openai.types.responses import ResponseInputItemParam

        return TypeAdapter(ResponseInputItemParam)
    if wire == "anthropic.messages":
        from anthropic.types.beta import BetaMessageParam

        return TypeAdapter(BetaMessageParam)
    content = pytest.importorskip("google.genai.types", reason="from Python 3.11").Content
    return TypeAdapter(content)


def exhausted(value: Any) -> None:
    """Validate the items of iterables, which pydantic defers."""
    if isinstance(value, dict):
        for inner in value.values():
            exhausted(inner)
    elif type(value).__name__ in ("ValidatorIterator", "list", "tuple"):
        for inner in value:
            exhausted(inner)


def with_defaults(turn: Any) -> Any:
    """The turn with defaults of the Responses API that the SDK's type requires."""
    if isinstance(turn, list):
        return [with_defaults(each) for each in turn]
    if not isinstance(turn, dict):
        return turn
    detail = {"detail": "auto"} if turn.get("type") == "input_image" else {}
    return {**detail, **{key: with_defaults(value) for key, value in turn.items()}}


def shape(value: Any) -> Any:
    """The structure of a conversation: the kinds of its parts, in order."""
    if isinstance(value, dict):
        return {k: v if k in ("role", "type") else shape(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return bool(value) if isinstance(value, str) else type(value).__name__


# Reasons why a wire cannot express a conversation, by the text of the error.
REFUSED = {
    "takes no audio": "sound, which the wire lacks",
    "takes no video": "video, which the wire lacks",
    "cannot take": "a file of a kind that the wire lacks",
    "take sound as wav or mp3": "sound in another format, or at a URL",
    "stored with its own": "a file that only its own provider has",
    "take a PDF's bytes": "a PDF at a URL, which chat completions do not fetch",
}


def test_recorded_conversation_is_valid_on_every_wire(
    figures: Callable[[str], None],
) -> None:
    """Each conversation, with answer and tool results, is a valid request on every wire."""
    registry = ModelRegistry()
    seen: set[str] = set()
    accepted: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    failed: dict[str, str] = {}
    with player() as played:
        for row in rows().values():
            try:
                turns = json.loads(row["request_body"])[TURNS[row["wire"]]]
            except (ValueError, TypeError, KeyError):
                continue
            turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
            response = played.play(row)
            if isinstance(response, EmberError) or "invalid_role" in str(turns):
                continue
            kind = json.dumps([row["wire"], shape(turns), shape(response.message)])
            if kind in seen:
                continue
            seen.add(kind)
            results = [
                {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": "done"}
                for call in response.tool_calls
            ]
            prompt = [*turns, response.message, *results, {"role": "user", "content": "Go on."}]
            for wire, (name, model, key) in TARGETS.items():
                if wire == row["wire"]:
                    continue
                provider: Any = registry.get_model(f"{name}/{model}")
                try:
                    body = provider.body(provider.call(prompt, model, {"api_key": "k"}))
                    for turn in json.loads(json.dumps(body))[key]:
                        exhausted(judge(wire).validate_python(with_defaults(turn)))
                    accepted[f"{row['wire']} -> {wire}"] += 1
                except ModelProviderError as error:
                    why = next((why for says, why in REFUSED.items() if says in str(error)), "")
                    refused[why] += 1
                    if not why:
                        failed[f"{row['id']} -> {wire}"] = str(error)
                except ValueError as error:
                    failed[f"{row['id']} -> {wire}"] = f"{error} {turn!r:.300}"
    lines = [f"conversations that cross: {accepted.total()} of {len(seen)} kinds accepted"]
    lines += [f"  {way}: {count}" for way, count in accepted.items()]
    lines += [f"  {count} refused: {why}" for why, count in refused.items() if why]
    figures("\n".join([*lines, *(f"  {where}: {what[-340:]}" for where, what in failed.items())]))
    assert accepted.total() > 1_000
    assert not failed
