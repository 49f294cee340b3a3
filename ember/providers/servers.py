"""The servers that Ember knows: `data/servers.json`, which says where each row is from; pure.

Variables are those that the vendors' packages read; where such a variable names the host only,
`url_suffix` adds the path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ember.providers.json_values import data_file

__all__ = ["SELLERS", "SERVERS", "Server"]


class Server(NamedTuple):
    """Where a wire is spoken, and what is different there.

    Args:
        name: The provider's name in Ember.
        base_url: What the wire's path is appended to; "" where only a variable can say.
        key_vars: The environment variables that may hold the key; the first one set wins.
        url_vars: Those that may hold the base URL.
        url_suffix: What to append to a base URL of `url_vars` that names the host only.
        key_required: Whether a call without a key is refused before it is sent.
        auth_header: The header that carries the key.
        token_var: Of `key_vars`, the one that holds a token for `authorization` instead.
        places: Where a parameter goes in the body, where that is not its own name.
        merged: Objects that a caller may give beside parameters whose place is inside them.
        stream_usage: Whether a stream must be asked for its usage, with `stream_options`.
        required_tool: The word for "call some tool".
        strict_tools: Whether a tool may say `strict`, and its schema what it is.
        thinking_switch: Whether reasoning is switched off by `thinking`, and not by an effort.
        thoughts_back: Whether reasoning is taken back with the conversation.
        blank_answers: Whether an assistant's turn of nothing is taken.
        call_ids: A regular expression of the ids of tool calls that are taken.
        header_vars: Headers that the environment may set: name, variable.
    """

    name: str
    base_url: str
    key_vars: Sequence[str] = ()
    url_vars: Sequence[str] = ()
    url_suffix: str = ""
    key_required: bool = True
    auth_header: str = "authorization"
    token_var: str = ""
    places: Mapping[str, Sequence[str]] = {}
    merged: Sequence[str] = ()
    stream_usage: bool = True
    required_tool: str = "required"
    strict_tools: bool = True
    thinking_switch: bool = False
    thoughts_back: bool = True
    blank_answers: bool = True
    call_ids: str = ".+"
    header_vars: Sequence[Sequence[str]] = ()


_ROWS = [Server(**row) for row in data_file("servers")["servers"]]
SERVERS: Mapping[str, Server] = {server.name: server for server in _ROWS}


# Who is at a host; the first of the table, as `openai-responses` is OpenAI.
SELLERS: Mapping[str, str] = {
    server.base_url.partition("//")[2].partition("/")[0]: server.name
    for server in reversed(_ROWS)
    if server.base_url
}
