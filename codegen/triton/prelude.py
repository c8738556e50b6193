"""Device functions that generated modules define for themselves where they use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# All lanes name the same word, and only those that are bad write it.
_REPORT = """\
@triton.jit
def report(fault, bad):
    tl.store(fault + tl.where(bad, 0, 0), 1, bad)
"""

_FLOORDIV_INT = """\
@triton.jit
def floordiv_int(a, b):
    q = a // b
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), q - 1, q)
"""

_MOD_INT = """\
@triton.jit
def mod_int(a, b):
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)
"""

# As Python's float floor division: the remainder makes the quotient exact before it is rounded.
_FLOORDIV_FLOAT = """\
@triton.jit
def floordiv_float(a, b):
    r = libdevice.fmod(a, b)
    q = (a - r) / b
    q = tl.where((r != 0) & ((b < 0) != (r < 0)), q - 1.0, q)
    whole = tl.floor(q)
    whole = tl.where(q - whole > 0.5, whole + 1.0, whole)
    return tl.where(b == 0, a / b, tl.where(q == 0, libdevice.copysign(q, a / b), whole))
"""

_MOD_FLOAT = """\
@triton.jit
def mod_float(a, b):
    r = libdevice.fmod(a, b)
    return tl.where((r != 0) & ((b < 0) != (r < 0)), r + b, r)
"""

# A shift by the width or more, or by less than 0, gives 0 (left, unsigned right) or the sign (signed right).
_SHL = """\
@triton.jit
def shl(a, b, width: tl.constexpr):
    inside = (b >= 0) & (b < width)
    return tl.where(inside, a << tl.where(inside, b, 0), 0)
"""

_SHR_INT = """\
@triton.jit
def shr_int(a, b, width: tl.constexpr):
    return a >> tl.where((b >= 0) & (b < width), b, width - 1)
"""

_SHR_UINT = """\
@triton.jit
def shr_uint(a, b, width: tl.constexpr):
    inside = b < width
    return tl.where(inside, a >> tl.where(inside, b, 0), 0)
"""

# Reflection (DLMF 5.5.4), ten steps of recurrence (5.5.2), then the asymptotic series (5.11.2).
_DIGAMMA = """\
@triton.jit
def digamma(a):
    reflected = a < 0.5
    x = tl.where(reflected, 1.0 - a, a)
    shift = tl.where(reflected, 0.0, 0.0).to(a.dtype)
    for _ in tl.static_range(10):
        low = x < 10.0
        shift = tl.where(low, shift - 1.0 / x, shift)
        x = tl.where(low, x + 1.0, x)
    y = 1.0 / (x * x)
    series = 0.003968253968253968 - y * (0.004166666666666667 - y * (0.007575757575757576 - y * (
        0.021092796092796094 - y * 0.08333333333333333)))
    series = y * (0.08333333333333333 - y * (0.008333333333333333 - y * series))
    value = libdevice.log(x) - 0.5 / x - series + shift
    turned = 3.141592653589793 * (a - libdevice.rint(a))
    value = tl.where(reflected, value - 3.141592653589793 / libdevice.tan(turned), value)
    value = tl.where((a < 0) & (tl.floor(a) == a), float("nan"), value)
    return tl.where(a == 0, libdevice.copysign(float("inf") + a, a * -1.0), value)
"""

_ADD = """\
@triton.jit
def add(a, b):
    return a + b
"""

_MULTIPLY = """\
@triton.jit
def multiply(a, b):
    return a * b
"""

_MAXIMUM_FLOAT = """\
@triton.jit
def maximum_float(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
"""

_MINIMUM_FLOAT = """\
@triton.jit
def minimum_float(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
"""

_MAXIMUM_INT = """\
@triton.jit
def maximum_int(a, b):
    return tl.maximum(a, b)
"""

_MINIMUM_INT = """\
@triton.jit
def minimum_int(a, b):
    return tl.minimum(a, b)
"""


# erf(x)/x as a polynomial in x² − c over |x| ≤ √(2c), beyond which erf rounds to ±1; the shift keeps all terms small.
# Coefficients: weighted least squares at Chebyshev points, weights raised where the relative error was largest
# (Lawson 1961); 2.5e-8 before rounding, 2.2 ulp in float32. No branch, no division, unlike the C library's.
_ERF_LIMIT, _ERF_CENTRE = 3.92, 7.6832
_ERF = (
    0.360736817,
    -0.0234418772,
    0.00227140449,
    -0.000240720779,
    2.59983117e-05,
    -2.76463197e-06,
    2.83877e-07,
    -2.74829475e-08,
    2.44559173e-09,
    -2.14310611e-10,
    1.98230529e-11,
    -1.39088708e-12,
    4.53725124e-14,
    -4.28939179e-15,
    8.40178439e-16,
    -4.39710817e-17,
)


def _erf_fast() -> str:
    lines = [f"p = tl.full([], {_ERF[-1]}, tl.float32)"]
    lines += [f"p = tl.fma(p, u, tl.full([], {value}, tl.float32))" for value in reversed(_ERF[:-1])]
    steps = "\n    ".join(lines)
    return f"""\
@triton.jit
def erf_fast(a):
    x = tl.clamp(a, -{_ERF_LIMIT}, {_ERF_LIMIT}, propagate_nan=tl.PropagateNan.ALL)
    u = tl.fma(x, x, tl.full([], -{_ERF_CENTRE}, tl.float32))
    {steps}
    return x * p
"""


def _extremum(name: str, better: str) -> str:
    # NaN beats all numbers; equal values and two NaNs keep the lower position.
    return f"""\
@triton.jit
def {name}(a, i, b, j):
    first = ({better}) | ((a != a) & (b == b))
    same = (a == b) | ((a != a) & (b != b))
    keep = first | (same & (i < j))
    return tl.where(keep, a, b), tl.where(keep, i, j)
"""


# Chan, Golub, LeVeque (1983): merge (mean, sum of squared deviations, count) of two parts; empty parts count 0.
_WELFORD = """\
@triton.jit
def welford(mean_a, m2_a, count_a, mean_b, m2_b, count_b):
    count = count_a + count_b
    share = tl.where(count == 0, 0.0, count_b / count)
    delta = mean_b - mean_a
    return mean_a + delta * share, m2_a + m2_b + delta * delta * count_a * share, count
"""


def _exp_sum(name: str, exp: str) -> str:
    # Equal maxima, infinite ones included, are 0 apart; of two that are not, the sum below the lower one shrinks.
    return f"""\
@triton.jit
def {name}(max_a, sum_a, max_b, sum_b):
    apart = tl.where(max_a == max_b, 0.0, max_a - max_b)
    share = {exp}(-tl.abs(apart))
    total = tl.where(apart > 0, sum_a + sum_b * share, sum_a * share + sum_b)
    return tl.maximum(max_a, max_b, propagate_nan=tl.PropagateNan.ALL), total
"""


def _latest(name: str, better: str) -> str:
    # Of equal values the later is kept; once a NaN was met, only another NaN takes its place.
    return f"""\
@triton.jit
def {name}(a, i, b, j):
    take = (b != b) | ((a == a) & ({better}))
    return tl.where(take, b, a), tl.where(take, j, i)
"""


# Two infinities of one sign have no difference. In float32 a scan spells this out many times, so it has to be short:
# log(1 + e) = 2 artanh(e / (2 + e)) for e = exp(-|a - b|) in 0 … 1 (DLMF 4.38.5, 6 terms: 2e-8 relative).
_LOGADDEXP = """\
@triton.jit
def logaddexp(a, b):
    low = tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
    high = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    same = (low == high) & (tl.abs(low) == float("inf"))
    e = tl.exp(low - high)
    s = e / (2.0 + e)
    t = s * s
    series = 0.1111111111111111 + t * (0.09090909090909091 + t * 0.07692307692307693)
    series = 1.0 + t * (0.3333333333333333 + t * (0.2 + t * (0.14285714285714285 + t * series)))
    return tl.where(same, high, high + 2.0 * s * series)
"""

_LOGADDEXP_DOUBLE = """\
@triton.jit
def logaddexp_double(a, b):
    low = tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
    high = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    same = (low == high) & (tl.abs(low) == float("inf"))
    return tl.where(same, high, high + libdevice.log1p(libdevice.exp(low - high)))
"""

_EXCLUSIVE_OR = """\
@triton.jit
def exclusive_or(a, b):
    return a ^ b
"""

# Words `stride` apart within blocks of `size` change places where they stand in the wrong order; every other block is
# sorted downwards. A lane meets its partner through the exclusive or of both, which needs no gather.
_SORT_STEP = """\
@triton.jit
def sort_step(word, ROWS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, STRIDE: tl.constexpr):
    COUNT: tl.constexpr = ROWS * WIDTH // (2 * STRIDE)
    own = tl.reshape(word, [COUNT, 2, STRIDE])
    other = own ^ tl.reduce(own, 1, exclusive_or, keep_dims=True)
    down = ((tl.arange(0, COUNT) * (2 * STRIDE)) % WIDTH & SIZE) != 0
    larger = down[:, None, None] ^ (tl.arange(0, 2) != 0)[None, :, None]
    return tl.reshape(tl.where((own < other) == larger, other, own), [ROWS, WIDTH])
"""

_SORT_WORDS = """\
@triton.jit
def sort_words(word, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr):
    for size in tl.static_range(1, STEPS + 1):
        for back in tl.static_range(1, size + 1):
            word = sort_step(word, ROWS, WIDTH, 2**size, 2 ** (size - back))
    return word
"""

_SORT_PAIR_STEP = """\
@triton.jit
def sort_pair_step(key, place, ROWS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, STRIDE: tl.constexpr):
    COUNT: tl.constexpr = ROWS * WIDTH // (2 * STRIDE)
    own = tl.reshape(key, [COUNT, 2, STRIDE])
    at = tl.reshape(place, [COUNT, 2, STRIDE])
    other = own ^ tl.reduce(own, 1, exclusive_or, keep_dims=True)
    other_at = at ^ tl.reduce(at, 1, exclusive_or, keep_dims=True)
    down = ((tl.arange(0, COUNT) * (2 * STRIDE)) % WIDTH & SIZE) != 0
    larger = down[:, None, None] ^ (tl.arange(0, 2) != 0)[None, :, None]
    take = ((own < other) | ((own == other) & (at < other_at))) == larger
    return tl.reshape(tl.where(take, other, own), [ROWS, WIDTH]), tl.reshape(tl.where(take, other_at, at), [ROWS, WIDTH])
"""

_SORT_PAIRS = """\
@triton.jit
def sort_pairs(key, place, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr):
    for size in tl.static_range(1, STEPS + 1):
        for back in tl.static_range(1, size + 1):
            key, place = sort_pair_step(key, place, ROWS, WIDTH, 2**size, 2 ** (size - back))
    return key, place
"""

PRELUDE: Mapping[str, str] = {
    "report": _REPORT,
    "floordiv_int": _FLOORDIV_INT,
    "mod_int": _MOD_INT,
    "floordiv_float": _FLOORDIV_FLOAT,
    "mod_float": _MOD_FLOAT,
    "shl": _SHL,
    "shr_int": _SHR_INT,
    "shr_uint": _SHR_UINT,
    "digamma": _DIGAMMA,
    "erf_fast": _erf_fast(),
    "add": _ADD,
    "multiply": _MULTIPLY,
    "maximum_int": _MAXIMUM_INT,
    "minimum_int": _MINIMUM_INT,
    "maximum_float": _MAXIMUM_FLOAT,
    "minimum_float": _MINIMUM_FLOAT,
    "argmax": _extremum("argmax", "a > b"),
    "argmin": _extremum("argmin", "a < b"),
    "welford": _WELFORD,
    "exp_sum": _exp_sum("exp_sum", "libdevice.exp"),
    "exp_sum_fast": _exp_sum("exp_sum_fast", "tl.exp"),
    "latest_maximum": _latest("latest_maximum", "b >= a"),
    "latest_minimum": _latest("latest_minimum", "b <= a"),
    "logaddexp": _LOGADDEXP,
    "logaddexp_double": _LOGADDEXP_DOUBLE,
    "exclusive_or": _EXCLUSIVE_OR,
    "sort_step": _SORT_STEP,
    "sort_words": _SORT_WORDS,
    "sort_pair_step": _SORT_PAIR_STEP,
    "sort_pairs": _SORT_PAIRS,
}
"""Name → definition, in the order they are written."""


def definitions(needs: Iterable[str]) -> tuple[str, ...]:
    """Return the definitions of the named functions, in the prelude's order."""
    wanted = set(needs)
    return tuple(text for name, text in PRELUDE.items() if name in wanted)
