"""Clients in C, whose sockets raise no audit events: the real packages, in a separate process."""

from __future__ import annotations

import sys

import pytest

pytestmark = [
    pytest.mark.slow,  # runs pytest in child processes
    pytest.mark.skipif(sys.platform == "win32", reason="children are started elsewise"),
]

TESTS = """
import pytest
pytestmark = pytest.mark.ember_replay

def test_pycurl():
    pycurl = pytest.importorskip("pycurl")
    client = pycurl.Curl()
    client.setopt(client.URL, "https://provider.invalid/v1")
    with pytest.raises(pycurl.error):
        client.perform()

def test_curl_cffi():
    pytest.importorskip("curl_cffi")
    from curl_cffi import requests
    with pytest.raises(requests.exceptions.RequestException):
        requests.get("https://provider.invalid/v1")

def test_grpc():
    grpc = pytest.importorskip("grpc")
    with grpc.secure_channel("provider.invalid:443", grpc.ssl_channel_credentials()) as channel:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/service/method")(b"", timeout=10)

def test_psycopg():
    pytest.importorskip("psycopg")
"""
LIBRARIES = {
    "test_pycurl": "libcurl (pycurl)",
    "test_curl_cffi": "libcurl (curl_cffi)",
    "test_grpc": "gRPC",
    "test_psycopg": "libpq (psycopg)",
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_client_written_in_c_is_refused_or_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In a replay a client that honours proxies fails the test; every loaded client is named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    pytester.makepyfile(test_it=TESTS)
    arguments = ("-q", "-p", "ember_testing.plugin", "-k", name)
    for mode in ("--ember-record=none", "--ember-record=new"):
        result = pytester.runpytest_subprocess(*arguments, mode, timeout=60)
        if "skipped" in result.parseoutcomes():
            pytest.skip(f"the package of {name} is not installed")
        library, text = LIBRARIES[name], result.stdout.str()
        assert f"sockets that no guard sees: {library}; what remains open" in text
        if name == "test_psycopg":
            result.assert_outcomes(passed=1, deselected=3)
        elif mode == "--ember-record=none":
            result.assert_outcomes(failed=1, deselected=3)
            reason = f"a child process or {library} tried to reach provider.invalid:443, blocked"
            assert reason in text
        else:
            result.assert_outcomes(passed=1, deselected=3)
            assert (
                f"not recorded: connections to provider.invalid:443 by a child process or {library}"
                in text
            )
