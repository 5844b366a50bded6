"""What single operators may be: the shapes that they give, what that takes, and what is refused."""

from typing import Any

import numpy as np
import pytest
from earmark.runtime.backends.native_program import PANEL
from earmark.runtime.onnx_file import MAX_RANK, Node
from earmark.runtime.operators import OPERATORS, OperatorError, Result, Tensor, infer

F, I64, U8, I8, I32 = "float32", "int64", "uint8", "int8", "int32"
ONE = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
AT_ONCE = {"kernel_shape": (3, 2), **ONE}


def t(kind: str, *shape: int) -> Tensor:
    """What is computed before."""
    return Tensor(kind, shape)


def n(*values: int) -> np.ndarray:
    """Integers in the file."""
    return np.array(values, np.int64)


def inferred(operator: str, *inputs: Tensor | np.ndarray, **attributes: Any) -> Result:
    names = [f"x{place}" for place in range(len(inputs))]
    weights = {
        name: array
        for name, array in zip(names, inputs, strict=True)
        if isinstance(array, np.ndarray)
    }
    known = {
        name: Tensor(one.dtype.name, one.shape) if isinstance(one, np.ndarray) else one
        for name, one in zip(names, inputs, strict=True)
    }
    return infer(Node(operator, tuple(names), ("y",), attributes), known, weights)


def codes(kind: str, *shape: int) -> list[Tensor]:
    """Codes or floats with a scale and a zero point."""
    return [t(kind, *shape), t(F), t(U8)]


def quantized(**changed: Tensor) -> list[Tensor]:
    inputs = {
        **{"x": t(U8, 1, 4, 9, 8), "x_scale": t(F), "x_zero": t(U8)},
        **{"w": t(I8, 5, 4, 3, 2), "w_scale": t(F, 5), "w_zero": t(I8, 5)},
        **{"y_scale": t(F), "y_zero": t(U8), "bias": t(I32, 5)},
    }
    return list((inputs | changed).values())


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "expected"),
    [
        ("Add", [t(F, 3, 1), t(F, 4)], {}, Result([t(F, 3, 4)])),
        ("Mod", [t(I64, 4), n(3)], {}, Result([t(I64, 4)])),
        ("Cast", [t(F, 2)], {"to": 7}, Result([t(I64, 2)])),
        ("QuantizeLinear", codes(F, 2, 3), {}, Result([t(U8, 2, 3)])),
        ("DequantizeLinear", codes(U8, 2, 3), {}, Result([t(F, 2, 3)])),
        ("Transpose", [t(F, 2, 3, 4)], {"perm": (2, 0, 1)}, Result([t(F, 4, 2, 3)])),
        ("Concat", [t(F, 2, 3), t(F, 2, 4)], {"axis": 1}, Result([t(F, 2, 7)])),
        ("Slice", [t(F, 2, 9), n(1), n(8), n(1), n(3)], {}, Result([t(F, 2, 3)])),
        ("Slice", [t(F, 2, 9), n(-2), n(1 << 40), n(1)], {}, Result([t(F, 2, 2)])),
        ("Split", [t(F, 5, 2), n(2, 3)], {}, Result([t(F, 2, 2), t(F, 3, 2)])),
        ("Reshape", [t(F, 6, 4), n(0, 2, -1)], {}, Result([t(F, 6, 2, 2)])),
        ("Flatten", [t(F, 2, 3, 4)], {}, Result([t(F, 2, 12)])),
        ("Unsqueeze", [t(F, 2, 3), n(1)], {}, Result([t(F, 2, 1, 3)])),
        ("Gather", [t(F, 5, 4), t(I64, 2, 3)], {"axis": 1}, Result([t(F, 5, 2, 3)], held=20)),
        ("ReduceMean", [t(F, 2, 3, 4)], {"axes": (0, 2), "keepdims": 0}, Result([t(F, 3)], 24)),
        (
            *("MatMul", [t(F, 7, 2, 3), t(F, 3, 5)], {}),
            Result([t(F, 7, 2, 5)], 7 * 2 * 3 * 5, 7 * 2 * 3 + 3 * PANEL),
        ),
        (
            *("Gemm", [t(F, 2, 3), t(F, 3, PANEL + 1), t(F, PANEL + 1)], {}),
            Result([t(F, 2, PANEL + 1)], 2 * 3 * (PANEL + 1), 2 * 3 + 3 * 2 * PANEL),
        ),
        (
            *("Conv", [t(F, 1, 4, 9, 8), t(F, 5, 4, 3, 2), t(F, 5)]),
            {**AT_ONCE, "strides": (2, 3), "dilations": (2, 1), "pads": (1, 0, 2, 1)},
            # 12 rows of 9 when padded; 5 rows of them apart fit 4 times, 2 columns 3 times.
            Result([t(F, 1, 5, 4, 3)], 12 * 24 * 5, 4 * 12 * 9 + 12 * 24 + 24 * PANEL),
        ),
        (
            *("QLinearConv", quantized(), AT_ONCE),
            Result([t(U8, 1, 5, 7, 7)], 49 * 24 * 5, 4 * 9 * 8 + 49 * 24 + 24 * PANEL),
        ),
    ],
)
def test_what_is_given_and_what_that_takes(
    operator: str, inputs: list[Tensor], attributes: dict[str, Any], expected: Result
) -> None:
    assert inferred(operator, *inputs, **attributes) == expected


CONV = [t(F, 1, 4, 9, 8), t(F, 5, 4, 3, 2), t(F, 5)]
TYPES, SCALE = "has other types than", "has a scale or zero point"


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "reason"),
    [
        ("Tanh", [t(F, 2)], {}, "is none that"),
        ("Relu", [], {}, "has 0 inputs"),
        ("Relu", [t(F, 2)] * 2, {}, "has 2 inputs"),
        ("Relu", [t(F, 2)], {"alpha": 1}, "has the attribute 'alpha'"),
        ("Add", [t(F, 2), t(I64, 2)], {}, "mixes types"),
        ("Add", [t(F, 2), t(F, 3)], {}, "shape mismatch"),
        ("Log", [t(I64, 2)], {}, "is not of float32"),
        ("Div", [t(F, 2), t(I64, 2)], {}, "is not of float32"),
        ("Mod", [t(I64, 2), t(I64, 2)], {}, "no positive integers"),
        ("Mod", [t(I64, 2), n(2, 0)], {}, "no positive integers"),
        ("Mod", [t(F, 2), np.ones(2, np.float32)], {}, "no positive integers"),
        ("Cast", [t(F, 2)], {"to": 99}, "an unknown type"),
        ("Cast", [t(F, 2)], {"to": (1,)}, "a list as its to"),
        ("QuantizeLinear", codes(I64, 2), {}, TYPES),
        ("QuantizeLinear", [t(F, 2), t(F, 2), t(U8)], {}, SCALE),
        ("QuantizeLinear", [t(F, 2), t(F), t(U8, 2)], {}, SCALE),
        ("DequantizeLinear", codes(I8, 2), {}, TYPES),
        ("DequantizeLinear", [t(U8, 2), t(F, 2), t(U8)], {}, SCALE),
        ("DequantizeLinear", [t(U8, 2), t(F), t(U8, 2)], {}, SCALE),
        ("Transpose", [t(F, 2, 3)], {"perm": (1, 1)}, "no permutation"),
        ("Transpose", [t(F, 2, 3)], {"perm": 1}, "no list as its perm"),
        ("Transpose", [t(F, 2, 3)], {}, "no list as its perm"),
        ("Concat", [t(F, 2, 3), t(I64, 2, 3)], {"axis": 0}, "do not fit"),
        ("Concat", [t(F, 2, 3), t(F, 2, 4)], {"axis": 0}, "do not fit"),
        ("Concat", [t(F, 2, 3), t(F, 2, 3, 1)], {"axis": 0}, "do not fit"),
        ("Concat", [t(F, 2, 3)], {"axis": 2}, "has no axis 2"),
        ("Concat", [t(F, 2, 3)], {}, "has no axis -1"),
        ("Slice", [t(F, 9), t(I64, 1), n(8), n(0)], {}, "no list of integers as its input 1"),
        ("Slice", [t(F, 9), n(1, 2), n(8), n(0)], {}, "too many values"),
        ("Slice", [t(F, 9), n(1), n(8), n(1)], {}, "has no axis 1"),
        ("Slice", [t(F, 9), n(1), n(8), n(0), n(0)], {}, "cannot be zero"),
        ("Split", [t(F, 5), n(2, 2)], {}, "parts that do not fit"),
        ("Split", [t(F, 5), n(6, -1)], {}, "parts that do not fit"),
        ("Split", [t(F, 5), np.array([5], np.int32)], {}, "no list of integers"),
        ("Split", [t(F, 5), n(5)[None]], {}, "no list of integers"),
        ("Split", [t(F, 5), np.zeros(10_001, np.int64)], {}, "no list of integers"),
        ("Reshape", [t(F, 6), n(4)], {}, "into another size"),
        ("Reshape", [t(F, 6), n(4, -1)], {}, "into another size"),
        ("Reshape", [t(F, 6), n(-1, -1)], {}, "into another size"),
        ("Reshape", [t(F, 6), n(-2, -3)], {}, "into another size"),
        ("Reshape", [t(F, 0), n(0, -1)], {}, "into another size"),
        ("Reshape", [t(F, 6), n(6, 0)], {}, "out of range"),
        ("Flatten", [t(F, 6)], {}, "has no axis 1"),
        ("Unsqueeze", [t(F, 6), n(2)], {}, "has no axis 2"),
        ("Unsqueeze", [t(F, 6), n(-1)], {}, "has no axis -1"),
        ("Unsqueeze", [t(F, *[1] * MAX_RANK), n(0)], {}, "too many axes"),
        ("Gather", [t(F, 6), t(F, 2)], {}, "are no int64"),
        ("Gather", [t(F, 6), t(I64, 2)], {"axis": 1}, "has no axis 1"),
        ("ReduceMean", [t(F, 2, 3)], {"axes": (1, 1), "keepdims": 0}, "an axis twice"),
        ("ReduceMean", [t(F, 2, 3)], {"axes": (2,), "keepdims": 0}, "has no axis 2"),
        ("ReduceMean", [t(F, 2, 3)], {"axes": (1,)}, "without keepdims"),
        ("ReduceMean", [t(I64, 2, 3)], {"axes": (1,), "keepdims": 0}, "without keepdims"),
        ("MatMul", [t(F, 2, 3), t(I64, 3, 2)], {}, TYPES),
        ("MatMul", [t(F, 2, 3), t(F, 2, 3)], {}, "multiplies shapes"),
        ("MatMul", [t(F, 3), t(F, 3, 2)], {}, "multiplies shapes"),
        ("MatMul", [t(F, 2, 3), t(F, 3)], {}, "multiplies shapes"),
        ("MatMul", [t(F, 2, 2, 3), t(F, 3, 3, 2)], {}, "shape mismatch"),
        ("Gemm", [t(F, 2, 3), t(F, 3, 4), t(I64, 4)], {}, TYPES),
        ("Gemm", [t(F, 2, 3), t(F, 4, 4), t(F, 4)], {}, "multiplies shapes"),
        ("Gemm", [t(F, 2, 3), t(F, 3, 4), t(F, 3)], {}, "multiplies shapes"),
        ("Gemm", [t(F, 1, 2, 3), t(F, 2, 4), t(F, 4)], {}, "multiplies shapes"),
        ("Conv", [*CONV[:2], t(I64, 5)], AT_ONCE, TYPES),
        ("Conv", [*CONV[:2], t(F, 4)], AT_ONCE, "a bias that does not fit"),
        ("Conv", [t(F, 4, 9, 8), *CONV[1:]], AT_ONCE, "has weights"),
        ("Conv", [CONV[0], t(F, 5, 4, 3), CONV[2]], AT_ONCE, "has weights"),
        ("Conv", [CONV[0], t(F, 5, 3, 3, 2), CONV[2]], AT_ONCE, "has weights"),
        ("Conv", [CONV[0], t(F, 0, 4, 3, 2), t(F, 0)], AT_ONCE, "has weights"),
        ("Conv", CONV, ONE, "no list as its kernel_shape"),
        ("Conv", CONV, AT_ONCE | {"kernel_shape": (2, 3)}, "attributes that do not fit"),
        ("Conv", CONV, AT_ONCE | {"strides": (1,)}, "attributes that do not fit"),
        ("Conv", CONV, AT_ONCE | {"dilations": (1, 1, 1)}, "attributes that do not fit"),
        ("Conv", CONV, AT_ONCE | {"pads": (0, 0)}, "attributes that do not fit"),
        ("Conv", CONV, AT_ONCE | {"strides": (0, 1)}, "out of range"),
        ("Conv", CONV, AT_ONCE | {"dilations": (1, 0)}, "out of range"),
        ("Conv", CONV, AT_ONCE | {"pads": (0, 0, -1, 0)}, "out of range"),
        ("Conv", CONV, AT_ONCE | {"strides": (1, (1 << 20) + 1)}, "out of range"),
        ("Conv", CONV, AT_ONCE | {"dilations": (5, 1)}, "shorter than its kernel"),
        ("QLinearConv", quantized(w=t(U8, 5, 4, 3, 2)), AT_ONCE, TYPES),
        ("QLinearConv", quantized(x_scale=t(F, 1)), AT_ONCE, SCALE),
        ("QLinearConv", quantized(x_zero=t(U8, 1)), AT_ONCE, SCALE),
        ("QLinearConv", quantized(y_scale=t(F, 5)), AT_ONCE, SCALE),
        ("QLinearConv", quantized(y_zero=t(U8, 5)), AT_ONCE, SCALE),
        ("QLinearConv", quantized(w_scale=t(F)), AT_ONCE, "scales or a bias"),
        ("QLinearConv", quantized(w_zero=t(I8, 4)), AT_ONCE, "scales or a bias"),
        ("QLinearConv", quantized(bias=t(I32, 4)), AT_ONCE, "scales or a bias"),
    ],
)
def test_what_does_not_fit_is_refused(
    operator: str, inputs: list[Tensor], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises((OperatorError, ValueError, IndexError), match=reason):
        inferred(operator, *inputs, **attributes)


def test_an_input_that_nothing_gives_is_refused() -> None:
    with pytest.raises(OperatorError, match="'x', which nothing gives"):
        infer(Node("Relu", ("x",), ("y",), {}), {"z": t(F, 1)}, {})


def test_what_is_known_of_no_operator_is_refused_by_its_number_of_inputs() -> None:
    for operator, (fewest, most, _, _) in OPERATORS.items():
        for count in (fewest - 1, most + 1):
            with pytest.raises(OperatorError, match=f"has {count} inputs"):
                inferred(operator, *[t(F, 1)] * count)
