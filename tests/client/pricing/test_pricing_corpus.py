"""The cost of each recorded answer, through the public function, against genai-prices."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from ember.exceptions import EmberError
from tests.corpus import needs_corpus, player, references, rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

pytestmark = [
    needs_corpus,
    # Some of the recorded models have no price.
    pytest.mark.filterwarnings("ignore::ember.exceptions.UnknownPriceWarning"),
]


class _Noon(datetime):
    """The reference's day, at a peak hour of DeepSeek's older models."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> _Noon:
        return cls(2026, 11, 22, 12, tzinfo=tz or timezone.utc)


# Rows that differ from the reference: why Ember is right, or what it treats as unknown.
REASONS = {
    "OpenRouter says what it charged: its search fee, its choice of a seller": """
        02691cef47597c09 152969f8370a3eb2 189f3b2b71ea3d09 2d4db68d702e74e2 2ea00aba2703834c
        33cc1ccf0e2e004e 3684e132c1645c82 5332b95697647c53 54b0d53415d241c0 70a6e6210a6f789e
        87d8d9bc59c738c7 8cf6102745aa721a 949d9bb4057f40df a480edf9fa9ef6c6 b6151b77889bf4f5
        d7f8694be29df5dd e590a8d41e7832dd
    """,
    "web searches, 10 dollars a thousand, which the reference leaves out": """
        058dd0ae2fbba8bf 0e58bb55135f2e42 54f5c8f21ba934a5 66fc4c824457cc84 677ebc5ec1f928da
        b8e310aff3b80669 c0a5b114ad9184ba
    """,
    "the data has the model without any price: unknown is not free": """
        7d38e9d4bf1b4f25 e79c228fa8c65976
    """,
    "Mistral's num_cached_tokens, which newer answers repeat where the reference looks": """
        03be579160e74221 0fa3a8df8c37afbd 117a864188766e33 1cfdd41cb716382f 2140e3dc8ca54b83
        397ec948ab6666dd 58c8b890161e4db0 595b6a0840e4ae98 646207f0c50ea8eb 856d6f867c598602
        88d6eea7353d1010 98987a6d34b3f37b b0f4d753553b325c bb0304d7d4675aee c012ebb80feb0ed8
        d91d50f97a605cc6 dd32b2a846d27ec5 f04c09cd5a4ab6bc f9be79c19aac5a48
    """,
    "a priority or flex tier, or web searches, which the reference leaves out": """
        05f7fa0e4b38b4d6 5e2d31e1f972b00c f566cef0112fac8b 09b770c3e0c5ba23 39c08587076dc274
        5723e81c2498c1db b7d98490f5f3a522
    """,
    "OpenAI's web searches, 10 dollars a thousand, counted in the answer's items": """
        02f1c7f6ab4fecf1 043522ac7e261fab 15a3b785e3173a25 21a9c1ecacdb7ba6 222d18f765985c4f
        224537d70efd98ff 2b0be3e685923149 8461cb9b0355cc1e 9fd5051e768415f1 c0ca6fe018ba551c
        c77f6484675c8a4a d58bdaf499082b36 d59e4bc8240788ca d7d47a3b76f0d2a1 dd635e0979b9ed9e
        decf2424fa48d0f1 f0c8f50a7a7b8fad f15674a2855568a4 fbe36bf695a79c00
    """,
    "Google's searches, 14 dollars a thousand, or 35 for a grounded prompt before Gemini 3": """
        03377998b55dbde7 2247b3695184d49f 326198d754af053a 673fe35a62b20b98 715841af767ff23c
        7f6f8bd9bd7aa380 9f67d0c52b506391 a12e805caa4f4098 ad1560f5522e9c9f e32411869488cf99
    """,
    "an advisor's tokens at its own model's price, which the reference leaves out": """
        37fc64576ffa4384 3bd8c6c33a22b82b d5c7b08682599519 dd6d4bc74cad6b3f
    """,
    "OpenAI's file searches, 2.50 dollars a thousand, counted in the answer's items": """
        44c1154c5995371c 5009df55fd6156c6 5593dca8d55ba4b3 b05bff06e483a679 c0df3527d9c56a6b
        e479475c9d1b7889
    """,
}
DEVIATIONS = {row: reason for reason, rows in REASONS.items() for row in rows.split()}


def test_recorded_answers_cost_the_reference_price(
    figures: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each recorded answer that the reference prices costs the same, or is listed with a reason."""
    monkeypatch.setattr("ember.pricing.snapshot.datetime", _Noon)
    agree: Counter[str] = Counter()
    priced: Counter[str] = Counter()
    deviating: dict[str, str] = {}
    with player() as played:
        for row, reference in references().items():
            expected = reference.get("cost_ref_full", reference["cost_ref"])
            if expected is None:
                continue
            provider = rows()[row]["provider"]
            priced[provider] += 1
            response = played.play(rows()[row])
            found = math.nan if isinstance(response, EmberError) else response.usage.cost
            if math.isclose(found, expected, rel_tol=0, abs_tol=1e-9):
                agree[provider] += 1
            else:
                model = reference["model"]
                deviating[row] = f"{provider} {model}: {found!r}, reference {expected!r}"
    lines = [f"{name} {agree[name]} of {count}" for name, count in sorted(priced.items())]
    figures(
        f"costs: {agree.total()} of {priced.total()} priced rows agree: {', '.join(lines)}\n"
        + "\n".join(
            f"  {row} {what} ({DEVIATIONS.get(row, 'NOT LISTED')})"
            for row, what in deviating.items()
        )
    )
    assert priced.total() > 3_700
    assert deviating.keys() == DEVIATIONS.keys()


def test_answers_without_a_reference_price_cost_an_amount_or_nan() -> None:
    """Answers that the reference cannot price, also inconsistent ones, cost nan or an amount."""
    unpriced = 0
    with player() as played:
        for row, reference in references().items():
            if reference["cost_ref"] is None and reference["usage_raw"]:
                response = played.play(rows()[row])
                assert not isinstance(response, EmberError), row
                assert math.isnan(response.usage.cost) or response.usage.cost >= 0, row
                unpriced += 1
    assert unpriced > 80
