"""Find the recording of a request: the n-th identical request gets the n-th recording."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ember_testing.replay.request import Context, issued_ids, key
from ember_testing.wires.body import as_bytes, headers_from_json
from ember_testing.wires.response import Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ember_testing.cassettes.file import CassetteFile
    from ember_testing.cassettes.rows import Answer
    from ember_testing.replay.settings import Rules
    from ember_testing.replay.shared_counts import SharedCounts


def stored_requests(file: CassetteFile) -> Iterator[tuple[int, Request]]:
    """Yield the id and request of every recording."""
    for row in file.requests():
        yield row["id"], request_of(row)


def request_of(row: Mapping[str, Any]) -> Request:
    """Return the request of a row, as it was recorded."""
    headers, body = headers_from_json(row["request_headers"]), row["request_body"] or b""
    # Bodies are recorded without content encoding.
    plain = tuple(pair for pair in headers if pair[0].lower() != "content-encoding")
    return Request(row["method"], row["url"], plain, as_bytes(body))


class Lookup:
    """The positions of a session's requests among identical ones.

    Args:
        rules: The rules that make the keys.
        repeats_last: Repeat the last recording after the end.
    """

    def __init__(self, rules: Rules, *, repeats_last: bool) -> None:
        self._repeats_last = repeats_last
        # By key, the `n` last returned; shared with processes that the test forks.
        self.positions: Counter[str] | SharedCounts = Counter()
        self.compare_by(rules)

    def compare_by(self, rules: Rules) -> None:
        """Use other rules from now on."""
        self._rules = rules
        self._index: dict[str, list[int]] | None = None
        self._looked_for_other_rules = False

    def take(self, file: CassetteFile | None, key: str) -> Answer | None:
        """Return the next recording of this request and advance its position."""
        answer = self.find(file, key)
        if answer is not None:
            self.positions[key] = answer.n
        return answer

    def take_loaded(self, file: CassetteFile, key: str) -> Answer | None:
        """Like `take`, from memory only; None if the file would have to be read."""
        if self._index is not None or file.loaded is None:
            return None
        answer = file.find(key, self.positions[key])
        if answer is not None:
            self.positions[key] = answer.n
        return answer

    def find(self, file: CassetteFile | None, key: str) -> Answer | None:
        """Return the recording that `take` would return, without advancing."""
        if file is None or not file.horizon:
            return None
        after = self.positions[key]
        answer = self._find_after(file, key, after)
        if answer is None and not self._looked_for_other_rules:
            self._looked_for_other_rules = True
            if file.has_other_rules(self._rules.text):
                self._index = self._by_these_rules(file)
                answer = self._find_after(file, key, after)
        if answer is None and after and self._repeats_last:
            return self._find_after(file, key, after - 1)
        return answer

    @property
    def by_redacted_form(self) -> bool:
        """Whether requests are found by their recorded form, since other rules made the keys."""
        return self._index is not None

    def count(self, key: str) -> int:
        """Count a request without a recording; return its position among identical ones."""
        n = self.positions[key] = self.positions[key] + 1
        return n

    def recorded(self, file: CassetteFile, key: str) -> int:
        """Return the number of recordings of this request."""
        return file.recorded(key) if self._index is None else len(self._index.get(key, []))

    def _find_after(self, file: CassetteFile, key: str, after: int) -> Answer | None:
        if self._index is None:
            return file.find(key, after)
        ids = self._index.get(key, [])
        return file.answer(ids[after])._replace(n=after + 1) if after < len(ids) else None

    def _by_these_rules(self, file: CassetteFile) -> dict[str, list[int]]:
        """Build an index in memory, for a file whose keys were made by other rules."""
        index: dict[str, list[int]] = {}
        issued: set[str] = set()
        for row in file.requests():
            found = key(request_of(row), self._rules, Context(salt=file.salt, issued=issued))
            index.setdefault(found, []).append(row["id"])
            issued.update(issued_ids(as_bytes(row["response_body"] or b"")))
        return index
