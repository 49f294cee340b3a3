"""Read a project's vcrpy settings from its source: what it matches on, where its tests are."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

__all__ = ["VCR_MATCH_ON", "match_on_of", "module_of"]

VCR_MATCH_ON = ("method", "scheme", "host", "port", "path", "query")
"""What vcrpy compares by default."""

_SUPPORTED_MATCHERS = {
    "method",
    "scheme",
    "host",
    "port",
    "path",
    "query",
    "uri",
    "url",
    "body",
    "raw_body",
}


_TEST_MODULE = re.compile(r"test_.*\.py|.*_test\.py")
_NOT_SEARCHED = frozenset({"site-packages", "node_modules", "venv", "env", "build", "dist"})


def match_on_of(cassette: Path) -> tuple[str, ...]:
    """Return what a cassette's project matches on, from its `conftest.py` or the test's module.

    Custom matchers and `headers` are left out. Empty if the project sets nothing.
    """
    for source in _settings_modules(cassette):
        for names in _match_on_lists(source):
            if found := tuple(name for name in names if name in _SUPPORTED_MATCHERS):
                return found
    return ()


def module_of(cassette: Path) -> Path | None:
    """Return the module of the test that a cassette is named after, if there is exactly one.

    The folders above the cassette are searched, up to the working directory. Of several modules,
    the one with the name of the cassette's folder is returned.

    Args:
        cassette: A path as pytest-vcr names it, such as `cassettes/TestA.test_b[1].yaml`.
    """
    test = cassette.name.removesuffix(cassette.suffix).partition("[")[0]
    *classes, name = test.split(".")
    above = [each for each in cassette.resolve().parents[1:] if each.is_relative_to(Path.cwd())]
    for folder in above:
        found = [
            source
            for source in _test_modules(folder)
            if name in (tests := _definitions(source)) and set(classes) <= tests
        ]
        named = [source for source in found if source.stem == cassette.parent.name]
        if len(found) == 1 or len(named) == 1:
            return (named or found)[0]
    return None


def _settings_modules(cassette: Path) -> Iterator[Path]:
    """Iterate over the modules that may set `match_on`, nearest first."""
    folders = [each for each in cassette.resolve().parents if each.is_relative_to(Path.cwd())]
    for folder in folders:
        for name in (f"{cassette.parent.name}.py", "conftest.py"):
            if (folder / name).is_file():
                yield folder / name


@lru_cache(maxsize=64)
def _test_modules(folder: Path) -> Sequence[Path]:
    """Return the test modules below a folder, without those of installed packages."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each[0] != "." and each not in _NOT_SEARCHED]
        named = [each for each in files if _TEST_MODULE.fullmatch(each)]
        found += [Path(place, each) for each in named]
    return found


@lru_cache(maxsize=1024)
def _syntax_tree(source: Path) -> ast.AST | None:
    try:
        return ast.parse(source.read_bytes())
    except (
        OSError,
        SyntaxError,
        ValueError,
        RecursionError,
    ):  # another Python, or not Python
        return None


@lru_cache(maxsize=1024)
def _definitions(source: Path) -> frozenset[str]:
    """Return the names of a module's functions and classes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    tree = _syntax_tree(source)
    nodes = ast.walk(tree) if tree is not None else ()
    return frozenset(node.name for node in nodes if isinstance(node, kinds))


def _match_on_lists(source: Path) -> Iterator[list[str]]:
    """Find the lists given as `match_on` in a dictionary, a call or an assignment."""
    tree = _syntax_tree(source)
    for node in ast.walk(tree) if tree is not None else ():
        values: list[ast.expr] = []
        if isinstance(node, ast.Dict):
            values = [v for k, v in zip(node.keys, node.values, strict=True) if _is_match_on(k)]
        elif isinstance(node, ast.Call):
            values = [each.value for each in node.keywords if each.arg == "match_on"]
        elif isinstance(node, ast.Assign) and any(map(_is_match_on, node.targets)):
            values = [node.value]
        for value in values:
            if isinstance(value, (ast.List, ast.Tuple)):
                yield [str(each.value) for each in value.elts if isinstance(each, ast.Constant)]


def _is_match_on(node: ast.AST | None) -> bool:
    if isinstance(node, ast.Constant):
        return node.value == "match_on"
    return isinstance(node, (ast.Attribute, ast.Subscript)) and "match_on" in ast.unparse(node)
