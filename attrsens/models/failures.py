"""What can go wrong inside somebody else's network, in one line."""

from __future__ import annotations

import copy

import torch
from torch import nn

from attrsens.errors import AttrsensError, InputError


def explained(error: BaseException, name: str, what: str) -> BaseException:
    """Somebody else's exception as one line; running out of memory stays what it is."""
    if isinstance(error, AttrsensError) or is_memory(error):
        return error
    first = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return InputError(f"model {name} {what}: {first}")


def copied(module: nn.Module, name: str) -> nn.Module:
    """A copy of a network.

    Raises:
        AttrsensError: it cannot be copied.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:  # old hooks and the like
        first = (str(error).splitlines() or [""])[0]
        raise AttrsensError(f"model {name} cannot be copied ({first}); hand it over with copy_module=False") from None


def is_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in any of the words that torch has for it."""
    texts = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(t in str(error) for t in texts)
