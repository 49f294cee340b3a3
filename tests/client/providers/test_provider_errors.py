"""Providers' errors, in all their shapes, become one vocabulary."""

from __future__ import annotations

import email.utils
import json
import pickle
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from ember.exceptions import ProviderAPIError
from tests.corpus import Player, ask, needs_corpus, references, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "sk-secret-0123456789"


def failed(
    played: Player,
    status: int,
    body: object,
    model: str = "openai/gpt-5.5",
    headers: Mapping[str, str] | None = None,
    stream: bool = False,
) -> ProviderAPIError:
    """The error that a call raises which is answered like this."""
    text = body if isinstance(body, str) else json.dumps(body)
    row = {"status": status, "response_headers": headers or {}, "response_body": text}
    played.load(row)
    error = ask(model, stream, api_key=KEY)
    assert isinstance(error, ProviderAPIError)
    return error


# What each kind of recorded error is: status, the provider's code and type.
RECORDED: dict[tuple[int, str | None, str | None], str] = {
    (400, "model_not_found", "invalid_request_error"): "not_found",
    (404, "api_error", None): "not_found",
    (429, "insufficient_quota", "insufficient_quota"): "quota",
    (200, None, "model_error"): "server",
    (200, "tool_use_failed", "invalid_request_error"): "invalid_request",
    (200, "400", None): "invalid_request",
}
BY_STATUS = {
    400: "invalid_request",
    401: "authentication",
    404: "not_found",
    429: "rate_limit",
    500: "server",
    503: "overloaded",
    529: "overloaded",
}
RETRYABLE = {"rate_limit", "overloaded", "server"}
# Where only the words inside the body tell: Google's bad key is a 400, Anthropic's empty purse too.
BY_ROW = {
    "16d7f34c91f0b4e8": "authentication",
    "25bdd9b05c56e0ae": "authentication",
    "45b5ba5d6ed4fa4c": "authentication",
    "fad99965a20a6840": "authentication",
    "8657f59e1e6d1b58": "quota",
}


@needs_corpus
def test_every_recorded_error(played: Player) -> None:
    """Each error of the corpus has its type, its status, its message, and advice on retrying."""
    seen: Counter[str] = Counter()
    for row_id, reference in references().items():
        if not (told := reference["error"]):
            continue
        row = rows()[row_id]
        error = played.play(row)
        assert isinstance(error, ProviderAPIError), row_id
        context = error.context
        key = (context["status_code"], context["provider_code"], context["provider_type"])
        expected = RECORDED.get(key) or BY_STATUS.get(row["status"], "")
        if '"API_KEY_INVALID"' in row["response_body"]:
            expected = "authentication"
        expected = BY_ROW.get(row_id, expected)
        assert error.error_type == expected, (row_id, key, error)
        assert context["status_code"] == told["status"] == row["status"], row_id
        assert context["in_stream"] is True if told["in_stream"] else "in_stream" not in context
        told_id = told["request_id"]
        assert not told_id or context["request_id"] == told_id, row_id
        if told["param"] and row["wire"].startswith("openai"):
            assert context["param"] == told["param"], row_id
        if told["code"] and row["response_body"].startswith("{"):
            assert context["provider_code"] == str(told["code"]), row_id
        should_retry = row["response_headers"].get("x-should-retry")
        delivered = bool(context.get("partial_text"))
        advised = expected in RETRYABLE and not delivered and should_retry != "false"
        assert error.retryable is advised, row_id
        seen[expected] += 1
    assert seen.total() > 200
    assert len(seen) == 7


def openai(message: str, kind: str | None, code: object, param: str | None = None) -> Any:
    """OpenAI's envelope."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic(kind: str, message: str, **error: Any) -> Any:
    """Anthropic's envelope."""
    return {
        "type": "error",
        "error": {"type": kind, "message": message, **error},
        "request_id": "req_1",
    }


def google(code: int, status: str, message: str, *details: Any) -> Any:
    """Google's envelope."""
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return {"error": error}


def azure_filter(inner: str = "innererror", code: str = "content_filter") -> Any:
    """Azure's refusal of a prompt."""
    result = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {}}}
    message = "The response was filtered due to the prompt triggering Azure's policy."
    return {"error": {"message": message, "type": None, "param": "prompt", "code": code,
                      "status": 400, inner: result}}  # fmt: skip


INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
PER_DAY = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
PER_MINUTE = {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]}
WAIT = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38.8s"}
INVALID = "invalid_request_error"
OPENAI = "openai/gpt-5.5"
ANTHROPIC = "anthropic/claude-opus-5-5"
GOOGLE = "google/gemini-4-argon"

# provider, status, body, error_type, retryable, retry_after: the bodies of facts/errors.md and
# facts/azure-openai.md.
TABLE: list[tuple[str, int, object, str, bool, float | None]] = [
    (
        OPENAI,
        400,
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model.",
            INVALID,
            "unsupported_parameter",
            "max_tokens",
        ),
        "invalid_request",
        False,
        None,
    ),
    (
        OPENAI,
        400,
        openai(
            "Function tools with reasoning_effort are not supported",
            INVALID,
            None,
            "reasoning_effort",
        ),
        "invalid_request",
        False,
        None,
    ),
    (
        OPENAI,
        400,
        openai(
            "This model's maximum context length is 8192 tokens. Please reduce the length of "
            "the messages.",
            INVALID,
            "context_length_exceeded",
            "messages",
        ),
        "context_length",
        False,
        None,
    ),
    (
        OPENAI,
        400,
        openai("Invalid prompt: ... violating our usage policy", INVALID, "invalid_prompt"),
        "content_filter",
        False,
        None,
    ),
    (
        OPENAI,
        400,
        openai("rejected", INVALID, "content_policy_violation"),
        "content_filter",
        False,
        None,
    ),
    (
        OPENAI,
        400,
        openai(
            "Invalid 'x': string too long. Expected a string with maximum length 10, but got "
            "a string with length 11 instead.",
            INVALID,
            "string_above_max_length",
        ),
        "invalid_request",
        False,
        None,
    ),
    (
        OPENAI,
        401,
        openai("Incorrect API key provided", INVALID, "invalid_api_key"),
        "authentication",
        False,
        None,
    ),
    (
        OPENAI,
        403,
        openai(
            "Country, region, or territory not supported",
            "request_forbidden",
            "unsupported_country_region_territory",
        ),
        "permission",
        False,
        None,
    ),
    (
        OPENAI,
        404,
        openai("The model `x` does not exist", INVALID, "model_not_found"),
        "not_found",
        False,
        None,
    ),
    (
        OPENAI,
        429,
        openai(
            "Rate limit reached for gpt-4o-mini on tokens per min (TPM): Limit 100000. Please "
            "try again in 6m0s.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "rate_limit",
        True,
        360,
    ),
    (
        OPENAI,
        429,
        openai("Please try again in 12ms.", "requests", "rate_limit_exceeded"),
        "rate_limit",
        True,
        0.012,
    ),
    (
        OPENAI,
        429,
        openai("x (try again in 114h18m0s)", "tokens", "rate_limit_exceeded"),
        "rate_limit",
        True,
        411480,
    ),
    (OPENAI, 429, openai("slow", "rate_limit_error", "slow_down"), "rate_limit", True, None),
    *[
        (
            OPENAI,
            429,
            openai("You exceeded your current quota", "insufficient_quota", code),
            "quota",
            False,
            None,
        )
        for code in (
            "insufficient_quota",
            "billing_hard_limit_reached",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            None,
        )
    ],
    (OPENAI, 500, openai("oops", "server_error", None), "server", True, None),
    (
        OPENAI,
        503,
        openai("busy", "service_unavailable_error", "server_is_overloaded"),
        "overloaded",
        True,
        None,
    ),
    (
        ANTHROPIC,
        400,
        anthropic(INVALID, "prompt is too long: 210000 tokens > 200000 maximum"),
        "context_length",
        False,
        None,
    ),
    (
        ANTHROPIC,
        400,
        anthropic(INVALID, "Your credit balance is too low to access the Anthropic API."),
        "quota",
        False,
        None,
    ),
    (
        ANTHROPIC,
        400,
        anthropic(INVALID, "You have reached your specified API usage limits."),
        "quota",
        False,
        None,
    ),
    (
        ANTHROPIC,
        400,
        anthropic(INVALID, "temperature: Extra inputs are not permitted"),
        "invalid_request",
        False,
        None,
    ),
    (ANTHROPIC, 402, anthropic("billing_error", "pay"), "quota", False, None),
    (ANTHROPIC, 403, anthropic("permission_error", "no"), "permission", False, None),
    (ANTHROPIC, 404, anthropic("not_found_error", "model: sonnet4"), "not_found", False, None),
    (ANTHROPIC, 409, anthropic("conflict_error", "again"), "server", True, None),
    (ANTHROPIC, 413, anthropic("request_too_large", "big"), "request_too_large", False, None),
    (ANTHROPIC, 429, anthropic("rate_limit_error", "slow"), "rate_limit", True, None),
    (
        ANTHROPIC,
        429,
        anthropic("rate_limit_error", "no", details={"error_code": "enforced_spend_limit_reached"}),
        "quota",
        False,
        None,
    ),
    (
        ANTHROPIC,
        429,
        anthropic("rate_limit_error", "no", details={"error_code": "contract_spend_limit_reached"}),
        "quota",
        False,
        None,
    ),
    (
        ANTHROPIC,
        429,
        anthropic("rate_limit_error", "no", details={"error_code": "ramp_limit_exceeded"}),
        "rate_limit",
        True,
        None,
    ),
    (
        ANTHROPIC,
        400,
        anthropic(INVALID, "no", details={"error_code": "tool_name_conflict"}),
        "invalid_request",
        False,
        None,
    ),
    (ANTHROPIC, 500, anthropic("api_error", "oops"), "server", True, None),
    (ANTHROPIC, 504, anthropic("timeout_error", "late"), "timeout", True, None),
    (ANTHROPIC, 529, anthropic("overloaded_error", "Overloaded"), "overloaded", True, None),
    (
        GOOGLE,
        400,
        google(400, "INVALID_ARGUMENT", "API key not valid.", INFO),
        "authentication",
        False,
        None,
    ),
    (
        GOOGLE,
        400,
        google(
            400,
            "INVALID_ARGUMENT",
            "The input token count (2000000) exceeds the maximum "
            "number of tokens allowed (1048576).",
        ),
        "context_length",
        False,
        None,
    ),
    (
        GOOGLE,
        400,
        google(400, "FAILED_PRECONDITION", "User location is not supported"),
        "invalid_request",
        False,
        None,
    ),
    (
        GOOGLE,
        400,
        [google(400, "INVALID_ARGUMENT", "API key not valid.", INFO)],
        "authentication",
        False,
        None,
    ),
    (GOOGLE, 401, google(401, "UNAUTHENTICATED", "no"), "authentication", False, None),
    (
        GOOGLE,
        402,
        google(402, "RESOURCE_EXHAUSTED", "prepaid credit used up"),
        "quota",
        False,
        None,
    ),
    (GOOGLE, 403, google(403, "PERMISSION_DENIED", "no"), "permission", False, None),
    (GOOGLE, 404, google(404, "NOT_FOUND", "models/x is not found"), "not_found", False, None),
    (
        GOOGLE,
        429,
        google(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your "
            "plan and billing details. limit: 5, model: x",
            PER_MINUTE,
            WAIT,
        ),
        "rate_limit",
        True,
        38.8,
    ),
    (
        GOOGLE,
        429,
        google(429, "RESOURCE_EXHAUSTED", "x limit: 20", PER_DAY, WAIT),
        "quota",
        False,
        38.8,
    ),
    (
        GOOGLE,
        429,
        google(429, "RESOURCE_EXHAUSTED", "x limit: 0, model: y", PER_MINUTE, WAIT),
        "quota",
        False,
        38.8,
    ),
    (GOOGLE, 500, google(500, "INTERNAL", "oops"), "server", True, None),
    (GOOGLE, 503, google(503, "UNAVAILABLE", "The model is overloaded."), "overloaded", True, None),
    (GOOGLE, 504, google(504, "DEADLINE_EXCEEDED", "late"), "timeout", True, None),
    (
        GOOGLE,
        400,
        {"error": {"code": "invalid_request", "message": "x"}},
        "invalid_request",
        False,
        None,
    ),
    ("azure/d", 400, azure_filter(), "content_filter", False, None),
    ("azure/d", 400, azure_filter("inner_error", INVALID), "content_filter", False, None),
    (
        "azure/d",
        400,
        {
            "error": {
                "code": INVALID,
                "message": "x",
                "content_filters": [{"blocked": True, "source_type": "prompt"}],
            }
        },
        "content_filter",
        False,
        None,
    ),
    (
        "azure/d",
        401,
        openai("Access denied due to invalid subscription key or wrong API endpoint.", None, "401"),
        "authentication",
        False,
        None,
    ),
    (
        "azure/d",
        404,
        openai("The API deployment for this resource does not exist.", None, "DeploymentNotFound"),
        "not_found",
        False,
        None,
    ),
    (
        "azure/d",
        429,
        openai(
            "Requests have exceeded token rate limit of your current AIServices S0 "
            "pricing tier. Please retry after 37 seconds.",
            None,
            "429",
        ),
        "rate_limit",
        True,
        37,
    ),
    (
        "azure/d",
        429,
        openai("Rate limit is exceeded. Try again in 2 seconds.", None, "429"),
        "rate_limit",
        True,
        2,
    ),
    ("azure/d", 408, "Request timed out", "timeout", True, None),
    ("azure/d", 413, "Request Entity Too Large", "request_too_large", False, None),
    (
        "groq/m",
        400,
        openai("Failed to call a function.", INVALID, "tool_use_failed"),
        "invalid_request",
        False,
        None,
    ),
    (
        "groq/m",
        413,
        openai("Request too large", "tokens", "rate_limit_exceeded"),
        "request_too_large",
        False,
        None,
    ),
    ("groq/m", 498, openai("no capacity", "x", "capacity_exceeded"), "overloaded", True, None),
    (
        "mistral/m",
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "stream_options"],
                        "msg": "Extra inputs are not permitted",
                    }
                ]
            },
            "type": INVALID,
            "param": None,
            "code": None,
        },
        "invalid_request",
        False,
        None,
    ),
    (
        "mistral/m",
        429,
        {
            "object": "error",
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
            "raw_status_code": 429,
        },
        "rate_limit",
        True,
        None,
    ),
    (
        "mistral/m",
        401,
        {"message": "Unauthorized", "request_id": "r-1"},
        "authentication",
        False,
        None,
    ),
    ("mistral/m", 401, {"detail": "Unauthorized"}, "authentication", False, None),
    (
        "openrouter/m",
        402,
        {"error": {"code": 402, "message": "Insufficient credits"}},
        "quota",
        False,
        None,
    ),
    (
        "openrouter/m",
        402,
        {
            "error": {
                "code": 402,
                "message": "in flight",
                "metadata": {"limit_source": "openrouter_in_flight_budget"},
            }
        },
        "rate_limit",
        True,
        None,
    ),
    (
        "openrouter/m",
        403,
        {
            "error": {
                "code": 403,
                "message": "flagged",
                "metadata": {"reasons": ["violence"], "flagged_input": "x"},
            }
        },
        "content_filter",
        False,
        None,
    ),
    (
        "openrouter/m",
        400,
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {
                    "raw": json.dumps(openai("too long", INVALID, "context_length_exceeded"))
                },
            }
        },
        "context_length",
        False,
        None,
    ),
    (
        "openrouter/m",
        502,
        {
            "error": {
                "code": 502,
                "message": "x",
                "metadata": {"error_type": "provider_unavailable"},
            }
        },
        "overloaded",
        True,
        None,
    ),
    (
        "together/m",
        400,
        {
            "id": "o",
            "error": {
                "message": "Unable to access non-serverless model",
                "type": INVALID,
                "code": "model_not_available",
            },
        },
        "not_found",
        False,
        None,
    ),
    (
        "together/m",
        403,
        openai(
            "Input validation error: inputs tokens + max_new_tokens exceeds maximum context",
            INVALID,
            None,
        ),
        "context_length",
        False,
        None,
    ),
    (
        "fireworks/m",
        404,
        {"error": {"object": "error", "type": INVALID, "message": "no such model"}},
        "not_found",
        False,
        None,
    ),
    (
        "deepseek/m",
        402,
        openai("Insufficient Balance", "unknown_error", INVALID),
        "quota",
        False,
        None,
    ),
    (
        "deepseek/m",
        422,
        "Failed to deserialize the JSON body into the target type",
        "invalid_request",
        False,
        None,
    ),
    (
        "xai/m",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: sk***YA.",
        },
        "authentication",
        False,
        None,
    ),
    (
        "xai/m",
        404,
        {
            "code": "Some requested entity was not found",
            "error": "The model grok-beta does not exist",
        },
        "not_found",
        False,
        None,
    ),
    (
        "cerebras/m",
        400,
        openai(
            "Please reduce the length of the messages or completion. Current "
            "length is 9000 while limit is 8192",
            INVALID,
            None,
        ),
        "context_length",
        False,
        None,
    ),
    (
        "perplexity/m",
        401,
        "<html>\r\n<head><title>401 Authorization Required</title></head></html>",
        "authentication",
        False,
        None,
    ),
    (
        "llamacpp/m",
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9,
                "n_ctx": 8,
            }
        },
        "context_length",
        False,
        None,
    ),
    (
        "llamacpp/m",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        "overloaded",
        True,
        None,
    ),
    (
        "vllm/m",
        400,
        {"error": {"message": "bad", "type": "BadRequestError", "code": 400}},
        "invalid_request",
        False,
        None,
    ),
    (
        "vllm/m",
        404,
        {"error": {"message": "no", "type": "NotFoundError", "code": 404}},
        "not_found",
        False,
        None,
    ),
    (
        "ollama/m",
        404,
        {"error": {"message": "model not found", "type": "api_error"}},
        "not_found",
        False,
        None,
    ),
    ("ollama/m", 404, {"error": "model 'x' not found"}, "not_found", False, None),
    (
        OPENAI,
        401,
        {"error_code": 401, "message": "Credential was not sent"},
        "authentication",
        False,
        None,
    ),
    (
        OPENAI,
        400,
        {"html-message": json.dumps(openai("x", INVALID, "context_length_exceeded"))},
        "context_length",
        False,
        None,
    ),
    (
        "xai/grok-4",
        400,
        {
            "code": "invalid-argument",
            "error": "This model's maximum prompt length is 500000 but the request contains "
            "637815 tokens.",
        },
        "context_length",
        False,
        None,
    ),
    (
        GOOGLE,
        400,
        google(
            400,
            "INVALID_ARGUMENT",
            "Unable to submit request because the input token count is 1200000 but model only "
            "supports up to 1048576.",
        ),
        "context_length",
        False,
        None,
    ),
    (
        OPENAI,
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. "
            "Given: 9000 `inputs` tokens and 100 `max_new_tokens`",
            "error_type": "validation",
        },
        "context_length",
        False,
        None,
    ),
    (
        OPENAI,
        400,
        openai(
            "prompt token count of 391491 exceeds the limit of 128000",
            None,
            "model_max_prompt_tokens_exceeded",
        ),
        "context_length",
        False,
        None,
    ),
    (OPENAI, 400, openai("Unknown model: x", None, "unknown_model"), "not_found", False, None),
    (
        OPENAI,
        429,
        openai(
            "Rate limit of 10 per 60s exceeded for UserByModelByMinute. Please wait 42 seconds "
            "before retrying.",
            None,
            "RateLimitReached",
        ),
        "rate_limit",
        True,
        42,
    ),
    (
        "openrouter/a/b",
        429,
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {
                    "raw": "a/b is temporarily rate-limited upstream. Please retry shortly",
                    "retry_after_seconds": 11,
                    "retry_after_seconds_raw": 10.918,
                },
            }
        },
        "rate_limit",
        True,
        10.918,
    ),
    (
        "openrouter/a/b",
        503,
        {"error": {"code": 503, "message": "x", "metadata": {"headers": {"Retry-After": "13"}}}},
        "overloaded",
        True,
        13,
    ),
    (
        "openai-responses/gpt-5.5",
        429,
        {
            "error": {
                "type": "usage_limit_reached",
                "message": "The usage limit has been reached",
                "resets_in_seconds": 3600,
            }
        },
        "quota",
        False,
        3600,
    ),
    (
        OPENAI,
        429,
        f"event: error\ndata: {json.dumps(openai('x', None, 'insufficient_quota'))}\n\n",
        "quota",
        False,
        None,
    ),
    (
        GOOGLE,
        400,
        f"[{json.dumps(google(400, 'INVALID_ARGUMENT', 'x', INFO), indent=2)}\n,",
        "authentication",
        False,
        None,
    ),
    (OPENAI, 400, "[rate limit] is no field", "invalid_request", False, None),
    (OPENAI, 429, '"Too many requests"', "rate_limit", True, None),
    (
        OPENAI,
        503,
        "upstream connect error or disconnect/reset before headers",
        "overloaded",
        True,
        None,
    ),
    # Money is out, which xAI and OpenRouter say in words only.
    *[
        (model, status, body, "quota", False, None)
        for model, status, body in (
            (
                "xai/grok-4",
                429,
                {
                    "code": "Some resource has been exhausted",
                    "error": "Your team 0 "
                    "has either used all available credits or reached its monthly spending limit.",
                },
            ),
            (
                "xai/grok-4",
                403,
                {
                    "code": "The caller does not have permission",
                    "error": "You have run out of credits or need a Grok subscription.",
                },
            ),
            (
                "openrouter/x/m",
                403,
                {
                    "error": {
                        "code": 403,
                        "message": "Key limit exceeded (total "
                        "limit). Manage it using https://openrouter.ai/settings/keys",
                    }
                },
            ),
            (
                "openrouter/x/m",
                429,
                {
                    "error": {
                        "code": 429,
                        "message": "Provider returned error",
                        "metadata": {
                            "raw": '{"error": "Your team has used all available credits"}'
                        },
                    }
                },
            ),
            (
                "openrouter/x/m",
                429,
                {
                    "error": {
                        "code": 429,
                        "message": "Provider returned error",
                        "metadata": {"raw": '{"error": {"type": "exceeded_current_quota_error"}}'},
                    }
                },
            ),
            (OPENAI, 429, openai("no", "exceeded_current_quota_error", None)),
        )
    ],
    ("xai/grok-4", 403, {"code": "x", "error": "You may not."}, "permission", False, None),
    # Too long, or larger than a limit: no wait makes it smaller.
    (
        "perplexity/sonar",
        400,
        openai("too long", "too_many_prompt_tokens", 400),
        "context_length",
        False,
        None,
    ),
    (
        "ollama/m",
        400,
        openai("prompt too long; exceeded max context length by 77 tokens", "api_error", None),
        "context_length",
        False,
        None,
    ),
    (
        "llamacpp/m",
        500,
        openai("Context size has been exceeded.", "server_error", 500),
        "context_length",
        False,
        None,
    ),
    (
        OPENAI,
        429,
        openai(
            "Request too large for m in organization o on tokens per min (TPM): "
            "Limit 1,000, Requested 9,999.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "rate_limit",
        False,
        None,
    ),
    (
        OPENAI,
        429,
        openai(
            "Rate limit reached: Limit 100000, Used 96749, Requested 19126.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "rate_limit",
        True,
        None,
    ),
    (
        "mistral/m",
        400,
        {
            "object": "error",
            "message": "Invalid model: m",
            "type": "invalid_model",
            "param": None,
            "code": "1500",
        },
        "not_found",
        False,
        None,
    ),
    (OPENAI, 404, "", "not_found", False, None),
    (OPENAI, 418, {"error": {}}, "invalid_request", False, None),
    (OPENAI, 500, "null", "server", True, None),
    (OPENAI, 301, "", "unknown", False, None),
]


@pytest.mark.parametrize(("model", "status", "body", "kind", "retryable", "wait"), TABLE)
def test_error_of_the_documentation(
    played: Player,
    model: str,
    status: int,
    body: object,
    kind: str,
    retryable: bool,
    wait: float | None,
) -> None:
    """A documented body has its type, its advice and its wait, plain and streamed alike."""
    azure = {"base_url": "https://r.openai.azure.com"} if model.startswith("azure") else {}
    text = body if isinstance(body, str) else json.dumps(body)
    for stream in (False, True):
        played.load({"status": status, "response_headers": {}, "response_body": text})
        error = ask(model, stream, api_key=KEY, **azure)
        assert isinstance(error, ProviderAPIError)
        assert (error.error_type, error.retryable, error.retry_after) == (kind, retryable, wait)
        assert error.context["error_type"] == kind
        assert error.context["status_code"] == status
        assert error.context["provider"] == model.partition("/")[0]


def test_the_trap_of_the_echoed_request(played: Player) -> None:
    """A 400 that repeats a request about rate limits, quotas and contexts is invalid_request."""
    said = "Explain: rate limit, insufficient_quota, maximum context length, content policy, 429"
    body = {"error": {"message": "Invalid 'messages[0]'", "type": INVALID, "code": "invalid_value",
                      "request": {"messages": [said]}}, "input": said}  # fmt: skip
    assert failed(played, 400, body).error_type == "invalid_request"
    body = openai("Rate limit is not a parameter of this model: rate_limit_exceeded", INVALID, None)
    assert failed(played, 400, body).error_type == "invalid_request"
    error = failed(played, 400, openai("Invalid JSON: 'try again in 5s'", INVALID, None))
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "8"}, 8),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_wait_in_the_headers(played: Player, headers: dict[str, str], wait: float | None) -> None:
    """Milliseconds first, then seconds or a date; what is no wait is none."""
    error = failed(played, 429, openai("slow", "tokens", "rate_limit_exceeded"), headers=headers)
    assert error.retry_after == wait


def test_wait_as_a_date(played: Player) -> None:
    """A date in retry-after becomes the seconds until then."""
    headers = {"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}
    error = failed(played, 503, {}, headers=headers)
    assert error.retry_after == pytest.approx(60, abs=3)


def test_no_wait_from_the_headers_of_a_success(played: Player) -> None:
    """retry-after on a 200 is not the wait of the error inside its stream; the message's is."""
    body = openai("Please try again in 3s.", "tokens", "rate_limit_exceeded")
    text = f"data: {json.dumps(body)}\n\n"
    error = failed(played, 200, text, headers={"retry-after": "60"}, stream=True)
    assert (error.error_type, error.retry_after) == ("rate_limit", 3)


def test_byte_order_mark_before_an_error(played: Player) -> None:
    """A byte order mark does not hide what the body says."""
    body = "\ufeff" + json.dumps(openai("long", INVALID, "context_length_exceeded"))
    assert failed(played, 400, body).error_type == "context_length"


def test_server_decides_on_retrying(played: Player) -> None:
    """x-should-retry overrides what the status implies, in both directions."""
    no = failed(played, 500, {}, headers={"x-should-retry": "false"})
    yes = failed(played, 400, {}, headers={"x-should-retry": "true"})
    assert (no.retryable, yes.retryable) == (False, True)
    no_money = openai("no", "insufficient_quota", "insufficient_quota")
    assert not failed(played, 429, no_money, headers={"x-should-retry": "true"}).retryable


@pytest.mark.parametrize("stream", [False, True])
def test_facts_of_an_error(played: Player, stream: bool) -> None:
    """The provider's code, type, parameter, id and body are in the context."""
    body = openai("Unsupported value", INVALID, "unsupported_value", "temperature")
    headers = {"x-request-id": "req_42"}
    error = failed(played, 400, body, headers=headers, stream=stream)
    context = error.context
    assert context["provider_code"] == "unsupported_value"
    assert context["provider_type"] == INVALID
    assert context["param"] == "temperature"
    assert context["request_id"] == "req_42"
    assert context["body"] == body
    assert context["model"] == "gpt-5.5"
    assert "Unsupported value" in str(error)


def test_request_id_of_the_body(played: Player) -> None:
    """Where no header has the request's id, the body's is taken; a header goes before it."""
    body = anthropic("overloaded_error", "Overloaded")
    assert failed(played, 529, body, ANTHROPIC).context["request_id"] == "req_1"
    error = failed(played, 529, body, ANTHROPIC, {"request-id": "req_header"})
    assert error.context["request_id"] == "req_header"


ECHOES = [
    (401, openai(f"Incorrect API key provided: {KEY}", INVALID, "invalid_api_key")),
    (401, f"you sent Authorization: Bearer {KEY}"),
    (200, f"method=POST authorization=Bearer {KEY}"),
    (200, {"headers": {"authorization": f"Bearer {KEY}"}, KEY: [KEY, {"a": KEY}]}),
    (200, {"error": {"message": f"bad {KEY}", "code": KEY}}),
]


@pytest.mark.parametrize(("status", "body"), ECHOES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC, GOOGLE, "openai-responses/gpt-5.5"])
def test_no_key_in_an_error(
    played: Player, status: int, body: object, stream: bool, model: str
) -> None:
    """A key that the server repeats is in no message, context, repr or pickle of the error."""
    error = failed(played, status, body, model, stream=stream)
    for shown in (str(error), repr(error), repr(error.context), repr(error.__dict__)):
        assert KEY not in shown
    assert KEY.encode() not in pickle.dumps(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_no_key_of_the_extra_headers_in_an_error(played: Player) -> None:
    """A key in extra_headers is kept out of the errors too."""
    secret = "token-of-a-gateway-77"
    played.load({"status": 401, "response_headers": {}, "response_body": f"bad {secret}"})
    headers = {"Authorization": f"Bearer {secret}"}
    error = ask(OPENAI, api_key=KEY, extra_headers=headers)
    assert isinstance(error, ProviderAPIError)
    assert secret not in str(error) + repr(error.context)


def test_retired_model_says_when_and_what_instead(played: Player) -> None:
    """A 404 for a model that was shut down carries the date and the named successor."""
    gone = openai("The model `gpt-4` has been deprecated", INVALID, "model_not_found")
    text = str(failed(played, 404, gone, "gpt-4"))
    assert "2026-10-23" in text
    assert "gpt-5.6-sol" in text
    body = anthropic("not_found_error", "model: claude-3-opus-20240229")
    assert "2026-01-05" in str(failed(played, 404, body, "claude-3-opus"))
    missing = google(404, "NOT_FOUND", "no longer available")
    assert "2026-03-09" in str(failed(played, 404, missing, "google/models/gemini-3-pro-preview"))


def test_retirement_is_not_claimed_of_others(played: Player) -> None:
    """A deployment or another vendor's model of that name was not shut down by OpenAI."""
    gone = openai("The API deployment does not exist.", None, "DeploymentNotFound")
    played.load({"status": 404, "response_headers": {}, "response_body": json.dumps(gone)})
    error = ask("azure/gpt-4", api_key=KEY, base_url="https://r.openai.azure.com")
    assert "2026" not in str(error)


@pytest.mark.parametrize(
    ("base_url", "status", "body", "kind"),
    [
        (
            "https://api.x.ai/v1",
            400,
            {"code": "Invalid argument", "error": "Incorrect API key provided: sk***YA."},
            "authentication",
        ),
        (
            "https://api.together.xyz/v1",
            403,
            openai("The input exceeds the context length of the model", INVALID, None),
            "context_length",
        ),
        (
            "https://r.openai.azure.com/openai/v1",
            404,
            openai("The API deployment does not exist.", None, "DeploymentNotFound"),
            "not_found",
        ),
    ],
)
def test_vendor_is_known_by_its_address(
    played: Player, base_url: str, status: int, body: object, kind: str
) -> None:
    """What is peculiar to a vendor's errors holds for openai/ with that vendor's base_url too."""
    played.load({"status": status, "response_headers": {}, "response_body": json.dumps(body)})
    error = ask("openai/gpt-4", base_url=base_url, api_key=KEY)
    assert isinstance(error, ProviderAPIError)
    assert error.error_type == kind
    assert error.context["provider"] == "openai"
    assert "2026" not in str(error)  # OpenAI shut its gpt-4 down, none of these did


@pytest.mark.parametrize("stream", [False, True])
def test_words_in_an_unknown_place_are_shown(played: Player, stream: bool) -> None:
    """A body whose sentence stands where nobody looks for one is shown as it is."""
    error = failed(played, 403, {"Reason": "é: not on the list"}, stream=stream)
    assert '{"Reason": "é: not on the list"}' in str(error)


@pytest.mark.parametrize("stream", [False, True])
def test_redirect_shows_where_to(played: Player, stream: bool) -> None:
    """A redirect, which is not followed with a key in hand, says where to and what to look at."""
    headers = {"location": "https://elsewhere.example/v1?key=s3cret"}
    text = str(failed(played, 308, "", headers=headers, stream=stream))
    assert "status 308" in text
    assert "https://elsewhere.example/v1" in text
    assert "s3cret" not in text
    assert "base_url=" in text


def test_long_message_is_cut(played: Player) -> None:
    """An error that repeats a whole request does not fill the message; the body keeps it."""
    error = failed(played, 400, openai("x" * 50_000, INVALID, None))
    assert len(str(error)) < 1200
    assert len(error.context["body"]["error"]["message"]) == 50_000


def test_success_with_retry_after_is_a_success(played: Player) -> None:
    """retry-after on a 200 (Anthropic sends it) means nothing."""
    message = {"type": "message", "content": [{"type": "text", "text": "hi"}], "model": "m"}
    row = {"status": 200, "response_headers": {"retry-after": "9"},
           "response_body": json.dumps(message)}  # fmt: skip
    played.load(row)
    assert str(ask("anthropic/m")) == "hi"
