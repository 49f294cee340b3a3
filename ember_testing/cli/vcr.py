"""Convert vcrpy's YAML cassettes, old and new, to Ember's; the files are not trusted.

PyYAML (the extra `vcr`) reads them with its safe loader and a short list of the Python tags that
old versions of vcrpy wrote. Any other tag is refused, and nothing in a file is ever called.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from datetime import timezone
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from ember_testing.cassettes.paths import cassette_file
from ember_testing.cassettes.schema import add_metadata
from ember_testing.cli.vcr_project import module_of
from ember_testing.exceptions import CassetteError
from ember_testing.patches.exchange import Exchange
from ember_testing.replay.session import Session
from ember_testing.replay.settings import DEFAULT_MATCH_ON, Settings, match_on_of
from ember_testing.wires.body import decoded
from ember_testing.wires.response import Request, Response

if TYPE_CHECKING:
    from ember_testing.wires.body import Headers

_SUFFIXES = (".yaml", ".yml", ".json")
_OBJECT = ("object", "object/new", "object/apply")
_REQUEST = ("Request", "HeadersDict")
_CONTAINERS = ("frozenset", "set", "list", "tuple", "dict")
_MULTIDICT = ("multidict", "multidict._istr", "multidict._multidict", "multidict._multidict_py")
_MOST_BY_ALIASES = 16  # growth allowed by expanding aliases: vcrpy shares lists of headers
_SMALL = 2**20  # characters; an expanded file of at most this size is always accepted
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FOLD = re.compile(r"\r?\n[ \t]+")
_CONTROL = re.compile(r"[\0\r\n]")
_LONGEST_QUOTED = 60  # characters of a wrong value in a message
# The errors that PyYAML's constructors, and ours, raise for unexpected values.
_NOT_READ = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def read(path: Path) -> list[tuple[Request, Response]]:
    """Return the requests of a vcrpy cassette (YAML, or JSON) with their responses, in order.

    Raises:
        CassetteError: Not a vcrpy cassette, or not safe to read; the message says where.
    """
    loaded = _load(path)
    # Version 1 is a mapping with a list; before version 1 there was only the list.
    found = loaded.get("interactions") if isinstance(loaded, dict) else loaded  # pyright: ignore - YAML's
    if not isinstance(found, list):
        raise CassetteError(f"{path} is no vcrpy cassette: it has no list `interactions`")
    interactions: list[tuple[Request, Response]] = []
    for number, each in enumerate(cast("list[object]", found), 1):
        try:
            interactions.append(_interaction(_mapping(each)))
        except _NOT_READ as error:
            raise CassetteError(
                f"{path}: interaction {number} is not read: {type(error).__name__}: {error}"
            ) from error
    return interactions


def targets(sources: Sequence[Path], into: Path) -> list[tuple[Path, Path]]:
    """Return the cassette to make of each YAML file.

    pytest-recording's `tests/cassettes/test_towns/TestA.test_b.yaml` becomes the file in which the
    plugin looks for that test's cassette, `tests/test_towns/TestA.test_b.sqlite` in `into`. So does
    pytest-vcr's `tests/cassettes/TestA.test_b.yaml`, or a file in a folder with another name, if
    exactly one module has such a test. Any other file keeps its path below the source folder, or
    its bare name.

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
            # Not with_suffix: a test's parameter may contain a dot.
            name = each.name.removesuffix(each.suffix)
            module = _module_of(each)
            if module is not None:
                found[each] = into / _test_cassette(module, name)
            else:
                below = each.parent.relative_to(source) if source.is_dir() else Path()
                found[each] = into / below / f"{name}.sqlite"
    return list(found.items())


def _module_of(cassette: Path) -> PurePosixPath | None:
    """Return the path, without suffix, of the module whose test a cassette belongs to, or None."""
    folder = _relative_to_cwd(cassette).parent
    if folder.is_absolute():
        return None
    by_folder = None
    if folder.parent.name == "cassettes":
        by_folder = PurePosixPath(folder.parent.parent, folder.name)
        if Path(f"{by_folder}.py").is_file():
            return by_folder
    by_name = module_of(cassette)
    return (
        by_folder if by_name is None else PurePosixPath(_relative_to_cwd(by_name)).with_suffix("")
    )


def _relative_to_cwd(path: Path) -> Path:
    """Return a path relative to the working directory, or unchanged if it is outside."""
    absolute, cwd = path.resolve(), Path.cwd().resolve()
    return absolute.relative_to(cwd) if absolute.is_relative_to(cwd) else path


def _test_cassette(module: PurePosixPath, name: str) -> PurePosixPath:
    """Return the path at which the plugin looks for a cassette such as `TestA.test_b[1.5]`."""
    test, bracket, parameters = name.partition("[")
    names = test.split(".")
    if not names[-1].startswith("test"):  # a name given to the marker, not a test's name
        return module / f"{name}.sqlite"
    return cassette_file(f"{module}.py::{'::'.join(names)}{bracket}{parameters}")


def import_file(source: Path, target: Path, match_on: Sequence[str] = ()) -> int:
    """Convert a vcrpy cassette to an Ember cassette.

    Args:
        source: The YAML file.
        target: The file to write; an existing file is replaced.
        match_on: Parts of a request to compare if a test names none; vcrpy's names are accepted.

    Returns:
        The number of calls.

    Raises:
        CassetteError: The source cannot be read, or the target cannot be written.
    """
    interactions = read(source)
    if not interactions:
        raise CassetteError(f"{source} holds no interaction: nothing to import")
    try:
        _record(interactions, target, match_on)
    except OSError as error:  # a name too long with its suffix, a file in place of a folder
        raise CassetteError(f"{target} cannot be written: {error}") from error
    if match_on:
        add_metadata(target, "match_on", json.dumps(match_on_of(match_on)))
    return len(interactions)


def _record(
    interactions: list[tuple[Request, Response]], target: Path, match_on: Sequence[str]
) -> None:
    settings = Settings(match_on=match_on or DEFAULT_MATCH_ON, record_errors=True)
    session = Session(target, "all", settings)
    passed = False
    try:
        for request, response in interactions:
            call = session.answer(request)
            assert isinstance(call, Exchange)  # re-recording never replays
            assert response.status is not None  # `_status` refuses an interaction without one
            call.recorded_at = _date(response.headers) or call.recorded_at
            call.head(
                response.status, response.headers, response.http_version, response.reason or ""
            )
            if response.body:
                call.piece(response.body)
            call.finish("complete")
        passed = True
    finally:
        session.close(passed)


def _load(path: Path) -> Any:
    try:
        yaml: Any = import_module("yaml")  # late: only the importer needs it
    except ImportError as error:
        raise CassetteError(
            "reading vcrpy's YAML needs PyYAML: pip install 'ember-models[vcr]'"
        ) from error

    # Both are safe; the one in C is ten times as fast.
    loader_class: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})

    def text(loader: Any, node: Any) -> str:
        return str(loader.construct_scalar(node))

    def sequence(loader: Any, node: Any) -> list[Any]:
        return list(loader.construct_sequence(node, deep=True))

    def argument(loader: Any, node: Any) -> Any:  # frozenset([...]), OrderedDict([...])
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        arguments = sequence(loader, node)
        return arguments[0] if arguments else arguments

    def header_name(loader: Any, node: Any) -> str:  # istr, in one of three spellings
        if isinstance(node, yaml.ScalarNode):
            return text(loader, node)
        if isinstance(node, yaml.MappingNode):
            return _text(argument(loader, node)["args"][0])
        return _text(sequence(loader, node)[0])

    def state(loader: Any, node: Any) -> Any:
        found = loader.construct_mapping(node, deep=True)
        return found.get("state", found)

    builtin = (f"{module}.{name}" for module in ("__builtin__", "builtins") for name in _CONTAINERS)
    tags: dict[str, Any] = {
        "unicode": text,
        "str": text,
        "tuple": sequence,
        **{f"object/apply:{name}": argument for name in (*builtin, "collections.OrderedDict")},
        **{f"{tag}:vcr.request.{name}": state for tag in _OBJECT[:2] for name in _REQUEST},
        **{f"{tag}:{module}.istr": header_name for tag in _OBJECT[1:] for module in _MULTIDICT},
    }
    for tag, constructor in tags.items():
        loader_class.add_constructor(f"tag:yaml.org,2002:python/{tag}", constructor)
    try:
        if not path.is_file():
            raise CassetteError(f"{path} is no regular file")
        with path.open("rb") as file:
            loader = loader_class(file)
            node = loader.get_single_node()
            _check_size(node)
            return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, *_NOT_READ) as error:
        raise CassetteError(f"{path} is not read: {error}") from error
    except OSError as error:
        raise CassetteError(f"{path} cannot be read: {error}") from error


def _check_size(root: Any) -> None:
    """Refuse a document that becomes far larger when its aliases are expanded.

    In a document as PyYAML composes it, an alias is the same node again.

    Raises:
        ValueError: It becomes too large, or a node contains itself.
    """
    sizes: dict[int, int] = {}  # by id, with all aliases expanded; 0 while it is being computed
    written = 0

    def size(node: Any) -> int:
        nonlocal written
        known = sizes.get(id(node))
        if known is not None:
            if not known:
                raise ValueError("an anchor holds an alias of itself")
            return known
        sizes[id(node)] = 0
        own, inner = 1, 0
        if isinstance(node.value, str):
            own += len(node.value)
        elif node.id == "mapping":
            inner = sum(size(key) + size(value) for key, value in node.value)
        else:
            inner = sum(map(size, node.value))
        written += own
        sizes[id(node)] = own + inner
        return own + inner

    expanded = size(root) if root is not None else 0
    if expanded > _MOST_BY_ALIASES * written + _SMALL:
        raise ValueError("its aliases make more than is read of it: each holds others many times")


def _interaction(interaction: Mapping[str, Any]) -> tuple[Request, Response]:
    request, response = _mapping(interaction["request"]), _mapping(interaction["response"])
    status, reason = _status(response)
    body = _content(response)
    headers = _fitting(_headers(response.get("headers")), body)
    http_version = _text(response.get("http_version") or response.get("protocol") or "")
    return (
        Request(
            _method(request), _url(request), _headers(request.get("headers")), _content(request)
        ),
        Response(status, headers, (body,), http_version=http_version, reason=reason),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    raise ValueError(f"expected a mapping, found {_quoted(value)}")


def _text(value: object) -> str:
    """Return a scalar as text that UTF-8 can encode, whatever type YAML gave it."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"expected a text, found {_quoted(value)}")
    text = _FOLD.sub(" ", str(value))
    if _CONTROL.search(text):
        raise ValueError(f"a control character in {_quoted(text)}")
    text.encode()  # raises for a lone surrogate
    return text


def _quoted(value: object) -> str:
    """Return a wrong value for a message, or only the type of a container."""
    if isinstance(value, (str, bytes, float)):
        return ascii(value[:_LONGEST_QUOTED] if not isinstance(value, float) else value)
    return f"a value of type {type(value).__name__}"


def _method(request: Mapping[str, Any]) -> str:
    method = _text(request["method"])
    if not _METHOD.fullmatch(method):
        raise ValueError(f"no HTTP method: {_quoted(method)}")
    return method


def _url(request: Mapping[str, Any]) -> str:
    """Return `uri`, or the URL built from the fields of the oldest cassettes."""
    given = request.get("uri") or request.get("url")
    if given:
        url = _text(given)
    else:
        scheme, host, port = _text(request["protocol"]), _text(request["host"]), request.get("port")
        usual = {"http": 80, "https": 443}.get(scheme)
        place = "" if port in (None, usual) else f":{_text(port)}"
        url = f"{scheme}://{host}{place}{_text(request['path'])}"
    parts = urlsplit(url)  # raises for an unclosed bracket and an invalid port
    if not (parts.scheme in ("http", "https") and parts.hostname) or parts.port == 0:
        raise ValueError(f"no address of a request: {_quoted(url)}")
    return url


def _status(response: Mapping[str, Any]) -> tuple[int, str]:
    given: Any = response.get("status", response.get("status_code"))
    reason = ""
    if isinstance(given, Mapping):
        line = cast("Mapping[str, object]", given)
        given, reason = line["code"], _text(line.get("message") or "")
    digits = _text(given)
    if not (len(digits) == 3 and digits.isascii() and digits.isdigit() and digits[0] != "0"):
        raise ValueError(f"no status: {_quoted(digits)}")
    return int(digits), reason


def _content(side: Mapping[str, Any]) -> bytes:
    """Return a body from any of the forms that vcrpy and its relatives have used."""
    if "parsed_body" in side:  # pydantic-ai stores parsed JSON
        text = json.dumps(side["parsed_body"], ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "surrogatepass")
    body: Any = side["body"] if "body" in side else side.get("content")
    encoding = "utf-8"
    if isinstance(body, Mapping):
        form = cast("Mapping[str, object]", body)
        if "base64_string" in form:
            return _base64(form["base64_string"])
        body = form.get("string")
        encoding = _text(form.get("encoding") or encoding)
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode(encoding, "surrogatepass")
    raise ValueError(f"a body of type {type(body).__name__}")


def _base64(given: object) -> bytes:
    if not isinstance(given, (str, bytes)):
        raise ValueError(f"base64_string: expected a text, found {_quoted(given)}")
    text = given.decode("latin-1") if isinstance(given, bytes) else given
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"base64_string: {error}") from error


def _headers(headers: Any) -> Headers:
    """Return name and value pairs from a mapping, a list of pairs or `name: value` lines."""
    if not headers:
        return ()
    pairs: list[tuple[str, str]] = []
    items: Any = headers
    if isinstance(headers, Mapping):
        items = cast("Mapping[object, object]", headers).items()
    for item in items:
        if isinstance(item, str):
            name, _, value = item.rstrip("\r\n").partition(":")
            pairs.append((_header_name(name.strip()), _header_value(value.strip())))
            continue
        name, value = item
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        pairs += [(_header_name(name), _header_value(each)) for each in values]
    return tuple(pairs)


def _header_name(value: object) -> str:
    name = _text(value)
    if not name.isascii():
        raise ValueError(f"no header's name: {_quoted(name)}")
    return name


def _header_value(value: object) -> str:
    """Return a value with one character per byte; vcrpy decodes values as UTF-8."""
    text = _text(value)
    return text if all(each <= "\xff" for each in text) else text.encode().decode("latin-1")


def _fitting(headers: Headers, content: bytes) -> Headers:
    """Return the headers corrected for this body.

    Some recorders stored a decoded body but kept `content-encoding`, so a client would decode it
    again.
    """
    is_plain = decoded(headers, content) == content
    fitting: list[tuple[str, str]] = []
    for name, value in headers:
        if name.lower() == "content-length" and content:
            fitting.append((name, str(len(content))))
        elif not (is_plain and name.lower() == "content-encoding" and value.lower() != "identity"):
            fitting.append((name, value))
    return tuple(fitting)


def _date(headers: Headers) -> str | None:
    """Return the time at which the answer was sent, from its `date` header."""
    for name, value in headers:
        if name.lower() == "date":
            try:
                moment = parsedate_to_datetime(value)
                utc = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
                return utc.astimezone(timezone.utc).isoformat(timespec="microseconds")
            except (ValueError, OverflowError):  # not a date, or out of range
                return None
    return None
