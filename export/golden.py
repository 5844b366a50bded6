"""Golden vectors: what a model does with a few recordings, for checking its ports.

The recordings are made here, but for those that the caller names: the awkward ones (nothing at all,
digital silence, full scale, lengths that fit no chunk, clicks on the borders of chunks) and, where
there is a synthesizer, the model's own keywords. The folder holds all that a check needs; nothing
has to be made anew, so that it does not matter where numpy or the synthesizer round otherwise.
"""

import dataclasses
import hashlib
import json
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.audio import read_audio, to_int16
from ..runtime.detect import TAIL_SECONDS
from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError
from ..runtime.events import DetectionEvent, to_json
from ..runtime.files import atomic_path, read_text
from ..runtime.layout import folder_name
from ..runtime.stream import Detection

INDEX = "golden.json"
README = "README.txt"
FORMAT = 1
"""Version of the folder's layout; a change of meaning raises it."""
TOLERANCE = 1e-3
"""Largest difference of a posterior or score that a port may have."""
LOW_THRESHOLDS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
"""Tried for one at which a recording without keywords is detected all the same."""
SPOKEN_SECONDS = 10.0
MAX_SECONDS = 60.0
"""Longest recording of one's own: vectors are to be small."""
_VECTORS = (".pcm", ".posteriors")
PORT_SECONDS = 120.0
"""A port that takes longer for a recording is ended."""

Pcm = NDArray[np.int16]


def write_golden(engine: Engine, folder: Path, audio: Sequence[Path] = ()) -> list[str]:
    """Write the golden vectors of a model to ``folder``, made where it is missing.

    Args:
        engine: the model.
        folder: a file of an earlier run is replaced.
        audio: recordings beside the built-in ones, each of at most a minute.

    Returns:
        Names of the recordings.

    Raises:
        EarmarkError: a recording cannot be read, is too long or has the name of another, or a file
            cannot be written.
    """
    manifest = engine.manifest
    geometry = manifest.geometry
    recordings = dict(_made(geometry.sample_rate, geometry.chunk))
    if words := _words(manifest.keywords, geometry.sample_rate):
        recordings["words"] = np.concatenate(words)
    for path in audio:
        name = folder_name(path.stem)
        if not name:
            raise EarmarkError(f"{path}: its name has no letter or digit: rename it")
        if name in recordings:
            raise EarmarkError(f"{path}: there is a recording {name} already: rename it")
        recordings[name] = _recorded(path, geometry.sample_rate)
    files: dict[str, bytes] = {}
    index: dict[str, Any] = {
        "format": FORMAT,
        "model": manifest.name,
        "model_sha256": hashlib.sha256(engine.read()).hexdigest(),
        # Compiled code has the version of Earmark.
        "versions": {
            name: version(name)
            for name in ("earmark", "numpy", "onnxruntime")
            if name in ("earmark", "numpy", engine.backend)
        },
        "backend": engine.backend,
        "sample_rate": geometry.sample_rate,
        "step": geometry.step,
        "labels": list(manifest.labels),
        "tail": round(TAIL_SECONDS * geometry.sample_rate),
        "tolerance": TOLERANCE,
        "recordings": [],
    }
    for name, pcm in recordings.items():
        posteriors = _posteriors(engine, pcm, index["tail"])
        thresholds = (None, _low_threshold(engine, pcm))
        entry = {
            "name": name,
            "pcm": f"{name}.pcm",
            "samples": len(pcm),
            "posteriors": f"{name}.posteriors",
            "rows": len(posteriors),
            "cases": [
                {"threshold": threshold, "detections": _events(_detections(engine, pcm, threshold))}
                for threshold in dict.fromkeys(thresholds)
            ],
        }
        index["recordings"].append(entry)
        files[entry["pcm"]] = pcm.astype("<i2").tobytes()
        files[entry["posteriors"]] = posteriors.astype("<f4").tobytes()
    files[README] = _README.encode()
    files[INDEX] = (json.dumps(index, indent=1) + "\n").encode()
    # All or, on a full disk, none.
    with ExitStack() as stack:
        for name, content in files.items():
            stack.enter_context(atomic_path(folder / name)).write_bytes(content)
    return list(recordings)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than golden vectors.

    Raises:
        EarmarkError: it does, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise EarmarkError(f"{folder}: is no folder: name another for the golden vectors")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    # Without an index a README.txt is somebody else's.
    ours = {INDEX, README} if INDEX in names else set()
    other = next((n for n in names if n not in ours and not n.endswith(_VECTORS)), None)
    if other is not None:
        raise EarmarkError(
            f"{folder}: holds {other}, which is no golden vector: name a folder of their own"
        )


def check_port(folder: Path, command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Run another implementation on golden vectors.

    Args:
        folder: what :func:`write_golden` wrote.
        command: run for each case with ``--threshold T`` added where the case has one. It gets PCM
            on standard input and prints a JSON line for each detection, as ``earmark detect -``.

            Where there is no audio it may also fail with a message.

    Yields:
        Name of each case, and the first difference or "".

    Raises:
        EarmarkError: the folder holds no golden vectors, or the command cannot be started.
    """
    for entry, case in _cases(folder):
        threshold = [] if case["threshold"] is None else ["--threshold", str(case["threshold"])]
        try:
            pcm = (folder / entry["pcm"]).read_bytes()
            done = subprocess.run(
                [*command, *threshold], input=pcm, capture_output=True, timeout=PORT_SECONDS
            )
        except subprocess.TimeoutExpired:
            difference = f"took more than {PORT_SECONDS:g} s"
        except OSError as error:
            raise EarmarkError(
                f"{error.filename or shlex.join(command)}: {error.strerror or error}"
            ) from error
        else:
            difference = "" if not pcm and _refused(done) else _difference(done, case["detections"])
        yield " ".join([entry["name"], *threshold]), difference


def _cases(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    try:
        index = json.loads(read_text(folder / INDEX))
        if index["format"] != FORMAT:
            raise EarmarkError(f"{folder / INDEX}: has format {index['format']}: write it again")
        found = [(entry, case) for entry in index["recordings"] for case in entry["cases"]]
        whole = found and all(_is_case(entry, case) for entry, case in found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EarmarkError(f"{folder / INDEX}: is no index of golden vectors") from error
    if not whole:
        raise EarmarkError(f"{folder / INDEX}: is no index of golden vectors, or has no cases")
    yield from found


def _is_case(entry: dict[str, Any], case: dict[str, Any]) -> bool:
    """Whether all that is used is there; files are in the folder itself."""
    names = (entry["name"], entry["pcm"])
    return (
        all(isinstance(name, str) and Path(name).name == name for name in names)
        and isinstance(case["threshold"], int | float | None)
        and all(
            isinstance(d["keyword"], str)
            and isinstance(d["time"], int | float)
            and isinstance(d["score"], int | float)
            for d in case["detections"]
        )
    )


def _refused(done: subprocess.CompletedProcess[bytes]) -> bool:
    """Whether a port fails with a message, as ``earmark detect -`` does without any audio."""
    return done.returncode > 0 and bool(done.stderr.strip()) and not done.stdout.strip()


def _difference(
    done: subprocess.CompletedProcess[bytes], expected: Sequence[dict[str, Any]]
) -> str:
    """How the output of a port differs from what is expected, "" where it does not."""
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        return f"exit status {done.returncode}: {lines[-1]}"
    try:
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found = [(x["keyword"], float(x["time"]), float(x["score"])) for x in lines]
    except (ValueError, TypeError, KeyError):
        return "its output is not a JSON line with keyword, time and score for each detection"
    for place, (keyword, time, score) in enumerate(found[: len(expected)]):
        want = expected[place]
        if keyword != want["keyword"] or abs(time - want["time"]) > TOLERANCE:
            return (
                f"detection {place} is {keyword} at {time:.3f} s, expected {want['keyword']} at "
                f"{want['time']:.3f} s"
            )
        if not abs(score - want["score"]) <= TOLERANCE:
            return f"detection {place} has score {score:.5f}, expected {want['score']:.5f}"
    if len(found) != len(expected):
        return f"{len(found)} detections, expected {len(expected)}"
    return ""


def _posteriors(engine: Engine, pcm: Pcm, tail: int) -> NDArray[np.float32]:
    """Of all steps, those of the silence after the end included: float32 [steps, labels]."""
    chunk = engine.manifest.geometry.chunk
    padded = np.zeros(-(-(len(pcm) + tail) // chunk) * chunk, np.int16)
    padded[: len(pcm)] = pcm
    scorer = engine.scorer()
    rows = []
    for piece in padded.reshape(-1, chunk):
        scorer.feed(piece)
        rows.append(scorer.posteriors.copy())
    return np.concatenate(rows)


def _detections(engine: Engine, pcm: Pcm, threshold: float | None) -> list[Detection]:
    decision = engine.manifest.decision
    if threshold is not None:
        thresholds = dict.fromkeys(decision.thresholds, threshold)
        decision = dataclasses.replace(decision, thresholds=thresholds)
    stream = engine.stream(decision)
    return stream.push(pcm) + stream.flush(TAIL_SECONDS)


def _events(detections: Sequence[Detection]) -> list[dict[str, Any]]:
    """As ``earmark detect -`` prints them."""
    return [json.loads(to_json(DetectionEvent("-", *detection))) for detection in detections]


def _low_threshold(engine: Engine, pcm: Pcm) -> float | None:
    """The threshold that detects most, of those at which posteriors that differ by what a port may
    differ by give the same detections; None where there is no such."""
    best, most = None, 0
    for threshold in LOW_THRESHOLDS:
        near = (threshold - TOLERANCE, threshold, threshold + TOLERANCE)
        found = [[d[:2] for d in _detections(engine, pcm, value)] for value in near]
        if found[0] == found[1] == found[2] and len(found[0]) > most:
            best, most = threshold, len(found[0])
    return best


def _made(rate: int, chunk: int) -> Iterator[tuple[str, Pcm]]:
    """Recordings that need nothing but arithmetic."""
    yield "empty", np.zeros(0, np.int16)
    yield "one_sample", np.array([-32768], np.int16)
    yield "silence", np.zeros(2 * chunk, np.int16)
    borders = np.zeros(6 * chunk, np.int16)
    borders[chunk - 1 :: chunk] = 32767
    borders[chunk::chunk] = -32768
    yield "borders", borders
    time = np.arange(3 * rate + 1) / rate
    sweep = np.sin(2 * np.pi * (100 * time + 0.5 * (0.4 * rate - 100) / 3 * time**2))
    yield "sweep", to_int16(0.25 * sweep)
    yield "clipping", to_int16(4 * sweep[: 2 * rate + 123])
    # Noise at the levels and the lengths of syllables, in no known order.
    generator = np.random.default_rng(0)
    noise = 0.001 * generator.standard_normal(3 * rate)
    for start in range(0, 3 * rate, rate // 4):
        length, level = generator.uniform(0.05, 0.2), generator.uniform(0.02, 0.5)
        burst = generator.standard_normal(round(rate * length))
        smooth = np.convolve(burst, np.ones(generator.integers(1, 16)), "same")
        noise[start : start + len(burst)] += level * smooth / np.abs(smooth).max()
    yield "bursts", to_int16(noise)


def _words(keywords: Sequence[str], rate: int) -> list[Pcm]:
    """The first keywords, spoken, with pauses between them; nothing without a synthesizer."""
    from ..train.collect.speak import spoken

    pause = np.zeros(rate // 2, np.int16)
    parts = [pause]
    try:
        for _, speech in spoken(keywords, rate):
            if sum(map(len, parts)) + len(speech) > SPOKEN_SECONDS * rate:
                break
            parts += [to_int16(speech), pause]
    except ModuleNotFoundError:
        return []
    return parts


def _recorded(path: Path, rate: int) -> Pcm:
    pcm = read_audio(path, rate)
    if len(pcm) > MAX_SECONDS * rate:
        raise EarmarkError(
            f"{path}: lasts {len(pcm) / rate:.0f} s, more than {MAX_SECONDS:g}: cut it"
        )
    return to_int16(pcm)


_README = f"""Golden vectors of an Earmark model: recordings, and what the model makes of them.

{INDEX}          the index: model (name and SHA-256 of its file), sample_rate, step (samples between
                     two rows of posteriors), labels, tail, tolerance, and the recordings
NAME.pcm             audio: int16, little endian, one channel, no header
NAME.posteriors      float32, little endian, [rows, labels]: posteriors of each step, not smoothed

After a recording come `tail` zeros and as many more as complete a chunk; the rows of posteriors are
those of all of it. Each recording has one or two cases: with the model's own decision settings
(threshold null), and with one threshold for all keywords. `detections` are the lines that
`earmark detect -` prints, rounded to 4 digits; no time lies after the recording itself.

An implementation agrees if its keywords and times are these, and its posteriors and scores differ
by no more than `tolerance`. To check one that reads PCM on standard input, takes `--threshold T`
and prints such lines:

    earmark check-port FOLDER ./implementation model.onnx
"""
