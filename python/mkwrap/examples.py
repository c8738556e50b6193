"""The example call: its arguments, and the values of its tensors for stages that do without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from mkwrap.errors import CaptureError

_EXACT_TYPES = (torch.Tensor, torch.nn.Parameter)


def reader(samples: Mapping[str, torch.Tensor]) -> Callable[[str], npt.NDArray[np.generic] | None]:
    """Return a function from an input's name to its example's elements (bfloat16 as uint16 bits).

    It reads when asked: the tensors are not changed, and the array may share their memory. None for an unknown name and for
    tensors without values (fake, meta, subclasses).
    """

    def read(name: str) -> npt.NDArray[np.generic] | None:
        tensor = samples.get(name)
        if tensor is None or type(tensor) not in _EXACT_TYPES or tensor.device.type == "meta":
            return None
        values = tensor.detach().resolve_conj().resolve_neg().cpu()
        if values.dtype == torch.bfloat16:
            bits: npt.NDArray[np.generic] = values.view(torch.int16).numpy().view(np.uint16)
            return bits
        elements: npt.NDArray[np.generic] = values.numpy()
        return elements

    return read


def arguments(example_inputs: Sequence[object]) -> tuple[object, ...]:
    """Return the positional arguments of the example call; raises `CaptureError` for what is no tuple or list of them."""
    if not isinstance(example_inputs, tuple | list):
        raise CaptureError(
            f"example_inputs must be a tuple of the arguments, got a {type(example_inputs).__name__}; write (x,) for one"
        )
    return tuple(example_inputs)
