"""The variants and render stages over a hand-made language."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.python.nests import axes, buffer, kernel
from tests.python.tune.kernels import plus_one, schedule_of, target_of

from mkwrap.codegen.template import Language, Template
from mkwrap.errors import InternalError, OptionError, UnsupportedDtypeError, UnsupportedOpError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol
from mkwrap.ir.nodes import Nest, Origin, Scan, Sort
from mkwrap.stages import Device, Kernel, Params, Rejected, Source, Variant
from mkwrap.targets.target import Target
from mkwrap.variants import MOST, render, variants


def _template(name: str, *spaces: Params) -> Template:
    def space(_kernel: Kernel, _device: Device) -> tuple[Params, ...]:
        return spaces

    def write(_kernel: Kernel, variant: Variant, _device: Device) -> Source:
        if name == "picky":
            raise UnsupportedDtypeError("no float64 here")
        return Source(variant, "cpp", variant.label, ())

    return Template(name, space, write)


def _target(*templates: Template) -> Target:
    return replace(target_of(), language=Language("cpp", templates))


def _tile(size: int) -> Params:
    return (("tile", size),)


def test_variants_come_in_the_order_of_templates_once_each() -> None:
    target = _target(_template("a", _tile(8), _tile(4), _tile(8)), _template("unfit"), _template("b", ()))
    candidates = variants(schedule_of(plus_one()), target)
    assert [v.label for v in candidates.variants["kernel0"]] == ["a[tile=8]", "a[tile=4]", "b"]


def test_the_cap_keeps_the_best_guess_of_every_template() -> None:
    target = _target(_template("a", *map(_tile, range(40))), _template("b", _tile(1), _tile(2)))
    labels = [v.label for v in variants(schedule_of(plus_one()), target).variants["kernel0"]]
    assert len(labels) == MOST
    assert labels[0] == "a[tile=0]"
    assert labels[-1] == "b[tile=1]"


def test_a_kernel_that_no_template_fits_is_a_defect() -> None:
    with pytest.raises(InternalError, match=r"kernel0 \(aten.add\)"):
        variants(schedule_of(plus_one()), _target(_template("unfit")))


def cumsum() -> Kernel:
    body = BodyBuilder()
    row = axis_symbol("r0")
    body.store("y", (row,), body.scan("sum", body.load("x", DType.FLOAT32, (row,)))[0])
    origins = (Origin("aten.cumsum.default", "model.py:3: x.cumsum(0)"),)
    nest = Nest("kernel0", (), axes((row, 8)), body.body(), origins)
    return kernel(nest, [buffer("x", DType.FLOAT32, (8,))], [buffer("y", DType.FLOAT32, (8,))])


def test_a_scan_goes_to_templates_that_write_scans() -> None:
    """Others are not asked: they might write the rest of the nest and leave the scan out."""
    able = replace(_template("able", ()), also=frozenset({Scan}))
    candidates = variants(schedule_of(cumsum()), _target(_template("plain", ()), able))
    assert [v.label for v in candidates.variants["kernel0"]] == ["able"]
    refused = r"aten.cumsum.default ×1: .* no kernel for a scan(.|\n)*model.py:3"
    for unfit in (_template("plain", ()), replace(_template("unfit"), also=frozenset({Scan, Sort}))):
        with pytest.raises(UnsupportedOpError, match=refused):
            variants(schedule_of(cumsum()), _target(unfit))


def test_forcing_what_does_not_exist_lists_what_does_before_anything_is_built() -> None:
    target = _target(_template("slow", ()), _template("fast", ()))
    variants(schedule_of(plus_one()), target, {"kernel0": "fast"})
    with pytest.raises(OptionError, match="'faster' of kernel0; its variants are: slow, fast"):
        variants(schedule_of(plus_one()), target, {"kernel0": "faster"})
    with pytest.raises(OptionError, match="the kernels are: kernel0"):
        variants(schedule_of(plus_one()), target, {"kernel7": "fast"})


def test_render_writes_every_variant_and_rejects_what_a_template_refuses() -> None:
    target = _target(_template("picky", ()), _template("a", _tile(8)))
    candidates = variants(schedule_of(plus_one()), target)
    refused, source = render(candidates, target)["kernel0"]
    assert refused == Rejected(Variant("kernel0", "picky"), "no float64 here")
    assert isinstance(source, Source)
    assert source.text == "a[tile=8]"
