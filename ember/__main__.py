"""`python -m ember "prompt"`: the answer on stdout; tokens, cost and time on stderr.

Exit codes: 0 answered, 1 the provider failed, 2 the call cannot be made as configured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import stat
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

from ember import __version__
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
        _note(_summary(response, time.perf_counter() - started))
    except EmberError as error:
        _note(f"ember: {error}")
        return 2 if isinstance(error, ModelProviderError) else 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # The answer could not be written. Flushing stdout at exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0  # the reader closed the pipe
        _note(f"ember: the answer could not be written: {error}")
        return 1
    return 0


def _note(text: str) -> None:
    if sys.stderr is not None:  # None if the caller closed it; print() would then use stdout
        print(" ".join(text.split()), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ember",
        description="Ask a language model.",
        epilog="examples:\n  python -m ember 'Name three primary colors.'\n"
        "  python -m ember -m gpt-5.6-sol --stream -p temperature=0.2 < question.txt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ember {__version__}")
    parser.add_argument("prompt", nargs="?", help="the prompt; text piped in is added to it")
    parser.add_argument(
        "-m",
        "--model",
        help=f"a model's name, or provider/model (default: EMBER_MODEL, else {_EMBEDDED})",
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
    model = options.model
    if model is None:
        model = os.environ.get("EMBER_MODEL") or _EMBEDDED
    if not options.stream:
        response = models(model, prompt, **params)
        print(response.text, flush=True)
        return response
    with models.stream(model, prompt, **params) as stream:
        for chunk in stream:
            print(chunk.text, end="", flush=True)
    print(flush=True)
    return stream.response


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ModelProviderError(f"-p takes NAME=VALUE, such as temperature=0.2, not {text!r}")
    if name in ("model", "prompt"):
        way = "with -m" if name == "model" else "as an argument, or piped in"
        raise ModelProviderError(f"-p {text}: the {name} is given {way}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _prompt(given: str | None) -> str:
    piped = _piped().strip()
    if given is None and not piped:
        raise ModelProviderError("there is no prompt: pass it as an argument, or pipe it in")
    return "\n\n".join(text for text in (given, piped) if text)


def _piped() -> str:
    if not _is_piped():
        return ""
    try:
        # Decoded here: in the C locale sys.stdin decodes invalid bytes to surrogates.
        return sys.stdin.buffer.read().decode(sys.stdin.encoding)
    except UnicodeDecodeError as error:
        raise ModelProviderError(
            f"what is piped in is not text: {error}; convert it first, as with iconv"
        ) from error


def _is_piped() -> bool:
    """Return whether text is piped in; a stdin that was merely inherited may never end."""
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


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"ember: {message}\n"


if __name__ == "__main__":
    warnings.formatwarning = _one_line
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        # Print the answer even if the terminal's encoding lacks one of its characters.
        reconfigure(errors="backslashreplace")
    sys.exit(main())
