"""The dump of a compile: every stage's value as text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mkwrap


@pytest.mark.toolchain
def test_every_stage_with_a_text_is_dumped(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    options = mkwrap.Options(tune="off", cache_dir=tmp_path / "cache", dump_dir=dump)
    mkwrap.compile(lambda x: torch.softmax(x, -1), (torch.randn(4, 8),), options=options)
    texts = {path.name: path.read_text() for path in dump.iterdir()}
    stages = {name.split("-")[1].split(".")[0] for name in texts}
    assert stages == {"capture", "lower", "fuse", "variants", "render", "build", "tune", "wrap"}
    label = texts["08-tune.txt"].removeprefix("reduction_0: ").strip()
    assert any(f"// reduction_0: {label}\n" in text for name, text in texts.items() if "-render-" in name)
    assert texts["07-build.txt"].startswith(f"reduction_0: {label}: mkw_reduction_")
    assert "mkw_get_api" in texts["09-wrap.cpp"]
