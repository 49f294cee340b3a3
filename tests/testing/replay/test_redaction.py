"""Redaction: which values are secret, and where they are replaced; pure functions."""

from __future__ import annotations

import base64
import json
import re
from functools import reduce
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember_testing.replay.redaction import Redaction
from ember_testing.replay.secrets import (
    REDACTED,
    is_credential_name,
    secrets_of_environment,
    secrets_of_request,
)

KEY = "sk-proj-A1b2C3d4E5f6"
known = Redaction(frozenset({KEY}))


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY",
        "AWS_BEARER_TOKEN_BEDROCK", "REPLICATE_API_TOKEN", "WATSONX_APIKEY", "OPENAI_KEY",
        "DB_PASSWORD", "GITHUB_PAT", "openai_api_key", "AZURE_CLIENT_SECRET", "API_KEYS",
    ],
)  # fmt: skip
def test_credentials_of_the_environment_are_known(name: str) -> None:
    """The values of variables named like credentials are searched for everywhere."""
    assert secrets_of_environment({name: KEY, "HOME": "/home/somebody"}) == {KEY}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", "https://gateway.example"),
        ("KEYBOARD", "qwertz-layout"),
        ("SSH_AUTH_SOCK", "/tmp/ssh-agent"),
        ("OPENAI_API_KEY", "test"),
        ("TOKENIZERS_PARALLELISM", "deactivated"),
        ("API_KEY", "please set your key"),
    ],
)
def test_text_that_is_no_credential_is_unchanged(name: str, value: str) -> None:
    """Paths, URLs, short words and sentences are not redacted."""
    assert not secrets_of_environment({name: value})


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https://a.com/v1", [("Authorization", f"Bearer {KEY}")]),
        ("https://a.com/v1", [("x-api-key", KEY)]),
        ("https://a.com/v1", [("api-key", KEY)]),
        ("https://a.com/v1", [("x-goog-api-key", KEY)]),
        ("https://a.com/v1", [("cf-aig-authorization", KEY)]),
        ("https://a.com/v1", [("Helicone-Auth", f"Bearer {KEY}")]),
        (f"https://a.com/v1?alt=sse&key={KEY}", []),
        (f"https://user:{KEY}@a.com/v1", []),
    ],
)
def test_keys_in_a_request_are_redacted_elsewhere_too(
    url: str, headers: list[tuple[str, str]]
) -> None:
    """A key that is in no variable is recognized by where it is sent, and redacted."""
    assert secrets_of_request(url, headers) == {KEY}
    assert KEY not in Redaction().url(url)
    assert KEY not in str(Redaction().headers(headers))


@pytest.mark.parametrize("rest", ["#token={}", "#/callback?token={}", "?a=1#token={}&b"])
def test_keys_in_an_address_fragment_are_redacted(rest: str) -> None:
    """A fragment, which may hold a query of its own, keeps no credential."""
    written = Redaction().url(f"https://a.com/v1{rest.format(KEY)}", compared=False)
    assert written == f"https://a.com/v1{rest.format('REDACTED')}"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("authorization", True), ("Helicone-Auth", True), ("x-portkey-api-key", True),
        ("Set-Cookie", True), ("x-amz-security-token", True), ("ocp-apim-subscription-key", True),
        ("x-ratelimit-remaining-tokens", False), ("anthropic-ratelimit-tokens-limit", False),
        ("x-request-id", False), ("idempotency-key", False), ("pageToken", False),
        ("page_token", False), ("content-type", False), ("www-authenticate", False),
        ("sig", True), ("X-Amz-Signature", True), ("max_tokens", False),
    ],
)  # fmt: skip
def test_names_of_credentials_are_recognised(name: str, secret: bool) -> None:
    """Credential names are recognised; rate limits, ids and page tokens stay readable."""
    assert is_credential_name(name) is secret


def test_a_known_key_is_replaced_wherever_it_stands() -> None:
    """It is replaced in bodies, other headers, paths and error texts, however it is escaped."""
    awkward = 'a/b+c"d=12345'
    redaction = Redaction(frozenset({KEY, awkward}))
    body = json.dumps({"messages": [{"content": f"my key is {KEY} and {awkward}"}]}).encode()
    assert json.loads(redaction.request_body(body)) == {
        "messages": [{"content": f"my key is {REDACTED} and {REDACTED}"}]
    }
    assert redaction.headers([("x-echo", f"got {KEY}")]) == (("x-echo", f"got {REDACTED}"),)
    assert redaction.url(f"https://a.com/{KEY}/v1?q=a%2Fb%2Bc%22d%3D12345") == (
        f"https://a.com/{REDACTED}/v1?q={REDACTED}"
    )
    assert redaction.text(f"connecting with {KEY} failed") == f"connecting with {REDACTED} failed"
    assert KEY not in repr(redaction)


AWKWARD = "/aB+c=d&e<f>g'h\"i\\jK1é"


@pytest.mark.parametrize(
    "spelled",
    [
        AWKWARD,
        quote(AWKWARD),
        quote(AWKWARD, safe=""),
        re.sub("%..", lambda match: match.group().lower(), quote(AWKWARD, safe="")),
        json.dumps(AWKWARD)[1:-1],
        json.dumps(AWKWARD, ensure_ascii=False)[1:-1],
        json.dumps(AWKWARD)[1:-1].replace("/", "\\/"),
        json.dumps(json.dumps(AWKWARD))[3:-3],  # the arguments of a tool call
        reduce(lambda text, _: json.dumps(text)[1:-1], range(6), AWKWARD),
        re.sub("[<>&'=]", lambda match: f"\\u{ord(match.group()):04x}", json.dumps(AWKWARD)[1:-1]),
        re.sub("[^a-zA-Z0-9/=]", lambda match: f"\\u{ord(match.group()):04X}", AWKWARD),
    ],
    ids=[
        "plain", "path", "query", "lower", "ascii", "utf-8", "slash", "nested", "deep", "gson",
        ".net",
    ],
)  # fmt: skip
def test_a_key_is_found_however_it_is_escaped(spelled: str) -> None:
    """A key is redacted in URLs, any server's JSON and nested JSON, and the rest is kept."""
    redaction = Redaction(frozenset({AWKWARD}))
    body = f'{{"a": "before {spelled} after"}}'.encode()
    assert redaction.holds_secret(body)
    assert redaction.request_body(body) == b'{"a": "before REDACTED after"}'
    written = redaction.response_body(body)
    assert len(written) == len(body)
    assert re.fullmatch(rb'\{"a": "before REDACTED\** after"\}', written)


@settings(deadline=None)
@given(before=st.binary(max_size=9), after=st.binary(max_size=9), secret=st.text(min_size=8))
def test_a_key_inside_of_base64_is_seen(before: bytes, after: bytes, secret: str) -> None:
    """It is found at any offset of the encoded text, in both alphabets."""
    redaction = Redaction(frozenset({secret}))
    whole = before + secret.encode() + after
    assert redaction.holds_secret(b"sent " + base64.b64encode(whole))
    assert redaction.holds_secret(b"sent " + base64.urlsafe_b64encode(whole))
    assert not known.holds_secret(base64.b64encode(b"nothing of the kind, at some length"))


def test_a_key_that_begins_with_a_slash_is_no_path() -> None:
    """A base64 key may begin with a slash; values of names for files are kept."""
    value = "/AbCdEf123456+/xyz=="
    assert secrets_of_environment({"GATEWAY_API_KEY": value}) == {value}
    assert secrets_of_request("https://a.com", [("x-api-key", value)]) == {value}
    assert not secrets_of_environment({"SSL_KEY_FILE": value, "SSH_AUTH_SOCK": value})


def test_the_password_of_basic_authorization_is_known() -> None:
    """A server that refuses a password may repeat it in plain text."""
    credentials = base64.b64encode(f"me:{KEY}".encode()).decode()
    found = secrets_of_request("https://a.com", [("authorization", f"Basic {credentials}")])
    assert found == {credentials, KEY}
    assert secrets_of_request("https://a.com", [("authorization", "Basic not-base64")]) == {
        "not-base64"
    }


def test_a_redirects_address_loses_its_credentials() -> None:
    """The signature of a signed URL in `location` is redacted, though its value was unknown."""
    pairs = [("Location", "https://a.com/file?part=1&sig=abc")]
    assert Redaction().headers(pairs) == (("Location", "https://a.com/file?part=1&sig=REDACTED"),)


@settings(max_examples=100, deadline=None)
@given(
    before=st.binary(max_size=20),
    after=st.binary(max_size=20),
    cuts=st.lists(st.integers(0, 60), max_size=6).map(sorted),
)
def test_a_key_across_pieces_is_replaced_and_the_pieces_keep_their_lengths(
    before: bytes, after: bytes, cuts: list[int]
) -> None:
    """However a stream is cut, the key is redacted and every boundary is kept."""
    whole = before + KEY.encode() + after
    edges = [0, *(cut for cut in cuts if cut < len(whole)), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(edges)]
    _, written = known.response(whole, pieces)
    assert [len(piece) for piece in written] == [len(piece) for piece in pieces]
    assert b"".join(written) == before + b"REDACTED".ljust(len(KEY), b"*") + after


def test_fields_named_like_credentials_lose_their_value_and_nothing_else() -> None:
    """A token in a JSON answer or a form is replaced; every other byte stays."""
    answer = b'{ "access_token" : "ya29.a0AfB_by", "expires_in": 3599, "scope":"x" }'
    issued = Redaction().issued(b"ya29.a0AfB_by")
    assert issued.startswith(b"REDACTED-")
    assert Redaction().response_body(answer) == answer.replace(b"ya29.a0AfB_by", issued)
    form = b"grant_type=refresh_token&client_secret=s3cr3t-s3cr3t&scope=a%20b"
    assert Redaction().request_body(form, "application/x-www-form-urlencoded") == (
        b"grant_type=refresh_token&client_secret=%b&scope=a%%20b"
        % Redaction().digest("s3cr3t-s3cr3t").encode()
    )


def test_a_credential_is_found_in_every_form_that_carries_fields() -> None:
    """They are found in multipart fields, answers that are forms, lists and nested objects."""
    part = (
        b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    )
    digest = Redaction().digest("s3cr3t-s3cr3t").encode()
    kind = "multipart/form-data; boundary=b"
    hidden = Redaction().request_body(part % (b"client_secret", b"s3cr3t-s3cr3t"), kind)
    assert hidden == part % (b"client_secret", digest)
    assert Redaction().request_body(hidden, kind) == hidden
    harmless = part % (b"model", b"s3cr3t-s3cr3t")
    assert Redaction().request_body(harmless, kind) == harmless
    for answer in (
        b"access_token=s3cr3t-s3cr3t&scope=repo&token_type=bearer",
        b'{"client_secret": ["s3cr3t-s3cr3t"]}',
        b'{"client_secret": {"expires": 1, "data": {"at": 2, "value": "s3cr3t-s3cr3t"}}}',
    ):
        assert Redaction().response_body(answer) == answer.replace(
            b"s3cr3t-s3cr3t", Redaction().issued(b"s3cr3t-s3cr3t")
        )


def test_a_code_that_is_a_number_is_replaced_at_any_depth() -> None:
    """JSON within JSON stays JSON, and another code is another request."""
    for code in (123456, 654321):
        arguments: object = {"otp": code, "n": 1234}
        for depth in range(3):
            body = json.dumps({"depth": depth, "arguments": arguments}).encode()
            written = Redaction().request_body(body)
            assert str(code).encode() not in written
            inner = json.loads(written)["arguments"]
            for _ in range(depth):
                inner = json.loads(inner)
            assert inner == {"otp": Redaction().digest(str(code)), "n": 1234}
            arguments = json.dumps(arguments)


def test_a_tool_schema_survives_byte_for_byte() -> None:
    """Properties called password, api_key and token are kept."""
    schema = {
        "type": "object",
        "properties": {
            "password": {"type": "string", "description": "the user's password"},
            "api_key": {"type": "string"},
            "access_token": {"type": ["string", "null"], "default": None},
            "authorization": {"$ref": "#/defs/auth"},
        },
        "required": ["password", "api_key"],
        "dependentRequired": {"api_key": ["access_token", "password"], "password": ["api_key"]},
        "secrets": ["access_token", "authorization"],
    }
    body = json.dumps({"tools": [{"input_schema": schema}], "max_tokens": 10}, indent=1).encode()
    assert known.request_body(body) == body
    assert known.response_body(body) == body


def test_a_list_of_credentials_beside_a_schema_is_redacted() -> None:
    """Only the names of the body's own members are kept in a list under a credential's name."""
    body = b'{"properties": {"api_token": {}}, "secrets": ["api_token", "s3cr3t-s3cr3t"]}'
    written = Redaction().request_body(body)
    assert json.loads(written)["secrets"] == ["api_token", Redaction().digest("s3cr3t-s3cr3t")]


def test_redaction_without_secrets_changes_nothing() -> None:
    """A body without credentials comes back as the same bytes."""
    body = b'{"messages": [{"role": "user", "content": "what is a key?"}], "max_tokens": 5}'
    assert known.request_body(body) is body
    assert known.response_body(body) is body
