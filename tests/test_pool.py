"""A pool of streams detects in each what a stream of its own would."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_model
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Decision
from earmark.runtime.pool import CROWD, StreamPool
from earmark.runtime.stream import Detection
from hypothesis import given, settings
from hypothesis import strategies as st


def signals(count: int, seconds: float = 3.0) -> list[np.ndarray]:
    """Tones of both pitches at random places, int16, each of another length."""
    generator = np.random.default_rng(1)
    found = []
    for number in range(count):
        pcm = generator.integers(-3, 4, round(seconds * 16000) + 777 * number).astype(np.int16)
        for hertz in (toy_model.LOW_HZ, toy_model.HIGH_HZ):
            sound = toy_model.tone(hertz, 0.4)
            at = int(generator.integers(0, len(pcm) - len(sound)))
            pcm[at : at + len(sound)] += sound // 2
        found.append(pcm)
    return found


def drain(
    pool: StreamPool,
    streams: list[int],
    signals: list[np.ndarray],
    cuts: list[int],
) -> dict[int, list[Detection]]:
    """Push in turn pieces of the lengths in ``cuts``, run when some are ready."""
    found: dict[int, list[Detection]] = {stream: [] for stream in streams}
    rest = dict(zip(streams, signals, strict=True))
    turn = 0
    while any(len(pcm) for pcm in rest.values()) or pool.pending:
        for stream, pcm in rest.items():
            if not pool.waiting(stream):
                piece = pcm[: cuts[turn % len(cuts)]]
                rest[stream] = pcm[pool.push(stream, piece) :]
                turn += 1
        for stream, detection in pool.run()[1]:
            found[stream].append(detection)
    return found


@settings(max_examples=25)
@given(
    st.integers(1, 7), st.integers(1, 5), st.lists(st.integers(70, 3000), min_size=1, max_size=5)
)
def test_each_stream_is_as_if_it_were_alone(
    engine: Engine, count: int, batch: int, cuts: list[int]
) -> None:
    pcm = signals(count)
    pool = StreamPool(engine, streams=count, batch=batch)
    streams = [pool.open() for _ in pcm]
    found = drain(pool, streams, pcm, cuts)
    for stream, signal in zip(streams, pcm, strict=True):
        alone = engine.stream()
        assert found[stream] == alone.push(signal)
        assert pool.seconds(stream) == alone.seconds == len(signal) / 16000


def test_the_shipped_model_gives_the_same_bits_in_batches() -> None:
    engine = Engine()
    chunk = engine.manifest.geometry.chunk
    generator = np.random.default_rng(0)
    levels = 10 ** generator.uniform(0, 4, (13, 1))
    pcm = (levels * generator.standard_normal((13, 25 * chunk))).clip(-32768, 32767)
    pcm = pcm.astype(np.int16)
    # A threshold that noise passes, so that scores are compared.
    low = Decision(dict.fromkeys(engine.manifest.keywords, 1e-4), refractory=0.0)
    pool = StreamPool(engine, low, streams=13, batch=5)
    streams = [pool.open() for _ in pcm]
    found = drain(pool, streams, list(pcm), [chunk])
    alone = [engine.stream(low).push(signal) for signal in pcm]
    assert [found[stream] for stream in streams] == alone
    assert sum(map(len, alone)) > 20


def test_a_batch_takes_those_that_waited_longest(engine: Engine) -> None:
    pool = StreamPool(engine, streams=5, batch=2)
    first, second, third = (pool.open() for _ in range(3))
    chunk = np.zeros(1280, np.int16)
    for stream in (second, third, first):
        assert pool.push(stream, np.zeros(2000, np.int16)) == 1280
        assert pool.waiting(stream)
        assert pool.push(stream, chunk) == 0
    assert pool.pending == 3
    assert pool.run() == ([second, third], [])
    assert pool.push(second, chunk) == 1280
    assert pool.run() == ([first, second], [])
    assert pool.run() == ([], [])


def test_only_a_crowd_is_waited_for(engine: Engine) -> None:
    pool = StreamPool(engine, streams=20, batch=12)
    chunk = np.zeros(1280, np.int16)
    streams = [pool.open() for _ in range(CROWD - 1)]
    pool.push(streams[0], chunk)
    assert pool.patience == 0.0
    streams += [pool.open() for _ in range(CROWD)]
    assert pool.patience == pytest.approx(0.008)
    for stream in streams[1:12]:
        assert pool.patience
        pool.push(stream, chunk)
    assert pool.patience == 0.0  # the batch is full


def test_a_number_given_again_begins_at_the_start(engine: Engine) -> None:
    pool = StreamPool(engine, streams=1)
    stream = pool.open()
    with pytest.raises(EarmarkError, match="all 1 streams are in use"):
        pool.open()
    low, high = toy_model.tone(toy_model.LOW_HZ, 0.5), toy_model.tone(toy_model.HIGH_HZ, 0.5)
    drain(pool, [stream], [low[:7000]], [7000])
    pool.push(stream, np.zeros(1280 - 7000 % 1280, np.int16))
    assert pool.pending == 1
    pool.close(stream)
    assert pool.pending == 0
    again = pool.open()
    assert pool.seconds(again) == 0.0
    assert drain(pool, [again], [high], [900])[again] == engine.stream().push(high)


def test_a_loss(engine: Engine) -> None:
    pcm = toy_model.scene()
    pool = StreamPool(engine, streams=3)
    stream = pool.open()
    alone = engine.stream()
    found = drain(pool, [stream], [pcm[:20000]], [3000])[stream]
    pool.gap(stream, 500)
    expected = alone.push(pcm[:20000])
    alone.gap(500)
    found += drain(pool, [stream], [pcm[20500:]], [3000])[stream]
    expected += alone.push(pcm[20500:])
    assert found == expected
    assert pool.seconds(stream) == alone.seconds == len(pcm) / 16000


def test_a_loss_told_in_pieces_is_as_long_as_one_told_at_once(engine: Engine) -> None:
    """A word whose repetition the refractory period keeps back, until it has run out."""
    word = np.append(toy_model.tone(toy_model.LOW_HZ, 0.5), np.zeros(8000, np.int16))
    decision = replace(engine.manifest.decision, refractory=3.0)
    for pieces in ([48000], [160] * 300, [7] * 6857 + [1]):
        alone, pool = engine.stream(decision), StreamPool(engine, decision, streams=1)
        stream = pool.open()
        found = alone.push(word), drain(pool, [stream], [word], [8000])[stream]
        for samples in pieces:
            alone.gap(samples)
            pool.gap(stream, samples)
        again = alone.push(word), drain(pool, [stream], [word], [8000])[stream]
        assert [[d.keyword for d in part] for part in (*found, *again)] == [["low"]] * 4
    with pytest.raises(EarmarkError, match="gap of -1 samples"):
        pool.gap(stream, -1)
    with pytest.raises(EarmarkError, match="gap of -1 samples"):
        alone.gap(-1)


def test_a_stream_is_closed_once(engine: Engine) -> None:
    pool = StreamPool(engine, streams=2)
    stream = pool.open()
    pool.close(stream)
    for number in (stream, 1, -1, 2):
        with pytest.raises(EarmarkError, match="not open"):
            pool.close(number)
    assert {pool.open(), pool.open()} == {0, 1}


@pytest.mark.parametrize(("streams", "batch"), [(0, 1), (-1, 1), (1, 0)])
def test_a_pool_of_nothing_is_refused(engine: Engine, streams: int, batch: int) -> None:
    with pytest.raises(EarmarkError, match="give at least 1"):
        StreamPool(engine, streams=streams, batch=batch)


def test_wrong_audio_leaves_the_state(engine: Engine) -> None:
    pool = StreamPool(engine, streams=1)
    stream = pool.open()
    with pytest.raises(EarmarkError, match="NaN"):
        pool.push(stream, np.array([0, np.nan], np.float32))
    assert pool.seconds(stream) == 0.0


def test_a_graph_for_one_stream_is_run_stream_by_stream(tmp_path: Path) -> None:
    import onnx

    path = toy_model.save(tmp_path / "toy.onnx")
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    engine = Engine(path)
    pcm = signals(3)
    pool = StreamPool(engine, streams=3)
    streams = [pool.open() for _ in pcm]
    found = drain(pool, streams, pcm, [1280])
    assert [found[stream] for stream in streams] == [engine.stream().push(x) for x in pcm]
