"""The headers of WAV, and of what has one like it: where samples begin, in which format, and how
many there should be."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import EarmarkError

MAX_CHANNELS = 64
MIN_RATE, MAX_RATE = 1000, 768_000
UNKNOWN_SIZE = 0x7FFF0000
"""Programs that write WAV into a pipe give a length of 0, or one at or above this."""
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
# Sample formats of WAV: (format tag, bits) -> numpy type.
WAV_TYPES = {
    (PCM, 8): "u1",
    (PCM, 16): "<i2",
    (PCM, 24): "u1",
    (PCM, 32): "<i4",
    (FLOAT, 32): "<f4",
    (FLOAT, 64): "<f8",
}


@dataclass(frozen=True)
class Decoder:
    """An open file: ``read(n)`` gives float32 [frames, channels], at most n, none at its end."""

    rate: int
    read: Any


def open_wav(path: Path, file: BinaryIO, head: bytes, size: int | None) -> Decoder | None:
    """Read the header of a WAV file, up to its first sample; None for a coding not known here.

    ``size`` is that of the file, None for a pipe.
    """
    layout: tuple[int, int, int, int] | None = None
    while True:
        chunk = file.read(8)
        if len(chunk) < 8:
            raise EarmarkError(f"{path}: is a WAV file cut off in its header: record it again")
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            break
        if name == b"fmt ":
            body = file.read(length) if 16 <= length <= 256 else b""
            if len(body) < 16:
                raise EarmarkError(f"{path}: has a damaged WAV header: convert it again")
            tag, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", body)
            if tag == EXTENSIBLE and len(body) >= 26:
                # The first two bytes of the sub-format are the format tag proper.
                (tag,) = struct.unpack_from("<H", body, 24)
            layout = (tag, channels, rate, bits)
            known = (tag, bits) in WAV_TYPES
            if not known and size is None:
                return None
            if known and not (
                1 <= channels <= MAX_CHANNELS
                and MIN_RATE <= rate <= MAX_RATE
                and frame == channels * bits // 8
            ):
                raise EarmarkError(
                    f"{path}: has a WAV header with {channels} channels of {bits} bits at {rate} "
                    "Hz, which cannot be: convert it again"
                )
            length -= len(body)
        _skip(file, length + (length & 1))
    if layout is None:
        raise EarmarkError(f"{path}: is a WAV file without a format: convert it again")
    tag, channels, rate, bits = layout
    remaining = _data_length(path, length, head, file, size)
    if (tag, bits) not in WAV_TYPES:
        return None
    width = channels * bits // 8

    def read(frames: int) -> np.ndarray:
        nonlocal remaining
        wanted = frames * width
        if remaining is not None:
            wanted = min(wanted, remaining - remaining % width)
        data = file.read(wanted)
        if remaining is not None:
            if len(data) < wanted:
                raise EarmarkError(f"{path}: is truncated: copy or record it again")
            remaining -= wanted
        count = len(data) // width
        return decode_samples(data[: count * width], tag, bits).reshape(count, channels)

    return Decoder(rate, read)


def promised_size(head: bytes) -> int:
    """Bytes of the file that its header promises, where it is AIFF, RF64, W64 or AU; else 0. The
    libraries that read these take what is there."""
    if len(head) < 40:
        return 0
    promised, none = 0, 0
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        promised, none = 8 + int.from_bytes(head[4:8], "big"), UNKNOWN_SIZE
    elif head[:4] == b".snd":
        offset, length = struct.unpack_from(">II", head, 4)
        promised, none = offset + length, UNKNOWN_SIZE
    elif head[:4] == b"RF64" and head[12:16] == b"ds64":
        promised, none = 8 + int.from_bytes(head[20:28], "little"), 1 << 62
    elif head[:4] == b"riff":
        promised, none = int.from_bytes(head[16:24], "little"), 1 << 62
    return promised if promised < none else 0


def _skip(file: BinaryIO, count: int) -> None:
    """Read past ``count`` bytes; a pipe cannot seek."""
    while count > 0:
        data = file.read(min(count, 1 << 16))
        if not data:
            return
        count -= len(data)


def _data_length(
    path: Path, length: int, head: bytes, file: BinaryIO, size: int | None
) -> int | None:
    """Bytes of samples that the header promises, None where it leaves them open."""
    (riff,) = struct.unpack_from("<I", head, 4)
    if length == 0 and (size is None or abs(8 + riff - size) > 1):
        return None
    if size is None:
        return None if length >= UNKNOWN_SIZE else length
    left = size - file.tell()
    if length > left:
        if length >= UNKNOWN_SIZE:
            return None
        raise EarmarkError(
            f"{path}: is truncated: its header promises {length} bytes of audio and {left} are "
            "there: copy or record it again"
        )
    return length


def decode_samples(data: bytes, tag: int, bits: int) -> np.ndarray:
    """Decode samples of a format in ``WAV_TYPES`` to float32 in [-1, 1)."""
    raw = np.frombuffer(data, WAV_TYPES[tag, bits])
    if tag == FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are refused later
            return raw.astype(np.float32)
    if bits == 24:
        # Into the upper bytes of 32-bit integers, which keeps the sign.
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = raw.reshape(-1, 3)
        raw, bits = wide.view("<i4")[:, 0], 32
    samples = raw.astype(np.float32)
    if bits == 8:
        samples -= 128
    samples *= np.float32(2.0 ** (1 - bits))
    return samples
