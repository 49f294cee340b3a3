"""`fake_model` with test runners, custom clients, cassettes and custom providers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember.api import models
from ember.api.exceptions import ProviderAPIError
from ember.api.models import ModelRegistry
from ember.api.models.providers import BaseProvider, register_provider
from ember.api.models.schemas import ChatResponse, UsageStats
from ember.providers import base
from ember_testing import Answer, FakeCall, NetworkBlocked, UnansweredCall, fake_model
from ember_testing.faults import overloaded, refused

ROOT = Path(__file__).parents[3]


@given(prompt=st.text(min_size=1).filter(str.strip), answer=st.text())
@settings(max_examples=25, deadline=None)
def test_under_given(prompt: str, answer: str) -> None:
    """The context manager works for every example of a Hypothesis test."""
    with fake_model() as fake:
        fake("gpt-4", answer)
        assert models("gpt-4", prompt).text == answer
        assert [call.prompt for call in fake.calls] == [prompt]


def test_unittest_reports_an_unanswered_call_once(pytester: pytest.Pytester) -> None:
    """Unittest reports an unanswered call once, and an unused answer."""
    path = pytester.makepyfile(
        cases="""
        import unittest
        from ember.api import models
        from ember_testing import fake_model

        class Case(unittest.TestCase):
            def setUp(self):
                context = fake_model()
                self.fake = context.__enter__()
                self.addCleanup(context.__exit__, None, None, None)

            def test_passes(self):
                self.fake("gpt-4", "Paris")
                self.assertEqual(models("gpt-4", "hi").text, "Paris")

            def test_unanswered(self):
                models("gpt-4", "hi")

            def test_swallowed(self):
                try:
                    models("gpt-4", "hi")
                except BaseException:
                    pass

            def test_unused(self):
                self.fake("gpt-4", "Paris")
        """
    )
    plain = subprocess.run(
        [sys.executable, "-m", "unittest", path.stem],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    output = plain.stderr
    assert output.count("ERROR: test_unanswered") == 1, output
    assert output.count("ERROR: test_swallowed") == 1, output
    assert output.count("test_unused") >= 1, output
    assert "Ran 4 tests" in output
    result = pytester.runpytest("-q", path)
    result.assert_outcomes(passed=1, failed=3)


def test_the_fixture_fails_the_test_itself_and_once(pytester: pytest.Pytester) -> None:
    """An error of the fixture fails the test, not its teardown, and is reported once."""
    pytester.makepyfile(
        """
        import socket, pytest
        from ember.api import models

        def test_unanswered(fake_model):
            models("gpt-4", "hi")

        def test_swallowed(fake_model):
            try:
                models("gpt-4", "hi")
            except BaseException:
                pass

        def test_swallowed_and_failed(fake_model):
            try:
                models("gpt-4", "hi")
            except BaseException:
                pass
            assert 1 == 2

        def test_unused(fake_model):
            fake_model("gpt-4", "Paris")

        def test_fails_before_it_asks(fake_model):
            fake_model("gpt-4", "Paris")
            assert 1 == 2

        @pytest.mark.xfail(reason="not yet", strict=True)
        def test_expected_to_fail(fake_model):
            fake_model("gpt-4", "Paris")
            assert 1 == 2

        def test_network(fake_model):
            with pytest.raises(OSError):
                socket.create_connection(("192.0.2.1", 80), 1)

        def test_passes(fake_model):
            fake_model("gpt-4", "Paris")
            models("gpt-4", "hi")
        """
    )
    result = pytester.runpytest("-q", "-p", "no:randomly")
    result.assert_outcomes(passed=1, failed=6, xfailed=1)
    result.stdout.fnmatch_lines(["*a call of openai/gpt-4, for which nothing is set up*"])
    result.stdout.fnmatch_lines(["*gpt-4: 1 of 1 answers*"])
    result.stdout.fnmatch_lines(["*connection to 192.0.2.1:80 blocked: models are faked here*"])


def test_fakes_work_under_xdist(run: Callable[..., pytest.RunResult]) -> None:
    """Fakes work in the worker processes of pytest-xdist."""
    pytest.importorskip("xdist", reason="in the extra dev")
    module = """
        import pytest
        from ember.api import models

        @pytest.mark.parametrize("n", range(4))
        def test_it(n, fake_model):
            fake_model("gpt-4", str(n))
            assert models("gpt-4", "hi").text == str(n)
        """
    run(module, "-p", "xdist", "-n2").assert_outcomes(passed=4)


def test_fakes_work_without_pytest() -> None:
    """The context manager needs neither pytest nor Hypothesis."""
    code = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "from ember.api import models\n"
        "from ember_testing import fake_model\n"
        "with fake_model() as fake:\n"
        "    fake('gpt-4', 'Paris')\n"
        "    print(models('gpt-4', 'hi').text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "Paris\n", done.stderr


def test_no_library_reaches_the_network() -> None:
    """A connection by any library fails and is reported at the end; loopback can be allowed."""
    with pytest.raises(NetworkBlocked, match="models are faked here"), fake_model() as fake:
        with contextlib.suppress(BaseException):
            socket.create_connection(("192.0.2.1", 80), 1)
        assert len(fake.failures) == 1
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(NetworkBlocked, match="allow_loopback = True"), fake_model():
            socket.create_connection(server.getsockname(), 1)
        with fake_model(allow_loopback=True):
            socket.create_connection(server.getsockname(), 1).close()
        with fake_model() as fake:
            fake.allow_loopback = True
            socket.create_connection(server.getsockname(), 1).close()
        socket.create_connection(server.getsockname(), 1).close()


def test_custom_transport_of_a_client_is_reached() -> None:
    """Requests that are not calls to a model reach a client's custom transport."""

    def app(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=models("gpt-4", "from the app").text)

    with fake_model() as fake, httpx.Client(transport=httpx.MockTransport(app)) as client:
        fake("gpt-4", "Paris")
        assert client.get("http://testserver/ask").text == "Paris"


def test_innermost_fake_answers_first() -> None:
    """An inner fake answers the models that it is set up for, and the outer one the rest."""
    with fake_model() as outer:
        outer("*", lambda call: "outer")
        with fake_model() as inner:
            inner("gpt-4", "inner")
            assert models("gpt-4", "hi").text == "inner"
            assert models("claude-3-opus", "hi").text == "outer"
        assert models("gpt-4", "hi").text == "outer"
    assert [len(outer.calls), len(inner.calls)] == [2, 1]


def test_real_keys_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of the environment are replaced inside the block, and restored after it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-real-one")
    with fake_model() as fake:
        fake("gpt-4", "Paris")
        models("gpt-4", "hi")
        assert "sk-a-real-one" not in str(fake.calls)
    assert os.environ["OPENAI_API_KEY"] == "sk-a-real-one"


# --- custom providers ----------------------------------------------------------------------------


class Echo(BaseProvider):
    """A provider that does not go over HTTP."""

    def complete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
        """Return the prompt in capitals."""
        return ChatResponse(prompt.upper(), UsageStats(1, 1, cost=0.0))


class AwaitedEcho(Echo):
    """A provider with its own async method."""

    async def acomplete(self, prompt: str, model: str, **kwargs: Any) -> ChatResponse:
        """Return the prompt in capitals."""
        return self.complete(prompt, model, **kwargs)


@pytest.fixture
def _echo() -> Iterator[None]:
    register_provider("echo", Echo)
    register_provider("awaited", AwaitedEcho)
    yield
    # There is no public way to unregister.
    base.providers = {n: p for n, p in base.providers.items() if n not in ("echo", "awaited")}


@pytest.mark.usefixtures("_echo")
@pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning")
def test_custom_provider_is_faked_only_by_its_name() -> None:
    """A custom provider is not faked unless a pattern begins with its name."""
    registry = ModelRegistry()
    assert registry.invoke_model("echo/loud", "hi").text == "HI"
    with fake_model() as fake:
        fake("*", lambda call: "faked")
        assert models("echo/loud", "hi").text == "HI"
        fake("echo/loud", "one", overloaded(), Answer("three", usage=UsageStats(5, 6)))
        fake("awaited/*", lambda call: f"{call.provider} {call.model} {call.prompt} {call.system}")
        assert registry.invoke_model("echo/loud", "hi").text == "one"
        with pytest.raises(ProviderAPIError) as caught:
            models("echo/loud", "hi")
        assert (caught.value.error_type, caught.value.retryable) == ("overloaded", True)
        assert models("echo/loud", "hi").usage.total_tokens == 11
        assert models("echo/quiet", "hi").text == "HI"
        text = asyncio.run(models.acall("awaited/x", "hi", system="S")).text
        assert text == "awaited x hi S"
        assert [call.model for call in fake.calls] == ["loud", "loud", "loud", "x"]
    assert registry.invoke_model("echo/loud", "hi").text == "HI"


@pytest.mark.usefixtures("_echo")
def test_connection_fault_of_a_custom_provider_is_refused() -> None:
    """A connection fault for a provider without a connection is refused with the reason."""
    with pytest.raises(TypeError, match="does not go over HTTP"), fake_model() as fake:
        fake("echo/loud", refused())
        models("echo/loud", "hi")


def test_unanswered_call_is_reported_before_the_failed_assertion() -> None:
    """If a swallowed call led to another error, the report begins with the call."""
    with pytest.raises(UnansweredCall, match="nothing is set up") as caught, fake_model():
        with contextlib.suppress(BaseException):
            models("gpt-4", "hi")
        raise AssertionError("no text")
    assert isinstance(caught.value.__cause__, AssertionError)


def test_reset_frees_requests_and_answers() -> None:
    """Requests and answers of thousands of examples are freed once the fake is reset."""

    def remembered() -> int:
        gc.collect()
        return sum(isinstance(each, (FakeCall, httpx.Request)) for each in gc.get_objects())

    with fake_model() as fake:
        before = remembered()
        for _ in range(200):
            fake("gpt-4", "Paris")
            models("gpt-4", "hi")
            fake.reset()
        assert remembered() <= before + 2


def test_the_first_call_of_a_run_under_pyfakefs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models can be called and priced with a fake file system, and afterwards."""
    pytest.importorskip("pyfakefs", reason="in the extra dev")
    pytester.makepyfile(
        """
        import sys
        from ember.api import models
        from ember_testing import fake_model as context

        def test_context(fs):
            with context("gpt-4", "Paris"):
                assert models("gpt-4", "hi").usage.cost > 0

        def test_fixture(fs, fake_model):
            fake_model("claude-3-opus", "Paris")
            assert models("claude-3-opus", "hi").usage.cost > 0

        def test_afterwards(fake_model):
            fake_model("gemini-2.5-flash", "Paris")
            assert models("gemini-2.5-flash", "hi").usage.cost > 0
            assert not [each for each in sys.meta_path if type(each).__name__ == "DynamicPatcher"]
        """
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins take long to load
    options = ("-q", "-p", "pyfakefs.pytest_plugin", "-p", "ember_testing.plugin")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=3)
