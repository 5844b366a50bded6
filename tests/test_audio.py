"""The audio reader: formats against soundfile, blocks against the whole, and what it refuses."""

import io
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from earmark.runtime import EarmarkError, read_audio, read_blocks
from earmark.runtime.audio import as_pcm, read_pcm, to_int16
from earmark.runtime.wyoming.converter import Converter
from hypothesis import given
from hypothesis import strategies as st

RATE = 16000
SIGNAL = (0.5 * np.random.default_rng(0).uniform(-1, 1, (16000, 3))).astype(np.float32)


def wav(
    pcm: np.ndarray, *, data_length: int | None = None, riff: int | None = None, extra: bytes = b""
) -> bytes:
    """A 16-bit WAV file with chosen lengths in its header."""
    body = pcm.astype("<i2").tobytes()
    channels = 1 if pcm.ndim == 1 else pcm.shape[1]
    form = struct.pack("<HHIIHH", 1, channels, RATE, 2 * channels * RATE, 2 * channels, 16)
    length = len(body) if data_length is None else data_length
    rest = b"WAVEfmt " + struct.pack("<I", 16) + form + extra + b"data" + struct.pack("<I", length)
    total = len(rest) + len(body) if riff is None else riff
    return b"RIFF" + struct.pack("<I", total) + rest + body


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
@pytest.mark.parametrize("coding", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_codings_need_numpy_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coding: str, form: str, channels: int
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, SIGNAL[:, :channels], RATE, subtype=coding, format=form)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "soxr", None)
    found = read_audio(path)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus", "mp3", "aiff", "au"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    kind = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    soundfile.write(path, tone, RATE, **kind)
    found = read_audio(path)
    assert len(found) == pytest.approx(RATE, abs=0.1 * RATE)
    spectrum = np.abs(np.fft.rfft(found, RATE))
    assert spectrum.argmax() == pytest.approx(440, abs=1)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_resampling(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    # 12 kHz must vanish, not fold to 4 kHz.
    t = np.arange(rate) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * (12000 if rate == 48000 else 440) * t), rate)
    found = read_audio(path)
    expected = soxr.resample(soundfile.read(path, dtype="float32")[0], rate, RATE)
    assert len(found) == pytest.approx(RATE, abs=1)
    assert found == pytest.approx(expected, abs=2e-3)
    loudness = np.sqrt(np.mean(found[1000:-1000] ** 2))
    assert loudness < 1e-3 if rate == 48000 else loudness == pytest.approx(0.5 / 2**0.5, rel=0.01)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_blocks_joined_are_the_whole(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, SIGNAL, rate)
    whole = read_audio(path)
    for seconds in (0.0001 if rate == 16000 else 0.003, 0.08, 10.0):
        blocks = list(read_blocks(path, RATE, seconds))
        assert np.array_equal(np.concatenate(blocks), whole)
    if rate == RATE:
        assert max(len(block) for block in read_blocks(path, RATE, 0.08)) == 1280


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_blocks_of_mp3_joined_are_the_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str
) -> None:
    path = tmp_path / "a.mp3"
    signal = np.concatenate([SIGNAL[:, 0], 0.2 * SIGNAL[:, 1], SIGNAL[:, 2]])
    try:
        soundfile.write(path, signal, RATE, format="MP3", bitrate_mode=mode)
    except (soundfile.LibsndfileError, TypeError):
        pytest.skip("this soundfile writes no MP3")
    expected = soundfile.read(path, dtype="float32")[0]
    whole = read_audio(path)
    # A unit in the last place: soundfile seeks once before it reads all.
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    for seconds in (0.05, 0.08, 10.0):
        assert np.array_equal(np.concatenate(list(read_blocks(path, RATE, seconds))), whole)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("data_length", "riff"), [(0, 0), (0, 36), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_wav_written_into_a_pipe(tmp_path: Path, data_length: int, riff: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.arange(100), data_length=data_length, riff=riff))
    assert read_audio(path) == pytest.approx(np.arange(100) / 32768)


def test_chunks_before_and_after_the_samples_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    path.write_bytes(wav(np.arange(100), extra=extra, riff=0) + extra)
    assert read_audio(path) == pytest.approx(np.arange(100) / 32768)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = wav(np.arange(3000), data_length=0xFFFFFFFF)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    assert read_audio(path) == pytest.approx(np.arange(3000) / 32768)
    writer.join()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_of_another_format_is_refused(tmp_path: Path) -> None:
    """What was read of it cannot be read again."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"fLaC" + bytes(100),))
    writer.start()
    with pytest.raises(EarmarkError, match="is a pipe"):
        read_audio(path)
    writer.join()


def test_a_flac_that_was_written_into_a_pipe(tmp_path: Path) -> None:
    """Its header does not tell its length."""
    path = tmp_path / "a.flac"
    soundfile.write(path, SIGNAL[:, 0], RATE)
    whole, data = read_audio(path), bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert soundfile.info(path).frames > 1 << 60
    np.testing.assert_array_equal(read_audio(path), whole)


def with_integers_as_floats(path: Path) -> None:
    soundfile.write(path, np.full(16000, 30000, np.float32), 16000, subtype="FLOAT")


def with_nan(path: Path) -> None:
    signal = SIGNAL[:, 0].copy()
    signal[8000] = np.nan
    soundfile.write(path, signal, RATE, subtype="FLOAT")


def truncated_flac(path: Path) -> None:
    soundfile.write(path, SIGNAL[:, 0], RATE, format="FLAC")
    path.write_bytes(path.read_bytes()[:20_000])


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_a_name_that_is_not_unicode_is_read(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.flac"))
    with path.open("wb") as file:
        soundfile.write(file, SIGNAL[:, 0], RATE, format="FLAC")
    assert len(read_audio(path, RATE)) == len(SIGNAL)


def half(container: str, coding: str) -> Callable[[Path], object]:
    """Write the first half of a file."""

    def write(path: Path) -> None:
        soundfile.write(path, SIGNAL[:, 0], RATE, format=container, subtype=coding)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return write


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "folder"),
        (Path.touch, "empty"),
        (lambda path: path.write_text("no audio " * 50), "no audio file"),
        (lambda path: path.write_bytes(wav(np.arange(100))[:30]), "header"),
        (lambda path: path.write_bytes(wav(np.arange(100))[:-10]), "truncated"),
        (lambda path: path.write_bytes(wav(np.arange(0))), "no samples"),
        (lambda path: path.write_bytes(wav(np.zeros((5, 65)))), "65 channels"),
        (lambda path: soundfile.write(path, np.zeros((5, 65)), RATE, format="AU"), "65 channels"),
        (lambda path: path.write_bytes(b"RIFF\0\0\0\0WAVEdata\0\0\0\0"), "without a format"),
        (with_nan, r"NaN or infinity at 0\.500 s"),
        (with_integers_as_floats, "reaches 30000 times full scale"),
        (truncated_flac, "truncated|read"),
        (half("AIFF", "PCM_16"), "truncated"),
        (half("AU", "ULAW"), "truncated"),
        (half("RF64", "PCM_24"), "truncated"),
        (half("W64", "FLOAT"), "truncated"),
        (half("WAV", "ULAW"), "truncated"),
        (half("WAV", "IMA_ADPCM"), "truncated"),
    ],
)
def test_bad_files_are_refused_on_one_line(
    tmp_path: Path, write: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "a.wav"
    write(path)
    with pytest.raises(EarmarkError, match=reason) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_raw_samples_in_a_file_are_refused_by_their_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(3200))
    with pytest.raises(EarmarkError, match=r"a\.raw: \.raw has no header"):
        read_audio(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a.raw", r"\.raw has no header"), ("a.wav", "is no WAV file, whatever its name says")],
)
def test_what_soundfile_could_not_read_either_does_not_ask_for_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / name).write_text("no audio " * 50)
    with pytest.raises(EarmarkError, match=reason):
        read_audio(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "rate", "name"), [("flac", 16000, "soundfile"), ("wav", 8000, "soxr")]
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, rate: int, name: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, SIGNAL, rate)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EarmarkError, match=rf'{name}: pip install "earmark\[audio\]"'):
        read_audio(path)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_header_reader(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.wav"
    path.write_bytes(b"RIFF\0\0\0\0WAVE" + tail)
    try:
        assert np.isfinite(read_audio(path)).all()
    except EarmarkError as error:
        assert str(path) in str(error)


@given(st.binary(max_size=2000), st.integers(1, 100), st.integers(1, 50))
def test_raw_samples_from_any_pipe(data: bytes, block: int, most: int) -> None:
    class Pipe(io.BytesIO):
        """Gives out less than it is asked for, as a pipe may."""

        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(most, size or -1))

    if data[:4] == b"RIFF":
        return
    blocks = list(read_pcm(Pipe(data), block))
    assert all(0 < len(piece) <= block for piece in blocks)
    joined = b"".join(piece.tobytes() for piece in blocks)
    assert joined == data[: len(data) & ~1]


def test_raw_samples_are_taken_on_a_machine_of_the_other_byte_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There, an array of little-endian samples is not of the machine's own type."""
    frombuffer = np.frombuffer

    def foreign(*arguments: Any) -> np.ndarray:
        pcm = frombuffer(*arguments)
        return pcm.astype(pcm.dtype.newbyteorder())

    pcm = np.arange(-5, 5, dtype=np.int16)
    with monkeypatch.context() as patch:
        patch.setattr(np, "frombuffer", foreign)
        (block,) = read_pcm(io.BytesIO(pcm.tobytes()))
        converted = Converter(16000, 2, 1, 16000).convert(pcm.tobytes())
    for found in (block, converted):
        np.testing.assert_array_equal(as_pcm(found), pcm)


def test_a_wav_file_for_raw_samples_is_refused() -> None:
    with pytest.raises(EarmarkError, match="WAV"):
        list(read_pcm(io.BytesIO(wav(np.arange(10)))))


def test_reading_a_long_file_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    samples = 60 * 60 * RATE
    with path.open("wb") as file:
        file.write(wav(np.arange(0), data_length=2 * samples, riff=0))
        file.truncate(44 + 2 * samples)
    code = (
        "import sys, tracemalloc; from earmark.runtime import read_blocks\n"
        "tracemalloc.start()\n"
        "total = sum(len(block) for block in read_blocks(sys.argv[1]))\n"
        "print(total, tracemalloc.get_traced_memory()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    total, most = map(int, done.stdout.split())
    assert total == samples
    assert most < 20 << 20  # the file holds 110 MiB


def test_conversion_does_not_wrap_around() -> None:
    pcm = np.array([-2, -1, -0.5, 0, 0.5, 1, 2])
    assert to_int16(pcm).tolist() == [-32768, -32768, -16384, 0, 16384, 32767, 32767]
