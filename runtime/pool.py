"""Many streams of one engine, whose chunks are run together.

The batch axis of the graph is free, and much of what a call costs, it costs once for all rows: in a
batch of 16 a chunk takes about half the time that it takes alone by onnxruntime, three quarters by
compiled code, which saves only what Python does. A run takes the chunks that are there: few streams
run one by one and without delay, and the batches grow with the load.
"""

from collections import deque

import numpy as np

from .audio import as_pcm, copy_pcm
from .backends.backend import Arrays
from .decision import BatchDecider
from .engine import Engine
from .errors import EarmarkError
from .graph_ends import INPUT, OUTPUT
from .manifest import Decision
from .stream import Detection

BATCH = 32
"""Most chunks in one run: more gain nothing, and a run must not hold up other work for long."""


LINGER = 0.1
"""Chunks may wait for others for this share of a chunk's length."""
CROWD = 8
"""With fewer streams than these the wait would bring too seldom another chunk."""


class StreamPool:
    """Streams that share their runs, each known by its number.

    Each gives the detections that a :class:`~earmark.runtime.stream.Stream` of its own would give.
    The memory for all streams is taken at the start. One thread may use a pool at a time.
    """

    def __init__(
        self, engine: Engine, decision: Decision | None = None, *, streams: int, batch: int = BATCH
    ) -> None:
        """
        Args:
            engine: the model.
            decision: thresholds and times in place of those in the manifest.
            streams: most streams at once.
            batch: most chunks in one run; 1 where the graph takes no more.

        Raises:
            EarmarkError: a value of ``decision`` is out of range, a keyword is not the model's, or
                the streams would take unreasonable memory, or there are to be none.
        """
        if streams < 1 or batch < 1:
            raise EarmarkError(f"a pool of {streams} streams, {batch} in a run: give at least 1")
        manifest = engine.manifest.decided_by(decision)
        geometry = manifest.geometry
        self._labels = manifest.labels
        self._rate, self._step, self._chunk = geometry.sample_rate, geometry.step, geometry.chunk
        self._batch = min(batch, streams) if engine.batches else 1
        self._decider = BatchDecider(
            manifest.decision,
            manifest.labels,
            geometry.step / geometry.sample_rate,
            streams,
            geometry.steps,
        )
        self._pcm = np.zeros((streams, geometry.chunk), np.float32)
        self._cache = np.zeros((streams, geometry.cache), np.float32)
        self._free = list(range(streams - 1, -1, -1))
        self._filled = [0] * streams
        self._scored = [0] * streams
        self._origin = [0] * streams
        self._lost = [0] * streams
        """Samples of losses that make no whole step."""
        self._ready: deque[int] = deque()

        # What a run reads and writes: row i is the i-th stream of the batch.
        rows = self._batch
        self._inputs = (
            np.zeros((rows, geometry.chunk), np.float32),
            np.zeros((rows, geometry.cache), np.float32),
        )
        self._outputs = (
            np.zeros((rows, geometry.steps, len(manifest.labels)), np.float32),
            np.zeros((rows, geometry.cache), np.float32),
        )
        inputs: Arrays = dict(zip((INPUT, "cache"), self._inputs, strict=True))
        outputs: Arrays = dict(zip((OUTPUT, "cache_out"), self._outputs, strict=True))
        (self._runs,) = engine._backend.bind((inputs, outputs))

    @property
    def pending(self) -> int:
        """Chunks that wait for a run."""
        return len(self._ready)

    @property
    def patience(self) -> float:
        """Seconds that it is worth to wait for further chunks, now that one is there."""
        opened = len(self._filled) - len(self._free)
        if opened < CROWD or len(self._ready) >= min(self._batch, opened):
            return 0.0
        return LINGER * self._chunk / self._rate

    def open(self) -> int:
        """Start a stream and return its number.

        Raises:
            EarmarkError: all streams are in use.
        """
        if not self._free:
            raise EarmarkError(f"all {len(self._filled)} streams are in use: close one first")
        return self._free.pop()

    def close(self, stream: int) -> None:
        """End a stream: what it still holds is dropped and its number is given to another.

        Raises:
            EarmarkError: no stream of that number is open.
        """
        if stream in self._free or not 0 <= stream < len(self._filled):
            raise EarmarkError(f"stream {stream} is not open: close it once")
        self.reset(stream)
        self._free.append(stream)

    def reset(self, stream: int) -> None:
        """Return a stream to its start, at audio time 0."""
        self._restart(stream)
        self._decider.reset(stream)
        self._origin[stream] = 0
        self._lost[stream] = 0

    def gap(self, stream: int, samples: int = 0) -> None:
        """As :meth:`Stream.gap <earmark.runtime.stream.Stream.gap>`.

        A chunk that waits for a run is dropped with the rest of the audio before the loss.
        """
        if samples < 0:
            raise EarmarkError(f"a gap of {samples} samples: give 0 or more")
        lost = self._filled[stream] + samples
        self._origin[stream] += self._scored[stream] + lost
        steps, self._lost[stream] = divmod(self._lost[stream] + lost, self._step)
        self._decider.gap(stream, steps)
        self._restart(stream)

    def seconds(self, stream: int) -> float:
        """Audio time of a stream, losses told to :meth:`gap` included."""
        samples = self._origin[stream] + self._scored[stream] + self._filled[stream]
        return samples / self._rate

    def waiting(self, stream: int) -> bool:
        """Whether a stream has a full chunk and takes no more audio before it was run."""
        return self._filled[stream] == self._chunk

    def room(self, stream: int) -> int:
        """Samples that a stream's chunk takes until it is full."""
        return self._chunk - self._filled[stream]

    def push(self, stream: int, pcm: np.ndarray) -> int:
        """Take audio up to the end of the stream's chunk.

        Args:
            stream: its number.
            pcm: [samples] at the model's sample rate; int16, or float32/float64 in [-1, 1).

        Returns:
            How many samples were taken. The others are for after the next run.

        Raises:
            EarmarkError: as :meth:`Stream.push <earmark.runtime.stream.Stream.push>`.
        """
        pcm = as_pcm(pcm)
        filled = self._filled[stream]
        count = min(self._chunk - filled, len(pcm))
        if count:
            copy_pcm(pcm[:count], self._pcm[stream, filled : filled + count])
            self._filled[stream] = filled + count
            if filled + count == self._chunk:
                self._ready.append(stream)
        return count

    def run(self) -> tuple[list[int], list[tuple[int, Detection]]]:
        """Run the chunks that have waited longest, at most ``batch`` of them.

        Returns:
            The streams that were run, and what was detected in which of them.
        """
        count = min(len(self._ready), self._batch)
        if not count:
            return [], []
        streams = [self._ready.popleft() for _ in range(count)]
        chosen = np.array(streams, np.intp)
        pcm, cache = self._inputs
        posteriors, cache_out = self._outputs
        np.take(self._pcm, chosen, axis=0, out=pcm[:count], mode="clip")
        np.take(self._cache, chosen, axis=0, out=cache[:count], mode="clip")
        self._runs[count - 1]()
        self._cache[chosen] = cache_out[:count]
        firings = self._decider.update(chosen, posteriors[:count])
        detections = []
        for place, firing in firings:
            stream = streams[place]
            end = self._origin[stream] + self._scored[stream] + (firing.row + 1) * self._step
            detections.append(
                (stream, Detection(self._labels[firing.label], end / self._rate, firing.score))
            )
        for stream in streams:
            self._filled[stream] = 0
            self._scored[stream] += self._chunk
        return streams, detections

    def _restart(self, stream: int) -> None:
        if self.waiting(stream):
            self._ready.remove(stream)
        self._cache[stream] = 0
        self._filled[stream] = 0
        self._scored[stream] = 0
