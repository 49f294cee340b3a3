"""Providers' errors in all their forms, and their error types."""

from __future__ import annotations

import email.utils
import json
import pickle
import time
from collections import Counter
from pathlib import Path
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
    """The error of a call that gets this response."""
    text = body if isinstance(body, str) else json.dumps(body)
    row = {"status": status, "response_headers": headers or {}, "response_body": text}
    played.load(row)
    error = ask(model, stream, api_key=KEY)
    assert isinstance(error, ProviderAPIError)
    return error


# The error type by status and by the provider's code and type.
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
# Errors known only by their message: Google's invalid key and Anthropic's lack of credit are 400.
BY_ROW = {
    "16d7f34c91f0b4e8": "authentication",
    "25bdd9b05c56e0ae": "authentication",
    "45b5ba5d6ed4fa4c": "authentication",
    "fad99965a20a6840": "authentication",
    "8657f59e1e6d1b58": "quota",
}


@needs_corpus
def test_every_recorded_error_is_mapped(played: Player) -> None:
    """Each error of the corpus has the right type, status, details and `retryable`."""
    seen: Counter[str] = Counter()
    for row_id, reference in references().items():
        if not (expected_error := reference["error"]):
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
        assert context["status_code"] == expected_error["status"] == row["status"], row_id
        assert (
            context["in_stream"] is True
            if expected_error["in_stream"]
            else "in_stream" not in context
        )
        told_id = expected_error["request_id"]
        assert not told_id or context["request_id"] == told_id, row_id
        if expected_error["param"] and row["wire"].startswith("openai"):
            assert context["param"] == expected_error["param"], row_id
        if expected_error["code"] and row["response_body"].startswith("{"):
            assert context["provider_code"] == str(expected_error["code"]), row_id
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


INVALID = "invalid_request_error"
OPENAI = "openai/gpt-5.5"
ANTHROPIC = "anthropic/claude-opus-5-5"
GOOGLE = "google/gemini-4-argon"

# Error bodies from the providers' documentation, with their meanings.
DOCUMENTED = json.loads((Path(__file__).parent / "documented_errors.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "documented",
    DOCUMENTED,
    ids=lambda each: f"{each['model']}-{each['status']}-{each['error_type']}",
)
def test_every_documented_error_is_mapped(played: Player, documented: dict[str, Any]) -> None:
    """A documented body has its type, `retryable` and `retry_after`, plain and streamed."""
    model, status, body = documented["model"], documented["status"], documented["body"]
    kind = documented["error_type"]
    expected = (kind, documented["retryable"], documented["retry_after"])
    azure = {"base_url": "https://r.openai.azure.com"} if model.startswith("azure") else {}
    text = body if isinstance(body, str) else json.dumps(body)
    for stream in (False, True):
        played.load({"status": status, "response_headers": {}, "response_body": text})
        error = ask(model, stream, api_key=KEY, **azure)
        assert isinstance(error, ProviderAPIError)
        assert (error.error_type, error.retryable, error.retry_after) == expected
        assert error.context["error_type"] == kind
        assert error.context["status_code"] == status
        assert error.context["provider"] == model.partition("/")[0]


def test_request_repeated_in_an_error_does_not_decide_its_type(played: Player) -> None:
    """A 400 that repeats a request about rate limits, quotas and contexts is invalid_request."""
    prompt = "Explain: rate limit, insufficient_quota, maximum context length, content policy, 429"
    body = {"error": {"message": "Invalid 'messages[0]'", "type": INVALID, "code": "invalid_value",
                      "request": {"messages": [prompt]}}, "input": prompt}  # fmt: skip
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
def test_retry_after_in_milliseconds_takes_precedence(
    played: Player, headers: dict[str, str], wait: float | None
) -> None:
    """Milliseconds take precedence over seconds or a date; other values are ignored."""
    error = failed(played, 429, openai("slow", "tokens", "rate_limit_exceeded"), headers=headers)
    assert error.retry_after == wait


def test_retry_after_as_a_date(played: Player) -> None:
    """A date in retry-after is converted to the seconds until then."""
    headers = {"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}
    error = failed(played, 503, {}, headers=headers)
    assert error.retry_after == pytest.approx(60, abs=3)


def test_error_in_a_stream_ignores_retry_after_of_its_200(played: Player) -> None:
    """An error inside a stream takes its wait from its message, not from the 200's retry-after."""
    body = openai("Please try again in 3s.", "tokens", "rate_limit_exceeded")
    text = f"data: {json.dumps(body)}\n\n"
    error = failed(played, 200, text, headers={"retry-after": "60"}, stream=True)
    assert (error.error_type, error.retry_after) == ("rate_limit", 3)


def test_byte_order_mark_before_an_error_is_skipped(played: Player) -> None:
    """A body that begins with a byte order mark is parsed."""
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
def test_context_holds_code_type_parameter_id_and_body(played: Player, stream: bool) -> None:
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


def test_request_id_comes_from_header_or_body(played: Player) -> None:
    """The request id comes from a header, or else from the body."""
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
    """A key repeated by the server is in no message, context, repr or pickle of the error."""
    error = failed(played, status, body, model, stream=stream)
    for text in (str(error), repr(error), repr(error.context), repr(error.__dict__)):
        assert KEY not in text
    assert KEY.encode() not in pickle.dumps(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_no_key_of_extra_headers_in_an_error(played: Player) -> None:
    """A key in extra_headers is not in the errors either."""
    secret = "token-of-a-gateway-77"
    played.load({"status": 401, "response_headers": {}, "response_body": f"bad {secret}"})
    headers = {"Authorization": f"Bearer {secret}"}
    error = ask(OPENAI, api_key=KEY, extra_headers=headers)
    assert isinstance(error, ProviderAPIError)
    assert secret not in str(error) + repr(error.context)


def test_retired_model_says_when_and_what_instead(played: Player) -> None:
    """A 404 for a model that was shut down names the date and the successor."""
    gone = openai("The model `gpt-4` has been deprecated", INVALID, "model_not_found")
    text = str(failed(played, 404, gone, "gpt-4"))
    assert "2026-10-23" in text
    assert "gpt-5.6-sol" in text
    body = anthropic("not_found_error", "model: claude-3-opus-20240229")
    assert "2026-01-05" in str(failed(played, 404, body, "claude-3-opus"))
    missing = google(404, "NOT_FOUND", "no longer available")
    assert "2026-03-09" in str(failed(played, 404, missing, "google/models/gemini-3-pro-preview"))


def test_retirement_is_not_claimed_of_others(played: Player) -> None:
    """A deployment or another vendor's model with that name is not called shut down."""
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
            "https://api.together.ai/v1",
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
    """A vendor's special error rules also apply to openai/ with that vendor's base_url."""
    played.load({"status": status, "response_headers": {}, "response_body": json.dumps(body)})
    error = ask("openai/gpt-4", base_url=base_url, api_key=KEY)
    assert isinstance(error, ProviderAPIError)
    assert error.error_type == kind
    assert error.context["provider"] == "openai"
    assert "2026" not in str(error)  # only OpenAI shut down its gpt-4


@pytest.mark.parametrize("stream", [False, True])
def test_message_in_an_unknown_field_is_shown(played: Player, stream: bool) -> None:
    """A body with its message in an unknown field is shown unchanged."""
    error = failed(played, 403, {"Reason": "é: not on the list"}, stream=stream)
    assert '{"Reason": "é: not on the list"}' in str(error)


@pytest.mark.parametrize("stream", [False, True])
def test_redirect_names_its_target(played: Player, stream: bool) -> None:
    """A redirect is not followed, since the call has a key; its error names target and remedy."""
    headers = {"location": "https://elsewhere.example/v1?key=s3cret"}
    text = str(failed(played, 308, "", headers=headers, stream=stream))
    assert "status 308" in text
    assert "https://elsewhere.example/v1" in text
    assert "s3cret" not in text
    assert "base_url=" in text


def test_long_message_is_cut(played: Player) -> None:
    """The message of an error that repeats a whole request is cut; the body keeps it."""
    error = failed(played, 400, openai("x" * 50_000, INVALID, None))
    assert len(str(error)) < 1200
    assert len(error.context["body"]["error"]["message"]) == 50_000


def test_success_with_retry_after_is_a_success(played: Player) -> None:
    """retry-after on a 200 (Anthropic sends it) is ignored."""
    message = {"type": "message", "content": [{"type": "text", "text": "hi"}], "model": "m"}
    row = {"status": 200, "response_headers": {"retry-after": "9"},
           "response_body": json.dumps(message)}  # fmt: skip
    played.load(row)
    assert str(ask("anthropic/m")) == "hi"
