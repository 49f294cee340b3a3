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
    """A server that implements a wire, with its differences.

    Args:
        name: The provider's name in Ember.
        base_url: The URL that the wire's path is appended to; "" if only a variable has it.
        key_vars: The environment variables that may hold the key; the first one set wins.
        url_vars: The environment variables that may hold the base URL.
        url_suffix: The path to append to a base URL of `url_vars` that names only the host.
        key_required: Whether a call without a key is refused before it is sent.
        auth_header: The header that carries the key.
        token_var: The one of `key_vars` that holds a token for `authorization` instead.
        paths: The paths in the body (`outer.inner`) of parameters that have other names there.
        merged: Objects that a caller may pass in addition to parameters that belong inside them.
        stream_usage: Whether a stream's usage must be requested with `stream_options`.
        required_tool: The `tool_choice` for "call some tool".
        strict_tools: Whether a tool may have `strict`, and its schema `$schema` and `$id`.
        thinking_switch: Whether reasoning is switched off by `thinking` instead of the effort.
        returns_reasoning: Whether earlier reasoning is sent back in the conversation.
        blank_answers: Whether blank assistant messages are accepted.
        call_ids: A regular expression for the tool call ids that are accepted.
        header_vars: Headers, each with the environment variable that may set it.
    """

    name: str
    base_url: str
    key_vars: Sequence[str] = ()
    url_vars: Sequence[str] = ()
    url_suffix: str = ""
    key_required: bool = True
    auth_header: str = "authorization"
    token_var: str = ""
    paths: Mapping[str, str] = {}
    merged: Sequence[str] = ()
    stream_usage: bool = True
    required_tool: str = "required"
    strict_tools: bool = True
    thinking_switch: bool = False
    returns_reasoning: bool = True
    blank_answers: bool = True
    call_ids: str = ".+"
    header_vars: Sequence[Sequence[str]] = ()


_ROWS = [Server(**row) for row in data_file("servers")["servers"]]
SERVERS: Mapping[str, Server] = {server.name: server for server in _ROWS}


# The provider at each host: its first row, since `openai-responses` is at OpenAI's host too.
SELLERS: Mapping[str, str] = {
    server.base_url.partition("//")[2].partition("/")[0]: server.name
    for server in reversed(_ROWS)
    if server.base_url
}
