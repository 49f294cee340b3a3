"""The embedded model behind all three wires, for recording: never started by a replay.

The OpenAI and Anthropic wires are llama.cpp's own; Gemini's comes from the gateway llm-rosetta.
The ports are fixed because a recording keeps the URL.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

from ember.providers.local import serve

KEY = "sk-recording-0123456789abcdef"
MODEL_PORT, GATEWAY_PORT = 18480, 18481
MODEL_URL = f"http://127.0.0.1:{MODEL_PORT}"
GATEWAY_URL = f"http://127.0.0.1:{GATEWAY_PORT}"


@contextlib.contextmanager
def provider_servers(folder: Path) -> Generator[None]:
    """Run the model's server and the gateway inside the block."""
    server = serve(KEY, MODEL_PORT)
    gateway = _gateway(folder)
    try:
        _wait_for(GATEWAY_PORT, gateway)
        yield
    finally:
        gateway.terminate()
        gateway.wait(10)
        del server


def _gateway(folder: Path) -> subprocess.Popen[bytes]:
    from llm_rosetta.gateway.keystore import KeyStore

    upstream = {
        "type": "openai_chat",
        "api_type": "openai_chat",
        "api_key": KEY,
        "base_url": f"{MODEL_URL}/v1",
    }
    config = {
        "providers": {"llamacpp": upstream},
        "models": {"smollm2-135m": {"provider": "llamacpp", "capabilities": ["text"]}},
        "server": {"host": "127.0.0.1", "port": GATEWAY_PORT, "data_dir": str(folder)},
    }
    path = folder / "config.jsonc"
    path.write_text(json.dumps(config))
    with contextlib.closing(KeyStore(folder / "keys.db")) as store:
        store.import_from_config([{"key": KEY, "label": "recording"}])
    command = [sys.executable, "-m", "llm_rosetta.gateway", "--no-banner", "-c", str(path)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    """Wait until something listens; asked by a bare socket, which is not recorded."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port} after {seconds} s")
