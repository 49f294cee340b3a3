"""Clients created during a replay load no CA bundle, and verify correctly afterwards."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Generator
from pathlib import Path

import certifi
import httpx
import pytest

import ember_testing
from tests.loopback import Loopback, serving


@pytest.fixture
def server(server_tls: ssl.SSLContext) -> Generator[Loopback]:
    """A TLS server with a certificate that is in no public CA bundle."""
    with serving(tls=server_tls) as server:
        yield server


async def get(client: httpx.AsyncClient, url: str) -> int:
    """Make one awaited call and close the client."""
    async with client:
        return (await client.get(url)).status_code


def test_client_made_in_a_replay_checks_certificates_afterwards(
    server: Loopback, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client made inside connects outside only if it trusts the server's certificate."""
    with ember_testing.cassette(tmp_path / "c.sqlite"):
        strangers = httpx.Client(), httpx.AsyncClient()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        friends = httpx.Client(), httpx.AsyncClient()
    monkeypatch.delenv("SSL_CERT_FILE")
    with friends[0], strangers[0]:
        assert friends[0].get(server.url).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            strangers[0].get(server.url)
    assert asyncio.run(get(friends[1], server.url)) == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(get(strangers[1], server.url))


def test_the_host_name_is_checked(
    server: Loopback, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trusted certificate for another name is refused."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with ember_testing.cassette(tmp_path / "c.sqlite"):
        client = httpx.Client()
    with client, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        client.get(server.url.replace("127.0.0.1", "localhost"))


def test_replaced_tls_context_has_ordinary_settings(tmp_path: Path) -> None:
    """All settings and, on request, all certificates are those of an ordinary context."""
    ordinary = ssl.create_default_context(cafile=certifi.where())
    with ember_testing.cassette(tmp_path / "c.sqlite"):
        late = ssl.create_default_context(cafile=certifi.where())
        for_servers = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        system = ssl.create_default_context()
    for name in dir(ordinary):
        value = getattr(ordinary, name)
        if not name.startswith("_") and not callable(value):
            assert getattr(late, name) == value, name
    assert late.get_ciphers() == ordinary.get_ciphers()
    assert late.cert_store_stats() == ordinary.cert_store_stats()
    assert late.get_ca_certs(True) == ordinary.get_ca_certs(True)
    assert type(for_servers) is type(system) is ssl.SSLContext
    assert type(late) is not ssl.SSLContext


def test_no_trust_store_is_loaded_in_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`httpx.Client()` reads certificates outside a replay and while recording, else none."""
    loaded: list[object] = []
    with ember_testing.cassette(tmp_path / "c.sqlite"):
        httpx.Client().close()  # the first client reads Python's defaults from a context

    def load(self: ssl.SSLContext, *places: object) -> None:
        loaded.append(places)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    with ember_testing.cassette(tmp_path / "c.sqlite"):
        httpx.Client().close()
    assert not loaded
    with ember_testing.cassette(tmp_path / "c.sqlite", record="new"):
        httpx.Client().close()
    httpx.Client().close()
    assert len(loaded) == 2


def test_missing_ca_bundle_is_an_error_at_once(tmp_path: Path) -> None:
    """A missing file is an error at once, as in `ssl.create_default_context`, not on first use."""
    with ember_testing.cassette(tmp_path / "c.sqlite"), pytest.raises(FileNotFoundError):
        ssl.create_default_context(cafile=tmp_path / "missing.pem")
