"""The rules of layout, imports and words, checked by walking the source."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.benchmarks.mutations import CHANGES

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
PYTHON = sorted(
    str(path.relative_to(ROOT))
    for folder in (*PACKAGES, "tests", ".ci")
    for path in (ROOT / folder).rglob("*.py")
)
PROSE = sorted(
    [
        *PYTHON,
        *(
            str(path.relative_to(ROOT))
            for folder in (*PACKAGES, "tests", ".github")
            for path in (ROOT / folder).rglob("*.md")
            if "design" not in path.parts  # the user's own document
        ),
        "README.md",
    ]
)

# Which room may import which: from the bottom up, each from the floors below it, none from
# another room of its own floor. A room is a folder or, where a module serves several rooms,
# that module; every module belongs to the longest name that it begins with.
FLOORS: dict[str, list[set[str]]] = {
    "ember": [
        {"ember.exceptions"},
        {"ember.models.schemas"},  # the values that go in and come out, known to every room
        {"ember.models.streams", "ember.conversation", "ember.pricing", "ember.transport"},
        {"ember.providers"},
        {"ember.models"},
        {"ember.api"},
        {"ember"},
    ],
    "ember_testing": [
        {"ember_testing.exceptions"},
        {"ember_testing.wires"},
        {"ember_testing.cassettes", "ember_testing.patches", "ember_testing.faults"},
        {"ember_testing.replay", "ember_testing.fakes", "ember_testing.strategies"},
        {"ember_testing.plugin", "ember_testing.cli"},
        {"ember_testing"},
    ],
}
LONGEST_CHAIN = 7
MOST_LINES = 600
MOST_FUNCTION_LINES = 60

# What does not yet keep a rule, as of 2026-11-27. Each entry goes with the change that mends it.
LONG_FUNCTIONS = {"cassette"}  # of which 50 lines document its arguments

# Phrases that made readers read twice, and what stands in their place.
BANNED = {
    r"\b(both|two|either|each) colou?rs?\b": "sync and async",
    r"how-?manieth": "position among identical requests",
    r"\bone's own\b": "custom",
    r"\bdear(er|est)?\b": "expensive",
    r"\b(these|such|own|other|all|control) signs\b|\bsigns of these\b": "characters",
    r"\bwho(so)?ever\b": "the caller, the user, the code that ...",
    r"\bknows? all of\b": "imported late because it loads all of ...",
    r"\bwhose certificates are believed\b": "CA bundle",
    r'"""See `[^`]+`\.?"""': "nothing: the interface is documented where it is declared",
    r"\bin both (ways|manners|fashions)\b": "sync and async",
    r"\bmachine room\b|\bfront door\b": "say what the module contains",
}
# Participles that say nothing of what a variable holds or a function returns.
BANNED_NAMES = {"told", "said", "made", "shown", "wanted", "kept", "keyed", "spoken"}
WORDS_OF_TESTS = re.compile(
    r"\b(tests?|pytest|respx|mocks?|mocked|fakes?|faked|cassettes?|replay\w*|ember_testing)\b",
    re.IGNORECASE,
)

# The only room of the client that may open a connection.
NETWORK_ROOM = "ember.transport"
# Of urllib only what opens something; urllib.parse is no network.
NETWORK = {
    "aiohttp", "anyio", "ftplib", "h11", "http", "httpcore", "httpx", "requests", "smtplib",
    "socket", "socketserver", "ssl", "trio", "urllib.request", "urllib3", "websockets",
}  # fmt: skip
# anyio's threads, for providers that only have a synchronous complete().
ALLOWED = {("ember.providers.base", "anyio.to_thread")}


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports(module: str) -> Iterator[str]:
    """All that a module imports, at its top, in functions or for types: full names."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes(path):
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


def room_and_floor(module: str) -> tuple[str, int]:
    """The room that a module belongs to, and how many floors of its package are below it."""
    rooms = [
        (room, floor)
        for floor, level in enumerate(FLOORS[module.split(".")[0]])
        for room in level
        if is_in(module, {room})
    ]
    return max(rooms, key=lambda each: len(each[0]))


def room_edges() -> Counter[tuple[str, str]]:
    """How many imports of modules lead from one room to another, or stay inside one."""
    return Counter(
        (room_and_floor(module)[0], room_and_floor(below)[0])
        for module in SOURCES
        for below in inner(module)
    )


def longest_chain(edges: set[tuple[str, str]]) -> list[str]:
    """The longest way along the edges, which have no circle."""
    done: dict[str, list[str]] = {}

    def below(room: str) -> list[str]:
        if room not in done:
            ways = [below(target) for source, target in edges if source == room]
            done[room] = [room, *max(ways, key=len, default=[])]
        return done[room]

    return max((below(room) for room, _ in edges), key=len)


def functions(path: str) -> Iterator[tuple[str, int]]:
    """The functions of a file, each with its number of lines."""
    for node in nodes(ROOT / path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_imports_are_found() -> None:
    """The walk finds what is there, so that the rules below test something."""
    assert len(CLIENT) > 20
    assert "ember.transport.send" in inner("ember.providers.local")
    assert "httpx" in imports("ember.transport.client")
    assert {"tests/test_house.py", "ember/exceptions.py"} <= set(PROSE)
    assert dict(functions("tests/test_house.py"))["is_in"] == 3


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


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_downwards(module: str) -> None:
    """A module imports from its own room and from the floors below, never up or sideways."""
    room, floor = room_and_floor(module)
    for name in inner(module):
        below, lower = room_and_floor(name)
        if name.split(".")[0] == module.split(".")[0] and below != room:
            assert lower < floor, f"{module} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_form_short_chains(package: str, figures: Callable[[str], None]) -> None:
    """No chain of imports passes more than seven rooms of a package; the edges are counted."""
    edges = {
        pair: count
        for pair, count in room_edges().items()
        if all(is_in(room, {package}) for room in pair)
    }
    inside = {room: count for (room, other), count in edges.items() if room == other}
    between = {pair: count for pair, count in edges.items() if pair[0] != pair[1]}
    chain = longest_chain(set(between))
    listed = ", ".join(f"{room} {count}" for room, count in sorted(inside.items()))
    figures(
        f"{package}: {sum(between.values())} imports between rooms along {len(between)} edges, "
        f"{sum(inside.values())} inside rooms ({listed}); longest chain {len(chain)}: "
        f"{' -> '.join(chain)}"
    )
    assert len(chain) <= LONGEST_CHAIN


@pytest.mark.parametrize("module", CLIENT)
def test_client_stands_alone(module: str) -> None:
    """The client never imports the test toolkit."""
    assert not [name for name in imports(module) if is_in(name, {"ember_testing"})]


@pytest.mark.parametrize("module", CLIENT)
def test_network_is_touched_in_one_room(module: str) -> None:
    """Only the transport imports anything that can open a connection or secure one."""
    allowed = {name for user, name in ALLOWED if user == module}
    found = {name for name in imports(module) if is_in(name, NETWORK)}
    assert is_in(module, {NETWORK_ROOM}) or not {name for name in found if not is_in(name, allowed)}


def test_test_files_do_not_import_each_other() -> None:
    """What several test files need stands in a conftest or a module of its own."""
    pattern = re.compile(r"^\s*(?:from|import) (?:tests)?[\w.]*\btest_\w+", re.MULTILINE)
    tests = [path for path in PYTHON if path.startswith("tests/")]
    assert len(tests) > 40
    assert not [path for path in tests if pattern.search((ROOT / path).read_text())]


def test_tests_that_a_guide_names_exist() -> None:
    """A test that a guide names as its proof is there, under that name."""
    tests = [path for path in PYTHON if path.startswith("tests/")]
    names = {Path(path).stem for path in tests} | {n for path in tests for n, _ in functions(path)}
    guides = [path for path in PROSE if path.endswith(".md")]
    named = {
        name for path in guides for name in re.findall(r"`(test_\w+)`", (ROOT / path).read_text())
    }
    assert len(named) > 20
    assert not named - names


@pytest.mark.parametrize("path", PYTHON)
def test_files_and_functions_stay_small(path: str) -> None:
    """A file can be read in one go, and a function on one screen."""
    lines = (ROOT / path).read_text().count("\n")
    assert lines <= MOST_LINES, f"{lines} lines"
    long = {name: size for name, size in functions(path) if size > MOST_FUNCTION_LINES}
    assert not long.keys() - LONG_FUNCTIONS, long


@pytest.mark.parametrize("module", CLIENT)
def test_client_does_not_mention_tests(module: str) -> None:
    """The client has no code and no words for its tests: what they need attaches at a seam."""
    assert not WORDS_OF_TESTS.findall(SOURCES[module].read_text())


@pytest.mark.parametrize("path", PROSE)
def test_plain_words(path: str) -> None:
    """No phrase of the list of those that readers stumbled over."""
    if path == "tests/test_house.py":
        return
    text = " ".join(re.sub(r"\n\s*#?\s*", "\n", (ROOT / path).read_text()).split("\n"))
    for phrase, instead in BANNED.items():
        found = re.search(phrase, text, re.IGNORECASE)
        assert found is None, f"{found[0]!r}; better: {instead}"


@pytest.mark.parametrize("path", [path for path in PYTHON if path.startswith("tests/")])
def test_plain_names(path: str) -> None:
    """No variable, argument or function is named by a bare participle."""
    for node in nodes(ROOT / path):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                pass
            case _:
                continue
        assert name.strip("_") not in BANNED_NAMES, f"line {node.lineno}: {name}"


def test_mutations_apply() -> None:
    """Each mutation of `tests/benchmarks/mutations.py` finds its text once in its file."""
    for change in CHANGES:
        text = (ROOT / "ember" / change.path).read_text(encoding="utf-8")
        assert text.count(change.old) == 1, f"{change.what}: {change.path}"


@pytest.mark.parametrize("module", CLIENT)
def test_client_prints_nothing(module: str) -> None:
    """A library does not write to the terminal; the command does."""
    if module == "ember.__main__":
        return
    names = {node.id for node in nodes(SOURCES[module]) if isinstance(node, ast.Name)}
    assert "print" not in names


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in 3.11")
def test_httpx_is_the_only_dependency() -> None:
    """The client's installation brings httpx and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [dependency.partition(">")[0] for dependency in project["dependencies"]]
    assert names == ["httpx"]


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_shipped(package: str) -> None:
    """A type checker finds the types of both packages."""
    assert (ROOT / package / "py.typed").is_file()
