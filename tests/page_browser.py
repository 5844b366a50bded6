"""The page in a real Chromium without a screen, for the tests of it."""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earmark.export.page.page import page_files
from earmark.export.page.serve import PageServer
from earmark.runtime import EarmarkError
from playwright.sync_api import Browser, Page, expect, sync_playwright

READY_MS = 60_000
"""A machine with other work takes long to start a browser and to compile the runtime."""
NAME = socket.gethostname().lower()
"""Of this machine: the server lets it in, and it is no localhost."""

# Collects what the page tells of itself.
COLLECT = """
window.told = [];
document.addEventListener("earmark", ({detail}) => {
  const arrays = {};
  for (const name of ["pcm", "posteriors"])
    if (detail[name]) arrays[name] = Array.from(detail[name]);
  window.told.push({...detail, ...arrays, manifest: undefined});
});
"""


def files() -> dict[str, bytes]:
    """The files of the shipped model's page, or a skip where npm cannot give what it needs."""
    try:
        return page_files(None)
    except EarmarkError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))


@contextmanager
def serving(files: dict[str, bytes], host: str = "127.0.0.1") -> Iterator[PageServer]:
    """A server of the page in a thread."""
    ended = threading.Event()
    with PageServer(files, host) as server:
        thread = threading.Thread(target=server.serve, args=(ended.is_set,))
        thread.start()
        try:
            yield server
        finally:
            ended.set()
            thread.join()


@contextmanager
def chromium(microphone: Path) -> Iterator[Browser]:
    """The browser, with a microphone that plays a WAV file once; a skip where there is none."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium here: apt-get install chromium")
    options = [
        "--no-sandbox",  # which root has not in a container; what it opens is the page alone
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page that was opened, with all that it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def status(self, text: Any) -> None:
        """Wait until the page says so of itself."""
        expect(self.page.locator("#status")).to_have_text(text, timeout=READY_MS)

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The events of a type so far."""
        return [event for event in self.page.evaluate("told") if event["type"] == kind]

    def detections(self) -> list[tuple[str, float]]:
        """Keywords with their times."""
        return [(event["keyword"], event["time"]) for event in self.told("detection")]

    def array(self, name: str) -> np.ndarray:
        """The values of all chunks, float32."""
        values = [value for event in self.told("chunk") for value in event[name]]
        return np.array(values, np.float32)


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[Opened]:
    """The page, ready for audio."""
    page = browser.new_page(**context)
    found = Opened(page)
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("console", lambda message: found.complaints.append(message.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.add_init_script(COLLECT)
    page.goto(url)
    found.status("Ready")
    try:
        yield found
    finally:
        page.close()
