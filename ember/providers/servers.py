"""The servers that Ember knows, from `data/servers.json`, which has each row's source; pure.

Environment variables are those that the vendors' packages read; if one names only the host,
`url_suffix` adds the path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ember.providers.json_values import data_file

__all__ = ["SELLERS", "SERVERS", "Server"]


class Server(NamedTuple):
    """A server that implements a wire, with its differences."""

    name: str  # the provider's name in Ember
    base_url: str  # the wire's path is appended to it; "" if only a variable has it
    key_vars: Sequence[str] = ()  # environment variables of the key; the first one set wins
    url_vars: Sequence[str] = ()  # environment variables of the base URL
    url_suffix: str = ""  # the path to append to a URL of `url_vars` that names only the host
    key_required: bool = True  # whether a call without a key is refused before it is sent
    auth_header: str = "authorization"  # the header that carries the key
    token_var: str = ""  # the one of `key_vars` that holds a token for `authorization` instead
    paths: Mapping[str, str] = {}  # parameters with other names in the body: `outer.inner`
    merged: Sequence[str] = ()  # objects to pass in addition to parameters that belong inside them
    stream_usage: bool = True  # whether a stream's usage is requested with `stream_options`
    required_tool: str = "required"  # the `tool_choice` for "call some tool"
    strict_tools: bool = True  # whether a tool may have `strict`, its schema `$schema` and `$id`
    thinking_switch: bool = False  # whether `thinking`, not the effort, switches reasoning off
    returns_reasoning: bool = True  # whether earlier reasoning is sent back
    blank_answers: bool = True  # whether blank assistant messages are accepted
    call_ids: str = ".+"  # a regular expression for the tool call ids that are accepted
    header_vars: Sequence[Sequence[str]] = ()  # headers, each with the variable that may set it


_ROWS = [Server(**row) for row in data_file("servers")["servers"]]
SERVERS: Mapping[str, Server] = {server.name: server for server in _ROWS}


# The provider at each host: its first row, since `openai-responses` is at OpenAI's host too.
SELLERS: Mapping[str, str] = {
    server.base_url.partition("//")[2].partition("/")[0]: server.name
    for server in reversed(_ROWS)
    if server.base_url
}
