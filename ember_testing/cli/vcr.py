"""vcrpy's YAML cassettes, old and new, read without trusting them and written as Ember's.

PyYAML (the extra `vcr`) reads them with its safe loader and a short list of the Python tags that
old versions of vcrpy wrote; any other tag is refused, nothing in a file is ever called.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timezone
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ember_testing.cassettes.paths import cassette_file
from ember_testing.exceptions import CassetteError
from ember_testing.patches.exchange import Exchange
from ember_testing.replay.session import Session
from ember_testing.replay.settings import Settings
from ember_testing.wires.body import decoded
from ember_testing.wires.response import Request

if TYPE_CHECKING:
    from ember_testing.wires.body import Headers

_SUFFIXES = (".yaml", ".yml", ".json")
_TAG = "tag:yaml.org,2002:python/"


class Interaction(NamedTuple):
    """One request with its answer, as vcrpy kept them.

    Args:
        method: Of the request.
        url: Of the request.
        request_headers: Name and value pairs.
        body: Of the request.
        status: Of the answer.
        reason: The words behind it.
        http_version: Such as `HTTP/1.1`; "" where it was not kept.
        response_headers: Name and value pairs.
        content: The answer's body as it is to be sent: compressed where the headers say so.
    """

    method: str
    url: str
    request_headers: Headers
    body: bytes
    status: int
    reason: str
    http_version: str
    response_headers: Headers
    content: bytes


def read(path: Path) -> list[Interaction]:
    """The interactions of a vcrpy cassette, in their order.

    Args:
        path: The YAML (or JSON, which is YAML too).

    Raises:
        CassetteError: It is none, or holds what cannot be read safely; the message says where.
    """
    return list(_interactions(path, _load(path)))


def targets(sources: Sequence[Path], into: Path) -> list[tuple[Path, Path]]:
    """Which cassette each YAML becomes.

    `tests/cassettes/test_towns/TestA.test_b.yaml`, as pytest-recording lays it, becomes the file in
    which the plugin looks for that test's cassette, `tests/test_towns/TestA.test_b.sqlite` in the
    folder; another one keeps its place below the folder that was named, or its bare name.

    Args:
        sources: Files, and folders to be searched for .yaml, .yml and .json.
        into: The folder of the cassettes.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        files = [source]
        if source.is_dir():
            files = sorted(each for each in source.rglob("*") if each.suffix in _SUFFIXES)
        for each in files:
            parts = _from_here(each).parent.parts
            # Not with_suffix: a test's parameter may hold a dot.
            name = each.name.removesuffix(each.suffix)
            if len(parts) >= 2 and parts[-2] == "cassettes" and not Path(*parts).is_absolute():
                module = PurePosixPath(*parts[:-2], parts[-1])
                found[each] = into / _of_test(module, name)
            else:
                below = each.parent.relative_to(source) if source.is_dir() else Path()
                found[each] = into / below / f"{name}.sqlite"
    return list(found.items())


def _from_here(path: Path) -> Path:
    """A path relative to the working directory, if it is below it; itself if it is not."""
    whole, here = path.resolve(), Path.cwd().resolve()
    return whole.relative_to(here) if whole.is_relative_to(here) else path


def _of_test(module: PurePosixPath, name: str) -> PurePosixPath:
    """Where the plugin looks for the cassette of `TestA.test_b[1.5]` in a module."""
    test, bracket, parameters = name.partition("[")
    names = test.split(".")
    if not names[-1].startswith("test"):  # a name given to the marker: no test's own cassette
        return module / f"{name}.sqlite"
    return cassette_file(f"{module}.py::{'::'.join(names)}{bracket}{parameters}")


def import_file(source: Path, target: Path) -> int:
    """Make an Ember cassette of a vcrpy one.

    Args:
        source: The YAML.
        target: The file to make; replaced, should it be there.

    Returns:
        The number of calls.

    Raises:
        CassetteError: The one cannot be read, or the other not written.
    """
    interactions = read(source)
    if not interactions:
        raise CassetteError(f"{source} holds no interaction: nothing to import")
    session = Session(target, "all", Settings(record_errors=True))
    passed = False
    try:
        for each in interactions:
            call = session.begin(Request(each.method, each.url, each.request_headers, each.body))
            assert isinstance(call, Exchange)  # recording anew plays nothing
            call.recorded_at = _date(each.response_headers) or call.recorded_at
            call.head(each.status, each.response_headers, each.http_version, each.reason)
            if each.content:
                call.piece(each.content)
            call.finish("complete")
        passed = True
    finally:
        session.close(passed)
    return len(interactions)


def _load(path: Path) -> Any:
    try:
        yaml: Any = import_module("yaml")  # late: only the importer needs it
    except ImportError as error:
        raise CassetteError(
            "reading vcrpy's YAML needs PyYAML: pip install 'ember-models[vcr]'"
        ) from error

    # Either is safe; the one in C is ten times as fast.
    loader_class: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})

    def text(loader: Any, node: Any) -> str:
        return str(loader.construct_scalar(node))

    def sequence(loader: Any, node: Any) -> list[Any]:
        return list(loader.construct_sequence(node, deep=True))

    def applied(loader: Any, node: Any) -> Any:  # frozenset([...]), OrderedDict([...])
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        arguments = loader.construct_sequence(node, deep=True)
        return arguments[0] if arguments else []

    def state(loader: Any, node: Any) -> Any:
        found = loader.construct_mapping(node, deep=True)
        return found.get("state", found)

    for name in ("unicode", "str"):
        loader_class.add_constructor(_TAG + name, text)
    loader_class.add_constructor(_TAG + "tuple", sequence)
    for module in ("__builtin__", "builtins"):
        for name in ("frozenset", "set", "list", "tuple", "dict"):
            loader_class.add_constructor(f"{_TAG}object/apply:{module}.{name}", applied)
    loader_class.add_constructor(_TAG + "object/apply:collections.OrderedDict", applied)
    for kind in ("object", "object/new"):
        loader_class.add_constructor(f"{_TAG}{kind}:vcr.request.Request", state)
        loader_class.add_constructor(f"{_TAG}{kind}:vcr.request.HeadersDict", state)
    try:
        with path.open("rb") as file:
            return yaml.load(file, loader_class)
    except yaml.YAMLError as error:
        raise CassetteError(f"{path} is not read: {error}") from error
    except OSError as error:
        raise CassetteError(f"{path} cannot be read: {error}") from error


def _interactions(path: Path, loaded: Any) -> Iterator[Interaction]:
    # Version 1 has a mapping with a list; before it there was the list alone.
    found = loaded.get("interactions") if isinstance(loaded, dict) else loaded  # pyright: ignore
    if not isinstance(found, list):
        raise CassetteError(f"{path} is no vcrpy cassette: it has no list `interactions`")
    for number, each in enumerate(cast("list[object]", found), 1):
        try:
            yield _interaction(each)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CassetteError(
                f"{path}: interaction {number} is not read: {type(error).__name__}: {error}"
            ) from error


def _interaction(each: Any) -> Interaction:
    request: Mapping[str, Any] = each["request"]
    response: Mapping[str, Any] = each["response"]
    status, reason = _status(response)
    content = _content(response)
    headers = _headers(response.get("headers"))
    return Interaction(
        str(request["method"]),
        _url(request),
        _headers(request.get("headers")),
        _content(request),
        status,
        reason,
        str(response.get("http_version") or response.get("protocol") or ""),
        _fitting(headers, content),
        content,
    )


def _url(request: Mapping[str, Any]) -> str:
    """`uri`, or what the oldest cassettes have in its place."""
    for name in ("uri", "url"):
        if request.get(name):
            return str(request[name])
    scheme, host, port = str(request["protocol"]), str(request["host"]), request.get("port")
    usual = {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{host}{'' if port in (None, usual) else f':{port}'}{request['path']}"


def _status(response: Mapping[str, Any]) -> tuple[int, str]:
    status: Any = response.get("status", response.get("status_code"))
    if isinstance(status, Mapping):
        line = cast("Mapping[str, object]", status)
        return int(str(line["code"])), str(line.get("message") or "")
    return int(status), ""


def _content(side: Mapping[str, Any]) -> bytes:
    """A body in any of the forms that vcrpy and its relatives gave it."""
    if "parsed_body" in side:  # pydantic-ai's own form: the bytes are those of its JSON
        return json.dumps(side["parsed_body"], ensure_ascii=False, separators=(",", ":")).encode()
    body: Any = side["body"] if "body" in side else side.get("content")
    if isinstance(body, Mapping):
        form = cast("Mapping[str, object]", body)
        if "base64_string" in form:
            return _base64(str(form["base64_string"]))
        body = form.get("string")
        if form.get("encoding") and isinstance(body, str):
            return body.encode(str(form["encoding"]), "surrogatepass")
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    raise ValueError(f"a body of type {type(body).__name__}")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except binascii.Error as error:
        raise ValueError(f"base64_string: {error}") from error


def _headers(headers: Any) -> Headers:
    """Name and value pairs of a mapping to texts or lists, of pairs, or of `name: value` lines."""
    if not headers:
        return ()
    pairs: list[tuple[str, str]] = []
    items: Any = headers
    if isinstance(headers, Mapping):
        items = cast("Mapping[object, object]", headers).items()
    for item in items:
        if isinstance(item, str):
            name, _, value = item.rstrip("\r\n").partition(":")
            pairs.append((name.strip(), value.strip()))
            continue
        name, value = item
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        pairs += [(_word(name), _word(each)) for each in values]
    return tuple(pairs)


def _word(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _fitting(headers: Headers, content: bytes) -> Headers:
    """Headers that are true of this body: some recorders kept it decoded, with its encoding's name.

    With them a client would try to decode it again.
    """
    encoded = any(
        name.lower() == "content-encoding" and value.lower() not in ("", "identity")
        for name, value in headers
    )
    is_plain = encoded and decoded(headers, content) == content
    remaining = [
        (name, value)
        for name, value in headers
        if not (is_plain and name.lower() == "content-encoding")
    ]
    return tuple(
        (name, str(len(content)) if name.lower() == "content-length" and content else value)
        for name, value in remaining
    )


def _date(headers: Headers) -> str | None:
    """When the answer was sent, by its own `date`."""
    for name, value in headers:
        if name.lower() == "date":
            try:
                moment = parsedate_to_datetime(value)
            except ValueError:
                return None
            utc = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
            return utc.astimezone(timezone.utc).isoformat(timespec="microseconds")
    return None
