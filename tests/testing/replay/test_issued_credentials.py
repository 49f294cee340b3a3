"""Credentials that an answer issued: a replay's client sends back their replacements."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import ember_testing
from ember_testing import CassetteMiss
from tests.loopback import Received, Reply, serving
from tests.testing.spellings import spellings

GONE = "http://127.0.0.1:1"


FLOWS: dict[str, Callable[[str], dict[str, Any]]] = {
    "a field": lambda s: {"json": {"session_token": s, "q": 1}},
    "an address's query": lambda s: {"params": {"token": s, "q": 1}},
    "an address's path": lambda s: {"path": f"/sessions/{quote(s, safe='')}/calls"},
    "a form": lambda s: {"data": {"token": s, "q": "1"}},
    "a field of another name": lambda s: {"json": {"thread": s}},
    "a text": lambda s: {"json": {"prompt": f"who am I? My pass is {s}."}},
}


@pytest.mark.parametrize("secret", ["tok-A1b2C3d4E5f6G7h8", "tok/A1+b2=C3d4 E5f6G7h8"])
@pytest.mark.parametrize("flow", FLOWS)
def test_a_credential_that_an_answer_issued_can_be_sent_back(
    tmp_path: Path, flow: str, secret: str
) -> None:
    """A replay's client sends back the replacement, and finds the same recordings."""
    path = tmp_path / "c.sqlite"

    def reply(request: Received) -> Reply:
        if request.path == "/login":
            return Reply(json.dumps({"sessionId": secret, "n": 1}).encode())
        return Reply(b'{"you": "are Ada"}')

    def talk(sender: httpx.Client, url: str, issued: str = "") -> bytes:
        issued = issued or sender.post(f"{url}/login", json={"user": "ada"}).json()["sessionId"]
        arguments = FLOWS[flow](issued)
        return sender.post(url + arguments.pop("path", "/calls"), **arguments).content

    with (
        serving(reply) as server,
        ember_testing.cassette(path, record="new"),
        httpx.Client(verify=False) as sender,
    ):
        live = talk(sender, server.url)
    assert not [each for each in spellings(secret) if each in path.read_bytes()]
    with ember_testing.cassette(path), httpx.Client(verify=False) as sender:
        assert talk(sender, GONE) == live
    with (
        pytest.raises(CassetteMiss),
        ember_testing.cassette(path),
        httpx.Client(verify=False) as sender,
    ):
        talk(sender, GONE, "tok-of-somebody-else-1")


ISSUED: dict[str, Callable[[httpx.Response], str]] = {
    "/field": lambda answer: answer.json()["session_token"],
    "/inner": lambda answer: json.loads(answer.json()["text"])["client_secret"]["value"],
    "/form": lambda answer: answer.text.split("&")[0].partition("=")[2],
    "/address": lambda answer: answer.json()["next"].partition("token=")[2],
    "/location": lambda answer: answer.headers["location"].partition("token=")[2],
    "/link": lambda answer: answer.links["next"]["url"].partition("token=")[2],
}


@pytest.mark.parametrize("length", [8, 9, 12, 17])
@pytest.mark.parametrize("path", ISSUED)
def test_two_issued_credentials_of_equal_length_stay_different(
    tmp_path: Path, path: str, length: int
) -> None:
    """Each gets its own answers even if a replay sends them back in the other order."""

    def reply(request: Received) -> Reply:
        if request.path != path:
            return Reply(b'{"calls": %d}' % len(server.received))
        token = f"{len(server.received):04d}-tok-A1b2C3d4"[:length]
        address = f"{server.url}/calls?token={token}"
        body: dict[str, Any] = {"session_token": token}
        if path == "/form":
            return Reply(f"access_token={token}&token_type=bearer".encode())
        if path == "/inner":
            body = {"text": json.dumps({"client_secret": {"value": token}})}
        elif path == "/address":
            body = {"next": address}
        elif path in ("/location", "/link"):
            link = address if path == "/location" else f'<{address}>; rel="next"'
            return Reply(b"{}", headers={path[1:]: link})
        return Reply(json.dumps(body).encode())

    def talk(order: str) -> dict[str, bytes]:
        with httpx.Client(verify=False) as sender:
            issued = {
                user: ISSUED[path](sender.post(server.url + path, json={"user": user}))
                for user in "ab"
            }
            return {
                user: sender.post(f"{server.url}/calls", json={"thread": issued[user]}).content
                for user in order
            }

    with serving(reply) as server:
        with ember_testing.cassette(tmp_path / "c.sqlite", record="new"):
            live = talk("ab")
        with ember_testing.cassette(tmp_path / "c.sqlite"):
            assert talk("ba") == live
        assert len(server.received) == 4
    assert b"-tok" not in (tmp_path / "c.sqlite").read_bytes()


def test_signed_redirect_is_followed_in_a_replay(tmp_path: Path) -> None:
    """The redirect is followed, though neither recording has the signature."""
    path = tmp_path / "c.sqlite"
    signature = "A1b2C3d4E5f6G7h8"

    def reply(request: Received) -> Reply:
        if request.path == "/start":
            return Reply(b"", status=307, headers={"location": f"/file?sig={signature}&n=1"})
        return Reply(b"the file")

    with serving(reply) as server:
        for url, record in ((server.url, "new"), (GONE, None)):
            with (
                ember_testing.cassette(path, record=record),  # type: ignore[arg-type]  # both modes
                httpx.Client(verify=False, follow_redirects=True) as sender,
            ):
                assert sender.get(f"{url}/start").content == b"the file"
    assert signature.encode() not in path.read_bytes()


def test_session_id_chosen_by_the_client_is_matched(tmp_path: Path) -> None:
    """A value that an answer only repeats was not issued by it: the client sends its own."""
    path = tmp_path / "c.sqlite"
    with serving(lambda request: Reply(request.body or b"{}")) as server:
        for url, record in ((server.url, "new"), (GONE, None)):
            with (
                ember_testing.cassette(path, record=record),  # type: ignore[arg-type]  # both modes
                httpx.Client(verify=False) as sender,
            ):
                for number in range(3):
                    body = {"session_id": "conversation-17-of-Ada", "n": number}
                    assert sender.post(url, json=body).json()["n"] == number
