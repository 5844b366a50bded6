"""The models of a Wyoming server: who runs them, and what the server says of them."""

import asyncio
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from wyoming.info import Attribution, Info, WakeModel, WakeProgram

from ..engine import Engine
from ..errors import EarmarkError
from ..manifest import Decision, Manifest
from ..options import chosen_decision
from ..pool import StreamPool
from ..stream import Detection


class Model:
    """A model, the streams of all clients through it, and the task that runs them."""

    def __init__(self, engine: Engine, decision: Decision, clients: int) -> None:
        self.manifest = engine.manifest
        self.pool = StreamPool(engine, decision, streams=clients)
        self._waiting: dict[int, asyncio.Future[list[Detection]]] = {}
        self._work = asyncio.Event()

    async def score(self, stream: int) -> list[Detection]:
        """Wait for the run of a stream's full chunk."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[stream] = future
        self._work.set()
        return await future

    def close(self, stream: int) -> None:
        """End a stream, also one that is waited for."""
        self._waiting.pop(stream, None)
        self.pool.close(stream)

    async def run(self) -> None:
        """Run what waits, as much as there is together, and let others have a turn."""
        while True:
            await self._work.wait()
            await asyncio.sleep(self.pool.patience)
            while self.pool.pending:
                streams, detections = self.pool.run()
                for stream in streams:
                    future = self._waiting.pop(stream)
                    if not future.done():
                        future.set_result([found for place, found in detections if place == stream])
                await asyncio.sleep(0)
            self._work.clear()


def open_models(
    engines: Sequence[Engine], operating_point: str | None, thresholds: list[str], clients: int
) -> list[Model]:
    """Raises EarmarkError: two models cannot be told apart, or take audio at different rates."""
    owners: dict[str, Engine] = {}
    for engine in engines:
        for keyword in engine.manifest.keywords:
            other = owners.setdefault(keyword, engine)
            if other is not engine:
                raise EarmarkError(
                    f"{engine.path}: has the keyword {keyword}, as {other.path} has: "
                    "serve one of them at another --uri"
                )
        rate = engine.manifest.geometry.sample_rate
        if rate != engines[0].manifest.geometry.sample_rate:
            raise EarmarkError(
                f"{engine.path}: takes audio at {rate} Hz, unlike {engines[0].path}: "
                "serve one of them at another --uri"
            )

    def own(engine: Engine) -> list[str]:
        """Without the thresholds of other models' keywords."""
        names = [(text.rpartition("=")[0], text) for text in thresholds]
        return [text for name, text in names if owners.get(name, engine) is engine]

    return [
        Model(engine, chosen_decision(engine.manifest, operating_point, own(engine)), clients)
        for engine in engines
    ]


def describe(manifests: Iterable[Manifest]) -> Info:
    """What the server says of itself: one program, and one model for each keyword."""
    manifests = list(manifests)
    return Info(
        wake=[
            WakeProgram(
                name="earmark",
                attribution=Attribution("Earmark", ""),
                installed=True,
                description="Keyword spotter with "
                + ", ".join(f"{m.name} ({m.licence or 'no licence given'})" for m in manifests),
                version=version("earmark"),
                models=[
                    _wake_model(manifest, keyword)
                    for manifest in manifests
                    for keyword in manifest.keywords
                ],
            )
        ]
    )


def _wake_model(manifest: Manifest, keyword: str) -> WakeModel:
    phrase = keyword.replace("_", " ")
    credits = [
        f"{source.attribution or source.name} ({source.name}, {source.licence})"
        for source in manifest.sources
    ]
    return WakeModel(
        name=keyword,
        attribution=Attribution(
            "; ".join(credits), next((source.url for source in manifest.sources if source.url), "")
        ),
        installed=True,
        # Home Assistant shows this as the wake word's name.
        description=phrase,
        # The weights are what makes one export of a model another.
        version=(manifest.checkpoint_sha256 or "")[:12] or None,
        languages=[],
        phrase=phrase,
    )
