"""A graph run by onnxruntime, on the calling thread alone and without spinning."""

from collections.abc import Callable
from functools import partial

from ..errors import EarmarkError, first_line
from ..graph_ends import with_ends
from ..manifest import Manifest
from .backend import Arrays, Ends
from .onnxruntime_import import onnxruntime


class OnnxruntimeBackend:
    """See :class:`~earmark.runtime.backends.backend.Backend`."""

    name = "onnxruntime"

    def __init__(self, data: bytes, manifest: Manifest) -> None:
        """See :func:`earmark.runtime.backends.backend.load`."""
        self._session = open_session(with_ends(data, manifest))

    def bind(self, *ends: Ends) -> list[list[Callable[[], None]]]:
        """See :class:`~earmark.runtime.backends.backend.Backend`."""
        return [self._calls(inputs, outputs) for inputs, outputs in ends]

    def _calls(self, inputs: Arrays, outputs: Arrays) -> list[Callable[[], None]]:
        rows = len(next(iter(inputs.values())))
        return [
            bound(self._session, _first(count, inputs), _first(count, outputs))
            for count in range(1, rows + 1)
        ]


def open_session(data: bytes) -> onnxruntime.InferenceSession:
    """A session on the calling thread alone.

    Args:
        data: an ONNX file. Of bytes, so that a graph cannot name other files to be read.

    Raises:
        EarmarkError: onnxruntime cannot load the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types, also bare RuntimeError
        raise EarmarkError(
            f"onnxruntime {onnxruntime.__version__} cannot load the graph ({first_line(error)})"
        ) from error


def bound(
    session: onnxruntime.InferenceSession, inputs: Arrays, outputs: Arrays
) -> Callable[[], None]:
    """A call over these arrays, which back the session's values: it copies and allocates nothing.

    Args:
        session: of :func:`open_session`.
        inputs: all that the graph takes.
        outputs: any that it gives; none shares memory with an input.
    """
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, value(array))
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, value(array))
    call = _bound_run(session, binding)
    # The binding points into memory that it does not keep alive.
    vars(call)["alive"] = session, inputs, outputs
    return call


def _first(count: int, arrays: Arrays) -> Arrays:
    return {name: array[:count] for name, array in arrays.items()}


def _bound_run(
    session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding
) -> partial[None]:
    """``session.run_with_iobinding(binding)`` with nothing in between.

    The method of onnxruntime prepares what only graphics processors need and makes options anew for
    each run, which takes a tenth of the time of a small model.
    """
    try:
        run = session._sess.run_with_iobinding  # pyright: ignore[reportOptionalMemberAccess]
        bound = binding._iobinding
    except AttributeError:  # they are no part of the interface
        return partial(session.run_with_iobinding, binding)
    return partial(run, bound, onnxruntime.RunOptions())
