"""A device that is none: tensors that say ``simulated:0`` and refuse what an accelerator refuses.

Each wraps a tensor of the CPU, on which the arithmetic is done. An operation that is given a tensor
of either place raises ``MixedDevicesError``, with the exceptions that torch makes: numbers (tensors
without axes) in pointwise operations, indices, and copies. What an accelerator would have to wait
for (or make Python wait) is told to every ``watching()`` list: numbers read, shapes that depend on
values, solvers that look at their success, and copies from or to memory that is not pinned.

    with simulated.device() as there:
        net, x = net.to(there), x.to(there)
        with simulated.watching() as seen:
            net(x)
    print(seen)  # [("copy_", "networks/points/egnn.py:12"), ...]

Not simulated: streams, memory, speed, and the rounding of another machine.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import orbitwise

NAME = "simulated"
PACKAGE = str(Path(orbitwise.__file__).parent)

WAITS = frozenset(
    {
        "_linalg_eigh",
        "_linalg_svd",
        "_local_scalar_dense",
        "_unique2",
        "bincount",
        "equal",
        "is_nonzero",
        "linalg_cholesky_ex",
        "linalg_inv_ex",
        "masked_select",
        "nonzero",
        "unique_consecutive",
        "unique_dim",
        "_linalg_solve_ex",
    }
)
INDEXED = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})
# numbers of the CPU are welcome elsewhere, as in all pointwise operations
NO_NUMBERS = frozenset({"cat", "stack", "gather", "scatter", "index_select", "addmm", "bmm", "mm"})
MADE = (
    "arange",
    "arange.start",
    "arange.start_step",
    "eye",
    "eye.m",
    "linspace",
    "logspace",
    "randperm",
    "randperm.generator",
    "tril_indices",
    "triu_indices",
)
BOOLEAN = (torch.bool, torch.uint8)


class MixedDevicesError(RuntimeError):
    """Tensors of the CPU and of the simulated device met in one operation."""


class Wait(NamedTuple):
    """An operation for which Python or the device has to wait, and the line of the package."""

    operation: str
    place: str


_watchers: list[list[Wait]] = []
_pinned: set[int] = set()
_generators: dict[int, Any] = {}  # by address: operations are given another face of the same


@contextlib.contextmanager
def watching() -> Iterator[list[Wait]]:
    """The waits of what is done inside, in order."""
    seen: list[Wait] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


def place() -> str:
    """The innermost line of the package that is being run."""
    inside = [f for f in traceback.extract_stack() if f.filename.startswith(PACKAGE)]
    return f"{Path(inside[-1].filename).relative_to(PACKAGE)}:{inside[-1].lineno}" if inside else ""


def _tell(operation: str) -> None:
    if _watchers:
        wait = Wait(operation, place())
        for seen in _watchers:
            seen.append(wait)


# -- tensors ---------------------------------------------------------------------------------------


class Simulated(torch.Tensor):
    """``inner``, which is on the CPU, as a tensor of the device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Simulated:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _must_be_of_one_place(func, args, kwargs)
        _count(func, args, kwargs)
        device = kwargs.get("device")
        there = device is None or torch.device(device).type == NAME
        given = dict(kwargs) if device is None else kwargs | {"device": torch.device("cpu")}
        result = func(*tree_map(_inner, args), **tree_map(_inner, given))
        if func in (torch.ops.aten._to_copy.default,) and not there:
            return result
        written = [a for a in _written(func, args, kwargs) if a is not None]
        if written:
            assert all(w.shape == w.inner.shape for w in written if isinstance(w, Simulated)), func
            return written[0] if len(written) == 1 else tuple(written)
        return tree_map(_wrapped, result) if there else result

    def tolist(self) -> Any:
        _tell("tolist")
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(
                f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first."
            )
        return self.detach().cpu().numpy()

    def __getitem__(self, index: Any) -> torch.Tensor:
        return super().__getitem__(self._index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(self._index(index), value)

    def _index(self, index: Any) -> Any:
        """With lists as tensors of the device, which is what torch makes of them: a copy each."""
        parts = index if isinstance(index, tuple) else (index,)
        found = tuple(
            torch.tensor(p, device=self.device) if isinstance(p, list | tuple | range) else p
            for p in parts
        )
        return found if isinstance(index, tuple) else found[0]

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        return torch.tensor(data, **({"dtype": self.dtype, "device": self.device} | options))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def __repr__(self, **_: Any) -> str:
        return f"Simulated({self.inner!r})"


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Simulated) else value


def _wrapped(value: Any) -> Any:
    plain = isinstance(value, torch.Tensor) and not isinstance(value, Simulated)
    return Simulated(value) if plain else value


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that ``func`` answers with after writing to them, in order of its returns."""
    names = [a.name for a in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    aliases = {
        next(iter(a.alias_info.before_set)): given.get(a.name)
        for a in func._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write and a.alias_info.before_set
    }
    return [
        aliases.get(next(iter(r.alias_info.before_set)))
        for r in func._schema.returns
        if r.alias_info is not None and r.alias_info.is_write and r.alias_info.before_set
    ]


def _must_be_of_one_place(func: Any, args: Any, kwargs: Any) -> None:
    name = func.overloadpacket.__name__
    if name in ("copy_", "_to_copy"):
        return
    if name in INDEXED and isinstance(args[0], Simulated):
        args = (args[0], *args[2:])  # indices may be of the CPU, which is a wait
    given, _ = tree_flatten((args, kwargs))
    for value in given:
        if isinstance(value, torch.Generator):
            if value._cdata not in _generators:
                raise MixedDevicesError(f"{func}: a generator of {value.device}, not {NAME}:0")
        elif (
            isinstance(value, torch.Tensor)
            and not isinstance(value, Simulated)
            and (value.ndim or name in NO_NUMBERS)
        ):
            raise MixedDevicesError(
                f"{func}: a tensor {tuple(value.shape)} of {value.device} beside {NAME}:0"
                f" at {place()}"
            )


def _count(func: Any, args: Any, kwargs: Any) -> None:
    name = func.overloadpacket.__name__
    if name == "copy_":
        other = args[1] if isinstance(args[0], Simulated) else args[0]
        if not isinstance(other, Simulated):
            unpinned = other.untyped_storage().data_ptr() not in _pinned
            blocks = not (len(args) > 2 and args[2]) or unpinned
            if blocks and other.numel():
                _tell("copy_")
    elif name == "_to_copy":
        if torch.device(kwargs.get("device") or NAME).type != NAME:
            _tell("to_cpu")
    elif name in INDEXED:
        indices = [i for i in args[1] if i is not None]
        if any(i.dtype in BOOLEAN or not isinstance(i, Simulated) for i in indices):
            _tell(name)
    elif name in WAITS:
        _tell(name)


# -- the device ------------------------------------------------------------------------------------


class _Module:
    """What torch asks ``torch.simulated`` for."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None: ...

    def device_count(self) -> int:
        return 1

    def get_rng_state(self, device: Any = 0) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = 0) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


@functools.cache
def register() -> None:
    """Once per process, before its first backward: torch has one place for a device of someone
    else's, and counts devices when the engine of autograd starts."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")

    def empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Simulated:
        return Simulated(torch.empty(size, dtype=dtype))

    def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Simulated:
        return Simulated(torch.empty_strided(size, stride, dtype=dtype))

    def made_on_the_cpu(make: Callable[..., torch.Tensor], *args: Any, **options: Any) -> Simulated:
        kept = {k: v for k, v in options.items() if k in ("dtype", "generator")}
        return Simulated(make(*args, **kept))

    for name in MADE:  # those of torch write to a tensor that they first make larger
        make = getattr(torch.ops.aten, name.split(".")[0])
        library.impl(name, functools.partial(made_on_the_cpu, make), "PrivateUse1")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    _kept.append(library)


_kept: list[Any] = []  # a library that is forgotten takes its operations with it


class _AnyGenerator(type(torch._C.Generator)):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, torch._C.Generator)


class _Generator(torch._C.Generator, metaclass=_AnyGenerator):
    """A generator of the CPU that says it is of ``device``."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls)
        made._device = torch.device(device)
        if made._device.type == NAME:
            _generators[made._cdata] = made
        return made

    @property
    def device(self) -> torch.device:
        where = self._device
        return torch.device(NAME, 0) if where.type == NAME else where


def _on_the_cpu_first(make: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.tensor`` and its like: a tensor of the CPU, then copied."""

    @functools.wraps(make)
    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        if device is None or torch.device(device).type != NAME:
            return make(data, *args, device=device, **kwargs)
        if isinstance(data, Simulated):
            return make(data, *args, **kwargs)
        return make(data, *args, **kwargs).to(device)

    return made


def _pin(self: torch.Tensor, device: Any = None) -> torch.Tensor:
    pinned = self.clone()
    _pinned.add(pinned.untyped_storage().data_ptr())
    return pinned


@contextlib.contextmanager
def device() -> Iterator[torch.device]:
    """The simulated device, with what of torch has to know of it."""
    register()
    with (
        mock.patch.object(torch, "tensor", _on_the_cpu_first(torch.tensor)),
        mock.patch.object(torch, "as_tensor", _on_the_cpu_first(torch.as_tensor)),
        mock.patch.object(torch, "asarray", _on_the_cpu_first(torch.asarray)),
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(torch.Tensor, "pin_memory", _pin),
    ):
        yield torch.device(NAME, 0)
