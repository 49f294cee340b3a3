"""Settings and fixtures of the whole suite."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import ssl
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Loaded before any run of `pytester`, which unloads what it was the first to load: the C part of
# PyYAML does not work when it is loaded a second time.
with contextlib.suppress(ImportError):  # in the extra vcr
    importlib.import_module("yaml")

# The tests start several hundred processes: what these import is compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# More examples of each law: `thorough` is run by `.ci/run`, `long` by hand, as in
# pytest --hypothesis-profile=long tests/testing/strategies
settings.register_profile("thorough", max_examples=1_000, deadline=None)
settings.register_profile("long", max_examples=100_000, deadline=None)


_SETTINGS = (
    "BUILD_NUMBER",
    "CI",
    "EMBER_MODEL",
    "EMBER_MODEL_COSTS_JSON",
    "OLLAMA_HOST",
    "OPENAI_API_VERSION",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the client matrix, which is collected only where it has a folder."""
    group = parser.getgroup("matrix", "the packages that people call models with")
    group.addoption("--matrix", metavar="FOLDER", help="try them; FOLDER keeps what is installed")
    group.addoption("--matrix-clients", metavar="A,B", help="only these modules of tests/matrix")


# The files that take longest: begun first, so that no process ends up alone with one of them.
_LONGEST = (
    "client/transport/test_timeouts.py",
    "testing/strategies/test_strategies.py",
    "testing/plugin/test_secrets.py",
    "testing/plugin/test_forks.py",
    "client/providers/test_streams.py",
    "client/pricing/test_genai_prices.py",
    "client/transport/test_proxies.py",
    "testing/replay/test_libraries.py",
    "testing/replay/test_server.py",
    "client/providers/test_damaged_answers.py",
    "docs/test_guides.py",
    "testing/cli/test_commands.py",
    "testing/cli/test_html.py",
    "testing/cassettes/test_cassette.py",
    "client/test_command.py",
    "client/transport/test_network_failures.py",
    "client/transport/test_bodies.py",
    "testing/replay/test_kept_out.py",
    "client/transport/test_concurrency.py",
    "testing/plugin/test_plugin.py",
    "testing/patches/test_children.py",
    "testing/cli/test_vcr_switch.py",
    "docs/test_project_files.py",
    "testing/fakes/test_fake_surroundings.py",
    "testing/cli/test_git.py",
    "testing/plugin/test_wide_fixtures.py",
    "test_house.py",
    "client/providers/test_corpus.py",
    "client/conversation/test_crossing_corpus.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Where a file is named, its slow tests run too."""
    if config.option.markexpr == "not slow" and any(".py" in each for each in config.args):
        config.option.markexpr = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    folder = Path(__file__).parent
    order = {folder / name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    """Keep what was imported out of later garbage collections, which would look at all of it."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than there are cores: many tests wait, for a timeout or for a process."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return 2 + (len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, addresses and prices of the developer's machine do not reach the tests.

    Nor does `CI`, with which pytest prints more: tests count lines of its output.
    """
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_AUTH_TOKEN", "_BASE_URL")) or name.startswith("EMBER_COST"):
            monkeypatch.delenv(name)
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Shows what a test measured at the end of the run, from whichever process."""
    return lambda text: record_property("figures", text)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for 127.0.0.1 that no public CA signed, and its private key."""
    from tests.certificates import self_signed  # late: cryptography takes long to load

    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(self_signed())
    return path


@pytest.fixture(scope="session")
def server_tls(certificate: Path) -> ssl.SSLContext:
    """A server's side of TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that the tests measured."""
    measured = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in report.user_properties
        if name == "figures"
    ]
    if measured:
        terminalreporter.section("figures")
        for text in measured:
            terminalreporter.write_line(str(text))


@pytest.fixture(scope="session")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what the built wheel installs, to be put on a process's path."""
    wheels = pytest.importorskip("hatchling.builders.wheel", reason="the wheel's build backend")
    folder = tmp_path_factory.mktemp("wheel")
    builder = wheels.WheelBuilder(str(Path(__file__).parents[1]))
    (wheel,) = builder.build(directory=str(folder / "dist"), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"
