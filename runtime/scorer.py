"""Audio in, logits out: what one stream keeps between two runs of the model."""

from collections.abc import Iterable, Iterator

import numpy as np

from .audio import as_pcm, copy_pcm
from .backends.backend import Backend
from .graph_ends import INPUT, OUTPUT
from .manifest import Manifest


class Scorer:
    """Audio in, logits out: the remainder of a chunk and the cache of one stream."""

    samples: int
    """Samples taken since the start or the last reset, those of an unfinished chunk included."""
    chunk: np.ndarray
    """Float32 [samples] in units of an int16 step, overwritten by the next chunk."""

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        """
        Args:
            backend: runs the graph.
            manifest: that of the graph.
        """
        geometry = manifest.geometry
        self._length = geometry.chunk
        pcm = np.zeros((1, geometry.chunk), np.float32)
        self.chunk = pcm[0]
        shape = (1, geometry.steps, len(manifest.labels))
        self._logits, self._posteriors = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._caches = [np.zeros((1, geometry.cache), np.float32) for _ in range(2)]
        # Two calls over the same buffers whose caches swap roles.
        outputs = {"logits": self._logits, OUTPUT: self._posteriors}
        ends = [
            ({INPUT: pcm, "cache": source}, outputs | {"cache_out": target})
            for source, target in (self._caches, self._caches[::-1])
        ]
        self._runs = [run for (run,) in backend.bind(*ends)]
        self._turn = 0
        self._filled = 0
        self.samples = 0

    @property
    def posteriors(self) -> np.ndarray:
        """Of the last chunk, float32 [steps, labels]: a view that the next call overwrites."""
        return self._posteriors[0]

    def feed(self, pcm: np.ndarray) -> np.ndarray:
        """Take audio and return the logits of every chunk that it completes.

        Args:
            pcm: [samples] at the model's sample rate; int16, or float32/float64 in [-1, 1).

        Returns:
            float32 [steps, labels]; no rows while a chunk is unfinished. After a single chunk it is
            a view that the next call overwrites.

        Raises:
            EarmarkError: ``pcm`` has another type or shape, or holds NaN or no audio. The state is
                as before.
        """
        pcm = as_pcm(pcm)
        complete = (self._filled + len(pcm)) // self._length
        _, steps, labels = self._logits.shape
        alone = complete == 1
        rows = self._logits if alone else np.empty((complete, steps, labels), np.float32)
        taken = row = 0
        while taken < len(pcm) and (taken := self.take(pcm, taken)) >= 0:
            logits = self.score()
            if not alone:
                rows[row] = logits
                row += 1
        return rows.reshape(-1, labels)

    def take(self, pcm: np.ndarray, start: int) -> int:
        """Take audio up to the end of the chunk.

        Args:
            pcm: what :func:`~earmark.runtime.audio.as_pcm` gave.
            start: the first sample to take, before the end of ``pcm``.

        Returns:
            The sample to go on from where the chunk is complete, :meth:`score` is to run the model
            on it, and :attr:`chunk` holds it; -1 where ``pcm`` ended before.
        """
        # No generator, and the usual case by itself: code between two runs of the model has left
        # the processor's caches, and costs several times of what it costs alone.
        filled, total, length = self._filled, len(pcm), self._length
        if total == length and not start and not filled:
            copy_pcm(pcm, self.chunk)
            self.samples += length
            return length
        count = min(length - filled, total - start)
        copy_pcm(pcm[start : start + count], self.chunk[filled : filled + count])
        self.samples += count
        if filled + count < length:
            self._filled = filled + count
            return -1
        self._filled = 0
        return start + count

    def score(self) -> np.ndarray:
        """Run the model on :attr:`chunk`: its logits, float32 [steps, labels].

        A view that the next call overwrites.
        """
        self._runs[self._turn]()
        self._turn = 1 - self._turn
        return self._logits[0]

    def replay(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Run the model on ``chunks``, each as :attr:`chunk` held it, from the start of a signal,
        and yield the logits of each. What :attr:`chunk` holds is kept."""
        current = self.chunk.copy()
        self._restart()
        for chunk in chunks:
            self.chunk[:] = chunk
            yield self.score()
        self.chunk[:] = current

    def flush(self) -> np.ndarray:
        """Finish the chunk with zeros and return its logits, float32 [steps, labels].

        The zeros count as audio. No rows where no chunk was begun.
        """
        return self.feed(np.zeros(-self._filled % self._length, np.int16))

    def reset(self) -> None:
        """Return to the start of a stream."""
        self._restart()
        self._filled = 0
        self.samples = 0

    def _restart(self) -> None:
        self._caches[0][:] = 0
        self._turn = 0
