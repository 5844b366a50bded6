"""The ring between PortAudio's thread and ours: nothing is lost without a mark."""

import threading

import numpy as np
from earmark.runtime.microphone.ring import Ring
from hypothesis import given
from hypothesis import strategies as st


@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=30),
)
def test_ring_gives_back_what_was_written_or_marks_the_loss(
    frames: int, steps: list[tuple[int, bool, bool]]
) -> None:
    """Every frame is numbered: what is read goes up by one, but at a gap of the size it tells."""
    ring, number, expected, marked = Ring(frames, 2), 0, 0, False
    for count, overflow, reads in [*steps, (0, False, True)]:
        data = np.arange(number, number + count, dtype="<u2").tobytes()
        if count:
            ring.write(data, overflow)
            marked = marked or overflow
        number += count
        while reads:
            got, gap = ring.read(timeout=0)
            if gap is not None:
                assert gap.samples or marked
                expected += gap.samples
            values = np.frombuffer(got, "<u2")
            assert np.array_equal(values, np.arange(expected, expected + len(values)))
            expected += len(values)
            reads = len(got) > 0
    assert expected == number


def test_ring_between_threads() -> None:
    ring, total = Ring(1000, 2), 200_000

    def write() -> None:
        for start in range(0, total, 100):
            ring.write(np.arange(start, start + 100, dtype="<u4").astype("<u2").tobytes())

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while seen < total:
        data, gap = ring.read(timeout=5)
        seen += gap.samples if gap else 0
        values = np.frombuffer(data, "<u2")
        assert np.array_equal(values, np.arange(seen, seen + len(values)) % 65536)
        seen += len(values)
    writer.join()
    assert seen == total


def test_a_wait_ends_with_data_or_when_it_is_woken() -> None:
    ring = Ring(10, 2)
    threading.Timer(0.01, ring.wake).start()
    assert not ring.wait(60)
    threading.Timer(0.01, ring.write, [b"ab"]).start()
    assert ring.wait(60)
    assert ring.queued == 1
    assert ring.wait(60)
    assert ring.read(60) == (b"ab", None)
    assert ring.queued == 0
