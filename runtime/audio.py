"""The one reader of audio: files in, mono float32 at one rate out, whole or block by block; and the
one check of samples that come from anywhere else.

WAV at the rate asked for needs numpy alone. Other formats go through soundfile (libsndfile), other
rates through soxr; both belong to the extra ``audio`` and are imported when they are needed.
"""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import EarmarkError
from .wav_reader import MAX_CHANNELS, MAX_RATE, MIN_RATE, Decoder, open_wav, promised_size

MAX_AMPLITUDE = 100.0
"""Float samples beyond this are no audio in [-1, 1), whatever the gain."""
INT16 = np.dtype(np.int16)
FULL_SCALE = 32768
"""Of int16, which is 1 of floats: a power of two, so that no conversion rounds."""
MAX_BLOCK = 1 << 16
"""Most frames that are decoded at once."""
UNKNOWN_FRAMES = (1 << 63) - 1
"""What libsndfile says of a FLAC that was written into a pipe."""


def read_audio(path: str | os.PathLike[str], rate: int = 16000) -> np.ndarray:
    """Read a whole file: float32 [samples], all channels averaged, at ``rate`` Hz.

    Raises:
        EarmarkError: as :func:`read_blocks`.
    """
    return np.concatenate(list(read_blocks(path, rate)))


def read_blocks(
    path: str | os.PathLike[str],
    rate: int = 16000,
    block_seconds: float = 1.0,
    content: bytes | None = None,
) -> Iterator[np.ndarray]:
    """Read a file block by block, in memory that does not depend on its length.

    Args:
        path: WAV (also a named pipe), or what libsndfile reads.
        rate: sample rate of the result, Hz.
        block_seconds: audio decoded at a time; blocks may hold less.
        content: what the file holds, where it has been read already; ``path`` then only names it.

    Yields:
        float32 [samples], all channels averaged. The blocks joined do not depend on
        ``block_seconds``.

    Raises:
        EarmarkError: no such file, a folder, no audio, an unknown format, truncated (Ogg is read as
            far as it is there), without samples, NaN, infinity or values far beyond full scale
            among them, or a package that it needs is not installed.
    """
    path = Path(path)
    empty = True
    with _open(path, content) as decoder:
        frames = min(MAX_BLOCK, max(1, round(decoder.rate * block_seconds)))
        blocks = _checked(path, decoder, frames)
        for block in blocks if decoder.rate == rate else _resampled(path, blocks, decoder, rate):
            if len(block):
                empty = False
                yield block
    if empty:
        raise EarmarkError(f"{path}: holds no samples: record it again or leave it out")


def read_pcm(stream: BinaryIO, block_samples: int = 1600) -> Iterator[np.ndarray]:
    """Read raw 16-bit little-endian mono audio as it arrives: int16 [1 .. block_samples].

    A byte that is left over at the end of the stream is dropped.

    Raises:
        EarmarkError: the stream cannot be read, or begins like a WAV file.
    """
    # read1 returns what a pipe holds; read would wait for a full block.
    read = stream.read1 if isinstance(stream, io.BufferedReader) else stream.read
    rest = b""
    first = True
    while True:
        try:
            data = read(2 * block_samples - len(rest))
        except OSError as error:
            reason = error.strerror or error
            raise EarmarkError(f"standard input: cannot be read ({reason})") from error
        if not data:
            return
        data = rest + data
        if first and len(data) >= 4:
            if data[:4] == b"RIFF":
                raise EarmarkError(
                    "standard input: is a WAV file, raw 16-bit samples are expected: "
                    "name the file instead"
                )
            first = False
        even = len(data) & ~1
        rest = data[even:]
        if even:
            yield np.frombuffer(data, "<i2", even // 2).astype(np.int16, copy=False)


def as_pcm(pcm: np.ndarray) -> np.ndarray:
    """``pcm`` if a model can take it: [samples], int16, float32 or float64.

    Raises:
        EarmarkError: it has another type or shape, or holds NaN, infinity or values far beyond
            [-1, 1).
    """
    pcm = np.asarray(pcm)
    if pcm.ndim != 1:
        raise EarmarkError(f"audio has shape {list(pcm.shape)}: give one channel, [samples]")
    if pcm.dtype == INT16:
        return pcm
    if pcm.dtype != np.float32 and pcm.dtype != np.float64:
        raise EarmarkError(f"audio has type {pcm.dtype}: give int16, or float32 in [-1, 1)")
    # A comparison with NaN is false, so this refuses NaN and infinity as well.
    if len(pcm) and not (pcm.max() <= MAX_AMPLITUDE and pcm.min() >= -MAX_AMPLITUDE):
        if not np.isfinite(pcm).all():
            raise EarmarkError("audio holds NaN or infinity: repair it before it is pushed")
        raise EarmarkError(
            f"audio reaches {np.abs(pcm).max():g}: scale floats to [-1, 1), or give int16"
        )
    return pcm


def copy_pcm(pcm: np.ndarray, out: np.ndarray) -> None:
    """Copy audio that :func:`as_pcm` gave into float32 [samples], in units of an int16 step."""
    if pcm.dtype == INT16:
        out[:] = pcm
    else:
        np.multiply(pcm, FULL_SCALE, out)


def to_int16(pcm: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1) as int16, what is beyond them at the end of the scale."""
    return np.clip(np.round(pcm * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


@contextmanager
def _open(path: Path, content: bytes | None = None) -> Iterator[Decoder]:
    try:
        with _raw(path, content) as (file, size):
            head = file.read(12)
            if head[:4] == b"RIFF" and head[8:] == b"WAVE":
                wav = open_wav(path, file, head, size)
                if wav is not None:
                    yield wav
                    return
            elif size == 0:
                raise EarmarkError(f"{path}: is empty: record it again or leave it out")
            elif (whole := promised_size(head + file.read(28))) and size and size < whole - 1:
                raise EarmarkError(
                    f"{path}: is truncated: its header promises {whole} bytes and {size} are "
                    "there: copy or record it again"
                )
        if size is None:
            # What is read of a pipe is gone, and to open one again is to wait for another writer.
            raise EarmarkError(f"{path}: is a pipe, which can hold PCM or float WAV: name a file")
        with _soundfile(path, content, head) as other:
            yield other
    except FileNotFoundError as error:
        raise EarmarkError(f"{path}: no such file") from error
    except OSError as error:
        raise EarmarkError(f"{path}: cannot be read ({error.strerror or error})") from error


@contextmanager
def _raw(path: Path, content: bytes | None) -> Iterator[tuple[BinaryIO, int | None]]:
    """The bytes of a file, and how many there are, None for a pipe."""
    if content is not None:
        yield io.BytesIO(content), len(content)
        return
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise EarmarkError(f"{path}: is a folder: name the audio files in it")
    with path.open("rb") as file:
        yield file, os.fstat(file.fileno()).st_size if stat.S_ISREG(mode) else None


@contextmanager
def _soundfile(path: Path, content: bytes | None, head: bytes) -> Iterator[Decoder]:
    suffix = path.suffix.lower()
    if content is None and suffix == ".raw":
        # soundfile takes this suffix at its word, and asks for the rate.
        raise EarmarkError(
            f"{path}: .raw has no header to tell its format: pipe it into earmark detect -, or "
            "convert it to WAV"
        )
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the library behind it is missing
        if suffix == ".wav" and head[:4] not in (b"RIFF", b"RIFX", b"RF64"):
            raise EarmarkError(
                f"{path}: is no WAV file, whatever its name says: convert it to WAV, or, if it is "
                'audio of another format, pip install "earmark[audio]"'
            ) from error
        raise EarmarkError(
            f"{path}: is not PCM or float WAV; other formats need soundfile: "
            'pip install "earmark[audio]"'
        ) from error
    try:
        # As bytes: soundfile takes no text that is not Unicode, which a name of old may not be.
        name: Any = path if os.name == "nt" else os.fsencode(path)
        with soundfile.SoundFile(name if content is None else io.BytesIO(content)) as file:
            if file.channels > MAX_CHANNELS:
                raise EarmarkError(
                    f"{path}: has {file.channels} channels, more than {MAX_CHANNELS}: mix it down"
                )
            if not MIN_RATE <= file.samplerate <= MAX_RATE:
                raise EarmarkError(
                    f"{path}: is at {file.samplerate} Hz: convert it to one of {MIN_RATE} to "
                    f"{MAX_RATE} Hz"
                )
            promised, decoded = 0 if file.frames == UNKNOWN_FRAMES else file.frames, 0
            # soundfile seeks to where it is after each block. That fails at the end of a FLAC of
            # unknown length, and MP3 decodes anew there, with warnings and other samples.
            file.seekable = lambda: False

            def read(frames: int) -> np.ndarray:
                nonlocal decoded
                block = file.read(frames, dtype="float32", always_2d=True)
                decoded += len(block)
                # MPEG files do not know their length, libsndfile estimates it.
                if not len(block) and decoded < promised and file.format not in ("MP3", "MPEG"):
                    raise EarmarkError(
                        f"{path}: is truncated: {decoded} of {promised} frames are there: "
                        "copy or record it again"
                    )
                return block

            yield Decoder(file.samplerate, read)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise EarmarkError(
            f"{path}: is no audio file that can be read ({reason}): convert it to WAV or FLAC"
        ) from error


def _checked(path: Path, decoder: Decoder, frames: int) -> Iterator[np.ndarray]:
    """Decode to the end: mono, finite, and of a possible level."""
    done = 0
    while len(block := decoder.read(frames)):
        with np.errstate(over="ignore", invalid="ignore"):
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            bad = (done + int(np.argmin(np.isfinite(mono)))) / decoder.rate
            raise EarmarkError(
                f"{path}: holds NaN or infinity at {bad:.3f} s: repair it or leave it out"
            )
        if len(mono) and np.abs(mono).max() > MAX_AMPLITUDE:
            raise EarmarkError(
                f"{path}: reaches {np.abs(mono).max():g} times full scale: "
                "scale its samples to [-1, 1), or leave it out"
            )
        done += len(mono)
        yield mono


def _resampled(
    path: Path, blocks: Iterator[np.ndarray], decoder: Decoder, rate: int
) -> Iterator[np.ndarray]:
    try:
        resampler = make_resampler(decoder.rate, rate)
    except EarmarkError as error:
        raise EarmarkError(f"{path}: {error}") from error.__cause__
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def make_resampler(source: float, target: int) -> Any:
    """A stateful mono float32 resampler: ``resample_chunk(float32 [n], last=False)``.

    Raises:
        EarmarkError: soxr is not installed. The message names no file.
    """
    try:
        import soxr
    except ImportError as error:
        raise EarmarkError(
            f"is at {source:g} Hz; converting it to {target} Hz needs soxr: "
            'pip install "earmark[audio]"'
        ) from error
    return soxr.ResampleStream(source, target, 1, dtype="float32")
