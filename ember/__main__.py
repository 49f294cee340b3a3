"""`python -m ember "prompt"`: the answer on stdout; tokens, cost and time on stderr.

Exit codes: 0 answered, 1 the provider failed, 2 the call cannot be made as it was set up.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import stat
import sys
import time
from collections.abc import Sequence
from typing import Any

from ember.api import models
from ember.exceptions import EmberError, ModelProviderError
from ember.models.schemas import ChatResponse

__all__ = ["main"]

_EMBEDDED = "local/smollm2"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command's arguments; by default those of the process.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        started = time.perf_counter()
        response = _answer(options)
        print(_summary(response, time.perf_counter() - started), file=sys.stderr)
    except EmberError as error:
        sys.stdout.flush()
        print(f"ember: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, ModelProviderError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader had enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ember",
        description="Ask a language model.",
        epilog="examples: python -m ember 'Name three primary colors.'   "
        "python -m ember -m gpt-4 --stream -p temperature=0.2 < question.txt",
    )
    parser.add_argument("prompt", nargs="?", help="the prompt; text piped in is added to it")
    parser.add_argument(
        "-m",
        "--model",
        default=os.environ.get("EMBER_MODEL") or _EMBEDDED,
        help="a model's name, or provider/model (default: EMBER_MODEL, else %(default)s)",
    )
    parser.add_argument("--stream", action="store_true", help="print the answer as it arrives")
    parser.add_argument("--system", help="the system prompt")
    parser.add_argument(
        "-p",
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter, such as temperature=0.2; the value is JSON, else text",
    )
    return parser


def _answer(options: argparse.Namespace) -> ChatResponse:
    params = dict(_param(text) for text in options.param)
    if options.system is not None:
        params["system"] = options.system
    prompt = _prompt(options.prompt)
    if not options.stream:
        response = models(options.model, prompt, **params)
        print(response.text)
        return response
    with models.stream(options.model, prompt, **params) as stream:
        for chunk in stream:
            print(chunk.text, end="", flush=True)
    print()
    return stream.response


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ModelProviderError(f"-p takes NAME=VALUE, such as temperature=0.2, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _prompt(given: str | None) -> str:
    piped = sys.stdin.read() if _is_piped() else ""
    if given is None and not piped.strip():
        raise ModelProviderError("there is no prompt: pass it as an argument, or pipe it in")
    return "\n\n".join(text for text in (given, piped.strip()) if text)


def _is_piped() -> bool:
    """Whether somebody pipes text in; a stdin that was merely inherited may never end."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _summary(response: ChatResponse, seconds: float) -> str:
    usage = response.usage
    cost = "unknown cost" if math.isnan(usage.cost) else f"${usage.cost:.6f}"
    return (
        f"[{usage.prompt_tokens} + {usage.completion_tokens} tokens, {cost}, {seconds:.2f} s, "
        f"{response.provider}/{response.model}]"
    )


if __name__ == "__main__":
    sys.exit(main())
