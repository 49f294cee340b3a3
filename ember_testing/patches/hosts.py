"""Match hosts that a test may reach although the network is blocked; pure."""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Hosts", "Permissions", "hosts_of", "is_address", "is_loopback"]


def is_address(host: str) -> bool:
    """Return whether the host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine."""
    if host in ("localhost", "localhost."):
        return True
    return is_address(host) and ipaddress.ip_address(host.partition("%")[0]).is_loopback


class Hosts:
    """The value of `allow_hosts=` or `ignore_hosts=`.

    Args:
        names: Host names, patterns (`*.internal`), IP addresses and networks (`10.0.0.0/8`).
        argument: The argument's name, for error messages.

    Raises:
        ValueError: A name is a URL or has a port.
    """

    def __init__(self, names: Sequence[str] = (), argument: str = "allow_hosts") -> None:
        self.names = tuple(name.lower().strip("[]") for name in names)
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for name in self.names:
            try:
                self._networks.append(ipaddress.ip_network(name, strict=False))
            except ValueError:
                if not name or set("/: ") & set(name):
                    raise ValueError(
                        f"{argument}=[{name!r}]: expected a host's name without scheme and port "
                        "(`db`, `*.internal`), an IP address, or a network (`10.0.0.0/8`)"
                    ) from None

    def __bool__(self) -> bool:
        return bool(self.names)

    def allows(self, host: str) -> bool:
        """Return whether this host matches."""
        if not self.names:
            return False
        name = host.lower().strip("[]").rstrip(".")
        if is_address(name):
            address = ipaddress.ip_address(name.partition("%")[0])
            return any(address in network for network in self._networks)
        return any(fnmatchcase(name, pattern) for pattern in self.names)

    def no_proxy(self) -> str:
        """Return the value of `NO_PROXY` for these hosts and this machine."""
        names = [name.removeprefix("*") for name in self.names]
        return ",".join(["localhost", "127.0.0.1", "::1", *names])


class Permissions(NamedTuple):
    """What a test may reach although the network is blocked."""

    hosts: Hosts = Hosts()
    ignored: Hosts = Hosts()  # refused with ECONNREFUSED, which fails no test
    allow_loopback: bool = False
    allow_subprocess: bool = False

    def covers(self, host: str) -> bool:
        """Return whether a replay lets a connection to this host through, or ignores it."""
        if self.hosts.allows(host) or self.ignored.allows(host):
            return True
        return self.allow_loopback and is_loopback(host)


@lru_cache(maxsize=32)
def hosts_of(names: tuple[str, ...], argument: str = "allow_hosts") -> Hosts:
    """Return a cached `Hosts` for these names: every test asks for it."""
    return Hosts(names, argument)
