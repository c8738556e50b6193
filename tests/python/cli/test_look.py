"""Commands that look at what is there: inspect, bench, record, cache, doctor."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mkwrap
from mkwrap import _C, Options
from mkwrap.report import make_report, wrap_label
from mkwrap.tune.record_file import read_record
from tests.python.cli.conftest import Made

pytestmark = pytest.mark.toolchain

Run = Callable[..., tuple[int, str, str]]


def test_inspect_shows_a_library_without_loading_it(run: Run, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_C.Model, "__init__", lambda *_: pytest.fail("loaded"))
    code, out, _ = run("inspect", made.library)
    assert code == 0
    said = ("fn.so", "float32 64×1024", "strides [1024, 1]", "reduction_0 ×1, ", "aten._softmax", "►", "g++", "traffic")
    assert all(text in out for text in said)
    assert max(map(len, out.splitlines())) <= 120
    code, out, _ = run("inspect", made.library, "--kernel", "reduction_0")
    assert (code, "launch  mkw_reduction_" in out, "programs.py:5" in out) == (0, True, True)
    code, _, errors = run("inspect", made.library, "--kernel", "nothing")
    assert (code, "the kernels are: reduction_0" in errors) == (2, True)


def test_inspect_json_is_the_manifest(run: Run, made: Made) -> None:
    code, out, _ = run("inspect", made.library, "--json")
    assert code == 0
    assert json.loads(out) == mkwrap.load(made.library).manifest


def test_inspect_extracts_sources_and_host_code(run: Run, made: Made, tmp_path: Path) -> None:
    code, out, _ = run("inspect", made.library, "--extract", tmp_path / "parts")
    files = {path.name: path for path in (tmp_path / "parts").iterdir()}
    assert code == 0
    assert all(f"wrote {path}\n" in out for path in files.values())
    manifest = json.loads(files.pop("manifest.json").read_text())
    assert manifest == mkwrap.load(made.library).manifest
    assert "mkw_get_api" in files.pop("host.cpp").read_text()
    ((name, source),) = files.items()
    assert re.fullmatch(r"reduction_0-\w+.*\.cpp", name)
    assert manifest["kernels"][0]["launches"][0]["entry"] in source.read_text()


def test_inspect_extracts_cubins(run: Run, tmp_path: Path) -> None:
    options = Options(tune="off", cache_dir=tmp_path / "cache", progress=False)
    model = mkwrap.compile(lambda x: x * 2 + 1, (torch.randn(4096),), target="cuda:sm_90", options=options)
    model.save(tmp_path / "m.so")
    code, out, _ = run("inspect", tmp_path / "m.so")
    assert (code, "cuda:sm_90, not tuned" in out) == (0, True)
    assert run("inspect", tmp_path / "m.so", "--extract", tmp_path / "parts")[0] == 0
    (cubin,) = (tmp_path / "parts").glob("*.cubin")
    assert cubin.read_bytes().startswith(b"\x7fELF")
    (source,) = (tmp_path / "parts").glob("*.py")
    assert "@triton.jit" in source.read_text()
    code, out, _ = run("inspect", tmp_path / "m.so", "--kernel", "pointwise_0")
    assert re.search(r"launch  mkw_\w+: 128 threads, \d+ registers", out)


def test_inspect_refuses_what_is_no_library(run: Run, made: Made, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.so"
    content = made.library.read_bytes()
    damaged.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    for path, message in (
        (tmp_path / "none.so", "cannot be read"),
        (made.record, "not a mkwrap library"),
        (damaged, "is damaged"),
    ):
        code, out, errors = run("inspect", path)
        assert (code, out, message in errors) == (2, "", True)


def test_bench_times_calls(run: Run, made: Made) -> None:
    code, out, _ = run("bench", made.library, "--seconds", 0.05)
    assert (code, "µs ±" in out, "GB/s" in out, "reduction_0" in out) == (0, True, True, True)
    code, out, _ = run("bench", made.library, "--seconds", 0.05, "--json")
    printed = json.loads(out)
    assert code == 0
    assert printed["median_us"] > 0
    assert printed["calls"] >= 9
    assert printed["traffic_bytes"] == 2 * 64 * 1024 * 4
    assert printed["bytes_per_second"] == pytest.approx(printed["traffic_bytes"] / printed["median_us"] * 1e6)
    (kernel,) = printed["kernels"]
    assert (kernel["name"], kernel["uses"]) == ("reduction_0", 1)
    assert kernel["median_us"] > 0


def test_bench_on_a_device_that_is_not_there_ends_with_2(run: Run, made: Made) -> None:
    code, out, errors = run("bench", made.library, "--device", 3)
    assert (code, out) == (2, "")
    assert "there is no CPU device 3; a CPU library takes device 0" in errors


def test_bench_of_a_gpu_s_library_without_one_ends_with_3(run: Run, tmp_path: Path) -> None:
    if _C.cuda_devices():
        pytest.skip("this machine has a GPU")
    options = Options(tune="off", cache_dir=tmp_path / "cache", progress=False)
    mkwrap.compile(lambda x: x + 1, (torch.randn(64),), target="cuda:sm_90", options=options).save(tmp_path / "m.so")
    code, _, errors = run("bench", tmp_path / "m.so")
    assert (code, "driver" in errors.lower()) == (3, True)


def test_records_are_shown_and_merged(run: Run, made: Made, tmp_path: Path) -> None:
    code, out, _ = run("record", "show", made.record)
    assert (code, "reduction_0" in out, "1 row\n" in out) == (0, True, True)
    assert run("record", "show", made.record, "--json")[1] == made.record.read_text()
    older = tmp_path / "older.jsonl"
    text = made.record.read_text()
    older.write_text(
        re.sub(r'"measured_at":"\d{4}', '"measured_at":"2001', text) + text.replace('"units":2', '"units":3')
    )
    merged = tmp_path / "merged.jsonl"
    code, out, _ = run("record", "merge", older, made.record, "-o", merged, "--json")
    assert (code, json.loads(out)) == (0, {"path": str(merged), "rows": 2, "dropped": 1})
    (first,) = read_record(made.record)
    assert [row.device.units for row in read_record(merged)] == [2, 3]
    assert first in read_record(merged)
    merged.write_text(text + "garbage\n")
    code, _, errors = run("record", "show", merged)
    assert (code, "line 2" in errors) == (2, True)


def test_the_cache_is_shown_verified_and_cleared(run: Run, made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(made.cache, folder)
    code, out, _ = run("cache", "show", "--cache-dir", folder, "--json")
    kinds = json.loads(out)["kinds"]
    assert (code, set(kinds)) == (0, {"binary", "choice", "libraries"})
    code, out, _ = run("cache", "show", "--cache-dir", folder)
    assert (code, "binary" in out, "of at most 10.0 GiB" in out) == (0, True, True)
    assert run("cache", "verify", "--cache-dir", folder)[0] == 0
    choice = next(path for path in (folder / "choice").rglob("*") if path.is_file())
    choice.write_bytes(b"garbage")
    code, out, errors = run("cache", "verify", "--cache-dir", folder)
    assert (code, "1 damaged" in out, "--remove" in errors) == (3, True, True)
    assert run("cache", "verify", "--cache-dir", folder, "--remove")[0] == 0
    assert not choice.exists()
    code, out, _ = run("cache", "clear", "--cache-dir", folder, "--kind", "binary", "--json")
    assert (code, json.loads(out)["entries"]) == (0, kinds["binary"]["entries"])
    code, _, errors = run("cache", "clear", "--cache-dir", folder, "--kind", "nothing")
    assert (code, "the cache holds" in errors) == (2, True)
    assert run("cache", "clear", "--cache-dir", folder)[0] == 0
    assert json.loads(run("cache", "show", "--cache-dir", folder, "--json")[1])["kinds"] == {}


def test_doctor_finds_what_is_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKWRAP_CACHE_DIR", str(tmp_path))
    code, out, _ = run("doctor", "--json")
    findings = {finding["part"]: finding for finding in json.loads(out)}
    assert code == 0
    assert all(finding["found"] for finding in findings.values() if finding["need"] == "every compile")
    assert findings["devices"]["found"] == bool(_C.cuda_devices())
    assert str(tmp_path) in findings["cache"]["detail"]
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "incoming" not in path.parts] == []


def test_doctor_says_what_is_missing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MKWRAP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    code, out, errors = run("doctor")
    assert code == 3
    assert "missing for every compile: C++ compiler, OpenMP, cache, processor" in errors
    assert "✗  cache" in out


def test_labels_break_after_commas() -> None:
    label = "matmul[rows=5,vectors=4,row_parts=1,a=in place]"
    assert wrap_label(label, 100) == label
    lines = wrap_label(label, 20).split("\n")
    assert lines == ["matmul[rows=5,", "  vectors=4,", "  row_parts=1,", "  a=in place]"]
    assert wrap_label("x" * 30, 20) == "x" * 30


def test_the_report_fits_80_columns() -> None:
    label = "matmul[rows=5,vectors=4,row_parts=1,column_parts=2,depth=1024,a=in place,b=constant,threads=2]"
    kernel: dict[str, object] = {"name": "matmul_0", "winner": label, "reason": "measured", "uses": 1, "launches": []}
    kernel |= {"origins": ["aten.mm.default a.py:1"], "timings": [], "workspace_bytes": 0, "target": 0}
    kernel["rejected"] = [{"variant": label.replace("4", "5"), "reason": "wrong result " * 20}]
    target = {"kind": "cpu", "arch": "x", "device": "y"}
    memory = {"arena": 0, "workspace": 0, "constants": 0, "traffic": 0}
    report = make_report({"target": target, "targets": [target], "memory": memory, "kernels": [kernel]})
    assert max(map(len, str(report).splitlines())) <= 100
    assert report.kernels[0].winner == label
