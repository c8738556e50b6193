"""The progress bar: silent unless somebody can see it."""

from __future__ import annotations

import io

from mkwrap.progress import shown


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_stream_that_is_no_terminal_stays_empty() -> None:
    stream = io.StringIO()
    with shown(None, stream, delay=0) as advance:
        advance("build", 1, 2)
    assert stream.getvalue() == ""


def test_a_terminal_shows_stage_and_count_unless_it_is_not_wanted() -> None:
    stream = _Terminal()
    with shown(None, stream, delay=0) as advance:
        advance("build", 1, 2)
        advance("build", 2, 2)
        advance("tune", 0, 7)
    assert "build" in stream.getvalue()
    assert "0/7" in stream.getvalue()
    quiet = _Terminal()
    with shown(False, quiet, delay=0) as advance:
        advance("build", 1, 2)
    assert quiet.getvalue() == ""


def test_a_short_compile_shows_nothing() -> None:
    stream = _Terminal()
    with shown(True, stream, delay=60) as advance:
        advance("build", 2, 2)
    assert stream.getvalue() == ""
