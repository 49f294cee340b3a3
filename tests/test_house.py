"""The house rules that a reader relies on, kept by walking the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parent.parent
PACKAGES = ("ember", "ember_testing")
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
CLIENT = [name for name in SOURCES if name.split(".")[0] == "ember"]

# The only code of the client that may open a connection.
RIM = {
    "ember.transport.client",
    "ember.transport.one_connection",
    "ember.transport.send",
    "ember.transport.tls",
}
# Of urllib only what opens something; urllib.parse is no network.
NETWORK = {
    "aiohttp", "anyio", "ftplib", "h11", "http", "httpcore", "httpx", "requests", "smtplib",
    "socket", "socketserver", "ssl", "trio", "urllib.request", "urllib3", "websockets",
}  # fmt: skip
# anyio's threads, for providers that only have a synchronous complete().
ALLOWED = {("ember.models.registry", "anyio.to_thread")}


def imports(module: str) -> Iterator[str]:
    """All that a module imports, at its top, in functions or for types: full names."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                # `from package import module` is an import of the module.
                yield full if full in SOURCES or source in ("urllib", "anyio") else source


def inner(module: str) -> set[str]:
    """The modules of this project that a module imports."""
    return {name for name in imports(module) if name in SOURCES} - {module}


def is_in(name: str, packages: set[str]) -> bool:
    """Whether a module is one of these packages or in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_walk_sees_the_imports() -> None:
    """The walk finds what is there, so that the rules below test something."""
    assert len(CLIENT) > 20
    assert "ember.transport.send" in inner("ember.providers.http")
    assert "httpx" in imports("ember.transport.client")


def test_no_import_circle() -> None:
    """No module imports itself by way of others, not in functions and not for types either."""
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"circle: {' -> '.join((*way, module))}"
        if module not in done:
            for below in sorted(inner(module)):
                visit(below, (*way, module))
            done.add(module)

    for module in SOURCES:
        visit(module, ())


@pytest.mark.parametrize("module", CLIENT)
def test_client_stands_alone(module: str) -> None:
    """The client never imports the test toolkit."""
    assert not [name for name in imports(module) if is_in(name, {"ember_testing"})]


@pytest.mark.parametrize("module", CLIENT)
def test_network_is_touched_at_the_rim_only(module: str) -> None:
    """Only the rim imports anything that can open a connection or secure one."""
    allowed = {name for user, name in ALLOWED if user == module}
    found = {name for name in imports(module) if is_in(name, NETWORK)}
    assert module in RIM or not {name for name in found if not is_in(name, allowed)}


@pytest.mark.parametrize("module", SOURCES)
def test_modules_stay_small(module: str) -> None:
    """No module is too long to be read in one go."""
    assert SOURCES[module].stat().st_size < 16 * 1024


@pytest.mark.parametrize("module", CLIENT)
def test_client_prints_nothing(module: str) -> None:
    """A library does not write to the terminal; the command does."""
    if module == "ember.__main__":
        return
    tree = ast.parse(SOURCES[module].read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "print" not in names


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in 3.11")
def test_httpx_is_the_only_dependency() -> None:
    """Whoever installs the client gets httpx and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [dependency.partition(">")[0] for dependency in project["dependencies"]]
    assert names == ["httpx"]


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_shipped(package: str) -> None:
    """A type checker finds the types of both packages."""
    assert (ROOT / package / "py.typed").is_file()
