"""Machine code for one thing done to many: a number of the program is a vector with one lane for
each member of a block, and arithmetic in Python writes the instructions.

Every lane is computed as if alone: a NaN stays in its lane. The instructions may be fused and a
quotient taken by a reciprocal (``FAST``); NaN and infinity keep their meaning.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

FAST = ("contract", "arcp", "afn", "nsz")
WORD = ir.IntType(64)
POINTER = ir.PointerType()
BYTES = {"float": 4, "double": 8}


class Number:
    """An integer, or a vector of one real per lane. ``+ - * / abs`` with its like or a Python
    number."""

    def __init__(self, code: Code, value: ir.Value):
        self.code, self.value = code, value

    def _apply(self, name: str, left: Any, right: Any) -> Number:
        a, b = self._like(left), self._like(right)
        if self.value.type == WORD:
            return Number(self.code, getattr(self.code.builder, name)(a, b))
        return Number(self.code, getattr(self.code.builder, f"f{name}")(a, b, flags=FAST))

    def _like(self, other: Any) -> ir.Value:
        if isinstance(other, Number):
            return other.value
        kind = self.value.type
        return ir.Constant(kind, other if kind == WORD else [float(other)] * self.code.width)

    def __add__(self, other: Any) -> Number:
        return self._apply("add", self, other)

    def __sub__(self, other: Any) -> Number:
        return self._apply("sub", self, other)

    def __mul__(self, other: Any) -> Number:
        return self._apply("mul", self, other)

    def __truediv__(self, other: Any) -> Number:
        return self._apply("div", self, other)

    def __rsub__(self, other: Any) -> Number:
        return self._apply("sub", other, self)

    def __rtruediv__(self, other: Any) -> Number:
        return self._apply("div", other, self)

    __radd__, __rmul__ = __add__, __mul__

    def __abs__(self) -> Number:
        return self.code.intrinsic("fabs", self)

    def sqrt(self) -> Number:
        return self.code.intrinsic("sqrt", self)

    def __lt__(self, bound: float) -> ir.Value:
        return self.code.builder.fcmp_ordered("<", self.value, self._like(bound))

    def __gt__(self, bound: float) -> ir.Value:
        return self.code.builder.fcmp_ordered(">", self.value, self._like(bound))

    def where(self, chosen: ir.Value, other: Any) -> Number:
        """``other`` in the lanes of a comparison that are true; a NaN is neither above nor
        below."""
        value = self.code.builder.select(chosen, self._like(other), self.value)
        return Number(self.code, value)

    def clamp(self, low: float | None = None, high: float | None = None) -> Number:
        found = self if low is None else self.where(self < low, low)
        return found if high is None else found.where(found > high, high)


class Code:
    """A function under construction, in ``real`` ("float" or "double") and ``width`` lanes.

    ``pointers`` to memory and then one integer are its arguments.
    """

    def __init__(self, real: str, width: int, pointers: int):
        self.scalar = ir.FloatType() if real == "float" else ir.DoubleType()
        self.vector, self.width = ir.VectorType(self.scalar, width), width
        self.suffix = f"v{width}f{8 * BYTES[real]}"
        self.module = ir.Module()
        kind = ir.FunctionType(ir.VoidType(), [POINTER] * pointers + [WORD])
        self.function = ir.Function(self.module, kind, "kernel")
        self.entry = self.function.append_basic_block()
        self.builder = ir.IRBuilder(self.function.append_basic_block())
        self.start = self.builder.block

    @property
    def arguments(self) -> tuple[list[ir.Value], Number]:
        *pointers, count = self.function.args
        return pointers, Number(self, count)

    def integer(self, value: int) -> Number:
        return Number(self, ir.Constant(WORD, value))

    def zero(self) -> Number:
        return Number(self, ir.Constant(self.vector, [0.0] * self.width))

    def intrinsic(self, name: str, *given: Number) -> Number:
        name = f"llvm.{name}.{self.suffix}"
        function = self.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(self.vector, [self.vector] * len(given))
            function = ir.Function(self.module, kind, name)
        call = self.builder.call(function, [g.value for g in given], fastmath=FAST)
        return Number(self, call)

    def smaller(self, a: Number, b: Number) -> Number:
        """Of two integers."""
        chosen = self.builder.icmp_signed("<", a.value, b.value)
        return Number(self, self.builder.select(chosen, a.value, b.value))

    @contextmanager
    def loop(self, begin: Number | int, end: Number) -> Iterator[Number]:
        """The instructions written inside, for every integer from ``begin`` to below ``end``."""
        builder = self.builder
        begin = self.integer(begin) if isinstance(begin, int) else begin
        before = builder.block
        head, body, after = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(WORD)
        index.add_incoming(begin.value, before)
        builder.cbranch(builder.icmp_signed("<", index, end.value), body, after)
        builder.position_at_end(body)
        yield Number(self, index)
        index.add_incoming((Number(self, index) + 1).value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)

    def address(self, base: ir.Value, offset: Number, kind: ir.Type | None = None) -> ir.Value:
        """``offset`` scalars (or ``kind``) behind ``base``."""
        return self.builder.gep(base, [offset.value], source_etype=kind or self.scalar)

    def word(self, base: ir.Value, offset: Number) -> Number:
        """The integer that stands ``offset`` integers behind ``base``."""
        return Number(self, self.builder.load(self.address(base, offset, WORD), typ=WORD))

    def spread(self, base: ir.Value, offset: Number) -> Number:
        """The real that stands there, in every lane."""
        one = self.builder.load(self.address(base, offset), typ=self.scalar)
        first = self.builder.insert_element(
            ir.Constant(self.vector, ir.Undefined), one, ir.Constant(ir.IntType(32), 0)
        )
        order = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return Number(self, self.builder.shuffle_vector(first, first, order))

    def gather(self, base: ir.Value, offsets: Sequence[Number]) -> Number:
        """One real from a place of its own for every lane."""
        found = ir.Constant(self.vector, ir.Undefined)
        for lane, offset in enumerate(offsets):
            one = self.builder.load(self.address(base, offset), typ=self.scalar)
            found = self.builder.insert_element(found, one, ir.Constant(ir.IntType(32), lane))
        return Number(self, found)

    def scatter(self, value: Number, base: ir.Value, offsets: Sequence[Number]) -> None:
        for lane, offset in enumerate(offsets):
            one = self.builder.extract_element(value.value, ir.Constant(ir.IntType(32), lane))
            self.builder.store(one, self.address(base, offset))

    def sum(self) -> Sum:
        return Sum(self)

    def compile(self) -> Callable[..., None]:
        """The function, for addresses and an integer; the interpreter's lock is free while it
        runs."""
        self.builder.ret_void()
        with self.builder.goto_block(self.entry):
            self.builder.branch(self.start)

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features().flatten()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True
        )
        module = llvm.parse_assembly(str(self.module))
        tuning = llvm.create_pipeline_tuning_options(speed_level=2)
        passes = llvm.create_pass_builder(machine, tuning)
        passes.getModulePassManager().run(module, passes)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()

        count = len(self.function.args)
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (count - 1), ctypes.c_int64)
        function = kind(engine.get_function_address("kernel"))
        function.engine = engine  # the code lives as long as its engine
        return function


class Sum:
    """A vector that grows in loops."""

    def __init__(self, code: Code):
        self.code = code
        with code.builder.goto_block(code.entry):  # once, however often the loop about it runs
            self.place = code.builder.alloca(code.vector)
        self.clear()

    def clear(self) -> None:
        self.code.builder.store(self.code.zero().value, self.place)

    def add(self, value: Number) -> None:
        self.code.builder.store((self.value + value).value, self.place)

    @property
    def value(self) -> Number:
        return Number(self.code, self.code.builder.load(self.place, typ=self.code.vector))


class Rows:
    """Memory of vectors in rows of ``size``: ``rows[i, 2:5]`` reads a list of them, assignment
    writes it, ``add`` adds to it."""

    def __init__(self, code: Code, base: ir.Value, begin: Number, size: int):
        self.code, self.base, self.begin, self.size = code, base, begin, size
        self.align = BYTES[str(code.scalar)]

    def _places(self, row: Number, columns: slice) -> list[ir.Value]:
        first = (self.begin + row * self.size) * self.code.width
        offsets = [k * self.code.width for k in range(self.size)[columns]]
        return [self.code.address(self.base, first + offset) for offset in offsets]

    def __getitem__(self, key: tuple[Number, slice]) -> list[Number]:
        load, kind = self.code.builder.load, self.code.vector
        return [
            Number(self.code, load(place, typ=kind, align=self.align))
            for place in self._places(*key)
        ]

    def __setitem__(self, key: tuple[Number, slice], values: Sequence[Number]) -> None:
        for place, value in zip(self._places(*key), values, strict=True):
            self.code.builder.store(value.value, place, align=self.align)

    def add(self, row: Number, columns: slice, values: Sequence[Number]) -> None:
        old = self[row, columns]
        self[row, columns] = [a + b for a, b in zip(old, values, strict=True)]
