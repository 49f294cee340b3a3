"""Test each client of a provider in its own environment: recorded, replayed and changed.

    python -m tests.matrix --folder FOLDER [CLIENT ...]

installs each client into its own virtual environment below FOLDER, once, runs its cells three
times, and prints the table of the guide. A cell passes if its call was recorded, was replayed with
the network closed to the same outcome, and failed with a cassette miss when it was changed.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.certificates import signed_by_a_ca
from tests.loopback import serving
from tests.matrix.provider import HOSTS, answer

CELLS = (
    "plain",
    "gathered",
    "stream",
    "async_stream",
    "tools",
    "refused[429]",
    "refused[401]",
    "embeddings",
    "swallowed",
)
HERE = Path(__file__).parent
CLIENTS = sorted(path.stem for path in (HERE / "clients").glob("*.py"))
# The variables from which clients read their keys; each run sets random values that look like keys.
KEYS = (
    "AI21_API_KEY",
    "ANTHROPIC_API_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "CO_API_KEY",
    "COHERE_API_KEY",
    "DASHSCOPE_API_KEY",
    "GEMINI_API_KEY",
    "GROQ_API_KEY",
    "HF_TOKEN",
    "MISTRAL_API_KEY",
    "OLLAMA_API_KEY",
    "OPENAI_API_KEY",
    "PORTKEY_API_KEY",
    "REPLICATE_API_TOKEN",
    "TOGETHER_API_KEY",
    "VOYAGE_API_KEY",
    "ZAI_API_KEY",
    "ZHIPUAI_API_KEY",
)
SECONDS = 180  # for one run of a client's cells


@dataclasses.dataclass
class Row:
    """A client's row.

    Attributes:
        client: The module's name.
        title: The package and, if several modules try it, how it is used.
        version: The installed version.
        over: The HTTP libraries that it uses.
        cells: Outcomes by cell name: "yes", "n/a: REASON", or what is wrong.
        faults: What is wrong outside the cells: a key in a file, a call that was not recorded.
    """

    client: str
    title: str
    version: str
    over: str
    cells: dict[str, str]
    faults: list[str]

    @property
    def wrong(self) -> list[str]:
        """All that is wrong, one line each."""
        cells = [
            f"{name}: {outcome}"
            for name, outcome in self.cells.items()
            if outcome != "yes" and not outcome.startswith("n/a")
        ]
        return cells + self.faults


def interpreter(folder: Path, client: str) -> Path:
    """Return the interpreter of a client's environment, which is created if missing.

    Args:
        folder: Where environments are kept.
        client: The module's name.
    """
    packages: tuple[str, ...] = constants_of(client)["PACKAGES"]
    place = folder / ("+".join(packages) or "standard library")
    python = place / "bin" / "python"
    if (place / "complete").exists():
        return python
    requirements = importlib.metadata.requires("ember-models") or []
    of_ember = [
        requirement.partition(";")[0]
        for requirement in requirements
        if "extra ==" not in requirement or re.search("extra == .testing", requirement)
    ]
    print(f"installing {', '.join(packages)} into {place}", file=sys.stderr, flush=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        raise SystemExit("uv, which installs the clients, is missing: pip install -e '.[matrix]'")
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, place], check=True)
    install = [uv, "pip", "install", "-q", "--python", python]
    subprocess.run([*install, *of_ember, *packages], check=True)
    (place / "complete").touch()
    return python


def constants_of(client: str) -> dict[str, Any]:
    """Return the literals at the top of a client's module, which cannot be imported here."""
    found: dict[str, Any] = {}
    for node in ast.parse((HERE / "clients" / f"{client}.py").read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and getattr(node, "value", None) is not None:
            with contextlib.suppress(ValueError):
                found[target.id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]  # a name
    return found


def try_client(client: str, environments: Path, work: Path) -> Row:
    """Run a client's cells three times: recorded, replayed with the server stopped, changed.

    Args:
        client: The module's name.
        environments: Where environments are kept.
        work: An empty folder for the cassettes.
    """
    python = interpreter(environments, client)
    constants = constants_of(client)
    work.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "client_conftest.py", work / "conftest.py")
    shutil.copy(HERE / "cells.py", work / "test_cells.py")
    shutil.copy(HERE / "clients" / f"{client}.py", work / "client.py")
    (work / "pytest.ini").write_text("[pytest]\n")
    keys = {name: _key(name) for name in KEYS}
    certificate, authority = signed_by_a_ca(HOSTS)
    (work / "ca.pem").write_bytes(authority)
    (work / "server.pem").write_bytes(certificate)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(work / "server.pem")
    with serving(answer, tls=tls) as server:
        redirection = {"MATRIX_PORT": str(server.port), "MATRIX_HOSTS": " ".join(HOSTS)}
        recorded = _run(python, work, "record", "--ember-record", **keys, **redirection)
    in_replay: dict[str, str] = constants.get("IN_REPLAY", {})
    replayed = _run(python, work, "replay", **in_replay)
    changed = _run(python, work, "changed", **in_replay)
    ask = [python, "-c", _VERSION, constants["PACKAGE"]]
    version = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    cells = {cell: _judge(recorded, replayed, changed, cell) for cell in CELLS}
    faults = [*_keys_found(work, keys), *_unrecorded(work, len(server.received))]
    title: str = constants.get("TITLE", constants["PACKAGE"])
    return Row(client, title, version, constants["OVER"], cells, faults)


_VERSION = """
import importlib.metadata, platform, sys
name = sys.argv[1]
print(platform.python_version() if name == "python" else importlib.metadata.version(name))
"""


def _key(name: str) -> str:
    """Return a random key that looks like one of the provider."""
    if name == "AWS_ACCESS_KEY_ID":
        return "AKIA" + base64.b32encode(os.urandom(10)).decode()
    prefix = {"ANTHROPIC": "sk-ant-", "GEMINI": "AIza", "GROQ": "gsk_", "HF": "hf_"}
    return prefix.get(name.partition("_")[0], "sk-") + os.urandom(20).hex()


def _run(python: Path, work: Path, phase: str, *options: str, **variables: str) -> dict[str, Any]:
    """Run the cells and return their outcomes by name."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "PYTHONPATH": str(HERE.parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "MATRIX_PHASE": phase,
        "AWS_EC2_METADATA_DISABLED": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"), f"{work}/ca.pem"),
        **variables,
    }
    command = [python, "-m", "pytest", "-q", "-p", "ember_testing.plugin", "-p", "no:cacheprovider"]
    with (work / f"{phase}.log").open("w") as log:
        subprocess.run(
            [*command, *options], cwd=work, env=environment, timeout=SECONDS, stdout=log, stderr=log
        )
    lines = work / f"{phase}.jsonl"
    found: dict[str, Any] = {}
    for line in lines.read_text().splitlines() if lines.exists() else ():
        outcome = json.loads(line)
        found.setdefault(outcome["cell"], []).append(outcome)
    return found


def _judge(recorded: Any, replayed: Any, changed: Any, cell: str) -> str:
    for phase, found in (("recorded", recorded), ("replayed", replayed)):
        outcomes = found.get(cell, [{"outcome": "was not run", "text": "see the log"}])
        bad = next((each for each in outcomes if each["outcome"] != "passed"), None)
        if bad and bad["outcome"] == "skipped":
            return "n/a: " + bad["text"].removeprefix("Skipped: ")
        if bad:
            return f"{phase}: {bad['outcome']}: {_last_line(bad['text'])}"
    outcomes = changed.get(cell, [])
    if [each["outcome"] for each in outcomes] != ["failed"]:
        return f"changed: {[(each['when'], each['outcome']) for each in outcomes]}"
    if not outcomes[0]["text"].startswith("no recording for "):
        return f"changed: the headline is {outcomes[0]['text'].strip()[:200]!r}"
    return "yes"


def _last_line(text: str) -> str:
    errors = [line for line in text.splitlines() if line.startswith("E ")]
    lines = errors or text.strip().splitlines() or [""]
    return " / ".join(line.removeprefix("E ").strip() for line in lines[:3])


def _cassettes(work: Path) -> Iterator[Path]:
    return (work / "cassettes").rglob("*.sqlite")


def _keys_found(work: Path, keys: dict[str, str]) -> list[str]:
    """Return which files contain which key, plain or in base64."""
    found = []
    for path in _cassettes(work):
        content = path.read_bytes()
        for name, key in keys.items():
            forms = (key.encode(), base64.b64encode(key.encode())[:-4], key[8:24].encode())
            if any(form in content for form in forms):
                found.append(f"{path.name} holds {name}")
    return found


def _unrecorded(work: Path, received: int) -> list[str]:
    """Return a complaint if the cassettes hold more or fewer calls than were answered."""
    held = 0
    for path in _cassettes(work):
        with contextlib.closing(sqlite3.connect(path)) as file:
            held += file.execute("select count(*) from calls").fetchone()[0]
    if held == received:
        return []
    return [f"the provider answered {received} calls, the cassettes hold {held}"]


def table(rows: list[Row], date: str) -> str:
    """Return the rows as Markdown, with the reasons why a cell does not apply."""
    reasons: list[str] = []

    def show(outcome: str) -> str:
        if outcome == "yes" or not outcome.startswith("n/a: "):
            return outcome if outcome == "yes" else "**no**"
        reason = outcome.removeprefix("n/a: ")
        if reason not in reasons:
            reasons.append(reason)
        return f"n/a ({reasons.index(reason) + 1})"

    names = [cell.replace("_", " ").removeprefix("refused[").rstrip("]") for cell in CELLS]
    lines = [
        f"| client ({date}) | over | {' | '.join(names)} |",
        "|" + "---|" * (len(names) + 2),
    ]
    for row in rows:
        cells = " | ".join(show(row.cells[cell]) for cell in CELLS)
        lines.append(f"| {row.title} {row.version} | {row.over} | {cells} |")
    lines += ["", "; ".join(f"({n}) {reason}" for n, reason in enumerate(reasons, 1))]
    return "\n".join(lines).rstrip()
