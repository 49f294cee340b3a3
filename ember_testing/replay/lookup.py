"""The n-th identical request gets the n-th recording: where each request stands in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_testing.replay.request import Request, Rules, key
from ember_testing.wires.body import as_bytes, headers_from_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ember_testing.cassettes.cassette_rows import Answer, CassetteRows


def stored_requests(file: CassetteRows) -> Iterator[tuple[int, Request]]:
    """Number and request of every recording."""
    for number, method, url, headers, body in file.requests():
        yield number, Request(method, url, headers_from_json(headers), as_bytes(body))


class Lookup:
    """Positions of one session's requests.

    Most requests are made once: for those a bit a recording is kept, and a position by key only
    for requests that are repeated (a dict of 100,000 keys would take 10 MB).

    Args:
        rules: What makes the keys.
        repeats_last: Past the end, give the last recording again.
    """

    def __init__(self, rules: Rules, *, repeats_last: bool) -> None:
        self._rules = rules
        self._repeats_last = repeats_last
        self._last: dict[str, int] = {}
        self._used = bytearray()
        self._index: dict[str, list[int]] | None = None
        self._looked_for_other_rules = False

    def next(self, file: CassetteRows | None, key: str) -> Answer | None:
        """The next recording of this request that was not played yet, and count it as played."""
        if file is None or not file.horizon:
            return None
        after = self._last.get(key, 0)
        answer = self._find(file, key, after)
        if answer is None and not self._looked_for_other_rules:
            self._looked_for_other_rules = True
            if file.has_other_rules(self._rules.text):
                self._index = self._by_these_rules(file)
                answer = self._find(file, key, after)
        if answer is not None and key not in self._last and self._is_used(answer.id):
            # The first repetition: from now on this request's position is kept by itself.
            after = self._last[key] = answer.n
            answer = self._find(file, key, after)
        if answer is None:
            return self._find(file, key, after - 1) if self._repeats_last and after else None
        if key in self._last:
            self._last[key] = answer.n
        self._use(answer.id)
        return answer

    def peek(self, file: CassetteRows | None, key: str) -> Answer | None:
        """The recording that `next` would give, which stays the next one."""
        used, last = bytes(self._used), self._last.get(key)
        answer = self.next(file, key)
        self._used[:] = used
        if last is None:
            self._last.pop(key, None)
        else:
            self._last[key] = last
        return answer

    def count(self, key: str) -> int:
        """Count a request that has no recording: the how-manieth of its kind it is."""
        self._last[key] = self._last.get(key, 0) + 1
        return self._last[key]

    def recorded(self, file: CassetteRows, key: str) -> int:
        """How many recordings of this request there are."""
        return file.recorded(key) if self._index is None else len(self._index.get(key, []))

    def _find(self, file: CassetteRows, key: str, after: int) -> Answer | None:
        if self._index is None:
            return file.find(key, after)
        ids = self._index.get(key, [])
        return file.answer(ids[after])._replace(n=after + 1) if after < len(ids) else None

    def _by_these_rules(self, file: CassetteRows) -> dict[str, list[int]]:
        """An index in memory, for a file whose keys were made by other rules than this test's."""
        index: dict[str, list[int]] = {}
        for number, request in stored_requests(file):
            index.setdefault(key(request, self._rules), []).append(number)
        return index

    def _is_used(self, number: int) -> bool:
        byte = number >> 3
        return byte < len(self._used) and bool(self._used[byte] & (1 << (number & 7)))

    def _use(self, number: int) -> None:
        byte = number >> 3
        if byte >= len(self._used):
            self._used.extend(bytes(byte + 64 - len(self._used)))
        self._used[byte] |= 1 << (number & 7)
