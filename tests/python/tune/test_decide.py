"""From an outcome to a decision, without measuring."""

from __future__ import annotations

import pytest
from tests.python.tune.kernels import plus_one

from mkwrap.errors import NoVariantError
from mkwrap.stages import Binary, Source, Variant
from mkwrap.toolchain.rejection import rejection, settled
from mkwrap.toolchain.trouble import LATE
from mkwrap.tune.contest import OUT_OF_RANGE
from mkwrap.tune.match import Entrants, decide
from mkwrap.tune.measure import Outcome

VARIANTS = tuple(Variant("kernel0", label) for label in ("a", "b", "c"))
ENTRANTS = Entrants(plus_one(), tuple(Binary(Source(v, "", "", ()), ()) for v in VARIANTS), (), VARIANTS)


@pytest.mark.parametrize(
    ("faults", "winner", "rejected"),
    [
        ((OUT_OF_RANGE, OUT_OF_RANGE, OUT_OF_RANGE), "a", []),
        (("cannot be loaded", OUT_OF_RANGE, OUT_OF_RANGE), "b", ["a"]),
        ((OUT_OF_RANGE, "cannot be loaded", "wrong result"), "a", ["b", "c"]),
    ],
)
def test_c35_without_valid_inputs_the_first_that_nothing_else_rules_out_is_taken(
    faults: tuple[str, ...], winner: str, rejected: list[str]
) -> None:
    decision, lasting = decide(ENTRANTS, VARIANTS, Outcome({}, dict(enumerate(faults))), ())
    assert (decision.winner.label, decision.reason) == (winner, "not measured: no valid index values are known")
    assert [entry.variant.label for entry in decision.rejected] == rejected
    assert lasting


def test_c35_a_survivor_beats_what_found_an_index_out_of_range() -> None:
    decision, _ = decide(ENTRANTS, VARIANTS, Outcome({}, {0: OUT_OF_RANGE, 2: "wrong result"}), ())
    assert decision.winner.label == "b"
    assert [entry.reason for entry in decision.rejected] == [OUT_OF_RANGE, "wrong result"]
    with pytest.raises(NoVariantError):
        decide(ENTRANTS, VARIANTS, Outcome({}, dict.fromkeys(range(3), "wrong result")), ())


@pytest.mark.parametrize(
    ("reason", "lasting"),
    [
        ("wrong result: 4 of 4 differ", True),
        ("cannot be linked: undefined reference", True),
        (LATE, False),
        ("the linker ran for more than 120 s", False),
        ("g++ ran for more than 300 s", False),
        ("cannot be linked: final link failed: No space left on device", False),
    ],
)
def test_what_time_or_room_was_lacking_for_is_rejected_for_now_only(reason: str, lasting: bool) -> None:
    entry = rejection(VARIANTS[1], reason)
    assert settled([entry]) is lasting
    decision, _ = decide(ENTRANTS, VARIANTS, Outcome({0: (1.0,) * 9, 2: (2.0,) * 9}, {1: reason}), ())
    assert settled(decision.rejected) is lasting
