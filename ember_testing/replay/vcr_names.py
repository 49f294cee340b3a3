"""Recorded calls with vcrpy's names, for tests written for its cassette. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from ember_testing.wires.body import as_bytes

if TYPE_CHECKING:
    from ember_testing.cassettes.calls import Call
    from ember_testing.wires.body import Headers

__all__ = ["VcrRequest", "vcr_response"]


class _Headers(dict[str, str]):
    """Headers by case-insensitive name."""

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self._names = {name.lower(): name for name in self}

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(self._names[name.lower()])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._names

    def get(self, name: str, default: Any = None) -> Any:
        """Return the header of this name, or the default."""
        return super().get(self._names.get(name.lower(), name), default)


class VcrRequest:
    """A recorded request.

    Attributes:
        method: Such as `POST`.
        uri: The whole URL; `url` is the same.
        headers: Values by case-insensitive name.
        body: Bytes; None if empty.
    """

    def __init__(self, call: Call) -> None:
        self.method = call.method
        self.uri = self.url = call.url
        self.headers = _Headers(call.request_headers)
        self.body = as_bytes(call.body) or None
        self._parts = urlsplit(call.url)

    @property
    def scheme(self) -> str:
        """The scheme, such as `https`."""
        return self._parts.scheme

    protocol = scheme

    @property
    def host(self) -> str | None:
        """The host without its port."""
        return self._parts.hostname

    @property
    def port(self) -> int | None:
        """The port; the scheme's default if the URL has none."""
        return self._parts.port or {"http": 80, "https": 443}.get(self.scheme)

    @property
    def path(self) -> str:
        """The path without the query."""
        return self._parts.path

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's names and values, sorted."""
        return sorted(parse_qsl(self._parts.query))

    def __repr__(self) -> str:
        return f"<Request ({self.method}) {self.uri}>"


def vcr_response(call: Call) -> dict[str, Any]:
    """Return a recorded response; its body is decoded, its `content-encoding` header dropped."""
    headers: dict[str, list[str]] = {}
    for name, value in call.response_headers:
        if name.lower() != "content-encoding":
            headers.setdefault(name, []).append(value)
    return {
        "status": {"code": call.status, "message": ""},
        "headers": headers,
        "body": {"string": as_bytes(call.response_body)},
    }
