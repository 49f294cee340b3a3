"""No key reaches the file, wherever it was in a request or an answer."""
# ruff: noqa: SIM117 - the tests are about `with` blocks and what happens at their ends

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
from collections import UserDict
from pathlib import Path

import httpx
import pytest

import ember_testing
from tests.loopback import Received, Reply, serving
from tests.testing.chat import client, post

GONE = "http://127.0.0.1:1"  # nothing listens here: a replay needs no server
SECRET = "sk-live-9f8e7d6c5b4a"


class TestSecrets:
    """No credential reaches the file, wherever it was, and matching still works."""

    @staticmethod
    def leaky(request: Received) -> Reply:
        """A server that echoes the key in a header, in the body and across two pieces."""
        key = (request.headers.get("authorization") or request.headers.get("x-k", "")).split()[-1]
        if request.path.startswith("/stream"):
            half = len(key) // 2
            pieces = [f"data: your key {key[:half]}".encode(), f"{key[half:]} is bad\n\n".encode()]
            return Reply(pieces=pieces, pause=0.03)
        if request.path.startswith("/packed"):
            body = gzip.compress(f'{{"error": "bad key {key}"}}'.encode())
            return Reply(body, headers={"content-encoding": "gzip"})
        body = f'{{"error": {{"message": "Incorrect API key provided: {key}"}}}}'.encode()
        return Reply(body, status=401, headers={"x-echo": key, "set-cookie": "s=abcdefgh12345"})

    def calls(self, url: str, key: str) -> list[httpx.Response]:
        """A wrong key in every place."""
        bearer = {"authorization": f"Bearer {key}"}
        with client() as sender:
            return [
                sender.post(f"{url}/v1?key={key}", json={"q": 1}, headers=bearer),
                sender.post(f"{url}/{key}/v1", json={"text": f"is {key} ok?"}, headers=bearer),
                sender.post(f"{url}/stream", json={}, headers=bearer),
                sender.post(f"{url}/packed", json={}, headers=bearer),
            ]

    def test_a_key_passed_in_code_is_nowhere_in_the_file(self, path: Path) -> None:
        """Keys in header, query, path, body, echo, stream pieces and gzip are not recorded."""
        with (
            serving(self.leaky) as server,
            ember_testing.cassette(path, record="new", record_errors=True) as cassette,
        ):
            live = self.calls(server.url, SECRET)
            assert SECRET in live[0].text  # the program gets the original answer
            assert len(cassette.recorded) == 4
        content = path.read_bytes()
        for secret in (SECRET, "abcdefgh12345", SECRET[:10]):
            assert secret.encode() not in content
        with ember_testing.cassette(path):
            played = self.calls(GONE, "sk-another-key-of-ci")
        assert [len(each.content) for each in played] == [len(each.content) for each in live]
        assert played[0].json()["error"]["message"].endswith(": REDACTED************")
        assert played[3].json() == {"error": "bad key REDACTED************"}

    def test_a_key_of_the_environment_is_nowhere_in_the_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even a key set while the test runs and sent in a header of any name."""
        with (
            serving(self.leaky) as server,
            ember_testing.cassette(path, record="new", record_errors=True),
        ):
            monkeypatch.setenv("SOME_PROVIDER_APIKEY", SECRET)
            post(server.url, {"q": SECRET}, headers={"x-k": SECRET})
        assert SECRET.encode() not in path.read_bytes()
        monkeypatch.setenv("SOME_PROVIDER_APIKEY", "another-value-1")
        with ember_testing.cassette(path):
            assert post(GONE, {"q": "another-value-1"}).status_code == 401

    @pytest.mark.parametrize(
        "way", ["item", "update", "bytes", "another mapping", "in another mapping", "just before"]
    )
    def test_key_set_between_two_calls_is_redacted(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        """The environment is read again after any kind of change."""
        if way == "in another mapping":  # whose changes raise no audit event
            monkeypatch.setattr(os, "environ", UserDict(os.environ))
        with serving(lambda request: Reply(request.body)) as server:
            with ember_testing.cassette(path, record="new"), client() as sender:
                for number in range(3):
                    sender.post(server.url, json={"n": number})
                if way != "just before":
                    sender.post(server.url, json={"n": "settled"})
                if way == "update":
                    os.environ.update(LATE_API_KEY=SECRET)
                elif way == "bytes" and sys.platform != "win32":
                    os.environb[b"LATE_API_KEY"] = SECRET.encode()
                elif way == "another mapping":
                    monkeypatch.setattr(os, "environ", {**os.environ, "LATE_API_KEY": SECRET})
                else:
                    os.environ["LATE_API_KEY"] = SECRET
                try:
                    sender.post(server.url, json={"q": f"what is {SECRET}?"})
                finally:
                    os.environ.pop("LATE_API_KEY", None)
        assert SECRET.encode() not in path.read_bytes()

    def test_key_that_is_being_set_while_a_thread_calls_is_redacted(self, path: Path) -> None:
        """A variable has no value yet when its audit event is raised."""
        script = """
import os, sys, threading
import httpx
import ember_testing

url, path, secret = sys.argv[1:]

def call_meanwhile(event, arguments):
    if event == "os.putenv" and arguments[0] in (b"LATE_API_KEY", "LATE_API_KEY"):
        thread = threading.Thread(target=httpx.post, args=(url,), kwargs={"json": {"n": 2}})
        thread.start()
        thread.join()

with ember_testing.cassette(path, record="new"):
    httpx.post(url, json={"n": 1})
    sys.addaudithook(call_meanwhile)  # after the toolkit's own
    os.environ["LATE_API_KEY"] = secret
    httpx.post(url, json={"q": f"what is {secret}?"})
"""
        with serving() as server:
            command = [sys.executable, "-c", script, server.url, str(path), SECRET]
            subprocess.run(command, check=True, timeout=60)
            assert len(server.received) == 3
        assert SECRET.encode() not in path.read_bytes()

    def test_key_known_only_after_its_use_is_not_written(self, path: Path) -> None:
        """The whole recording is refused if a prompt held a key before the key was used."""
        with serving() as server:
            with ember_testing.cassette(path, record="new"):
                post(server.url, {"q": "harmless"})
            before = path.read_bytes()
            with (
                pytest.raises(
                    ember_testing.CassetteError, match="would hold a credential"
                ) as caught,
                ember_testing.cassette(path, record="new"),
            ):
                post(server.url, {"q": f"my key is {SECRET}"})
                post(server.url, {"q": 2}, headers={"x-api-key": SECRET})
        assert path.read_bytes() == before
        assert SECRET not in str(caught.value)

    def test_a_key_that_came_without_an_audit_event_is_not_written(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """os.reload_environ fills the mapping behind os.environ: the end looks at it once more."""
        name, value = "LATE_API_KEY", SECRET
        behind = vars(os.environ)
        with serving() as server:
            with (
                pytest.raises(ember_testing.CassetteError, match="would hold a credential"),
                ember_testing.cassette(path, record="new"),
            ):
                post(server.url, {"q": "harmless"})
                post(server.url, {"q": "settled"})
                coded = behind["encodekey"](name), behind["encodevalue"](value)
                monkeypatch.setitem(behind["_data"], *coded)
                post(server.url, {"q": f"my key is {SECRET}"})
        assert not path.exists() or SECRET.encode() not in path.read_bytes()

    def test_a_key_inside_of_base64_is_replaced_there(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key in base64 is replaced by base64 characters; the recording is kept and replays."""
        monkeypatch.setenv("GATEWAY_TOKEN", SECRET)
        encoded = base64.b64encode(f"user:{SECRET}, and more".encode()).decode()
        with (
            serving(lambda request: Reply(request.body)) as server,
            ember_testing.cassette(path, record="new"),
        ):
            assert post(server.url, {"config": encoded}).json() == {"config": encoded}
        for before in range(3):
            inner = base64.b64encode(bytes(before) + SECRET.encode())[4:-4]
            assert inner not in path.read_bytes()
        monkeypatch.delenv("GATEWAY_TOKEN")
        with ember_testing.cassette(path):
            played = post(GONE, {"config": encoded}).json()["config"]
        assert len(played) == len(encoded)
        plain = base64.b64decode(played)
        assert plain.startswith(b"use")
        assert plain.endswith(b", and more")
        with pytest.raises(ember_testing.CassetteMiss), ember_testing.cassette(path):
            post(GONE, {"config": encoded[::-1]})

    def test_a_key_spelled_out_over_several_events_is_not_written(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key that only the text of a whole stream holds is refused, with the reason."""
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        events = [
            {"choices": [{"index": 0, "delta": {"content": part}}], "model": "gpt-4"}
            for part in (SECRET[:8], SECRET[8:])
        ]
        pieces = [b"data: %b\n\n" % json.dumps(event).encode() for event in events]
        pieces.append(b"data: [DONE]\n\n")
        reply = Reply(pieces=pieces, headers={"content-type": "text/event-stream"})
        with (
            serving(lambda _: reply) as server,
            pytest.raises(ember_testing.CassetteError, match="spells out over several events"),
            ember_testing.cassette(path, record="new"),
            client() as sender,
        ):
            body = {"model": "gpt-4", "stream": True}
            sender.post(f"{server.url}/v1/chat/completions", json=body)
        assert not path.exists()

    def test_the_error_message_of_a_failed_connection_is_redacted(self, path: Path) -> None:
        """A key in the text of an exception is replaced before it is written."""
        with client() as sender:
            transport = httpx.HTTPTransport(verify=False, proxy=f"http://u:{SECRET}@127.0.0.1:1")
            with ember_testing.cassette(path, record="new"), httpx.Client(transport=transport) as c:
                with pytest.raises(httpx.TransportError):
                    c.post(f"{GONE}/v1", json={}, headers={"x-api-key": SECRET})
            assert not sender.is_closed
        assert SECRET.encode() not in path.read_bytes()
