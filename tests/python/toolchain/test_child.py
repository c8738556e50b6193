"""Child processes: messages both ways, prints that do no harm, deaths told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from mkwrap.toolchain.child import Child, Death

_ECHO = """
import os, signal, sys, time
from mkwrap.toolchain.channel import Channel
channel = Channel()
for message in channel.messages():
    print("noise", message if isinstance(message, str) else "")
    if message == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif message == "leave":
        sys.exit("I leave")
    elif message == "sleep":
        time.sleep(60)
    elif message == "alarm":
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(60)
    else:
        channel.send(message)
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "echoing_child.py").write_text(_ECHO)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "echoing_child"


def test_messages_go_both_ways_whatever_their_size(echo: str) -> None:
    with Child(echo) as child:
        for message in ("word", {"a": [1, 2.5, None]}, b"x" * 3_000_000):
            child.send(message)
            assert child.receive(30) == message


@pytest.mark.parametrize(
    ("message", "reason"),
    [("crash", "died of SIGSEGV"), ("leave", "I leave"), ("alarm", "gave no answer in time")],
)
def test_a_death_has_its_reason(echo: str, message: str, reason: str) -> None:
    with Child(echo) as child:
        child.send(message)
        death = child.receive(30)
        assert isinstance(death, Death)
        assert reason in death.reason
        child.send("more")
        assert isinstance(child.receive(30), Death)


def test_a_silent_child_is_ended(echo: str) -> None:
    with Child(echo) as child:
        child.send("sleep")
        assert child.receive(0.1) == Death("gave no answer in time", timeout=True)


def test_a_module_that_does_not_exist_is_a_death() -> None:
    with Child("mkwrap.no_such_module") as child:
        death = child.receive(30)
        assert isinstance(death, Death)
        assert "no_such_module" in death.reason
