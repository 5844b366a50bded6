"""The page's modules by themselves, in Node.js, against what they mirror in Python."""

import json
import math
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_model
from earmark.export.page.page import ASSETS
from earmark.runtime import EarmarkError, read_audio
from earmark.runtime.decision import Decider
from earmark.runtime.engine import DEFAULT_MODEL
from earmark.runtime.graph_ends import with_ends
from earmark.runtime.manifest import METADATA_KEY, Decision, Manifest
from earmark.runtime.onnx_file import read_onnx
from earmark.runtime.wyoming.converter import Converter

RATE = 16000


def node(module: str, names: str, body: str, given: Any = None) -> Any:
    """What ``body`` returns, a JavaScript function's with ``given`` in scope and names imported."""
    if shutil.which("node") is None:
        pytest.skip("no node here: apt-get install nodejs")
    code = f"""
        import {{ {names} }} from {json.dumps((ASSETS / module).as_uri())};
        import {{ readFileSync }} from "node:fs";
        const given = JSON.parse(readFileSync(0, "utf8"));
        const found = await (async () => {{ {body} }})();
        process.stdout.write(JSON.stringify(found));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def decision_case(random: np.random.Generator) -> dict[str, Any]:
    """Posteriors in calls of any length, with gaps between some, and a rule."""
    labels = [f"w{index}" for index in range(random.integers(1, 5))] + ["_unknown_"]
    step = float(random.choice([0.01, 0.02, 0.08]))
    # Thresholds that sums meet exactly, windows that are halves of a step.
    grid = [0.25, 0.5, 0.75, 1.0, 0.1, 0.3, 0.7]
    decision = {
        "thresholds": {label: float(random.choice(grid)) for label in labels[:-1]},
        "smoothing": float(random.choice([0, 0.5, 1, 1.5, 2.5, 7, 12.5])) * step,
        "release": float(random.choice([0, 0.5, 0.9, 1])),
        "refractory": float(random.choice([0, 0.05, 0.3, 0.8])),
    }
    calls: list[Any] = []
    for _ in range(random.integers(1, 12)):
        if random.random() < 0.15:
            calls.append(int(random.integers(0, 30)))
            continue
        shape = (random.integers(0, 40), len(labels))
        values = random.random(shape) ** random.choice([0.2, 1, 3])
        if random.random() < 0.5:
            values = np.round(values * 4) / 4
        if random.random() < 0.3:
            values = np.repeat(values, 5, axis=0)
        calls.append(values.astype(np.float32).tolist())
    return {"labels": labels, "step": step, "decision": decision, "calls": calls}


def test_decisions_are_those_of_python() -> None:
    random = np.random.default_rng(0)
    cases = [decision_case(random) for _ in range(400)]
    found = node(
        "decision.js",
        "Decider",
        """
        return given.map(({labels, step, decision, calls}) => {
          const decider = new Decider(decision, labels, step);
          return calls.map((call) => {
            if (typeof call === "number") return decider.gap(call), [];
            const firings = decider.update(Float32Array.from(call.flat()));
            return [firings.map(({label, row, score}) => [label, row, score]),
                    Array.from(decider.smoothed)];
          });
        });
        """,
        cases,
    )
    fired = 0
    for case, calls in zip(cases, found, strict=True):
        decider = Decider(Decision(**case["decision"]), case["labels"], case["step"])
        for call, mine in zip(case["calls"], calls, strict=True):
            if isinstance(call, int):
                decider.gap(call)
                continue
            rows = np.array(call, np.float32).reshape(-1, len(case["labels"]))
            firings = decider.update(rows)
            assert mine == [[list(f) for f in firings], decider.smoothed.tolist()]
            fired += len(firings)
    assert fired > 1000


def test_a_retuned_decider_keeps_what_it_heard() -> None:
    given = {"low": [[0.6]] * 10, "high": [[0.9]] * 5}
    fired = node(
        "decision.js",
        "Decider",
        """
        const rule = {smoothing: 0.1, release: 0.5, refractory: 0.2};
        const decider = new Decider({...rule, thresholds: {w: 0.8}}, ["w"], 0.02);
        const rows = (name) => Float32Array.from(given[name].flat());
        const first = decider.update(rows("low"));
        decider.retune({...rule, thresholds: {w: 0.5}});
        const second = decider.update(rows("low"));
        decider.retune({...rule, thresholds: {w: 0.7}});
        return [first, second, decider.update(rows("high"))].map((firings) => firings.length);
        """,
        given,
    )
    # It fires at once, as the window is full of 0.6; then it is not armed, as nothing fell.
    assert fired == [0, 1, 0]


def resampled(pcm: np.ndarray, source: int, sizes: list[int]) -> np.ndarray:
    out = node(
        "resampler.js",
        "Resampler",
        """
        const resampler = new Resampler(given.source, 16000), found = [];
        for (let start = 0, turn = 0; start < given.pcm.length; turn++) {
          const end = start + given.sizes[turn % given.sizes.length];
          found.push(...resampler.push(Float32Array.from(given.pcm.slice(start, end))));
          start = end;
        }
        return [...found, ...resampler.finish()];
        """,
        {"pcm": pcm.tolist(), "source": source, "sizes": sizes},
    )
    return np.array(out, np.float32)


def sine(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("source", [8000, 11025, 22050, 44100, 44101, 48000, 96000, 192000])
def test_a_tone_is_the_same_tone_at_16_khz(source: int) -> None:
    for hertz in (100, 1000, 0.88 * min(source, RATE) / 2):
        tone = sine(hertz, source)
        out = resampled(tone, source, [source])
        assert len(out) == math.ceil(len(tone) * RATE / source)
        expected = sine(hertz, RATE)[: len(out)]
        inner = slice(len(out) // 4, -len(out) // 4)  # the tone begins and ends in silence
        assert np.abs(out - expected)[inner].max() < 3e-4


@pytest.mark.parametrize("hertz", [8000, 9000, 12000, 20000])
def test_what_is_above_8_khz_is_gone(hertz: float) -> None:
    out = resampled(sine(hertz, 48000), 48000, [480])
    assert np.abs(out)[len(out) // 4 : -len(out) // 4].max() < 1e-4  # -80 dB


def test_speech_like_noise_is_resampled_as_by_the_converter() -> None:
    random = np.random.default_rng(0)
    spectrum = np.fft.rfft(random.normal(0, 3000, 44100))
    spectrum[7000:] = 0
    pcm = np.fft.irfft(spectrum).round().astype("<i2")
    converter = Converter(44100, 2, 1, RATE)
    expected = np.concatenate([converter.convert(pcm.tobytes()), converter.finish()])
    out = resampled(pcm / np.float32(32768), 44100, [1024])
    count = min(len(out), len(expected))
    assert count >= RATE - 1
    difference = (out[:count] - expected[:count])[200:-200]
    assert np.sqrt(np.mean(difference**2)) < 1e-3 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("source", [11025, 44100, 44101, 48000])
def test_resampling_does_not_depend_on_the_pieces(source: int) -> None:
    pcm = np.random.default_rng(1).normal(0, 0.1, 6000).astype(np.float32)
    whole = resampled(pcm, source, [6000])
    for sizes in ([1], [128], [7, 1999, 31]):
        assert np.array_equal(resampled(pcm, source, sizes), whole)


def wav(path: Path, tag: int, bits: int, data: bytes, channels: int = 1, **changes: Any) -> Path:
    width = channels * bits // 8
    rate = changes.get("rate", RATE)
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits)
    if changes.get("extensible"):
        sub = struct.pack("<H", tag) + bytes(14)
        form = struct.pack("<H", 0xFFFE) + form[2:] + struct.pack("<HHI", 22, bits, 0) + sub
    chunks = b"LIST\x05\x00\x00\x00abcde\x00"  # of odd length, which is padded
    chunks += b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", changes.get("promised", len(data))) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


READ = """
const found = [];
for (const path of given) {
  try {
    const wav = await openWav(new Blob([readFileSync(path)]));
    if (wav === null) { found.push(null); continue; }
    const pcm = [];
    for (let at = 0; at < wav.frames; at += 777) pcm.push(...await wav.read(at, 777));
    found.push({rate: wav.rate, pcm});
  } catch (error) {
    if (error.constructor.name !== "UserError") throw error;
    found.push(error.message);
  }
}
return found;
"""


def test_wav_files_are_read_as_by_python(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    paths = []
    for channels in (1, 2, 3):
        count = 2000 * channels
        float_data = random.uniform(-1, 1, count)
        for tag, bits, data in (
            (1, 8, random.bytes(count)),
            (1, 16, random.bytes(2 * count)),
            (1, 24, random.bytes(3 * count)),
            (1, 32, random.bytes(4 * count)),
            (3, 32, float_data.astype("<f4").tobytes()),
            (3, 64, float_data.astype("<f8").tobytes()),
        ):
            for extensible in (False, True):
                path = tmp_path / f"{channels}-{tag}-{bits}-{extensible}.wav"
                paths.append(wav(path, tag, bits, data, channels, extensible=extensible))
    for path, found in zip(paths, node("wav.js", "openWav", READ, [*map(str, paths)]), strict=True):
        assert found["rate"] == RATE
        assert np.array_equal(np.array(found["pcm"], np.float32), read_audio(path)), path


def test_wav_files_that_python_refuses_are_refused(tmp_path: Path) -> None:
    ones = np.ones(100, "<f4")
    cases = {
        "truncated": wav(tmp_path / "a.wav", 1, 16, bytes(200), promised=400),
        "no samples": wav(tmp_path / "b.wav", 1, 16, b""),
        "what is no audio at 0.000 s": wav(tmp_path / "c.wav", 3, 32, (ones * np.nan).tobytes()),
        "no audio": wav(tmp_path / "d.wav", 3, 32, (ones * 200).tobytes()),
        "cannot be": wav(tmp_path / "e.wav", 1, 16, bytes(200), rate=10),
        "cut off": tmp_path / "f.wav",
    }
    cases["cut off"].write_bytes(cases["truncated"].read_bytes()[:30])
    for path in cases.values():
        with pytest.raises(EarmarkError):
            read_audio(path)
    for reason, found in zip(
        cases, node("wav.js", "openWav", READ, [*map(str, cases.values())]), strict=True
    ):
        assert reason in found


def test_other_files_are_left_to_the_browser(tmp_path: Path) -> None:
    mu_law = wav(tmp_path / "a.wav", 7, 8, bytes(100))
    other = tmp_path / "b.mp3"
    other.write_bytes(b"ID3")
    assert node("wav.js", "openWav", READ, [str(mu_law), str(other)]) == [None, None]


def test_the_model_file_is_read_and_lengthened_as_by_python(tmp_path: Path) -> None:
    for path in (DEFAULT_MODEL, toy_model.save(tmp_path / "toy.onnx", activation="sigmoid")):
        found = node(
            "onnx.js",
            "metadata, withPosteriors",
            """
            const data = readFileSync(given.path);
            return [Object.fromEntries(metadata(data)),
                    Buffer.from(withPosteriors(data, given.activation)).toString("hex")];
            """,
            {"path": str(path), "activation": manifest_of(path).activation},
        )
        data = path.read_bytes()
        assert found[0] == read_onnx(data).metadata
        longer = bytes.fromhex(found[1])
        assert longer.startswith(data) and len(longer) > len(data)
        assert with_ends(data, manifest_of(path)).endswith(longer[len(data) :])


def manifest_of(path: Path) -> Manifest:
    return Manifest.from_json(read_onnx(path.read_bytes()).metadata[METADATA_KEY])


MANIFESTS = """
const found = [];
for (const path of given) {
  try {
    const {labels, keywords} = readManifest(readFileSync(path));
    found.push({labels, keywords});
  } catch (error) {
    if (error.constructor.name !== "UserError") throw error;
    found.push(error.message);
  }
}
return found;
"""


def test_manifests_that_python_refuses_are_refused(tmp_path: Path) -> None:
    good = toy_model.manifest().to_dict()
    decision = good["decision"]
    wrong = [
        {"schema": 99},
        {"schema": None},
        {"labels": []},
        {"labels": ["low", "low"]},
        {"labels": "low"},
        {"name": 1},
        {"activation": "relu", "schema": 2},
        {"geometry": None},
        {"geometry": {**good["geometry"], "step": 0}},
        {"geometry": {**good["geometry"], "step": 300}},
        {"geometry": {**good["geometry"], "cache": 1.5}},
        {"decision": {**decision, "thresholds": {"low": 0.5}}},
        {"decision": {**decision, "thresholds": {"low": 0.5, "high": 0}}},
        {"decision": {**decision, "smoothing": -1}},
        {"decision": {**decision, "refractory": "1"}},
        {"operating_points": {"a": {}}, "schema": 2},
        {"operating_points": [], "schema": 2},
        {"sources": 5},
        {"sources": [None]},
        {"sources": [{"name": "a"}]},
        {"sources": [{"name": "a", "licence": "b", "role": 1}]},
        {"sources": [{"name": "a", "licence": "b", "url": ["c"]}]},
        {"precision": "int4"},
        {"parameters": "1"},
        {"licence": None},
        {"teacher": 1},
        {"metrics": []},
    ]
    texts = [json.dumps(good | change) for change in wrong] + ["{", "[]", "7"]
    paths = []
    for index, text in enumerate(texts):
        with pytest.raises(EarmarkError):
            Manifest.from_json(text)
        paths.append(toy_model.save(tmp_path / f"{index}.onnx", text=text))
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(toy_model.graph().SerializeToString())
    fine = toy_model.save(tmp_path / "fine.onnx")
    *refused, accepted = node(
        "manifest.js", "readManifest", MANIFESTS, [*map(str, [*paths, plain, fine])]
    )
    assert all(isinstance(message, str) for message in refused), refused
    assert accepted == {"labels": list(toy_model.LABELS), "keywords": ["low", "high"]}


def test_damaged_model_files_are_refused_or_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = toy_model.save(tmp_path / "toy.onnx").read_bytes()
    paths = []
    for index in range(200):
        damaged = bytearray(data[: random.integers(0, len(data))] if index % 2 else data)
        for _ in range(random.integers(1, 6)):
            if damaged:
                damaged[random.integers(len(damaged))] = random.integers(256)
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(damaged)
        paths.append(str(path))
    found = node("manifest.js", "readManifest", MANIFESTS, paths)
    assert len(found) == 200 and sum(isinstance(item, str) for item in found) > 50
