"""What the fuzzer feeds: each reader of Earmark with well-formed inputs to start from.

A new reader is one more :class:`Target` in ``TARGETS``.
"""

import dataclasses
import io
import json
import struct
import tarfile
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from ...runtime.audio import read_blocks
from ...runtime.backends.backend import available
from ...runtime.engine import DEFAULT_MODEL, Engine
from ...runtime.info import describe
from ...runtime.manifest import METADATA_KEY, Manifest
from ...runtime.sources import RawSource
from ...runtime.spotter import spot
from ...train.data.corpus import scan
from ...train.data.shards import list_shard, read_recording
from .mutate import mutate_bytes, mutate_json, mutate_value


@dataclass(frozen=True)
class Target:
    """One reader."""

    seeds: Callable[[Path], list[bytes]]
    """Well-formed inputs; the folder is for what takes files to make them."""
    run: Callable[[bytes, Path], None]
    """Reads one input to its end; the folder is the target's own. Raises EarmarkError only."""
    mutate: Callable[[Random, Sequence[bytes]], bytes] = mutate_bytes


def _wav_seeds(folder: Path) -> list[bytes]:
    """Every sample format, one to three channels, some rates, with and without other chunks."""
    seeds = []
    formats = ((1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64), (0xFFFE, 16), (7, 8))
    for number, (tag, bits) in enumerate(formats):
        channels, rate = 1 + number % 3, (16000, 8000, 44100)[number % 3]
        frame = channels * bits // 8
        layout = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits)
        if tag == 0xFFFE:
            layout += struct.pack("<HHIH", 22, bits, 0, 1) + bytes(14)
        samples = (np.sin(np.arange(300 * frame)) * 60).astype(np.int8).tobytes()
        if tag == 3:
            kind = "<f4" if bits == 32 else "<f8"
            samples = (np.sin(np.arange(300 * channels)) / 2).astype(kind).tobytes()
        chunks = [(b"fmt ", layout), (b"LIST", b"INFOISFT\4\0\0\0abc\0"), (b"data", samples)]
        body = b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
        seeds.append(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    return seeds


def _audio_seeds(folder: Path) -> list[bytes]:
    """What libsndfile reads."""
    import soundfile

    seeds = []
    pcm = np.sin(np.arange(2000) / 5).astype(np.float32) / 2
    for form, subtype in (
        *(("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
        *(("AIFF", "PCM_16"), ("AU", "ULAW"), ("W64", "PCM_16"), ("CAF", "ALAC_16")),
        *(("WAV", "IMA_ADPCM"), ("RF64", "PCM_16"), ("SVX", "PCM_16"), ("VOC", "PCM_16")),
    ):
        if soundfile.check_format(form, subtype):
            file = io.BytesIO()
            soundfile.write(file, pcm, 16000, subtype, format=form)
            seeds.append(file.getvalue())
    return seeds


def _read_audio(data: bytes, folder: Path) -> None:
    path = folder / "audio.wav"
    path.write_bytes(data)
    for _ in read_blocks(path, 16000):
        pass


def _raw_seeds(folder: Path) -> list[bytes]:
    pcm = np.random.default_rng(0).normal(0, 3000, 4000).astype("<i2").tobytes()
    return [b"", b"\0", bytes(1000), pcm, *_wav_seeds(folder)[:1]]


@cache
def _engine() -> Engine:
    return Engine()


def _read_raw(data: bytes, folder: Path) -> None:
    for _ in spot(_engine().stream(gate=-60), RawSource(io.BytesIO(data))):
        pass


def _model_seeds(folder: Path) -> list[bytes]:
    """The shipped model, and a tiny one in both precisions."""
    import torch

    from ...export.graph import build
    from ...export.network import Affine
    from ...train.mfcc import MfccSettings
    from ...train.student import Student, StudentSettings

    torch.manual_seed(0)
    shape = StudentSettings(width=4, dilations=(1,), window=0.1)
    student = Student(3, shape, MfccSettings(coefficients=8, mels=8)).eval()
    manifest = dataclasses.replace(
        Engine().manifest,
        labels=("yes", "_unknown_", "_silence_"),
        geometry=student.geometry(1280),
        decision=dataclasses.replace(Engine().manifest.decision, thresholds={"yes": 0.5}),
        training={},
        metrics={},
        quantization={},
    )
    encodings = [Affine(0.05, 0)] * (1 + len(list(student.convolutions)))
    models = [build(student, 1280), build(student, 1280, encodings)]
    for model in models:
        model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    return [*(model.SerializeToString() for model in models), DEFAULT_MODEL.read_bytes()]


def _mutate_model(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Bytes one time in three, else the graph's parts."""
    if random.random() < 0.3:
        return mutate_bytes(random, seeds)
    import onnx

    model = onnx.load_from_string(seeds[random.choice((0, 1))])
    for _ in range(random.randint(1, 3)):
        _mutate_graph(random, model)
    return model.SerializeToString()


def _mutate_graph(random: Random, model: Any) -> None:
    from onnx import TensorProto, helper

    graph = model.graph
    node, tensor = random.choice(graph.node), random.choice(graph.initializer)
    integer = random.choice((-1, 0, 1, 2, 3, 255, 1 << 20, 1 << 31, 1 << 40, -(1 << 63)))
    # Half of them leave sizes alone, so that they reach a backend.
    match random.choice((*[_CONTENTS] * 10, 4, 5, 7, 7, *range(14))):
        case 0 if tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = integer
        case 1:
            tensor.data_type = random.randrange(0, 25)
        case 2:
            tensor.raw_data = mutate_bytes(random, [tensor.raw_data or b"\0"])
        case 3:  # _CONTENTS
            # The same size, other contents: what passes every check and is computed.
            raw = np.frombuffer(tensor.raw_data, np.uint8).copy()
            if len(raw):
                places = np.array([random.randrange(len(raw)) for _ in range(8)])
                raw[places] = [random.choice((0, 1, 0x7F, 0x80, 0xFF)) for _ in range(8)]
            tensor.raw_data = raw.tobytes()
        case 4:
            node.op_type = random.choice([other.op_type for other in graph.node] + list(_OPERATORS))
        case 5 if node.attribute:
            attribute = random.choice(node.attribute)
            if attribute.ints:
                attribute.ints[random.randrange(len(attribute.ints))] = integer
            else:
                attribute.i = integer
        case 6 if node.attribute:
            del node.attribute[random.randrange(len(node.attribute))]
        case 7:
            place = random.randrange(len(node.input))
            node.input[place] = random.choice(random.choice(graph.node).input)
        case 8:
            # What grows: a tensor joined to itself again and again, or an outer product.
            name = random.choice(node.output)
            grown = [f"{name}_{step}" for step in range(40)]
            for before, after in zip([name, *grown], grown, strict=False):
                op = random.choice(("Concat", "MatMul", "Add"))
                grow = helper.make_node(op, [before, before], [after])
                if op == "Concat":
                    grow.attribute.append(helper.make_attribute("axis", 0))
                graph.node.append(grow)
        case 9:
            node.domain = random.choice(("com.microsoft", "ai.onnx.ml", "x"))
        case 10:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="/etc/passwd")
        case 11:
            value = random.choice([*graph.input, *graph.output])
            side = random.choice(value.type.tensor_type.shape.dim)
            side.dim_value = integer
        case 12:
            graph.node.remove(node)
        case _:
            entry = model.metadata_props[0]
            entry.value = mutate_json(random, entry.value)


_CONTENTS = 3
_OPERATORS = (
    *("ConstantOfShape", "Loop", "If", "Scan", "Expand", "Tile", "Range", "Resize", "Pad", "NoOp"),
    *("Identity", "Unsqueeze", "ReduceMean", "Conv", "Min", "Log", "Gather", "Div"),
)


def _read_model(backend: str, data: bytes, folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(data)
    stream = Engine(path, backend).stream()
    noise = np.random.default_rng(0).normal(0, 3000, 4000).astype(np.int16)
    if len(stream.push(noise)) > 1000:
        raise AssertionError("more detections than steps")


def _manifest_seeds(folder: Path) -> list[bytes]:
    return [Engine().manifest.to_json().encode()]


def _mutate_json(random: Random, seeds: Sequence[bytes]) -> bytes:
    if random.random() < 0.3:
        return mutate_bytes(random, seeds)
    return mutate_json(random, random.choice(seeds).decode()).encode()


def _read_manifest(data: bytes, folder: Path) -> None:
    manifest = Manifest.from_json(data.decode("utf-8", "replace"))
    if Manifest.from_json(manifest.to_json()) != manifest:
        raise AssertionError("another manifest is read back")
    for line in describe(manifest):
        if not line.isprintable():
            raise AssertionError("unprintable text for people")


# Recipes and runs are read with torch at hand, which takes seconds to import: not before it is due.
def _recipe_seeds(folder: Path) -> list[bytes]:
    from ...train.recipe import RECIPES, load_recipe, recipe_toml

    text = (RECIPES / "commands.toml").read_text()
    (folder / "recipe.toml").write_text(text)
    return [text.encode(), recipe_toml(load_recipe(folder / "recipe.toml")).encode()]


def _mutate_toml(random: Random, seeds: Sequence[bytes]) -> bytes:
    if random.random() < 0.5:
        return mutate_bytes(random, seeds)
    import tomli_w

    value = mutate_value(random, tomllib.loads(random.choice(seeds).decode()))
    try:
        return tomli_w.dumps(value).encode()
    except (TypeError, ValueError, AttributeError, RecursionError):  # has no form in TOML
        return mutate_bytes(random, seeds)


def _read_recipe(data: bytes, folder: Path) -> None:
    from ...train.recipe import load_recipe, recipe_toml

    path = folder / "recipe.toml"
    path.write_bytes(data)
    recipe = load_recipe(path)
    path.write_text(recipe_toml(recipe), encoding="utf-8")
    if load_recipe(path) != recipe:
        raise AssertionError("another recipe is read back")


def _run_seeds(folder: Path) -> list[bytes]:
    """The files of a run, the file's name first."""
    from ...train.recipe import parse_recipe
    from ...train.run import METRICS, RECIPE, WEIGHTS, RunInfo, save_weights, start
    from ...train.student import Student

    table = {
        "name": "a",
        "keywords": ("yes",),
        "student": {"width": 4, "dilations": (1,)},
        "features": {"coefficients": 4, "mels": 4},
    }
    recipe = parse_recipe(table, "seed")
    labels = ("yes", "_unknown_", "_silence_")
    info = RunInfo(labels, (), "0" * 64, {}, ("yes/a.wav",), {}, None, "earmark train")
    start(folder, recipe, info)
    save_weights(folder / WEIGHTS, Student(3, recipe.student, recipe.features))
    (folder / METRICS).write_text('{"epoch": 1, "loss": 0.5}\n' * 3)
    names = (RECIPE, "run.json", WEIGHTS, METRICS)
    return [name.encode() + b"\n" + (folder / name).read_bytes() for name in names]


def _mutate_run(random: Random, seeds: Sequence[bytes]) -> bytes:
    name, _, content = random.choice(seeds).partition(b"\n")
    mutate = _mutate_json if name == b"run.json" else mutate_bytes
    return name + b"\n" + mutate(random, [content])


def _read_run(data: bytes, folder: Path) -> None:
    from ...train.run import load_run

    if not any(folder.iterdir()):
        _run_seeds(folder)
    name, _, content = data.partition(b"\n")
    path = folder / name.decode()
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        load_run(folder)
    finally:
        path.write_bytes(whole)


def _corpus_seeds(folder: Path) -> list[bytes]:
    source = {"name": "a", "licence": "b", "role": "c", "url": "", "attribution": "d"}
    return [
        b"sources.json\n" + json.dumps([source, source | {"name": "e"}]).encode(),
        b"validation_list.txt\nyes/ann_nohash_0.wav\nno/bob_nohash_1.wav\n",
        b"testing_list.txt\nyes\\cid_nohash_0.wav\n\n../x.wav\n/etc/passwd\n.wav\n..\n",
    ]


def _mutate_corpus(random: Random, seeds: Sequence[bytes]) -> bytes:
    name, _, content = random.choice(seeds).partition(b"\n")
    if name == b"sources.json":
        return name + b"\n" + _mutate_json(random, [content])
    others = [seed.partition(b"\n")[2] for seed in seeds]
    return name + b"\n" + mutate_bytes(random, [content, *others[1:]])


def _read_corpus(data: bytes, folder: Path) -> None:
    for clip in ("yes/ann_nohash_0.wav", "no/bob_nohash_1.wav", "yes/cid_nohash_0.wav"):
        (folder / clip).parent.mkdir(exist_ok=True)
        (folder / clip).touch()
    name, _, content = data.partition(b"\n")
    path = folder / name.decode()
    path.write_bytes(content)
    try:
        corpus = scan(folder)
    finally:
        path.unlink()
    if any(not value.isprintable() for s in corpus.sources for value in vars(s).values()):
        raise AssertionError("unprintable text in a source")


def _shard_seeds(folder: Path) -> list[bytes]:
    """Clips that are told by name, by JSON and by text, in the two ways of writing long names."""
    audio, source = _wav_seeds(folder)[0], json.dumps([{"name": "a", "licence": "b"}]).encode()
    members = {
        "__meta__/sources.json": source,
        "yes/ann_nohash_0.wav": audio,
        f"{'long' * 30}/1.wav": audio,
        f"{'long' * 30}/1.json": b'{"word": "no", "speaker": "bob", "split": "train", "fold": 1}',
        "_background_noise_/hum.wav": audio,
        "2.wav": audio,
        "2.txt": b"stop",
    }
    seeds = []
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        seeds.append(buffer.getvalue())
    return seeds


def _read_shard(data: bytes, folder: Path) -> None:
    path = folder / "shard.tar"
    path.write_bytes(data)
    listing = list_shard(path)
    for sample in listing.samples:
        if sample.member.offset + sample.member.size > len(data):
            raise AssertionError("a recording beyond the end of the shard")
        read_recording(sample.member, 16000)


def _wyoming_seeds(folder: Path) -> list[bytes]:
    """Conversations as clients have them."""
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.info import Describe
    from wyoming.ping import Ping
    from wyoming.wake import Detect

    audio = [AudioStart(16000, 2, 1), AudioChunk(16000, 2, 1, bytes(640), 20), AudioStop()]
    conversations = ([Describe()], [Detect(["yes"]), *audio], [Ping("a"), *audio, Describe()])
    return [
        b"".join(_wyoming_bytes(message.event()) for message in conversation)
        for conversation in conversations
    ]


def _wyoming_bytes(event: Any) -> bytes:
    data, payload = json.dumps(event.data).encode(), event.payload or b""
    header = {"type": event.type, "data_length": len(data), "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + data + payload


def _read_wyoming(data: bytes, folder: Path) -> None:
    """Message by message to the end of the connection."""
    import asyncio

    from ...runtime.wyoming.wire import MAX_LINE, read_message

    async def read() -> None:
        reader = asyncio.StreamReader(limit=MAX_LINE)
        reader.feed_data(data)
        reader.feed_eof()
        with suppress(asyncio.IncompleteReadError):  # the peer has gone within a message
            while (message := await read_message(reader)) is not None:
                await reader.readexactly(message.payload)

    asyncio.run(read())


def _model_targets() -> dict[str, Target]:
    """One for each backend that is there."""
    return {
        f"model by {name}": Target(_model_seeds, partial(_read_model, name), _mutate_model)
        for name in available()
    }


TARGETS: dict[str, Target] = {
    "wav": Target(_wav_seeds, _read_audio),
    "audio": Target(_audio_seeds, _read_audio),
    "raw": Target(_raw_seeds, _read_raw),
    **_model_targets(),
    "manifest": Target(_manifest_seeds, _read_manifest, _mutate_json),
    "recipe": Target(_recipe_seeds, _read_recipe, _mutate_toml),
    "run": Target(_run_seeds, _read_run, _mutate_run),
    "wyoming": Target(_wyoming_seeds, _read_wyoming),
    "corpus": Target(_corpus_seeds, _read_corpus, _mutate_corpus),
    "shard": Target(_shard_seeds, _read_shard),
}
