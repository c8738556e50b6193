"""One compile serves every size: the interpreter on a schedule with dynamic sizes against eager."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.export import Dim

from mkwrap.errors import UnsupportedOpError
from tests.python.dynamic.everysize import OutOfRangeError, dynamic
from tests.python.dynamic.programs import CASES, Case, Sizes
from tests.python.lower.differential import Function

SMALL = (0, 1, 5)
LARGER = ({"a": 9, "b": 16, "c": 1, "d": 2}, {"a": 17, "b": 3, "c": 11, "d": 4}, {"a": 16, "b": 1, "c": 64, "d": 3})
EXAMPLE = {"b": 5, "c": 3, "d": 7}


def sizes_of(case: Case) -> list[Sizes]:
    """0, 1 and 5 in all combinations of the first two sizes, and some larger ones."""
    few = [dict(zip(case.letters, values, strict=False)) for values in itertools.product(SMALL, repeat=2)]
    return [{**EXAMPLE, **sizes} for sizes in few] + list(LARGER)


def refused_by_eager(case: Case, args: list[torch.Tensor]) -> bool:
    try:
        case.fn(*[arg.clone() for arg in args])
    except (RuntimeError, IndexError, ValueError, ZeroDivisionError):
        return True
    return False


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("name", CASES)
def test_c20_c23_one_compile_serves_every_size(name: str) -> None:
    """What eager takes gives what eager gives, or is refused where the table says so; what eager refuses may be refused."""
    case = CASES[name]
    compiled = dynamic(case.fn, case.make({"a": case.example, **EXAMPLE}), case.dynamic_shapes(lambda _: Dim.AUTO))
    assert not any("always" in note for note in compiled.captured.notes), compiled.captured.notes
    served = 0
    for sizes in sizes_of(case):
        args = case.make({"a": case.example, **sizes})
        if refused_by_eager(case, args):
            continue
        if case.refused(sizes):
            with pytest.raises(OutOfRangeError):
                compiled.run(*args)
        else:
            compiled.check(*args)
            served += 1
    assert served > 1


@pytest.mark.parametrize("name", ["sums", "gram", "slices", "attention", "norms"])
def test_declared_dims_keep_their_names(name: str) -> None:
    """With a Dim for each letter the symbols bear its name, inputs share them, and its range holds."""
    case = CASES[name]
    dims = {letter: Dim(letter * 2, min=2, max=40) for letter in case.letters}
    compiled = dynamic(case.fn, case.make({"a": 8, **EXAMPLE}), case.dynamic_shapes(dims.__getitem__))
    assert {spec.symbol.name for spec in compiled.schedule.program.symbols} == {letter * 2 for letter in case.letters}
    compiled.check(*case.make({"a": 2, "b": 40, "c": 9, "d": 3}))
    with pytest.raises(OutOfRangeError, match="not 2 … 40"):
        compiled.run(*case.make({"a": 41, "b": 4, "c": 9, "d": 3}))


@pytest.mark.parametrize("fn", [lambda x: x.diff(dim=0), lambda x: x[x.shape[0] - 1]], ids=["slice", "select"])
def test_a_position_whose_sign_the_range_leaves_open_is_refused_with_what_to_declare(fn: Function) -> None:
    x = torch.randn(6, 8)
    with pytest.raises(
        UnsupportedOpError, match=r"x - 1.* negative for some sizes in range; give a Dim the min or max"
    ):
        dynamic(fn, (x,), ({0: Dim("x", min=0, max=16)},))
    dynamic(fn, (x,), ({0: Dim("x", min=1, max=16)},)).check(x[:1])
