"""The n-th identical request gets the n-th recording: where each request stands in the file."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ember_testing.replay.request import key
from ember_testing.wires.body import as_bytes, headers_from_json
from ember_testing.wires.response import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ember_testing.cassettes.file import Answer, CassetteFile
    from ember_testing.replay.settings import Rules


def stored_requests(file: CassetteFile) -> Iterator[tuple[int, Request]]:
    """Number and request of every recording."""
    for row in file.requests():
        headers, body = headers_from_json(row["request_headers"]), row["request_body"] or b""
        yield row["id"], Request(row["method"], row["url"], headers, as_bytes(body))


class Lookup:
    """Positions of one session's requests among identical ones.

    Args:
        rules: What makes the keys.
        repeats_last: Past the end, give the last recording again.
    """

    def __init__(self, rules: Rules, *, repeats_last: bool) -> None:
        self._rules = rules
        self._repeats_last = repeats_last
        self._last: Counter[str] = Counter()  # the `n` that was played last, by key
        self._index: dict[str, list[int]] | None = None
        self._looked_for_other_rules = False

    def next(self, file: CassetteFile | None, key: str) -> Answer | None:
        """The next recording of this request that was not played yet, and count it as played."""
        answer = self.peek(file, key)
        if answer is not None:
            self._last[key] = answer.n
        return answer

    def peek(self, file: CassetteFile | None, key: str) -> Answer | None:
        """The recording that `next` would give, which stays the next one."""
        if file is None or not file.horizon:
            return None
        after = self._last[key]
        answer = self._find(file, key, after)
        if answer is None and not self._looked_for_other_rules:
            self._looked_for_other_rules = True
            if file.has_other_rules(self._rules.text):
                self._index = self._by_these_rules(file)
                answer = self._find(file, key, after)
        if answer is None and after and self._repeats_last:
            return self._find(file, key, after - 1)
        return answer

    def count(self, key: str) -> int:
        """Count a request that has no recording; returns its position among identical ones."""
        self._last[key] += 1
        return self._last[key]

    def recorded(self, file: CassetteFile, key: str) -> int:
        """How many recordings of this request there are."""
        return file.recorded(key) if self._index is None else len(self._index.get(key, []))

    def _find(self, file: CassetteFile, key: str, after: int) -> Answer | None:
        if self._index is None:
            return file.find(key, after)
        ids = self._index.get(key, [])
        return file.answer(ids[after])._replace(n=after + 1) if after < len(ids) else None

    def _by_these_rules(self, file: CassetteFile) -> dict[str, list[int]]:
        """An index in memory, for a file whose keys were made by other rules than this test's."""
        index: dict[str, list[int]] = {}
        for number, request in stored_requests(file):
            index.setdefault(key(request, self._rules), []).append(number)
        return index
