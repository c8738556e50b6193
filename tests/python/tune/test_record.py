"""Tuning records: rows survive the file, what is no row is reported with its line, rivals are merged by rank."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.python.tune.kernels import LOOP, SLOW, built, choose, options_in, plus_one, source_of, target_of

from mkwrap.errors import MissingTuningError, TuningRecordError
from mkwrap.stages import Binary, Device, Provenance, Rejected, Source, Variant, Versions
from mkwrap.toolchain.cache import Cache, digest
from mkwrap.tune import recall
from mkwrap.tune.recall import KIND, key_of, versions_of
from mkwrap.tune.record import Entry, Point, Row, decode, encode, merge
from mkwrap.tune.record_file import read_record, write_record

ROW = Row(
    key=digest("key"),
    kernel="reduction_0",
    nest=digest("nest"),
    origins=('aten.sum model.py:3: "x".sum()',),
    device=Device("cuda", "sm_90", units=132, shared_bytes=232448, name="NVIDIA H100", driver="12.8"),
    versions=Versions("0.1.0+abc", "triton 3.9.0 sm_90", "2.13.0"),
    mode="full",
    measured_at="2026-01-02T03:04:05Z",
    points=(
        Point(
            {},
            (
                Entry("a[x=1]", (digest("a"),), 1.0 / 3.0, 0.01, 20),
                Entry("b", (digest("b"), digest("c")), 0.25, 0.0, 20),
                Entry("c", (), rejected="ptxas: “too much”\nshared memory"),
                Entry("d", (digest("d"),), 3.0, 0.1, 2, rejected="wrong result"),
                Entry("e", (digest("e"),)),
            ),
            "b",
            "measured",
        ),
    ),
)


def test_a_row_survives_its_line(tmp_path: Path) -> None:
    assert decode(encode(ROW)) == ROW
    assert "\n" not in encode(ROW)
    path = tmp_path / "record.jsonl"
    assert write_record(path, [ROW, replace(ROW, mode="quick")]) == 2
    assert read_record(path) == (ROW, replace(ROW, mode="quick"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.jsonl"]


def test_concatenated_records_are_a_record(tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    path.write_text(encode(ROW) + "\n\n" + encode(replace(ROW, mode="quick")))
    assert len(read_record(path)) == 2
    path.write_text("")
    assert read_record(path) == ()


def _with(**changes: object) -> str:
    return json.dumps({**json.loads(encode(ROW)), **changes})


def _with_point(**changes: object) -> str:
    (point,) = json.loads(encode(ROW))["points"]
    return _with(points=[{**point, **changes}])


GARBAGE = {
    "not JSON": ("{", "not JSON"),
    "bytes": ("\x00\x01", "not JSON"),
    "deep": ("[" * 100000, "not JSON"),
    "not an object": ("[]", "not an object"),
    "no schema": ("{}", "schema None"),
    "a later schema": (_with(schema=2), "schema 2; this mkwrap reads schema 1"),
    "short key": (_with(key="abc"), "key is not a sha256"),
    "no kernel": (_with(kernel=None), "kernel is not an object"),
    "mode": (_with(mode="off"), "mode is 'off'"),
    "no points": (_with(points=[]), "points is empty"),
    "point twice": (_with(points=json.loads(encode(ROW))["points"] * 2), "a point is listed twice"),
    "device": (_with(device={"kind": "cuda"}), "is not a"),
    "units": (_with(device={**json.loads(encode(ROW))["device"], "units": "132"}), "units is not a whole number"),
    "versions": (_with(versions={}), "mkwrap is not a string"),
    "winner": (_with_point(winner="z"), "the winner 'z' is not among"),
    "rejected winner": (_with_point(winner="d"), "the winner 'd' is not among"),
    "unbuilt winner": (_with_point(winner="c"), "the winner 'c' is not among"),
    "twice": (_with_point(candidates=[{"variant": "b", "images": ["1"]}] * 2), "listed twice"),
    "time": (
        _with_point(candidates=[{"variant": "b", "images": ["1"], "median_us": "1", "spread_us": 0, "runs": 1}]),
        "median_us is not a finite number",
    ),
    "nan": (_with_point(candidates=[{"variant": "b", "images": ["1"], "median_us": float("nan")}]), "not a finite"),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_c6_a_line_that_is_no_row_is_reported_with_its_number(tmp_path: Path, what: str) -> None:
    line, message = GARBAGE[what]
    path = tmp_path / "record.jsonl"
    path.write_text(f"{encode(ROW)}\n\n{line}\n")
    with pytest.raises(TuningRecordError, match=r"record\.jsonl, line 3, is no row") as caught:
        read_record(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("what", GARBAGE)
@pytest.mark.toolchain
def test_c6_a_row_of_the_cache_that_makes_no_sense_is_a_miss(tmp_path: Path, what: str) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    (sources,) = [[b.source for b in found if isinstance(b, Binary)] for found in binaries.values()]
    key = key_of(candidates.schedule.kernels["kernel0"], sources).choice
    cache, target = Cache(tmp_path), target_of()
    versions = versions_of(target)
    for mode in ("full", "quick"):
        cache.put(KIND, recall._place(key, target.device, versions, mode), GARBAGE[what][0].encode())
    assert recall.cached_row(cache, key, target.device, versions, "quick") is None


def test_a_row_under_anothers_place_is_a_miss(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(KIND, recall._place(digest("other"), ROW.device, ROW.versions, "full"), encode(ROW).encode())
    assert recall.cached_row(cache, digest("other"), ROW.device, ROW.versions, "full") is None
    recall.keep_row(cache, ROW)
    assert recall.cached_row(cache, ROW.key, ROW.device, ROW.versions, "quick") == ROW


def test_a_record_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TuningRecordError, match="cannot be read: No such file"):
        read_record(tmp_path / "none.jsonl")
    with pytest.raises(TuningRecordError, match="cannot write the tuning record"):
        write_record(tmp_path / "no" / "folder.jsonl", [ROW])


def test_a_merge_keeps_the_newest_full_measurement_whatever_the_order() -> None:
    old, new = replace(ROW, measured_at="2025-01-01T00:00:00Z"), ROW
    quick = replace(ROW, mode="quick", measured_at="2027-01-01T00:00:00Z")
    twin = replace(ROW, kernel="another_name")
    for rows in itertools.permutations([old, new, quick]):
        assert merge(rows) == (new,)
    assert merge([new, twin]) == merge([twin, new])
    elsewhere = replace(ROW, device=replace(ROW.device, name="NVIDIA H200"))
    later = replace(ROW, versions=replace(ROW.versions, torch="2.14.0"))
    assert merge([old, elsewhere, later, new]) == (new, elsewhere, later)


@pytest.mark.toolchain
def test_rows_hold_what_was_measured_and_what_was_rejected(tmp_path: Path) -> None:
    wrong = "for (long i = 0; i < {n}; ++i) y[i] = x[i] + 1.01f; return 0;"
    candidates, binaries = built(plus_one(), {"slow": SLOW, "broken": "this is not C++", "wrong": wrong, "fast": LOOP})
    cache = Cache(tmp_path)
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path), cache)
    row = recall.cached_row(
        cache, selection.keys["kernel0"].choice, target_of().device, versions_of(target_of()), "quick"
    )
    assert row is not None
    (point,) = row.points
    assert (point.at, point.winner, row.kernel, row.mode) == ({}, "fast", "kernel0", "quick")
    assert row.origins == ("aten.add model.py:3: x + 1",)
    by_label = {entry.variant: entry for entry in point.candidates}
    assert set(by_label) == {"slow", "broken", "wrong", "fast"}
    assert (by_label["slow"].median_us or 0) > (by_label["fast"].median_us or 0) > 0
    assert "g++ failed" in by_label["broken"].rejected
    assert by_label["broken"].images == ()
    assert "wrong result" in by_label["wrong"].rejected
    (images,) = [b.images for b in binaries["kernel0"] if isinstance(b, Binary) and b.source.variant.label == "fast"]
    assert by_label["fast"].images == tuple(image.digest for image in images)


@pytest.mark.toolchain
def test_a_choice_without_a_variant_that_may_build_another_time_is_not_kept(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP, "late": LOOP})
    starved = Rejected(Variant("kernel0", "late"), "g++ failed: No space left on device", transient=True)
    short = {"kernel0": (*binaries["kernel0"][:2], starved)}
    cache = Cache(tmp_path)
    for _ in range(2):
        selection = choose(candidates, short, target_of(), options_in(tmp_path), cache)
        assert selection.provenance == {"kernel0": Provenance.MEASURED}
        assert selection.tuned == {}


def test_the_key_holds_labels_and_texts_and_no_names() -> None:
    kernel = plus_one()

    def key(*sources: Source | Rejected, name: str = "kernel0") -> str:
        return key_of(plus_one(name=name), sources).choice

    slow, fast = source_of(kernel, "slow", SLOW), source_of(kernel, "fast", LOOP)
    gone = Rejected(fast.variant, "no text")
    keys = {
        key(slow, fast),
        key(fast, slow),
        key(slow),
        key(slow, gone),
        key(slow, replace(fast, text=fast.text + "int x;")),
        key(slow, replace(fast, variant=Variant("kernel0", "other"))),
        key_of(plus_one(65), (slow, fast)).choice,
    }
    assert len(keys) == 7
    assert key(slow, fast, name="kernel7") in keys
    assert key(slow, replace(fast, text=f"// model.py:9\n{fast.text}")) == key(
        slow, replace(fast, text=f"\n{fast.text}")
    )


def test_missing_rows_are_listed_with_their_reason(tmp_path: Path) -> None:
    kernel = plus_one()
    sources = (source_of(kernel, "slow", SLOW), source_of(kernel, "fast", LOOP))
    candidates, _ = built(kernel, {"slow": SLOW})
    target = target_of()
    row = replace(
        ROW, key=key_of(kernel, sources).choice, device=replace(target.device, units=7), versions=versions_of(target)
    )
    options = options_in(tmp_path, tuning=tmp_path / "given.jsonl", require_tuning=True)
    with pytest.raises(MissingTuningError, match=r"1 of the kernels(.|\n)*kernel0 \(aten.add\): .*units 7, here 1"):
        recall.recall(candidates, {"kernel0": sources}, target, options, [row])
    with pytest.raises(MissingTuningError, match="no row has its key"):
        recall.recall(candidates, {"kernel0": sources}, target, options, [ROW])
