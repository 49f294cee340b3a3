"""`fake_model`: answers for models, served in the providers' real wire formats.

The whole client runs: routing, serialising, parsing, usage, cost, error mapping. Only the network
is replaced by a respx router, for every client in the process that the seam
(`patches/transport.py`) reaches; meanwhile no library can reach the network.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import httpx
import respx

from ember.models.schemas import ChatResponse, UsageStats
from ember.providers import base
from ember.providers.servers import SERVERS
from ember_testing.exceptions import ReplayFailure
from ember_testing.fakes import custom
from ember_testing.fakes.call import FakeCall, call_of_custom, call_of_request
from ember_testing.fakes.replies import Replies, Reply, ReplyQueue, ReplyValue, build_response
from ember_testing.fakes.verdict import Attempt, Verdict, judge
from ember_testing.faults import Damage, Failure, Fault, replaces_answer
from ember_testing.patches import keys, network
from ember_testing.patches.exchange import Answerer
from ember_testing.patches.sleep import flow, skips
from ember_testing.patches.transport import install, is_asked_last, remove
from ember_testing.wires.answer import as_answer, plausible_usage
from ember_testing.wires.embeddings import inputs_of
from ember_testing.wires.parsing import ModelRequest, asks_model, read_exchange, read_request
from ember_testing.wires.response import Request, Response
from ember_testing.wires.vendors import UNKNOWN, api_title

__all__ = ["FakeCall", "FakeModel", "Reply", "UnansweredCall", "fake_model"]


class UnansweredCall(ReplayFailure):
    """A call that no fake answers; no `except Exception` of the code under test swallows it."""


def unsupported_message(parsed: ModelRequest) -> str:
    """Return the message for a call that no fake can answer, with what to do instead."""
    return (
        f"a fake cannot answer {api_title(parsed.api)} ({parsed.provider}: {parsed.url}): record "
        "it, with @pytest.mark.ember_replay and pytest --ember-record; a fake and a recording go "
        "together in one test, and cassette_server does for other processes"
    )


class FakeModel:
    """Fake answers, which are set up by calling the instance, and the calls made so far.

    fake_model("gpt-5.6-sol", rate_limit(retry_after=2), "Paris")
    fake_model("claude-*", lambda call: call.prompt.upper())

    A custom provider, made with `register_provider("echo", ...)`, does not use HTTP by itself: it
    runs unchanged until a name or pattern with its prefix (`"echo/loud"`, `"echo/*"`) is set up;
    then the fake replaces its `complete`.

    In a replayed test, fakes take precedence; calls that match none are answered by the recording.

    Args:
        allow_loopback: Allow connections to this machine, such as a database or a test server.

    Attributes:
        calls: The calls so far, in order of arrival.
        failures: Unanswered calls and blocked connections.
    """

    def __init__(self, *, allow_loopback: bool = False) -> None:
        self.calls: list[FakeCall] = []
        self.failures: list[ReplayFailure] = []
        self._allow_loopback = allow_loopback
        self._replies = Replies()
        self._attempts: list[Attempt] = []
        self._lock = threading.Lock()
        # By class of a custom provider, the function that lets it answer by itself again.
        self._intercepted: dict[type[base.BaseProvider], Callable[[], None]] = {}
        self._reported: int | None = None  # how many failures complaint() has returned

    def __call__(self, model: str, *replies: Reply, usage: UsageStats | None = None) -> None:
        """Set up answers for a model.

        Args:
            model: The model as it is called (`gpt-5.6-sol`, `groq/openai/gpt-oss-20b`), its id on
                the wire, or a pattern of either (`claude-*`, `groq/*`, `*`).
            *replies: Used in order, once each: text, a list of the pieces of a stream, an
                `Answer`, a `ChatResponse`, a fault of `ember_testing.faults`, a value from
                `ember_testing.strategies`, or a function that takes the call and returns one of
                these; a function as the last reply answers all further calls. For embeddings: a
                vector, a list of one per input, or `Embeddings()`, which generates them.
            usage: Token counts of each answer; by default plausible ones.

        Raises:
            TypeError: There is no reply, or one of another type.
        """
        queue = ReplyQueue(model, replies, usage)
        with self._lock:
            self._replies.add(queue)
            if queue.provider is not None and base.is_registered(queue.provider):
                cls = base.providers[queue.provider]
                if cls not in self._intercepted:
                    self._intercepted[cls] = custom.intercept(cls, self._answer_custom)

    @property
    def allow_loopback(self) -> bool:
        """Whether connections to this machine are allowed; may be set at any time."""
        return self._allow_loopback

    @allow_loopback.setter
    def allow_loopback(self, value: bool) -> None:
        self._allow_loopback = value
        if self in _active:
            self._close_network()

    def reset(self) -> None:
        """Forget all answers and calls, so that one block can run many examples."""
        with self._lock:
            self.calls.clear()
            self.failures.clear()
            self._attempts.clear()
            self._replies.clear()

    def unused(self) -> list[str]:
        """Return the answers that no call used."""
        return [text for each in self._replies.queues if (text := each.unused())]

    def verdict(self, result: object = None) -> Verdict:
        """Return a verdict on the code that made the calls so far.

        It complains about a requested wait that was not observed, a retry that cannot help (a
        wrong key, no money, a prompt that is too long), retries without a pause or a limit, and a
        partial answer that was taken for a whole one. Waits that `no_sleep` skips count as waited.

        Args:
            result: What the code under test returned, to be searched for a partial answer.
        """
        with self._lock:
            return judge(self._attempts, result, skips())

    def complaint(self, *, unused: bool = True) -> str:
        """Return what went wrong so far, or ""; failures it reports are not raised later.

        Args:
            unused: Whether an unused answer is wrong.
        """
        complaints = [str(failure) for failure in self.failures]
        if not complaints and unused and (message := self._unused_message()):
            complaints = [message]
        self._reported = len(self.failures)
        return "\n\n".join(dict.fromkeys(complaints))

    def _unused_message(self) -> str:
        if not (unused := self.unused()):
            return ""
        calls = [f"{call.provider}/{call.model}" for call in self.calls]
        return f"fake_model: nobody parsed for these: {'; '.join(unused)}; calls: {calls}"

    def _check(self) -> None:
        for failure in self.failures[self._reported or 0 :]:
            if not _was_reported(failure):
                raise failure
        # Answers left over after a failure are its consequence.
        unchecked = self._reported is None and not self.failures
        if unchecked and (message := self._unused_message()):
            raise AssertionError(message)

    # Called by the router ---------------------------------------------------------------------

    def respond(
        self, parsed: ModelRequest, request: Request, *, last: bool = True
    ) -> Response | None:
        """Return the response to a request, or None if this fake has none.

        Args:
            parsed: The parsed request.
            request: The request.
            last: Whether this fake is the last to be asked.

        Raises:
            UnansweredCall: There is no answer.
        """
        if parsed.wire is None and inputs_of(parsed) is None:
            if parsed.provider == UNKNOWN or not last:
                return None
            raise self._fail(UnansweredCall(unsupported_message(parsed)))
        queues = self._replies.of(parsed.route, parsed.model, parsed.has_unknown_address)
        if not queues and not last:
            return None
        started_at = time.monotonic()
        call = call_of_request(parsed, {name.lower(): value for name, value in request.headers})
        queue, value, number = self._next(queues, call)
        try:
            response, fault, text = build_response(parsed, call, value, queue.usage, number)
        except (TypeError, ValueError) as error:
            raise self._fail(UnansweredCall(f"fake_model({queue.pattern!r}): {error}")) from error
        partial = ""
        if fault is not None and not replaces_answer(fault) and fault.error_type is not None:
            facts = read_exchange(parsed, 200, dict(response.headers), response.body)
            partial = facts.text or ""
        self._note_attempt(call, request.url, started_at, fault, partial, text)
        return response

    def _answer_custom(
        self, names: list[str], model: str, prompt: Any, params: Mapping[str, Any]
    ) -> ChatResponse | None:
        """Answer in place of a custom provider, or return None to let it answer itself."""
        for name in names:
            queues = [each for each in self._replies.of(name, model) if each.provider == name]
            if not queues:
                continue
            started_at = time.monotonic()
            call = call_of_custom(name, model, prompt, params)
            queue, value, _ = self._next(queues, call)
            if isinstance(value, (Failure, Damage)):
                self._note_attempt(call, "", started_at, value)
                raise custom.build_error(name, model, value)
            answer = as_answer(value)
            self._note_attempt(call, "", started_at, None, text=answer.text)
            usage = answer.usage or queue.usage or plausible_usage(call.prompt, answer)
            return custom.build_response(name, model, answer, usage)
        return None

    def _next(
        self, queues: Sequence[ReplyQueue], call: FakeCall
    ) -> tuple[ReplyQueue, ReplyValue, int]:
        """Return the next reply with its queue, and the number of the call."""
        with self._lock:
            self.calls.append(call)
            number = len(self.calls)
            taken = next(((each, r) for each in queues if (r := each.take()) is not None), None)
        if taken is None:
            raise self._fail(UnansweredCall(self._unanswered_message(queues, call)))
        queue, reply = taken
        return queue, reply(call) if callable(reply) else reply, number

    def _unanswered_message(self, queues: Sequence[ReplyQueue], call: FakeCall) -> str:
        name = f"{call.provider}/{call.model}"
        if queues:
            total = sum(queue.total for queue in queues)
            return f"call {total + 1} of {name}: {total} answers were set up and are used; add one"
        there = ", ".join(repr(queue.pattern) for queue in self._replies.queues) or "nothing"
        return (
            f"a call of {name}, for which nothing is set up (there is {there}): add "
            f"fake_model({call.model!r}, 'an answer')"
        )

    def _note_attempt(
        self,
        call: FakeCall,
        url: str,
        started_at: float,
        fault: Fault | None,
        partial: str = "",
        text: str = "",
    ) -> None:
        error_type = fault.error_type if fault is not None else None
        retry_after = fault.retry_after if isinstance(fault, Failure) else None
        attempt = Attempt(call, url, started_at, error_type, retry_after, partial, text, flow())
        with self._lock:
            self._attempts.append(attempt)

    def _fail(self, failure: ReplayFailure) -> ReplayFailure:
        self.failures.append(failure)
        return failure

    # Start and end ----------------------------------------------------------------------------

    def _close_network(self) -> None:
        network.close_for_fakes(self, allow_loopback=self._allow_loopback, fail=self._fail)

    def _begin(self) -> None:
        with _active_lock:
            keys.set_variables(self, _keys())
            if not _active:
                install(_answerer, first=True)
            _active.append(self)
            self._close_network()

    def _restore_providers(self) -> None:
        """Let the custom providers answer by themselves again."""
        while self._intercepted:
            self._intercepted.popitem()[1]()

    def _end(self) -> None:
        with _active_lock:
            self._restore_providers()
            network.open_for_fakes(self)
            _active.remove(self)
            if not _active:
                remove(_answerer)
            keys.restore_variables(self)


# --- one router for all fakes of the process -----------------------------------------------------

_active_lock = threading.RLock()
_active: list[FakeModel] = []  # the innermost is last


class _Router(respx.Router):
    """A respx router that does not keep every request and response of a long run."""

    def record(self, *arguments: Any, **named: Any) -> None:
        """Keep nothing: the fakes have their own list of calls."""


class _RouterRequest(httpx.Request):
    """A request of the seam for the router, which reads none of what httpx would prepare."""

    def __init__(self, parsed: ModelRequest, request: Request) -> None:
        self.method, self.url = request.method, _url(request.url)
        self.parsed, self.seam_request = parsed, request


class _RouterResponse(httpx.Response):
    """A response for the seam; respx copies one without a request and reads one with a body."""

    def __init__(self, request: httpx.Request, response: Response) -> None:
        self.request, self.stream = request, _NO_BODY
        self.seam_response = response


def _route(request: _RouterRequest) -> _RouterResponse | _RouterRequest:
    """Return the answer of the innermost fake for the model, or the request to let it through."""
    for fake in reversed(_active):
        last = fake is _active[0] and is_asked_last(_answerer)
        response = fake.respond(request.parsed, request.seam_request, last=last)
        if response is not None:
            return _RouterResponse(request, response)
    return request


_NO_BODY = httpx.SyncByteStream()
_router = _Router(assert_all_called=False, assert_all_mocked=False)
# respx inspects the function's signature on each call.
_route.__dict__["__signature__"] = inspect.signature(_route)
_router.route().mock(side_effect=_route)
_url = lru_cache(maxsize=64)(httpx.URL)  # parsing one takes as long as the rest of respx


def _answer(request: Request) -> Response | None:
    parsed = read_request(request.url, request.body)
    if parsed is None:
        return None
    try:
        response = _router.handler(_RouterRequest(parsed, request))
    except respx.models.PassThrough:
        return None
    assert isinstance(response, _RouterResponse)  # the only route's
    return response.seam_response


_answerer = Answerer(asks_model, _answer)


@contextmanager
def fake_model(
    model: str | None = None,
    *replies: Reply,
    usage: UsageStats | None = None,
    allow_loopback: bool = False,
) -> Generator[FakeModel]:
    """Fake the models inside the block, in all threads and event loops; see `FakeModel`.

    with fake_model("gpt-5.6-sol", "Paris") as fake:
        fake("claude-*", rate_limit(retry_after=2), "Rome")

    No keys are needed: every provider gets one inside the block. Requests that are not calls of a
    model pass through, but reach only an application that a client calls inside this process,
    because the network is closed.

    Args:
        model: The first model to answer for, as for `FakeModel`; set up others inside.
        *replies: Its answers.
        usage: Token counts of each answer.
        allow_loopback: Allow connections to this machine, such as a database or a test server.

    Raises:
        TypeError: There is no reply for the model, or one of another type.
        UnansweredCall: A call had no answer; again at the end if the code under test swallowed it.
        NetworkBlocked: A connection would have left the process; again at the end likewise.
        AssertionError: An answer was not used.
    """
    fake = FakeModel(allow_loopback=allow_loopback)
    fake._begin()  # pyright: ignore[reportPrivateUsage] - of this module
    try:
        if model is not None:
            fake(model, *replies, usage=usage)
        elif usage is not None:
            raise TypeError(f"{usage!r} belongs to answers: name their model before it")
        yield fake
    except BaseException as error:
        # The failure explains more than an error that followed it or a group that contains it.
        ends = isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit, ReplayFailure))
        if fake.failures and not ends:
            raise fake.failures[0] from error
        raise
    finally:
        fake._end()  # pyright: ignore[reportPrivateUsage] - of this module
    fake._check()  # pyright: ignore[reportPrivateUsage] - of this module


def _was_reported(failure: ReplayFailure) -> bool:
    """Return whether a test runner caught the failure, so that the test already failed with it."""
    caught = failure.__traceback__
    return caught is not None and caught.tb_frame.f_globals.get("__name__", "").startswith(
        ("unittest.", "_pytest.")
    )


def _keys() -> dict[str, str]:
    names = {
        next(name for name in server.key_vars if name != server.token_var)
        for server in SERVERS.values()
        if server.key_vars
    }
    return {
        **dict.fromkeys(names, "fake-key"),
        "AZURE_OPENAI_ENDPOINT": "https://fake.openai.azure.com",
    }
