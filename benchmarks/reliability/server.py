"""``earmark wyoming`` in a process of its own, for what is measured through connections to it."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from ...runtime.errors import EarmarkError

PROGRAM = (
    sys.executable,
    "-c",
    "import sys; from earmark.runtime.cli import main; sys.exit(main())",
)
"""The command line, whose arguments follow."""
EXIT_SECONDS = 60.0
"""In which a process that was asked to end does."""


@dataclass
class Server:
    """One that listens."""

    process: asyncio.subprocess.Process
    port: int
    sent_seconds: float = 0.0
    """Audio that was sent to it, as far as a client told."""


@asynccontextmanager
async def serving(model: Path) -> AsyncIterator[Server]:
    """A server of this model within the block, and after it the exit status of one that got
    SIGTERM.

    Raises:
        EarmarkError: it does not start, or a connection to it breaks.
    """
    # What it says to people is read where it fails: a pipe that nobody empties would hold it up.
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *(*PROGRAM, "wyoming", "--model", str(model), "--uri", "tcp://127.0.0.1:0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
        )
        assert process.stdout
        try:
            line = await process.stdout.readline()
            if not line:
                raise EarmarkError(f"earmark wyoming: did not start ({await _end(process, said)})")
            drain = asyncio.create_task(_drain(process.stdout))
            server = Server(process, urlsplit(json.loads(line)["uri"]).port or 0)
            try:
                yield server
            except (ConnectionError, EOFError) as error:
                raise EarmarkError(
                    f"earmark wyoming: left its client after {server.sent_seconds:.0f} s of audio "
                    f"({await _end(process, said)})"
                ) from error
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), EXIT_SECONDS)
                await drain
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _end(process: asyncio.subprocess.Process, said: IO[bytes]) -> str:
    """How a server ended by itself, with the last line that it said."""
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), EXIT_SECONDS)
    status = process.returncode
    said.seek(0)
    last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
    return ": ".join(["still running" if status is None else f"exit status {status}", *last])


async def _drain(stream: asyncio.StreamReader) -> None:
    """What the server prints would otherwise hold it up."""
    while await stream.read(1 << 16):
        pass
