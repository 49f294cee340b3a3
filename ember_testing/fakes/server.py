"""A provider on this machine that fails as it is told: for clients that no fake reaches.

What `fake_model` answers inside the process, this answers over a real connection: to the vendors'
SDKs, to another process, to another language.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

from ember_testing.exceptions import ReplayFailure
from ember_testing.fakes.model import FakeModel, unanswerable
from ember_testing.patches.http_server import http_server
from ember_testing.wires.events import dumps
from ember_testing.wires.exchange import read_request
from ember_testing.wires.response import Request, Response

__all__ = ["FaultServer", "fault_server"]


class FaultServer(FakeModel):
    """A running server; answers are set up as `fake_model`'s are, and calls are kept.

    Attributes:
        url: `http://127.0.0.1:PORT`. OpenAI's clients want `/v1` behind it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.url = ""

    def _answer(self, request: Request) -> Response:
        request = request._replace(url=f"{self.url}{request.url}")
        asked = read_request(request.url, request.body)
        if asked is None:
            return _refusal(f"{request.method} {request.url} asks no model")
        with suppress(ReplayFailure):  # kept in `failures`
            if (response := self.respond(asked, request)) is not None:
                return response
            return _refusal(unanswerable(asked))
        return _refusal(str(self.failures[-1]))


def _refusal(message: str) -> Response:
    """Status 501, with the reason where clients of most vendors look for it."""
    body = dumps({"error": {"message": message, "type": "not_faked"}})
    return Response(501, (("content-type", "application/json"),), (body,))


@contextmanager
def fault_server() -> Generator[FaultServer]:
    """Run a server of OpenAI's, Anthropic's and Google's wires, and of calls for embeddings.

    with fault_server() as server:
        server("gpt-5.6-sol", rate_limit(retry_after=1), "Paris")
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")

    `timeout` and `stall` hold the connection until the client gives up; `refused` cannot be told
    from `reset`, for something has to listen. A call that nothing answers gets status 501, and
    the reason in its body.
    """
    models = FaultServer()
    with http_server(models._answer) as port:  # pyright: ignore[reportPrivateUsage] - of this module
        models.url = f"http://127.0.0.1:{port}"
        try:
            yield models
        finally:
            models._put_back()  # pyright: ignore[reportPrivateUsage] - of this room
