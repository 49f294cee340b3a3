#!/usr/bin/env python3
"""The reference of every public name, made by pdoc from the docstrings: .ci/reference.py -o FOLDER

A public name without a docstring, and any warning of pdoc's, fails it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import re
import sys
import typing
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pdoc
import pdoc.doc
import pdoc.extract
import pdoc.render

import ember
import ember_testing

# What users import. `ember.api` names `ember.api.models`; no other package names its modules.
PUBLIC = (
    "ember.api",
    "ember.api.exceptions",
    "ember.api.models.providers",
    "ember.api.models.schemas",
    "ember_testing",
    "ember_testing.faults",
    "ember_testing.strategies",
)


def undocumented(documented: pdoc.doc.Namespace[object], about: str = "") -> Iterator[str]:
    """Full names of public members that no docstring describes.

    A field may be described in its class's docstring and a constant in its module's, under `Args:`
    or `Attributes:`.
    """
    for name, member in documented.members.items():
        if name.startswith("_") or not in_ember(member):
            continue
        described = re.search(rf"^\s+`?{re.escape(name)}`?:", about, re.MULTILINE)
        if not member.docstring.strip() and not described:
            yield member.fullname
        if isinstance(member, pdoc.doc.Class):
            about_class = "\n".join(
                base.__doc__ or "" for base in member.obj.__mro__ if base is not object
            )
            yield from undocumented(member, about_class)


def in_ember(member: pdoc.doc.Doc[object]) -> bool:
    """Whether Ember declares it; what a class inherits from elsewhere is described there."""
    return member.taken_from[0].partition(".")[0] in ("ember", "ember_testing")


def load_types() -> None:
    """Import what modules import for type checkers only, so that every annotation resolves.

    Ember has no import circle for types either; pdoc's own way of doing this fails for names that
    one module imports from another.
    """
    names = [
        module.name
        for package in (ember, ember_testing)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    ]
    modules = [importlib.import_module(name) for name in names]
    for module in modules:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                block = ast.Module(node.body, type_ignores=[])
                exec(compile(block, str(module.__file__), "exec"), vars(module))
    for module in modules:
        for value in vars(module).values():
            # A named tuple's __new__ stands in no module, where its annotations could be resolved.
            if isinstance(value, type) and hasattr(value, "_fields"):
                with suppress(NameError, TypeError):  # an alias in quotation marks; none is public
                    value.__new__.__annotations__ = typing.get_type_hints(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().output
    load_types()
    for name in ember_testing.__all__:
        getattr(ember_testing, name)  # loaded when first used: pdoc would not see it
    warnings.simplefilter("error")
    modules = [pdoc.doc.Module.from_name(name) for name in pdoc.extract.walk_specs(PUBLIC)]
    missing = sorted(
        {name for module in modules for name in undocumented(module, module.docstring)}
    )
    for name in missing:
        print(f"{name} has no docstring", file=sys.stderr)
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*PUBLIC, output_directory=folder)
    print(
        f"{folder / 'index.html'}: {len(modules)} modules, {len(missing)} names without a docstring"
    )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
