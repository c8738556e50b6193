"""Options are checked when they are made."""

from __future__ import annotations

import pytest

from mkwrap import Options
from mkwrap.errors import OptionError

WRONG = {
    "tune": ["fast", None],
    "jobs": [0, -1, True, 1.5],
    "threads": [0, "2"],
    "cache_dir": ["", None, 3],
    "tuning": ["", 123],
    "dump_dir": ["", 3],
    "cxx": ["", 3],
    "force": [3, {"pointwise_0": 1}, ["pointwise_0"]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_refused_by_the_option_s_name(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=rf"Options\.{name} is "):
        Options(**{name: value})  # type: ignore[arg-type]
