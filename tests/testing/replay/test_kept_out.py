"""No secret is in a cassette's bytes, whatever its value and place."""

# ruff: noqa: SIM117 - the server outlives the cassettes
from __future__ import annotations

import base64
import gzip
import html
import json
import os
import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import ember_testing
from ember_testing import CassetteMiss, RecordingWarning
from tests.loopback import Received, Reply, serving
from tests.testing.spellings import escaped, spellings

GONE = "http://127.0.0.1:1"
chance = random.Random(40)
SECRETS = [
    "".join(chance.choices(string.ascii_letters + string.digits + extra, k=24)) + "7a"
    for extra in ("", "-_", "+/=", "&%", '"\\', "é/")
    for _ in range(7)
][:40][:: int(os.environ.get("EMBER_EVERY_SECRET", "5"))]
"""For a long run with all 40: EMBER_EVERY_SECRET=1."""
FIRST = "harmless-one"  # the first item of a list; the second is the secret

# Ways for a request to carry a secret, as arguments of httpx's request.
SENT: dict[str, Callable[[str], dict[str, Any]]] = {
    "bearer": lambda s: {"headers": {"authorization": f"Bearer {s}"}},
    "basic": lambda s: {"auth": ("me", s)},
    "another scheme": lambda s: {"headers": {"authorization": f"Token {s}"}},
    "x-api-key": lambda s: {"headers": {"x-api-key": s}},
    "api-key": lambda s: {"headers": {"api-key": s}},
    "x-goog-api-key": lambda s: {"headers": {"x-goog-api-key": s}},
    "a gateway's header": lambda s: {"headers": {"cf-aig-authorization": f"Bearer {s}"}},
    "session header": lambda s: {"headers": {"x-session-id": s}},
    "cookie": lambda s: {"headers": {"cookie": f"sid={s}"}},
    "key in a query": lambda s: {"params": {"key": s}},
    "token in a query": lambda s: {"params": {"access_token": s}},
    "signature in a query": lambda s: {"params": {"X-Amz-Signature": s}},
    "api_key": lambda s: {"json": {"api_key": s}},
    "apiKey": lambda s: {"json": {"config": {"apiKey": s}}},
    "client_secret": lambda s: {"json": {"client_secret": s}},
    "an object": lambda s: {"json": {"client_secret": {"expires": 1, "value": s}}},
    "private_key": lambda s: {"json": {"private_key": s}},
    "session_token": lambda s: {"json": {"session_token": s}},
    "password": lambda s: {"json": {"login": {"password": s}}},
    "JSON in JSON": lambda s: {"json": {"arguments": json.dumps({"api_key": s})}},
    "JSON in JSON in JSON": lambda s: {"json": {"a": json.dumps({"b": json.dumps({"token": 1,
                                                                    "access_token": s})})}},
    "a form": lambda s: {"data": {"client_secret": s, "scope": "a b"}},
    "a variable in a prompt": lambda s: {"json": {"prompt": f"my key is {s}, is it?"}},
    "a variable in a path": lambda s: {"path": f"/{quote(s, safe='')}/v1"},
    "a key and its echo": lambda s: {"headers": {"x-api-key": s}, "path": "/echo"},
    "a key and its echo in pieces": lambda s: {"headers": {"x-api-key": s}, "path": "/pieces"},
    "a key and its echo, compressed": lambda s: {"headers": {"x-api-key": s}, "path": "/gzip"},
    "an answer's field": lambda s: {"path": "/field", "extensions": {"secret": s}},
    "an answer's cookie": lambda s: {"path": "/cookie", "extensions": {"secret": s}},
    "an answer's address": lambda s: {"path": "/location", "extensions": {"secret": s}},
    "an answer's fragment": lambda s: {"path": "/fragment", "extensions": {"secret": s}},
}  # fmt: skip


def address(secret: str, name: str = "access_token") -> str:
    """Return a URL with the secret in its query."""
    return f"https://a.example/f?n=1&{name}={quote(secret, safe='')}&p=2"


IN_MORE_PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "an address in a text": lambda s: {"json": {"go": f"see {address(s, 'api_key')} now"}},
    "an address whose slashes are escaped": lambda s: {
        "content": json.dumps({"go": address(s)})
        .replace("/", "\\/")
        .replace("&", "\\u0026")
        .encode()
    },
    "an address in JSON in JSON": lambda s: {
        "json": {"arguments": json.dumps({"url": address(s, "sig")})}
    },
    "a user part in a text": lambda s: {
        "json": {"dsn": f"postgres://app:{quote(s, safe='')}@db.example/app"}
    },
    "a path with a query": lambda s: {
        "json": {"next": f"/v1/items?page=2&token={quote(s, safe='')}"}
    },
    "a referer": lambda s: {"headers": {"referer": address(s, "session")}},
    "a list": lambda s: {"json": {"client_secret": [FIRST, s, s + "2"]}},
    "a list of objects": lambda s: {
        "json": {"api_keys": [{"name": "a", "value": FIRST}, {"value": s}]}
    },
    "a list in JSON in JSON": lambda s: {
        "json": {"arguments": json.dumps({"refresh_token": [FIRST, s]})}
    },
    "an object that ends with it": lambda s: {
        "json": {"api_key": {"name": "x" * 400, "current": FIRST, "previous": s}}
    },
    "sessionId": lambda s: {"json": {"sessionId": s}},
    "session_id": lambda s: {"json": {"context": {"session_id": s}}},
    "cookie as a field": lambda s: {"json": {"cookie": s}},
    "cookies": lambda s: {"json": {"cookies": [s]}},
    "passwd": lambda s: {"json": {"passwd": s}},
    "jwt": lambda s: {"json": {"jwt": s}},
    "credentials": lambda s: {"json": {"credentials": {"user": "me", "secret": s}}},
    "userAccessToken": lambda s: {"json": {"userAccessToken": s}},
    "base64 of a variable": lambda s: {
        "json": {"config": base64.b64encode(f"user:{s}!".encode()).decode()}
    },
    "hexadecimal of a variable": lambda s: {"json": {"key": s.encode().hex()}},
    "upper-case hexadecimal of a variable": lambda s: {"content": s.encode().hex().upper()},
    "UTF-16 of a variable": lambda s: {"content": f"key: {s}".encode("utf-16")},
    "UTF-16 of a variable, big-endian": lambda s: {"content": f"key: {s}".encode("utf-16-be")},
    "a variable of which each letter is escaped": lambda s: {
        "content": f'{{"prompt": "my key is {escaped(s)}"}}'
    },
    "the same in JSON in JSON": lambda s: {
        "json": {"arguments": f'{{"prompt": "my key is {escaped(s)}"}}'}
    },
    "a code of a form": lambda s: {"data": {"grant_type": "authorization_code", "code": s}},
    "an answer's link": lambda s: {"path": "/link", "extensions": {"secret": s}},
    "an answer's refresh": lambda s: {"path": "/refresh", "extensions": {"secret": s}},
    "an answer's next page": lambda s: {"path": "/next", "extensions": {"secret": s}},
    "an answer's login": lambda s: {"path": "/login", "extensions": {"secret": s}},
    "an answer's list": lambda s: {"path": "/list", "extensions": {"secret": s}},
    "an answer in base64": lambda s: {"path": "/base64", "extensions": {"secret": s}},
    "an answer in HTML": lambda s: {"path": "/html", "extensions": {"secret": s}},
    "an answer in hexadecimal": lambda s: {"path": "/hex", "extensions": {"secret": s}},
    "an answer with each letter escaped": lambda s: {
        "path": "/escaped",
        "extensions": {"secret": s},
    },
    "an answer's login in pieces, said again": lambda s: {
        "path": "/login-pieces",
        "extensions": {"secret": s},
    },
}
IN_A_VARIABLE = (
    "a variable in a prompt",
    "a variable in a path",
    "base64 of a variable",
    "hexadecimal of a variable",
    "upper-case hexadecimal of a variable",
    "UTF-16 of a variable",
    "UTF-16 of a variable, big-endian",
    "a variable of which each letter is escaped",
    "the same in JSON in JSON",
    "an answer in base64",
    "an answer in HTML",
    "an answer in hexadecimal",
    "an answer with each letter escaped",
)


def answer(secret: str) -> Callable[[Received], Reply]:
    """Return a server's answers that contain the secret, in a different way for each path."""

    def reply(request: Received) -> Reply:
        path = request.path.partition("?")[0]
        error = json.dumps({"error": f"bad key {secret}"}).encode()
        if path == "/echo":
            return Reply(error)
        if path == "/pieces":
            return Reply(pieces=[error[:14], error[14:20], error[20:30], error[30:]], pause=0.001)
        if path == "/gzip":
            return Reply(gzip.compress(error), headers={"content-encoding": "gzip"})
        if path == "/field":
            return Reply(json.dumps({"access_token": secret, "expires_in": 9}).encode())
        coded = quote(secret, safe="")
        bodies: dict[str, Any] = {
            "/next": {"next": f"https://a.example/items?page=2&token={coded}", "n": 1},
            "/login": {"sessionId": secret, "password": secret, "cookie": [secret]},
            "/list": {"access_token": [FIRST, secret], "jwt": secret},
            "/base64": {"said": base64.b64encode(f"{{key: {secret}}}".encode()).decode()},
            "/login-pieces": {"session_token": secret, "said": f"welcome {secret}"},
        }
        if path == "/html":
            return Reply(f"<p>No such key: {html.escape(secret)}</p>".encode())
        if path == "/hex":
            return Reply(f"signed with {secret.encode().hex()}".encode())
        if path == "/escaped":
            return Reply(f'{{"said": "{escaped(secret)}"}}'.encode())
        if path in bodies:
            body = json.dumps(bodies[path]).encode()
            cut = [body[:25], body[25:31], body[31:]] if path == "/login-pieces" else [body]
            return Reply(pieces=cut, pause=0.001)
        headers = {
            "/link": {"link": f'<https://a.example/?n=2&access_token={coded}>; rel="next"'},
            "/refresh": {"refresh": f"5; url=/f?session={coded}"},
            "/cookie": {"set-cookie": f"sid={coded}; Path=/; HttpOnly"},
            "/location": {"location": f"https://a.example/f?part=1&sig={coded}"},
            "/fragment": {"location": f"https://a.example/f#access_token={coded}&state=1"},
        }
        return Reply(b"{}", headers=headers.get(path, {}))

    return reply


@pytest.mark.filterwarnings("ignore::ember_testing.RecordingWarning")
@pytest.mark.parametrize("place", [*SENT, *IN_MORE_PLACES])
def test_no_secret_is_in_the_bytes_of_a_cassette(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Secrets of every kind, in each of 70 places, are in the file in no spelling."""
    places = SENT | IN_MORE_PLACES
    for number, secret in enumerate(SECRETS):
        if not secret.isascii() and places[place]("x").keys() & {"headers", "auth"}:
            continue  # no header can hold it
        path = tmp_path / f"{number}.sqlite"
        if place in IN_A_VARIABLE:
            monkeypatch.setenv("ACME_API_KEY", secret)
        arguments = places[place](secret)
        url = arguments.pop("path", "/v1")
        with (
            serving(answer(secret)) as server,
            ember_testing.cassette(path, record="new", record_errors=True) as cassette,
            httpx.Client(verify=False) as sender,
        ):
            sender.request("POST", server.url + url, **arguments)
        assert len(cassette.recorded) == 1
        content = path.read_bytes()
        found = [each for each in spellings(secret) if each in content]
        assert not found, (place, secret, found)


@pytest.mark.parametrize("form", ["as it is", "in JSON", "with a line end"])
def test_variable_of_several_lines_is_searched_for_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A private key's lines are secrets, as is a key that has the line end of its file."""
    lines = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
             "MzEfYyjiWA4R4/M2bS1GB4t7NXp98C3SC6dVMvDuictGeurT8jNbvJZHtCSuYEvu"]  # fmt: skip
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
    if form == "with a line end":
        key = f"{lines[0]}\n"
    monkeypatch.setenv("APP_PRIVATE_KEY", json.dumps({"k": key}) if form == "in JSON" else key)
    path = tmp_path / "c.sqlite"
    with (
        serving() as server,
        ember_testing.cassette(path, record="new"),
        httpx.Client(verify=False) as sender,
    ):
        sender.post(server.url, json={"text": f"sign with {key}"})
    content = path.read_bytes()
    assert not [line for line in lines if line.encode() in content]


@pytest.mark.parametrize("body", [{"q": 1}, None])
@pytest.mark.parametrize("name", ["key", "api_key", "token", "page"])
def test_each_value_of_a_parameter_gets_its_own_answer(
    tmp_path: Path, name: str, body: object
) -> None:
    """On an unknown host the values of a parameter of any name are distinguished."""
    path = tmp_path / "c.sqlite"

    def ask(sender: httpx.Client, url: str, value: str) -> str:
        answer: str = sender.request("POST", f"{url}/kv", params={name: value}, json=body).text
        return answer

    values = ("alpha", "beta")
    with (
        serving(lambda request: Reply(request.path.encode())) as server,
        ember_testing.cassette(path, record="new"),
        httpx.Client(verify=False) as sender,
    ):
        live = {value: ask(sender, server.url, value) for value in values}
    with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
        assert {value: ask(sender, GONE, value) for value in reversed(values)} == live
    with (
        pytest.raises(CassetteMiss),
        ember_testing.cassette(path),
        httpx.Client(verify=False) as sender,
    ):
        ask(sender, GONE, "gamma")


def test_words_of_a_model_are_not_redacted(tmp_path: Path) -> None:
    """A model may have been asked for a password, a cookie, a tool's arguments or an address."""
    path = tmp_path / "c.sqlite"
    arguments = json.dumps({"password": "Xk9-mP2-vL5-qN8", "session_id": "s-1234567", "pin": 1234})
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "login", "arguments": arguments},
    }
    text = f"use {arguments} or https://a.example/?page=12345678&session=abcdefgh12"
    message = {"role": "assistant", "content": text, "tool_calls": [call]}
    answer = json.dumps({"model": "gpt-4", "choices": [{"index": 0, "message": message}]}).encode()
    chat = "/v1/chat/completions"
    with serving(lambda _: Reply(answer)) as server:
        for url, record in ((server.url, "new"), (GONE, None)):
            with (
                ember_testing.cassette(path, record=record),  # type: ignore[arg-type]  # both modes
                httpx.Client(verify=False) as sender,
            ):
                assert sender.post(url + chat, json={"model": "gpt-4"}).content == answer


def test_common_word_in_a_password_variable_is_not_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DB_PASSWORD=password` changes no answer; a variable whose value is replaced is named."""
    monkeypatch.setenv("DB_PASSWORD", "password")
    monkeypatch.setenv("AUTH_PROVIDER", "anthropic-eu1")
    monkeypatch.setenv("DATABASE_URL", "postgres://app:Zx81-plus@db/app")
    text = "choose a good password; anthropic-eu1; Zx81-plus"
    path = tmp_path / "c.sqlite"
    with (
        serving(lambda _: Reply(text.encode())) as server,
        pytest.warns(RecordingWarning, match=r"holds the value of \$DATABASE_URL"),
        ember_testing.cassette(path, record="new"),
        httpx.Client(verify=False) as sender,
    ):
        assert sender.post(server.url, json={"q": "advice"}).text == text
    for name in ("DB_PASSWORD", "AUTH_PROVIDER", "DATABASE_URL"):
        monkeypatch.delenv(name)
    with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
        played = sender.post(GONE, json={"q": "advice"}).text
    assert played == "choose a good password; anthropic-eu1; REDACTED*"


def test_a_cookie_keeps_its_name_and_attributes(tmp_path: Path) -> None:
    """A client that looks for its session cookie finds it."""
    path = tmp_path / "c.sqlite"
    headers = {"set-cookie": "sid=abcdefgh12345; Path=/; HttpOnly"}
    with serving(lambda _: Reply(b"{}", headers=headers)) as server:
        for url, record in ((server.url, "new"), (GONE, None)):
            with (
                ember_testing.cassette(path, record=record),  # type: ignore[arg-type]  # both modes
                httpx.Client(verify=False) as sender,
            ):
                response = sender.post(url, json={})
    assert response.headers["set-cookie"] == "sid=REDACTED; Path=/; HttpOnly"


def shout(text: str) -> str:
    """A user's rule."""
    return text.replace("Ada Lovelace", "[NAME]")


@pytest.mark.parametrize("pieces", [1, 4])
def test_redaction_rules_of_the_user_apply_to_everything_written(
    tmp_path: Path, pieces: int
) -> None:
    """Patterns and functions apply to bodies, URLs and headers; other originals stay different."""
    path = tmp_path / "c.sqlite"
    rules = [r"[\w.]+@[\w.]+", re.compile(r"\d{3}-\d\d-\d{4}"), shout]
    body = json.dumps({"to": "ada@example.com", "said": "Ada Lovelace é\n 123-45-6789"}).encode()
    size = -(-len(body) // pieces)
    cut = [body[at : at + size] for at in range(0, len(body), size)]

    def ask(sender: httpx.Client, url: str, mail: str) -> httpx.Response:
        asked = {"q": f"write to {mail} and Ada Lovelace", "n": 1}
        return sender.post(url, params={"mail": mail}, json=asked, headers={"x-for": mail})

    with serving(lambda _: Reply(pieces=cut, pause=0.001)) as server:
        with (
            ember_testing.cassette(path, record="new", redact=rules),
            httpx.Client(verify=False) as sender,
        ):
            assert ask(sender, server.url, "a.b@example.com").content == body
    content = path.read_bytes()
    for secret in (b"a.b@example", b"a.b%40example", b"ada@example", b"Lovelace", b"45-6789"):
        assert secret not in content
    with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
        played = ask(sender, GONE, "a.b@example.com")
    assert played.json() == {"to": "REDACTED*******", "said": "[NAME] é\n REDACTED***"}
    with (
        pytest.raises(CassetteMiss),
        ember_testing.cassette(path),
        httpx.Client(verify=False) as sender,
    ):
        ask(sender, GONE, "c.d@example.com")


IGNORED: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    "a query's parameter": (["query.ts"], {"params": {"ts": "1"}}, {"params": {"ts": "2"}}),
    "a form's field": (
        ["form.ts"],
        {"data": {"ts": "1", "a": "b"}},
        {"data": {"ts": "2", "a": "b"}},
    ),
    "a file's name": (
        ["form.file.filename"],
        {"files": {"file": ("a-1.txt", b"content")}},
        {"files": {"file": ("b-2.txt", b"content")}},
    ),
    "a date in a prompt": (
        [re.compile(r"\d{4}-\d\d-\d\d")],
        {"json": {"messages": [{"content": "Today is 2026-11-27. Hello"}]}},
        {"json": {"messages": [{"content": "Today is 2026-12-01. Hello"}]}},
    ),
    "a pattern's text": (["re:run-[0-9]+"], {"content": b"a run-1"}, {"content": b"a run-22"}),
    "a path": (["meta.*.id"], {"json": {"meta": [{"id": 1}]}}, {"json": {"meta": [{"id": 2}]}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", IGNORED)
def test_ignore_applies_to_queries_forms_and_texts(tmp_path: Path, kind: str) -> None:
    """`ignore=` applies to queries, forms, file names and texts; otherwise they are compared."""
    rules, before, now = IGNORED[kind]
    path = tmp_path / "c.sqlite"
    with (
        serving() as server,
        ember_testing.cassette(path, record="new", ignore=rules),
        httpx.Client(verify=False) as sender,
    ):
        sender.post(server.url, **before)
    with ember_testing.cassette(path, ignore=rules), httpx.Client(verify=False) as sender:
        assert sender.post(GONE, **now).status_code == 200
    for arguments, expected in ((before, True), (now, False)):
        try:
            with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
                sender.post(GONE, **arguments)
            found = True
        except CassetteMiss:
            found = False
        assert found is expected


def test_null_is_absent_applies_only_if_set(tmp_path: Path) -> None:
    """`null_is_absent` applies only if set, and only at the top of the body."""
    path = tmp_path / "c.sqlite"
    with (
        serving() as server,
        ember_testing.cassette(path, record="new", null_is_absent=True),
        httpx.Client(verify=False) as sender,
    ):
        sender.post(server.url, json={"q": 1, "stop": None, "in": {"a": None}})
    with ember_testing.cassette(path, null_is_absent=True), httpx.Client(verify=False) as sender:
        assert sender.post(GONE, json={"q": 1, "in": {"a": None}}).status_code == 200
    with (
        pytest.raises(CassetteMiss),
        ember_testing.cassette(path),
        httpx.Client(verify=False) as sender,
    ):
        sender.post(GONE, json={"q": 1, "in": {"a": None}})


CONVERSATIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "chat": lambda id: {"messages": [
        {"role": "assistant", "tool_calls": [{"id": id, "type": "function"}]},
        {"role": "tool", "tool_call_id": id, "content": "18"}]},
    "responses": lambda id: {"input": [
        {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": id, "output": "18"}]},
    "anthropic": lambda id: {"messages": [
        {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "f"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id}]}]},
    "google": lambda id: {"contents": [
        {"parts": [{"functionCall": {"id": id, "name": "f"}}]},
        {"parts": [{"functionResponse": {"id": id, "name": "f"}}]}]},
}  # fmt: skip


@pytest.mark.parametrize("wire", CONVERSATIONS)
def test_ids_issued_by_an_answer_match_by_their_position(tmp_path: Path, wire: str) -> None:
    """The next request matches if another id was issued now, but not with an id never issued."""
    path = tmp_path / "c.sqlite"
    issued = ["call_first_1", "call_second_2"]

    def reply(request: Received) -> Reply:
        if b'"ask"' in request.body:
            return Reply(json.dumps({"tool": {"id": issued.pop(0)}}).encode())
        return Reply(b'{"end": true}')

    def talk(sender: httpx.Client, url: str, id: str = "") -> None:
        id = id or sender.post(url, json={"ask": "x"}).json()["tool"]["id"]
        sender.post(url, json=CONVERSATIONS[wire](id))

    with serving(reply) as server:
        with ember_testing.cassette(path, record="new"), httpx.Client(verify=False) as sender:
            talk(sender, server.url)
        with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
            talk(sender, GONE)
        with (
            ember_testing.cassette(path, record="new") as cassette,
            httpx.Client(verify=False) as sender,
        ):
            sender.post(server.url, json={"ask": "x"})
            id = sender.post(server.url, json={"ask": "x"}).json()["tool"]["id"]
            assert id == "call_second_2"
            sender.post(server.url, json=CONVERSATIONS[wire](id))
            assert (len(cassette.played), len(cassette.recorded)) == (2, 1)
    with (
        pytest.raises(CassetteMiss),
        ember_testing.cassette(path),
        httpx.Client(verify=False) as sender,
    ):
        talk(sender, GONE, "call_of_nobody")
