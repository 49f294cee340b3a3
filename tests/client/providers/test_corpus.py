"""Recorded traffic, parsed by Ember and by the providers' own SDKs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from ember.exceptions import EmberError, ProviderAPIError
from tests.corpus import Row, ask, needs_corpus, player, references, rows, target, unparsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ember.models.schemas import ChatResponse

pytestmark = [
    needs_corpus,
    # Old models, and servers without published prices.
    pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning"),
]

# Deviations where the reference is wrong: the field, the reason, the rows.
REASONS = {
    ("cached", "Mistral's num_cached_tokens, for which the SDK has no field"): """
        03be579160e74221 0fa3a8df8c37afbd 117a864188766e33 1cfdd41cb716382f 2140e3dc8ca54b83
        27afa79a880376d8 397ec948ab6666dd 58c8b890161e4db0 58dcb309572816e0 595b6a0840e4ae98
        5fe1cd378fcdf921 646207f0c50ea8eb 6e9ae0929c653b7c 7c770bc71e2c2b04 856d6f867c598602
        88d6eea7353d1010 98987a6d34b3f37b b0f4d753553b325c b0f5db204cec183c bb0304d7d4675aee
        c012ebb80feb0ed8 c0747e13139263d1 d91d50f97a605cc6 dd32b2a846d27ec5 e62ddce3ab3de5c0
        f04c09cd5a4ab6bc f9be79c19aac5a48
    """,
    ("prompt completion", "Groq's x_groq.usage, for which the SDK has no field"): """
        6224bb0aabb8b4a2 e7269339814a1f1c
    """,
    ("tool_calls", "Snowflake's function_call with an empty name is no call"): """
        1c80f77d25c6ced2 412b7f14d99dad8d 6a02bfcd8b94f64e 92fa551da83b9d0d cc13ea993b7dd034
        d23e5a9233f91dd3 ed8679f66c7d03b1 ee20b28343c49c99
    """,
    ("finish", "what is no call does not end an answer as tool_calls (Snowflake)"): """
        92fa551da83b9d0d
    """,
    ("error", "an error object in a 200 answer is an error, not an empty answer"): """
        37c11b514c3c5e0c
    """,
    ("error", "an echo of the request in a 200 answer is no answer"): """
        877c7cc58d8dc709
    """,
    ("prompt", "what Google's own tools put into the prompt is input, and billed as such"): """
        03377998b55dbde7 2502d6ae4aa8664e 254a4142ecc88520 2aa0a98d21b3f5fc 326198d754af053a
        40ca0abfedad8edb 62d64f92555e6218 7f6f8bd9bd7aa380 8023c4df6ca0dc7b 873005697504862b
        8c2996b41556a324 8d012acdaabed2b2 9f67d0c52b506391 a10d66b88bbe9488 a12e805caa4f4098
        ce9aec52ebe598d3 daa33cabab9183cf e2a11b59700a52da e32411869488cf99 eed31c688c3e1850
    """,
    (
        "prompt completion",
        "an advisor's tokens, which Anthropic's total leaves out, are billed",
    ): """
        37fc64576ffa4384 3bd8c6c33a22b82b d5c7b08682599519 dd6d4bc74cad6b3f
    """,
    ("finish", "a prompt that was blocked (promptFeedback) has ended for that reason"): """
        da80d185a705c113
    """,
}
DEVIATIONS = {
    (row, field): reason
    for (fields, reason), ids in REASONS.items()
    for row in ids.split()
    for field in fields.split()
}

# The providers' finish reasons as Ember's, by their documentation.
FINISH: dict[str, dict[str, str]] = {
    "openai.chat": {
        "stop": "stop",
        "eos": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "function_call": "tool_calls",
        "content_filter": "content_filter",
    },
    "openai.responses": {"completed": "stop", "queued": "other"},
    "anthropic.messages": {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "tool_use": "tool_calls",
    },
    "google.generate": {
        "STOP": "stop",
        "MAX_TOKENS": "length",
        "SAFETY": "content_filter",
        "MODEL_ARMOR": "content_filter",
        "UNEXPECTED_TOOL_CALL": "error",
    },
}
# Error types allowed for each status; test_provider_errors.py checks each row's.
ERRORS = {
    400: "invalid_request authentication context_length content_filter quota not_found permission",
    401: "authentication permission",
    403: "permission",
    404: "not_found",
    429: "rate_limit quota",
    500: "server",
    503: "overloaded server",
    529: "overloaded",
    # Inside a stream with status 200.
    200: "server rate_limit overloaded invalid_request content_filter unknown bad_response",
}
TOKENS = ("prompt", "completion", "cached", "cache_write", "reasoning")


def expected(row: Row, reference: Row) -> dict[str, Any]:
    """The reference's fields, in Ember's vocabulary."""
    if error := reference["error"]:
        return {"error": error["status"]}
    word, calls = reference["finish_reason"], reference["n_tool_calls"]
    finish = FINISH[row["wire"]][word] if word else None
    if finish == "stop":
        # Not every API has a word for these; OpenAI ends a forced call with `stop`.
        finish = "tool_calls" if calls else "content_filter" if reference.get("refusal") else "stop"
    fields = {
        "error": None,
        "text": reference["text"],
        "finish": finish,
        "tool_calls": calls,
        "refusal": reference.get("refusal") or None,
        "model": reference["model"] or None,
    }
    return fields | {name: reference[f"{name}_tokens"] or 0 for name in TOKENS}


def read(row: Row, result: ChatResponse | EmberError) -> dict[str, Any]:
    """Ember's fields; an error is compared by its status if its type fits that status."""
    if isinstance(result, EmberError):
        assert isinstance(result, ProviderAPIError), repr(result)
        status = result.context["status_code"]
        possible = result.error_type in ERRORS.get(status, "").split()
        return {"error": status if possible else f"{status} {result.error_type}"}
    usage = result.usage
    counted = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    return {
        "error": None,
        "text": result.text,
        "finish": result.finish_reason,
        "tool_calls": len(result.tool_calls),
        "refusal": result.refusal if row["wire"].startswith("openai") else None,
        "model": result.model,
        **dict(zip(TOKENS, counted, strict=True)),
    }


class Score:
    """Counts of equal and different fields, by wire."""

    def __init__(self) -> None:
        self.compared: dict[str, Counter[str]] = defaultdict(Counter)
        self.agree: dict[str, Counter[str]] = defaultdict(Counter)
        self.rows: Counter[str] = Counter()
        self.whole_rows: Counter[str] = Counter()
        self.differences: dict[tuple[str, str], str] = {}

    def add(self, row: Row, result: ChatResponse | EmberError) -> None:
        """Compare one row."""
        wire, ours = row["wire"], read(row, result)
        theirs = expected(row, references()[row["id"]])
        same = True
        for name, value in theirs.items():
            if name == "model" and value is None:
                continue  # not reported: Ember's is the requested model
            if ours["error"] and name != "error":
                continue  # an error has no other fields
            self.compared[wire][name] += 1
            if ours.get(name) == value:
                self.agree[wire][name] += 1
            else:
                same = False
                what = (
                    f"{wire} {row['provider']}: {ours.get(name)!r:.200}, reference {value!r:.200}"
                )
                self.differences[row["id"], name] = f"{what} ({result!r:.150})"
        self.rows[wire] += 1
        self.whole_rows[wire] += same

    def report(self, title: str) -> str:
        """The counts as lines of text."""
        lines = [f"{title}: {self.whole_rows.total()} of {self.rows.total()} rows agree wholly"]
        for wire, compared in self.compared.items():
            counts = ", ".join(
                f"{name} {self.agree[wire][name]}/{number}" for name, number in compared.items()
            )
            lines.append(f"  {wire} {self.whole_rows[wire]}/{self.rows[wire]}: {counts}")
        listed = Counter(DEVIATIONS.get(place, "") for place in self.differences)
        lines += [f"  deviates {number} times: {why}" for why, number in listed.items() if why]
        lines += [
            f"  NOT LISTED {row} {name}: {what}"
            for (row, name), what in self.differences.items()
            if (row, name) not in DEVIATIONS
        ]
        return "\n".join(lines)


def comparable() -> Iterable[Row]:
    """The rows that the SDKs could parse."""
    return (row for row in rows().values() if row["id"] in references())


def test_every_recorded_answer_reads_as_the_sdks_read_it(figures: Callable[[str], None]) -> None:
    """Text, finish, tools, refusal, model, tokens and errors equal the SDKs', unless listed."""
    score = Score()
    with player() as played:
        for row in comparable():
            score.add(row, played.play(row))
    figures(score.report("plain and streamed"))
    assert score.rows.total() > 4_000
    assert score.differences.keys() == DEVIATIONS.keys()


def test_awaited_calls_read_the_same(figures: Callable[[str], None]) -> None:
    """Every eighth row equals the SDKs' result with acall and astream too."""
    score = Score()

    async def play_all() -> None:
        for row in list(comparable())[::8]:
            score.add(row, await played.aplay(row))

    with player() as played:
        asyncio.run(play_all())
    figures(score.report("awaited"))
    assert score.rows.total() > 500
    assert score.differences.keys() <= DEVIATIONS.keys()


def plainly_there(body: str) -> dict[str, Any]:
    """The fields of Google's answers, whole or as an array of chunks, parsed without Ember."""
    chunks = json.loads(body)
    chunks = chunks if isinstance(chunks, list) else [chunks]
    candidates = [c for chunk in chunks for c in chunk.get("candidates", ())]
    parts = [p for c in candidates for p in c.get("content", {}).get("parts", ())]
    usage = chunks[-1]["usageMetadata"]
    return {
        "text": "".join(p.get("text", "") for p in parts if not p.get("thought")),
        "tool_calls": sum("functionCall" in p for p in parts),
        "prompt": usage["promptTokenCount"],
        "completion": usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0),
        "reasons": [c["finishReason"] for c in candidates if "finishReason" in c],
    }


def test_bodies_that_the_sdks_cannot_read(figures: Callable[[str], None]) -> None:
    """Google's arrays and integer enums are parsed; other bodies are errors."""
    agree = 0
    with player() as played:
        for row_id in unparsed():
            row = rows()[row_id]
            result = played.play(row)
            if row["wire"] == "openai.chat":
                assert isinstance(result, ProviderAPIError)
                assert result.error_type == "bad_response"
            else:
                reading = plainly_there(row["response_body"])
                assert not isinstance(result, EmberError), (row_id, result)
                calls = len(result.tool_calls)
                assert (result.text, calls) == (reading["text"], reading["tool_calls"]), row_id
                assert result.usage.prompt_tokens == reading["prompt"], row_id
                assert result.usage.completion_tokens == reading["completion"], row_id
                finish = {1: "stop", "STOP": "stop", 2: "length"}[reading["reasons"][-1]]
                finish = "tool_calls" if calls else finish
                assert result.finish_reason == finish, row_id
            agree += 1
    figures(f"unreadable for the SDKs: {agree} of {len(unparsed())} read right")
    assert agree == 70


TURNS = {"openai.chat": "messages", "openai.responses": "input", "anthropic.messages": "messages",
         "google.generate": "contents"}  # fmt: skip
# Fields without meaning: null, [], "no error", a call's index in its list, a tool's name next to
# its call's id, a Responses result's own id and status.
NOTHING = ("content", None), ("content", []), ("is_error", False), ("tool_calls", [])
NAMELESS = {"tool": ("name",), "function_call_output": ("id", "status"),
            "custom_tool_call_output": ("id", "status")}  # fmt: skip

# Requests that were invalid: their recorded answer is an error, or Ember sends them corrected.
NOT_AS_RECORDED = {
    "18748da942d32c9a": "no such role",
    "9b6c0dffcff86af8": "no such role",
    "b34d56a0c6654d4e": "no such role",
    "270cfd6bdf1e5ded": "a call without arguments, which are {}",
    "5ebd277b8dbcbca6": "a call without arguments, which are {}",
    "803d7225d22f7541": "text of a blank only, which Anthropic refuses where it is alone",
}


def meaning(value: Any) -> Any:
    """A turn in its shortest form on the wire, without meaningless fields."""
    if isinstance(value, list):
        return [meaning(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("type") if value.get("role") is None else value["role"]
    extra = NAMELESS.get(str(kind), ()) + (("index",) if "function" in value else ())
    turn = {
        name: meaning(item)
        for name, item in value.items()
        if item is not None and name not in extra and (name, item) not in NOTHING
    }
    if turn.get("role") == "developer":
        turn["role"] = "system"  # which of the two depends on the model
    if turn.get("type") == "message" and "id" not in turn:
        del turn["type"]
    for call in ("functionCall", "functionResponse"):
        if call in turn:
            turn[call].pop("id", None)  # Google links them by name
    content = turn.get("content")
    alone = isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict)
    if alone and content[0].keys() == {"type", "text"}:
        turn["content"] = content[0]["text"]
    return turn


def test_recorded_conversations_are_sent_as_they_were_recorded(
    figures: Callable[[str], None],
) -> None:
    """Recorded turns of every kind reach the provider unchanged through Ember."""
    compared: Counter[str] = Counter()
    differences: dict[str, str] = {}
    with player() as played:
        for row in rows().values():
            wire = row["wire"]
            try:
                turns = json.loads(row["request_body"])[TURNS[wire]]
            except (ValueError, TypeError, KeyError):
                continue
            model, base_url = target(row)
            played.requests.clear()
            result = ask(model, prompt=turns, base_url=base_url)
            compared[wire] += 1
            if not played.requests:
                differences[row["id"]] = str(result)
                continue
            ours = meaning(json.loads(played.requests[0].content)[TURNS[wire]])
            theirs = meaning(turns)
            ours, theirs = (
                [{"role": "user", "content": t}] if isinstance(t, str) else t
                for t in (ours, theirs)
            )
            if wire == "openai.responses" and theirs[0].get("role") == "system":
                del theirs[: len(theirs) - len(ours)]  # it is in `instructions`
            if ours != theirs:
                unequal = [(o, t) for o, t in zip(ours, theirs, strict=False) if o != t]
                differences[row["id"]] = f"{unequal[:1] or [ours[-1], theirs[-1]]!r:.600}"
    lines = [f"conversations as recorded: {compared.total()} {dict(compared)}"]
    figures("\n".join([*lines, *(f"  {row} {what}" for row, what in differences.items())]))
    assert compared.total() > 4_000
    assert differences.keys() == NOT_AS_RECORDED.keys()
