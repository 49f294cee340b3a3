"""Fees billed in addition to tokens, on every wire, whole and streamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ember.models.schemas import ChatResponse
from tests.corpus import ask, player, sent

PRICES = Path(__file__).resolve().parents[3] / "ember/pricing/prices"


def chat(**usage: Any) -> dict[str, Any]:
    """A chat completion with this usage."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}


def responses(*output: dict[str, Any], usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A response of the Responses API with these items."""
    return {
        "object": "response",
        "status": "completed",
        "output": [*output],
        "usage": usage,
        **more,
    }


def claude(**usage: Any) -> dict[str, Any]:
    """An Anthropic message with this usage."""
    content = [{"type": "text", "text": "a"}]
    return {"type": "message", "content": content, "stop_reason": "end_turn", "usage": usage}


def gemini(model: str, usage: dict[str, Any], **candidate: Any) -> dict[str, Any]:
    """A Google answer with this usage."""
    content = {"role": "model", "parts": [{"text": "a"}]}
    whole = {"content": content, "finishReason": "STOP", **candidate}
    return {"modelVersion": model, "candidates": [whole], "usageMetadata": usage}


def events(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream with this body."""
    if body.get("object") == "response":
        return [{"type": "response.completed", "response": body}]
    if body.get("type") == "message":
        begun = {**body, "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}
        return [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": body["content"][0]},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": body["usage"]},
            {"type": "message_stop"},
        ]
    if "candidates" in body:
        (candidate,) = body["candidates"]
        begun = {key: candidate[key] for key in ("groundingMetadata",) if key in candidate}
        ended = {"content": candidate["content"], "finishReason": "STOP"}
        if begun:
            ended["groundingMetadata"] = {"searchEntryPoint": {}}
        return [{**body, "candidates": [begun]}, {**body, "candidates": [ended]}]
    (choice,) = body["choices"]
    delta = {"index": 0, "finish_reason": "stop", "delta": choice["message"]}
    return [{**body, "choices": [delta], "usage": None}, {**body, "choices": []}]


def answer(model: str, body: dict[str, Any], stream: bool = False, **params: Any) -> ChatResponse:
    """The response parsed from a body, whole or streamed."""
    text = json.dumps(body)
    if stream:
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events(body))
        text += "data: [DONE]\n\n"
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": text})
        response = ask(model, stream, **params)
    assert isinstance(response, ChatResponse)
    return response


def iteration(kind: str, tokens: int, written: int, **more: Any) -> dict[str, Any]:
    """One entry of Anthropic's usage.iterations."""
    return {"type": kind, "input_tokens": tokens, "output_tokens": written, **more}


COMPACTED = [iteration("compaction", 180_000, 3_500), iteration("message", 23_000, 1_000)]
ADVISED = [
    iteration("message", 1_000, 100),
    iteration("advisor_message", 2_000, 50, model="claude-opus-4-8"),
    iteration("message", 1_500, 10, cache_read_input_tokens=10),
]
FALLEN_BACK = [
    iteration("message", 9_000, 0, model="claude-fable-5"),
    iteration("message", 1_000, 10, model="claude-opus-4-8"),
    iteration("fallback_message", 1_000, 100, model="claude-opus-4-8"),
]
SEARCHED = {"groundingMetadata": {"webSearchQueries": ["a", "b"]}}
WEB = {"type": "web_search_call", "status": "completed", "action": {"type": "search"}}
OPENED = {"type": "web_search_call", "status": "completed", "action": {"type": "open_page"}}
FILES = {"type": "file_search_call", "status": "completed", "queries": ["a"]}
GOOGLES = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
OPENAIS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
OPUS = "claude-opus-4-8"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "body", "tokens", "dollars"),
    [
        (OPUS, claude(input_tokens=23_000, output_tokens=1_000, iterations=COMPACTED),
         (203_000, 4_500, 207_500), 1.1275),
        ("claude-sonnet-5", claude(input_tokens=2_500, output_tokens=110, iterations=ADVISED),
         (4_510, 160, 4_670), None),
        ("claude-fable-5", claude(input_tokens=1_000, output_tokens=100, iterations=FALLEN_BACK),
         (2_000, 110, 2_110), 0.01275),
        (OPUS, claude(input_tokens=1_000_000, output_tokens=100_000, speed="fast"),
         (1_000_000, 100_000, 1_100_000), 15.0),
        (OPUS, claude(input_tokens=1_000_000, output_tokens=0, inference_geo="us"),
         (1_000_000, 0, 1_000_000), 5.5),
        (OPUS, claude(input_tokens=1_000_000, output_tokens=0, inference_geo="global"),
         (1_000_000, 0, 1_000_000), 5.0),
        ("xai/grok-4", chat(prompt_tokens=1_000, completion_tokens=100,
                            cost_in_usd_ticks=165_000_000), (1_000, 100, 1_100), 0.0165),
        ("xai/grok-4.3", chat(prompt_tokens=1_000, completion_tokens=100, cost_in_usd_ticks=0),
         (1_000, 100, 1_100), None),
        ("mistral/voxtral-small-latest", chat(prompt_tokens=20, completion_tokens=10,
                                              prompt_audio_seconds=30), (20, 10, 30), 0.002006),
        ("gemini-3-pro-preview", gemini("gemini-3-pro-preview", {
            "promptTokenCount": 10, "toolUsePromptTokenCount": 90, "candidatesTokenCount": 5,
            "totalTokenCount": 105}), (100, 5, 105), None),
    ],
)  # fmt: skip
def test_special_tokens_are_counted_and_billed(
    stream: bool, model: str, body: dict[str, Any], tokens: tuple[int, ...], dollars: float | None
) -> None:
    """Compactions, other models' parts, speed, region, ticks, audio and tool results are billed."""
    usage = answer(model, body, stream).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == tokens
    assert usage.cost > 0
    if dollars is not None:
        assert usage.cost == pytest.approx(dollars, rel=1e-12)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "plain", "billed", "fee"),
    [
        ("gemini-3-pro-preview", gemini("gemini-3-pro-preview", GOOGLES),
         gemini("gemini-3-pro-preview", GOOGLES, **SEARCHED), 0.028),
        ("gemini-2.5-flash", gemini("gemini-2.5-flash", GOOGLES),
         gemini("gemini-2.5-flash", GOOGLES, **SEARCHED), 0.035),
        ("gemini-2.5-flash", gemini("gemini-2.5-flash", GOOGLES),
         gemini("gemini-2.5-flash", GOOGLES, groundingMetadata={"webSearchQueries": []}), 0),
        # If the answer does not name its model, the requested one is billed.
        ("gemini-2.5-flash", gemini("", GOOGLES), gemini("", GOOGLES, **SEARCHED), 0.035),
        ("gemini-3-pro-preview", gemini("", GOOGLES), gemini("", GOOGLES, **SEARCHED), 0.028),
        ("gemini-3-pro-preview", gemini("gemini-3-pro-preview", GOOGLES), gemini(
            "gemini-3-pro-preview", GOOGLES, groundingMetadata={"webSearchQueries": ["", " "]}), 0),
        ("openai-responses/gpt-5.4", responses(usage=OPENAIS), responses(WEB, usage=OPENAIS), 0.01),
        ("openai-responses/gpt-5.4", responses(usage=OPENAIS), responses(OPENED, usage=OPENAIS), 0),
        ("openai-responses/gpt-5.4", responses(usage=OPENAIS), responses(FILES, usage=OPENAIS),
         0.0025),
        ("openai-responses/gpt-5.4", responses(usage=OPENAIS),
         responses(WEB, WEB, usage=OPENAIS, tool_usage={"web_search": {"num_requests": 1}}), 0.01),
        ("openai-responses/gpt-5.4", responses(usage=OPENAIS),
         responses(WEB, usage=OPENAIS, tool_usage={"web_search": {"num_requests": 0}}), 0),
        (OPUS, claude(input_tokens=1), claude(input_tokens=1, server_tool_use={
            "web_search_requests": 3}), 0.03),
        (OPUS, claude(input_tokens=23_000, iterations=COMPACTED), claude(
            input_tokens=23_000, iterations=COMPACTED, server_tool_use={"web_search_requests": 3}),
         0.03),
    ],
)  # fmt: skip
def test_search_fees_are_billed_once(
    stream: bool, model: str, plain: dict[str, Any], billed: dict[str, Any], fee: float
) -> None:
    """A search costs the tables' price, once; without a search there is no fee."""
    without, with_fee = (answer(model, body, stream).usage.cost for body in (plain, billed))
    assert with_fee - without == pytest.approx(fee, abs=1e-12)


def test_searches_of_earlier_chunks_are_kept() -> None:
    """A chunk whose grounding lists no queries does not remove those of an earlier one."""
    model = "gemini-3-pro-preview"
    chunks = [gemini(model, GOOGLES, **SEARCHED)]
    chunks.append(gemini(model, GOOGLES, groundingMetadata={"webSearchQueries": [], "a": 1}))
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": text})
        response = ask(model, stream=True)
    assert isinstance(response, ChatResponse)
    plain = answer(model, gemini(model, GOOGLES), stream=False)
    assert response.usage.cost - plain.usage.cost == pytest.approx(0.028)


def test_moonshot_usage_is_read_from_the_choice() -> None:
    """Moonshot's streams have their usage in the last chunk's choice."""
    usage = {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": "a"}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]},
    ]
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    with player() as played:
        played.load({"status": 200, "response_headers": {}, "response_body": text})
        response = ask(
            "openai/kimi-k2-0905-preview", stream=True, base_url="https://api.moonshot.ai/v1"
        )
    assert isinstance(response, ChatResponse)
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (8, 3)
    assert response.usage.cost == pytest.approx((8 * 0.6 + 3 * 2.5) / 1e6)
    message = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "usage": usage}
    whole = answer("gpt-4o", {"choices": [message]})
    assert whole.usage.total_tokens == 11


@pytest.mark.parametrize("given", [{"include_obfuscation": False}, {"include_usage": False}, {}])
def test_stream_options_are_merged_with_the_request_for_usage(given: dict[str, Any]) -> None:
    """A caller's `stream_options` are merged with the request for usage, and take precedence."""
    body = sent("gpt-4o", stream=True, stream_options=given).body
    assert body["stream_options"] == {"include_usage": True, **given}


def test_cached_tokens_are_never_above_the_prompt() -> None:
    """Cached tokens never exceed the prompt, whatever the provider counts."""
    details = {"cached_tokens": 161}
    bodies = {
        "azure/grok-4": chat(prompt_tokens=10, completion_tokens=1, prompt_tokens_details=details),
        "openai-responses/gpt-5.4": responses(
            usage={"input_tokens": 10, "output_tokens": 1, "input_tokens_details": details}
        ),
        "gemini-3-pro-preview": gemini(
            "gemini-3-pro-preview", {"promptTokenCount": 10, "cachedContentTokenCount": 161}
        ),
    }
    for model, body in bodies.items():
        where = {"base_url": "https://x.openai.azure.com/v1"} if "azure" in model else {}
        usage = answer(model, body, **where).usage
        assert (usage.prompt_tokens, usage.cached_tokens) == (10, 10)


# For every price in the tables, an answer that it applies to, by wire: servers of a wire report
# the same counts. `{}` is replaced by the model.
def _modality(of: str, name: str, modality: str) -> dict[str, Any]:
    return {of: 50, f"{name}TokensDetails": [{"modality": modality, "tokenCount": 40}]}


CHAT: dict[str, dict[str, Any]] = {
    "input_mtok": chat(prompt_tokens=50),
    "output_mtok": chat(completion_tokens=50),
    "cache_read_mtok": chat(prompt_tokens=50, prompt_tokens_details={"cached_tokens": 40}),
    "cache_write_mtok": chat(prompt_tokens=50, prompt_tokens_details={"cache_write_tokens": 40}),
    "input_audio_mtok": chat(prompt_tokens=50, prompt_tokens_details={"audio_tokens": 40}),
    "output_audio_mtok": chat(completion_tokens=50, completion_tokens_details={"audio_tokens": 4}),
    "output_reasoning_mtok": chat(
        completion_tokens=50, completion_tokens_details={"reasoning_tokens": 40}
    ),
    "output_citation_mtok": chat(completion_tokens=50, citation_tokens=40),
    "web_searches_kcount": chat(prompt_tokens=1, num_search_queries=2),
    "requests_kcount": chat(prompt_tokens=1),
    "input_image_mtok": chat(prompt_tokens=50, prompt_tokens_details={"image_tokens": 40}),
    "output_image_mtok": chat(completion_tokens=50, completion_tokens_details={"image_tokens": 40}),
    "input_audio_hours": chat(prompt_tokens=1, prompt_audio_seconds=9),
}
ANTHROPIC = {
    "input_mtok": claude(input_tokens=50),
    "output_mtok": claude(input_tokens=0, output_tokens=50),
    "cache_read_mtok": claude(cache_read_input_tokens=50),
    "cache_write_mtok": claude(cache_creation_input_tokens=50),
    "cache_write_1h_mtok": claude(
        cache_creation_input_tokens=50, cache_creation={"ephemeral_1h_input_tokens": 50}
    ),
    "web_searches_kcount": claude(input_tokens=1, server_tool_use={"web_search_requests": 2}),
}
GOOGLE = {
    "input_mtok": gemini("{}", {"promptTokenCount": 50}),
    "output_mtok": gemini("{}", {"candidatesTokenCount": 50}),
    "cache_read_mtok": gemini("{}", {"promptTokenCount": 50, "cachedContentTokenCount": 40}),
    "web_searches_kcount": gemini("{}", GOOGLES, **SEARCHED),
    **{
        f"input_{kind}_mtok": gemini("{}", _modality("promptTokenCount", "prompt", kind.upper()))
        for kind in ("audio", "image", "video")
    },
    **{
        f"output_{kind}_mtok": gemini(
            "{}", _modality("candidatesTokenCount", "candidates", kind.upper())
        )
        for kind in ("audio", "image", "video")
    },
    "cache_audio_read_mtok": gemini("{}", {
        **_modality("promptTokenCount", "prompt", "AUDIO"), "cachedContentTokenCount": 40,
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}]}),
}  # fmt: skip
RESPONSES = {
    "web_searches_kcount": responses(WEB, usage={"input_tokens": 1}),
    "storage_searches_kcount": responses(FILES, usage={"input_tokens": 1}),
}
FILLED = {"anthropic": ANTHROPIC, "google": GOOGLE, "openai": {**CHAT, **RESPONSES}}
# Prices that apply to no answer of Ember's calls, and why.
UNFILLED = {
    ("openai", "cache_image_read_mtok"): "image and realtime models, which are no chat models",
    ("openai", "cache_audio_read_mtok"): "realtime models: chat does not say which cached is sound",
    ("google", "cache_write_mtok"): "Claude on Vertex AI, which counts in its own words",
    ("google", "cache_write_1h_mtok"): "Claude on Vertex AI, which counts in its own words",
    ("*", "audio_hours"): "sound is input, and priced as input_audio_hours beside it",
    ("*", "cache_write_1h_mtok"): "chat completions do not say how long a write is kept",
}


def test_every_price_has_a_sample_answer() -> None:
    """Each price in the tables has a sample answer that it applies to, or a reason for none."""
    unfilled: dict[tuple[str, str], list[str]] = {}
    rows = 0
    for file in sorted(PRICES.glob("*.json")):
        provider = file.stem
        if provider == "about":
            continue
        samples = FILLED.get(provider, CHAT)
        for row in json.loads(file.read_text()):
            sets = row["prices"] if isinstance(row["prices"], list) else [[None, row["prices"]]]
            for key in {key for _, prices in sets for key in prices}:
                rows += 1
                if key not in samples:
                    unfilled.setdefault((provider, key), []).append(str(row["match"]))
    known = {key for _, key in UNFILLED}
    missing = {
        place: names
        for place, names in unfilled.items()
        if place not in UNFILLED and ("*", place[1]) not in UNFILLED
    }
    assert not missing
    assert {key for _, key in unfilled} == known
    assert rows > 3_000


@pytest.mark.parametrize(
    ("provider", "key"), [(wire, key) for wire, samples in FILLED.items() for key in samples]
)
def test_each_sample_is_charged_at_its_price(provider: str, key: str) -> None:
    """Doubling a price doubles the cost of its sample answer."""
    from ember.pricing import cost as pricing

    prices = {"anthropic": OPUS, "google": "gemini-3-pro-preview", "openai": "openai/gpt-5.4"}
    model = prices[provider]
    body = FILLED[provider][key]
    if body.get("object") == "response":
        model = "openai-responses/gpt-5.4"
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for price in (1, 2):
            patch.setattr(pricing, "find_prices", lambda *args, price=price: {key: price})
            found[price] = answer(model, body).usage.cost
    assert found[2] == pytest.approx(2 * found[1])
    assert found[1] > 0
