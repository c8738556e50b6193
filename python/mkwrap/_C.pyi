"""Compiled parts of mkwrap: loaded models and timing. Importing this module imports neither torch nor numpy."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, final

from typing_extensions import Buffer

__version__: str

# ── loaded models ─────────────────────────────────────────────────────────────────────────────────────────────────────

class TensorInfo(NamedTuple):
    """What a library says of one tensor it takes or gives. A size or stride that is dynamic is −1."""

    name: str
    path: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    alignment: int
    mutated: bool

class Model:
    """A loaded library on one device, with a pool of contexts: one per call in flight.

    A call with as many positional arguments as the library has inputs takes them as its inputs in order and returns
    fresh tensors as `flat` says. Any other call, and every call where `flat` is "none", goes to
    `self.nested(args, kwargs)`.
    """

    def __init__(self, file: int, path: str, exchange: bool = True) -> None:
        """Load the library behind a file descriptor (duplicated); `path` is for messages.

        `exchange`: use DLPack's C exchange API where torch has it. Raises `LibraryFormatError`.
        """
    def __call__(self, *args: object, **kwargs: object) -> Any: ...  # noqa: ANN401 — as any function may return
    def create(self, device: int) -> None:
        """Create the model on a device ordinal; the first call does it where its first input lives.

        Raises `DriverError` or `ArchitectureError`.
        """
    def nested(self, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Answer a call that is not flat: a subclass defines this."""
    def run(self, tensors: tuple[object, ...]) -> tuple[object, ...]:
        """Run on the library's inputs in order; returns its output buffers as new tensors."""
    def run_into(self, tensors: tuple[object, ...], outputs: tuple[object, ...]) -> None:
        """Run on the library's inputs in order, writing into the caller's output tensors."""
    def scratch_bytes(self, tensors: tuple[object, ...]) -> int:
        """Return the bytes of scratch memory that a run on these inputs needs; the inputs are checked."""
    def elected(self, tensors: tuple[object, ...]) -> tuple[int, ...]:
        """Return, per kernel of the library, the number of the alternative that a run on these inputs uses.

        Kernels are in the manifest's order (each once, whatever the number of targets), alternatives are numbered as there.
        """
    def use_weights(self, source: Model) -> None:
        """Let every call that begins from now on use the constants of `source`, a model of the same program.

        The same function, compiled for the same example inputs and with the same choices, but with other parameters.
        Calls under way keep the weights they began with, and so do captured CUDA graphs; no call waits, and none sees a
        mixture. May be called while other threads call the model, not while a stream is captured. Raises `WeightsError`
        for another program, `DriverError`, and what `synchronize` raises (the new weights are in use then).
        """
    def synchronize(self) -> None:
        """Wait until the device has done all work given to it, then raise, once, what earlier calls of this model met.

        Raises `IndexRangeError` where a kernel on a GPU read an index out of range, which a call does not wait for; the
        next call on the same stream raises it, too. A call on the CPU raises it itself. Raises `DriverError`.
        """
    flat: Literal["none", "single", "tuple", "list"]
    @property
    def manifest_text(self) -> str: ...
    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...
    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...
    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch that a context needs at most, −1 where sizes have no bounds; 0 before the model is created."""
    @property
    def constant_bytes(self) -> int: ...
    @property
    def device_type(self) -> Literal["cpu", "cuda"]: ...
    @property
    def contexts(self) -> int:
        """How many contexts exist: the largest number of calls that were in flight at once."""
    @property
    def file(self) -> int:
        """The descriptor of the library's file, open as long as the model lives."""
    @property
    def exchange(self) -> bool:
        """Whether tensors cross through DLPack's C exchange API."""

# ── values of a contest ───────────────────────────────────────────────────────────────────────────────────────────────

@final
class Reference:
    """A right result, and how near others must come; compared in one pass, on several threads.

    Right are equal bytes; floats that are equal, or both NaN, or nearer to a finite one than `relative` times the larger of
    it and the root mean square of the finite right ones.
    """

    def __init__(self, dtype: str, expected: Buffer, relative: float) -> None:
        """Hold contiguous bytes, which must not change; `relative`: difference of floats that is still right.

        Raises ValueError for an unknown dtype or bytes that are no whole elements.
        """
    def compare(self, got: Buffer) -> tuple[int, int]:
        """Return how many elements are wrong and the index of the first; raises ValueError for another size."""

def fill_normal(data: Buffer, dtype: str, seed: int) -> None:
    """Fill writable memory with floats of nearly N(0, 1) (within ±3.46); equal seeds give equal values."""

def fill_uniform(data: Buffer, dtype: str, low: int, high: int, seed: int) -> None:
    """Fill writable memory with integers in low … high − 1; raises ValueError for an empty range."""

# ── timing on the CPU ─────────────────────────────────────────────────────────────────────────────────────────────────

Region: TypeAlias = tuple[int, int]
"""Address and bytes."""

@final
class CpuKernel:
    """One entry `int32_t entry(void* const* args, const int64_t* sizes)` of a shared object, and what to call it with.

    `args` holds one or more argument lists (addresses); call i uses list i modulo their number, so that rotating
    buffers larger than the cache measures cold memory. `zero` regions are zeroed before every call, inside the timed
    region, as the library does it. The memory stays the caller's and must outlive the object.
    """

    def __init__(
        self,
        path: str,
        entry: str,
        args: Sequence[Sequence[int]],
        sizes: Sequence[int] = (),
        zero: Sequence[Region] = (),
        offset: int = 0,
    ) -> None:
        """Load path with RTLD_LOCAL; raises `CompilerError` if it or the entry cannot be loaded.

        `offset`: bytes from the symbol `entry` to the code, for code that is not exported.
        """
    def run(self, which: int = 0) -> int:
        """Call once with argument list `which`; returns the kernel's status (1: an index was out of range)."""

def time_cpu(
    kernels: Sequence[CpuKernel],
    rounds: int,
    batch_us: float = 200.0,
    calls: Sequence[int] = (),
    restore: Sequence[tuple[int, int, int]] = (),
    pin: Sequence[int] = (),
) -> list[list[float]]:
    """Time kernels in interleaved rounds; returns per kernel `rounds` samples: microseconds per call.

    In each round every kernel runs one untimed call, then a timed batch of `calls[k]` calls; where `calls` is empty the
    number is chosen once per kernel so that a batch lasts about `batch_us`. `restore` (destination, source, bytes)
    copies are made before each batch, untimed. `pin`: CPUs this thread is bound to meanwhile (OpenMP threads that exist
    already keep theirs). The interpreter lock is released; nothing is allocated between the first and the last sample.
    """

# ── CUDA, without torch ───────────────────────────────────────────────────────────────────────────────────────────────

class CudaDevice(NamedTuple):
    """A CUDA device as its driver describes it; sizes in bytes."""

    ordinal: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_optin_bytes: int
    l2_bytes: int
    memory_bytes: int
    driver_version: int
    """As cuDriverGetVersion gives it: 13000 is 13.0."""

def cuda_devices() -> list[CudaDevice]:
    """Return the CUDA devices of this machine; empty where there is no driver or no device."""

CudaArgument: TypeAlias = tuple[Literal["ptr", "i32", "i64"], int]

@final
class CudaLaunch:
    """One kernel launch with its arguments bound. Keeps its function and context alive."""

@final
class CudaFunction:
    """A function of a loaded cubin. Keeps its module and context alive."""

    @property
    def registers(self) -> int: ...
    @property
    def local_bytes(self) -> int:
        """Bytes of local memory per thread: spills and stack."""
    def launch(
        self, grid: tuple[int, int, int], threads: int, shared_bytes: int, args: Sequence[CudaArgument]
    ) -> CudaLaunch:
        """Bind a launch; the arguments include Triton's trailing scratch pointers where the kernel has them."""

CudaFill: TypeAlias = tuple[int, int, int]
"""Address, byte value, bytes: a memset in a run."""
CudaRun: TypeAlias = Sequence[CudaLaunch | CudaFill]
"""One use of a kernel: its launches and memsets in order."""

@final
class CudaContext:
    """The primary context of a device, a private stream, and the memory allocated through it (freed with it)."""

    def __init__(self, ordinal: int = 0) -> None:
        """Retain the primary context; raises `DriverError` where there is no driver, device or memory."""
    def allocate(self, nbytes: int) -> int:
        """Allocate device memory; returns its address, a multiple of 256."""
    def free(self, address: int) -> None: ...
    def upload(self, address: int, data: Buffer) -> None:
        """Copy contiguous host memory to the device and wait."""
    def download(self, address: int, data: Buffer) -> None:
        """Copy from the device to writable contiguous host memory and wait."""
    def fill(self, address: int, value: int, nbytes: int) -> None:
        """Set bytes and wait."""
    def copy(self, destination: int, source: int, nbytes: int) -> None:
        """Copy within the device and wait."""
    def repeat(self, address: int, period: int, nbytes: int) -> None:
        """Repeat the first `period` bytes at an address up to `nbytes` and wait."""
    def compare(self, address: int, expected: Reference) -> tuple[int, int]:
        """Compare device memory with a reference of its size, piece by piece through page-locked memory; see there."""
    def load(self, cubin: bytes, entry: str, shared_bytes: int = 0) -> CudaFunction:
        """Load an image; asks for the dynamic shared memory opt-in where shared_bytes needs it."""
    def run(self, run: CudaRun) -> None:
        """Do one run and wait."""

@final
class CudaReplay:
    """A CUDA graph of `unroll` runs, ready to replay. Keeps launches and context alive."""

    def __init__(self, context: CudaContext, runs: Sequence[CudaRun], unroll: int) -> None:
        """Capture; run k is entry k modulo the number of `runs`, so that buffers can be rotated past the L2.

        Raises `DriverError`, and ValueError for no runs.
        """

def time_cuda(
    context: CudaContext,
    replays: Sequence[CudaReplay],
    rounds: int,
    restore: Sequence[tuple[int, int, int]] = (),
) -> list[list[float]]:
    """Time replays in interleaved rounds; returns per replay `rounds` samples: microseconds per run.

    A sample is one replay between two events, divided by its runs. An untimed replay goes before; between the two,
    untimed: the `restore` copies (destination, source, bytes).
    """
