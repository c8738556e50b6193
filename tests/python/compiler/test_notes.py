"""What a program makes of the dimensions that its user declared is told where the user looks: report, manifest, inspect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.export import Dim

import mkwrap
from mkwrap.cli.app import main

pytestmark = pytest.mark.toolchain

FIXED = r"args[0].shape[0] is always 3"
NARROWED = "batch is at least 2"
RELATION = "s0 % 4 == 0"


def _program(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    for number in range(x.shape[0]):
        y = y + x[number].sum() * number
    if y.shape[0] >= 2:
        y = y * 2
    if y.shape[1] % 4 == 0:
        y = y + 1
    return y


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> mkwrap.Model:
    """A model of a dim that is specialised, one that is narrowed, and one that has a relation."""
    options = mkwrap.Options(tune="off", max_points=1, cache_dir=tmp_path_factory.mktemp("cache"))
    shapes = ({0: Dim.AUTO}, {0: Dim("batch", min=0, max=64), 1: Dim.AUTO})
    args = torch.randn(3, 5), torch.randn(6, 8)
    return mkwrap.compile(_program, args, dynamic_shapes=shapes, target="cpu", options=options)


def test_a_dim_that_capture_specialised_is_reported_with_its_line(model: mkwrap.Model) -> None:
    fixed, narrowed = model.report.notes
    assert fixed.startswith(FIXED)
    assert narrowed.startswith(NARROWED)
    for note, line in ((fixed, "for number in range(x.shape[0]):"), (narrowed, "if y.shape[0] >= 2:")):
        assert f"{Path(__file__).name}:" in note
        assert line in note
    assert [symbol.low for symbol in model.symbols] == [2, 0]


def test_what_calls_are_checked_for_is_reported_with_its_line(model: mkwrap.Model) -> None:
    (relation,) = model.report.relations
    assert relation.startswith(f"{RELATION} (at ")
    assert "if y.shape[1] % 4 == 0:" in relation
    with pytest.raises(mkwrap.errors.InputError, match="s0 % 4 == 0"):
        model(torch.randn(3, 5), torch.randn(6, 9))


def test_the_report_the_manifest_and_inspect_tell_it(
    model: mkwrap.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.so"
    model.save(path)
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    for text in (str(model.report), shown, str(mkwrap.load(path).report)):
        folded = " ".join(text.split())
        assert f"note: {FIXED}" in folded
        assert f"note: {NARROWED}" in folded
        assert f"every call: {RELATION}" in folded
    assert main(["inspect", str(path), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["notes"] == list(model.report.notes)
    assert [relation["holds"] for relation in manifest["relations"]] == [RELATION]


def test_where_nothing_became_of_a_declared_dim_nothing_is_told(tmp_path: Path) -> None:
    options = mkwrap.Options(tune="off", max_points=1, cache_dir=tmp_path)
    model = mkwrap.compile(torch.exp, (torch.randn(8),), dynamic_shapes=({0: Dim.AUTO},), target="cpu", options=options)
    assert not {"notes", "relations"} & model.manifest.keys()
    assert (model.report.notes, model.report.relations) == ((), ())
