"""A local server of fake answers and faults, for clients that no fake reaches.

It answers like `fake_model`, but over a real connection: for vendors' SDKs, other processes and
other languages.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

from ember_testing.exceptions import ReplayFailure
from ember_testing.fakes.model import FakeModel, unsupported_message
from ember_testing.patches.http_server import http_server
from ember_testing.wires.events import dumps
from ember_testing.wires.parsing import read_request
from ember_testing.wires.response import Request, Response

__all__ = ["FaultServer", "fault_server"]


class FaultServer(FakeModel):
    """A running server; answers are set up and calls are kept as by `fake_model`.

    Attributes:
        url: `http://127.0.0.1:PORT`. OpenAI's clients need `/v1` after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.url = ""

    def _answer(self, request: Request) -> Response:
        request = request._replace(url=f"{self.url}{request.url}")
        parsed = read_request(request.url, request.body)
        if parsed is None:
            return _refusal(f"{request.method} {request.url} asks no model")
        with suppress(ReplayFailure):  # kept in `failures`
            if (response := self.respond(parsed, request)) is not None:
                return response
            return _refusal(unsupported_message(parsed))
        return _refusal(str(self.failures[-1]))


def _refusal(message: str) -> Response:
    """Return status 501, with the reason where most vendors' clients look for it."""
    body = dumps({"error": {"message": message, "type": "not_faked"}})
    return Response(501, (("content-type", "application/json"),), (body,))


@contextmanager
def fault_server() -> Generator[FaultServer]:
    """Run a server for OpenAI's, Anthropic's and Google's wire formats and for embedding calls.

    with fault_server() as server:
        server("gpt-5.6-sol", rate_limit(retry_after=1), "Paris")
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")

    `timeout` and `stall` hold the connection until the client gives up; `refused` looks like
    `reset`, because the server has to listen. An unanswered call gets status 501, with the reason
    in the body.
    """
    models = FaultServer()
    with http_server(models._answer) as port:  # pyright: ignore[reportPrivateUsage] - of this module
        models.url = f"http://127.0.0.1:{port}"
        try:
            yield models
        finally:
            models._restore_providers()  # pyright: ignore[reportPrivateUsage] - of this room
