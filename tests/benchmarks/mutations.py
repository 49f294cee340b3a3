"""Twenty changes of the client, one at a time, each of which the fakes' tests must notice.

    python tests/benchmarks/mutations.py [NUMBER ...]

The tree is copied to a temporary folder and changed there; the tests are those that stand on
`fake_model`, the faults and the strategies alone. Fails where a change goes unnoticed, where the
text that it changes is not there any more, and where a test fails without any change.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
TESTS = (
    "tests/testing/fakes/test_fake_client.py",
    "tests/testing/fakes/test_fake_model.py",
    "tests/testing/faults/test_faults.py",
    "tests/testing/strategies/test_strategies.py",
)


class Change(NamedTuple):
    """One mutation.

    Attributes:
        what: In words.
        path: The file, below `ember`.
        old: The text that is there once.
        new: What takes its place.
    """

    what: str
    path: str
    old: str
    new: str


CHANGES = (
    Change(
        "routing: o1, o3, o4 belong to nobody",
        "providers/data/models.json",
        '"o1": "openai",\n    "o3": "openai",\n    "o4": "openai"',
        '"o9": "openai"',
    ),
    Change(
        "routing: claude-3-opus is another model",
        "providers/data/models.json",
        '"claude-3-opus": "claude-3-opus-20240229"',
        '"claude-3-opus": "claude-3-haiku-20240307"',
    ),
    Change(
        "routing: the Responses API is forgotten",
        "models/routing.py",
        'return Route("openai-responses", model, stores=False)',
        'return Route("openai", model)',
    ),
    Change(
        "price: cached reads cost nothing apart",
        "pricing/cost.py",
        '"cache_read_tokens": usage.cached_tokens,',
        '"cache_read_tokens": 0,',
    ),
    Change(
        "price: cache writes cost nothing apart",
        "pricing/cost.py",
        '"cache_write_tokens": usage.cache_write_tokens,',
        '"cache_write_tokens": 0,',
    ),
    Change(
        "price: input is charged as output",
        "pricing/cost.py",
        '"input_tokens": usage.prompt_tokens,',
        '"input_tokens": usage.completion_tokens,',
    ),
    Change(
        "error: no money is a rate limit",
        "providers/data/errors.json",
        '"quota": ["insufficient_quota", ',
        '"quota": [',
    ),
    Change(
        "error: Google's wrong key is a bad request",
        "providers/data/errors.json",
        '"api_key_invalid", ',
        "",
    ),
    Change(
        "error: 402 is no lack of money",
        "providers/data/errors.json",
        '"402": "quota"',
        '"402": "invalid_request"',
    ),
    Change(
        "error: a wait in a header is not read",
        "providers/error_mapping.py",
        'headers.get("retry-after"))',
        'headers.get("retry-later"))',
    ),
    Change(
        "error: Google's wait is not read",
        "providers/error_mapping.py",
        'detail.get("retryDelay")',
        'detail.get("delay")',
    ),
    Change(
        "error: the context's length is not seen in words",
        "providers/data/errors.json",
        '"prompt is too long", ',
        "",
    ),
    Change(
        "usage: OpenAI's cached tokens",
        "providers/openai_chat.py",
        "return usage_stats(found), Billing(counts",
        'return usage_stats(found | {"cached": 0}), Billing(counts',
    ),
    Change(
        "usage: Anthropic's input without its cache",
        "providers/anthropic.py",
        'for name in ("prompt", "cached", "cache_write"))',
        'for name in ("prompt",))',
    ),
    Change(
        "usage: Google's thoughts are not output",
        "providers/google.py",
        'found.get("completion", 0) + found.get("reasoning", 0)',
        'found.get("completion", 0)',
    ),
    Change(
        "usage: the Responses API's reasoning",
        "providers/openai_responses.py",
        '    reasoning="output_tokens_details.reasoning_tokens",',
        '    reasoning="reasoning_tokens",',
    ),
    Change(
        "stream: a cut is taken for an end",
        "providers/provider.py",
        "        if not self._fold.complete:\n            raise",
        "        if not self._fold.started:\n            raise",
    ),
    Change(
        "stream: lines end at U+2028 too",
        "providers/sse.py",
        '.split(b"\\n")',
        '.replace(b"\\xe2\\x80\\xa8", b"\\n").split(b"\\n")',
    ),
    Change(
        "answer: a refusal is kept back",
        "providers/anthropic.py",
        '"refusal": "content_filter",',
        '"refusal": "stop",',
    ),
    Change(
        "answer: tool calls are a plain stop",
        "providers/call.py",
        'return "tool_calls" if calls and reason == "stop" else reason',
        "return reason",
    ),
)


def noticed(change: Change, folder: Path) -> str:
    """The test that fails with this change; "" where none does."""
    path = folder / "ember" / change.path
    text = path.read_text(encoding="utf-8")
    if text.count(change.old) != 1:
        raise SystemExit(f"{change.path} holds {text.count(change.old)} times {change.old!r}")
    path.write_text(text.replace(change.old, change.new), encoding="utf-8")
    try:
        return failing(folder)
    finally:
        path.write_text(text, encoding="utf-8")


def failing(folder: Path) -> str:
    """The first test that fails; "" where none does."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider"),
            *TESTS,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed else ""


def main() -> None:
    numbers = {int(text) for text in sys.argv[1:]} or set(range(1, len(CHANGES) + 1))
    unnoticed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("ember", "ember_testing", "tests", "cassettes"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("conftest.py", "pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, folder / name)
        if by := failing(folder):
            raise SystemExit(f"{by} fails without any change")
        for number, change in enumerate(CHANGES, 1):
            if number in numbers:
                by = noticed(change, folder)
                unnoticed += not by
                print(f"{number:>2}  {change.what:<48} {by or 'NOT NOTICED'}", flush=True)
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
