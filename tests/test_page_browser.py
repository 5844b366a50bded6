"""The page in Chromium: it hears what ``earmark detect`` hears, and asks nobody else."""

import json
import re
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import page_browser
import pytest
import toy_model
from earmark.export.page.serve import PageServer
from earmark.runtime import Engine, read_audio
from earmark.runtime.cli import main
from earmark.runtime.manifest import Decision
from page_browser import Opened
from playwright.sync_api import Browser, expect
from spoken_words import RATE, WORDS, spoken_scene

TOLERANCE = 1e-3
"""Of posteriors, between builds of onnxruntime."""
FLIPPED = 0.01
"""Of a posterior in a hundred, where an activation may lie so near the middle between two int8
values that the builds round it to different ones: logits of the shipped file then differ by up to
0.036 (its card, streamed against whole), posteriors by a quarter of that."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    return write_wav(folder / "scene.wav", spoken_scene(folder / "words"))


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with page_browser.serving(page_browser.files()) as running:
        yield running


@pytest.fixture(scope="module")
def browser(scene: Path) -> Iterator[Browser]:
    with page_browser.chromium(scene) as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: PageServer) -> Iterator[Opened]:
    with page_browser.opened(browser, server.url) as found:
        yield found
        assert not found.complaints


def write_wav(path: Path, pcm: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def detected(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict]:
    capsys.readouterr()
    assert main(["detect", str(path), *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def posteriors(pcm: np.ndarray) -> np.ndarray:
    """Of whole chunks by the Python runtime, [steps, labels]."""
    scorer = Engine().scorer()
    rows, taken = [], 0
    while taken < len(pcm) and (taken := scorer.take(pcm, taken)) >= 0:
        scorer.score()
        rows.append(scorer.posteriors.copy())
    return np.concatenate(rows)


def read(page: Opened, path: Path) -> None:
    page.page.set_input_files("#audio-file", path)


def test_a_recording_is_heard_as_detect_hears_it(
    page: Opened, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(page, scene)
    page.status("scene.wav: 4 detections in 9.0 s")
    expected = detected(scene, capsys)
    assert [e["keyword"] for e in expected] == list(WORDS)
    found = page.told("detection")
    assert [(e["keyword"], round(e["time"], 4)) for e in found] == [
        (e["keyword"], e["time"]) for e in expected
    ]
    assert [e["score"] for e in found] == pytest.approx(
        [e["score"] for e in expected], abs=TOLERANCE
    )
    pcm, audio = page.array("pcm"), read_audio(scene)
    assert np.array_equal(pcm[: len(audio)], audio) and not pcm[len(audio) :].any()
    assert differences(page, pcm).max() < TOLERANCE


def test_the_microphone_is_heard_as_the_recording_that_it_plays(
    page: Opened, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page.page.click("#listen")
    page.status("Listening")
    expect(page.page.locator("#detections li")).to_have_count(4, timeout=20_000)
    page.page.click("#listen")
    page.status(re.compile("Heard: 4 detections"))
    expected = detected(scene, capsys)
    found = page.told("detection")
    assert [e["keyword"] for e in found] == [e["keyword"] for e in expected]
    # The device begins anywhere within the file's first moments and resamples, chunks begin
    # elsewhere, and a busy machine has gaps: times differ by an offset, and by a few steps each.
    late = np.array([e["time"] for e in found]) - [e["time"] for e in expected]
    assert np.abs(late).max() < 0.5
    pcm = page.array("pcm")
    assert likeness(pcm, read_audio(scene)) > 0.97
    # Of what it heard the page makes what Python makes of it.
    different = differences(page, pcm)
    assert np.quantile(different, 0.99) < TOLERANCE and different.max() < FLIPPED
    stream = Engine().stream()
    assert [(d.keyword, d.time) for d in stream.push(pcm)] == page.detections()


# The page's worker by itself, given what capture.js sends: pieces of audio, one after a loss.
LISTEN = """
async ([rate, before, lost, after]) => {
  const worker = new Worker("worker.js", { type: "module" });
  const chunks = [], losses = [], awaited = {};
  const told = (kind) => new Promise((resolve, reject) => {
    awaited[kind] = resolve;
    awaited.failed = ({ failed }) => reject(new Error(failed));
  });
  worker.onmessage = ({ data }) => {
    if ("chunks" in data) chunks.push(...data.chunks);
    if ("lost" in data) losses.push(data.lost);
    for (const kind in data) awaited[kind]?.(data);
  };
  worker.postMessage({ load: await (await fetch("model.onnx")).blob() });
  await told("loaded");
  const { port1, port2 } = new MessageChannel();
  const ended = told("ended");
  worker.postMessage({ listen: port2, rate }, [port2]);
  let waiting = 0;
  const taken = new Promise((resolve) => {
    port1.onmessage = ({ data }) => { if (!(waiting -= data.taken)) resolve(); };
  });
  for (const [audio, first] of [[before, 0], [after, lost]]) {
    for (let at = 0; at < audio.length; at += 1024) {
      const pcm = new Float32Array(audio.slice(at, at + 1024));
      waiting += pcm.length;
      port1.postMessage({ pcm, lost: at ? 0 : first });
    }
  }
  await taken;
  worker.postMessage({ stop: true });
  const { ended: seconds } = await ended;
  worker.terminate();
  const ends = chunks.map((chunk) => chunk.seconds);
  return { ends, detections: chunks.flatMap((chunk) => chunk.detections), losses, seconds };
}
"""


def test_a_loss_is_a_gap_of_the_stream(page: Opened, scene: Path) -> None:
    pcm = read_audio(scene)
    cut, lost = 3 * RATE + 500, RATE // 2
    stream = Engine().stream()
    expected = stream.push(pcm[:cut])
    stream.gap(lost)
    expected += stream.push(pcm[cut + lost :])
    given = [RATE, pcm[:cut].tolist(), lost, pcm[cut + lost :].tolist()]
    found = page.page.evaluate(LISTEN, given)
    assert [(d["keyword"], d["time"]) for d in found["detections"]] == [
        (d.keyword, d.time) for d in expected
    ]
    assert len(expected) >= 2 and expected[-1].time > (cut + lost) / RATE
    assert found["losses"] == [lost / RATE]


def test_a_loss_costs_no_more_time_than_was_lost(page: Opened) -> None:
    """What the resampler held back, some milliseconds, comes before it."""
    rate, before, lost, after = 48_000, 50_000, 24_000, 30_000
    found = page.page.evaluate(LISTEN, [rate, [0.0] * before, lost, [0.0] * after])
    chunk = Engine().manifest.geometry.chunk / RATE
    first = next(end for end in found["ends"] if end > (before + lost) / rate)
    assert first == pytest.approx((before + lost) / rate + chunk, abs=1 / RATE)


def differences(page: Opened, pcm: np.ndarray) -> np.ndarray:
    """Of the page's posteriors from those of the Python runtime."""
    found = page.array("posteriors").reshape(-1, len(Engine().manifest.labels))
    return np.abs(found - posteriors(pcm))


def likeness(heard: np.ndarray, played: np.ndarray) -> float:
    """Correlation coefficient of what was heard with what was played: the median over pieces of a
    quarter of a second with sound, each at its best lag, since there may be gaps between them."""
    length = 4000
    pieces = np.resize(heard, (len(heard) // length, length))
    loud = pieces[np.linalg.norm(pieces, axis=1) > 0.1 * np.linalg.norm(pieces, axis=1).max()]
    energy = np.cumsum(np.square(np.pad(played.astype(np.float64), (length, length))))
    level = np.sqrt(np.maximum(energy[length:] - energy[:-length], 1e-6))
    best = []
    for piece in loud:
        product = np.correlate(np.pad(played, (length, length)), piece, "valid")
        best.append((product[: len(level)] / level[: len(product)]).max() / np.linalg.norm(piece))
    return float(np.median(best))


def test_nothing_is_asked_of_anybody_else(page: Opened, server: PageServer, scene: Path) -> None:
    read(page, scene)
    page.status(re.compile("4 detections"))
    assert page.requests and all(url.startswith(server.url) for url in page.requests)
    with page_browser.serving({}) as other:
        refused = page.page.evaluate(
            """async (url) => {
              const told = new Promise((resolve) => document.addEventListener(
                "securitypolicyviolation", (event) => resolve(event.effectiveDirective)));
              const failed = await fetch(url, {mode: "no-cors"}).then(() => "", () => "failed");
              return [failed, await told];
            }""",
            other.url,
        )
    assert refused == ["failed", "connect-src"]
    assert "Content Security Policy" in page.complaints.pop(0)
    page.complaints.clear()


def test_a_dropped_model_runs(page: Opened, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    toy = toy_model.save(
        tmp_path / "toy.onnx",
        operating_points={"quiet": Decision({"low": 0.99, "high": 0.99}, smoothing=0.1)},
    )
    scene = write_wav(tmp_path / "tones.wav", toy_model.scene())
    drop(page, toy)
    expect(page.page.locator("#name")).to_have_text("toy", timeout=page_browser.READY_MS)
    assert page.page.locator("#sliders input").count() == 2
    drop(page, scene)
    page.status("tones.wav: 3 detections in 5.5 s")
    expected = detected(scene, capsys, "--model", str(toy))
    assert page.detections() == [(e["keyword"], e["time"]) for e in expected]

    page.page.get_by_label("Operating point").select_option("quiet")
    expect(page.page.locator("#command")).to_have_text(
        f"earmark listen --model {toy.name} --operating-point quiet"
    )
    drop(page, scene)
    again = ["--model", str(toy), "--operating-point", "quiet"]
    count = len(detected(scene, capsys, *again))
    page.status(f"tones.wav: {count} detections in 5.5 s")


HELD = """
() => {
  const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
  Object.assign(globalThis, {tracks: [], prompts: []});
  devices.getUserMedia = async (wanted) => {
    await new Promise((allow) => prompts.push(allow));
    const media = await open(wanted);
    tracks.push(...media.getTracks());
    return media;
  };
}
"""
"""Permission prompts that wait for the test, and all tracks that were given."""


def wait_for_tracks(page: Opened, *, given: int, live: int) -> None:
    # The page's policy forbids what wait_for_function does.
    for _ in range(100):
        states = page.page.evaluate("tracks.map((track) => track.readyState)")
        if len(states) == given and states.count("live") == live:
            return
        page.page.wait_for_timeout(100)
    raise AssertionError(states)


def test_a_microphone_that_comes_late_is_closed(page: Opened, scene: Path, tmp_path: Path) -> None:
    listen = page.page.locator("#listen")
    page.page.evaluate(HELD)
    listen.click()
    expect(listen).to_be_disabled()
    read(page, scene)
    page.status("scene.wav: 4 detections in 9.0 s")
    page.page.evaluate("prompts.pop()()")
    wait_for_tracks(page, given=1, live=0)

    # A model that loads meanwhile leaves one microphone.
    listen.click()
    drop(page, toy_model.save(tmp_path / "toy.onnx"))
    listen.click()
    expect(page.page.locator("#name")).to_have_text("toy", timeout=page_browser.READY_MS)
    expect(listen).to_be_disabled()
    page.page.evaluate("prompts.forEach((allow) => allow())")
    page.status("Listening")
    wait_for_tracks(page, given=3, live=1)
    listen.click()
    page.status(re.compile("Heard"))
    wait_for_tracks(page, given=3, live=0)


def test_what_is_no_model_or_recording_is_said_to_be_none(page: Opened, tmp_path: Path) -> None:
    for name, reason in (("a.onnx", "is no ONNX model"), ("a.mp3", "is no recording")):
        wrong = tmp_path / name
        wrong.write_bytes(b"something else altogether")
        drop(page, wrong)
        expect(page.page.get_by_role("alert")).to_contain_text(f"{name}: {reason}")
        page.status("Ready")


def test_a_threshold_is_moved_with_the_keyboard(page: Opened, scene: Path) -> None:
    slider = page.page.get_by_label(re.compile("^left"))
    slider.press("End")
    expect(page.page.locator("#command")).to_have_text(
        "earmark listen --model model.onnx --threshold left=1"
    )
    read(page, scene)
    page.status("scene.wav: 3 detections in 9.0 s")
    assert [keyword for keyword, _ in page.detections()] == [w for w in WORDS if w != "left"]
    page.page.get_by_role("button", name="Reset").click()
    expect(page.page.locator("#command")).to_have_text("earmark listen --model model.onnx")


def test_detections_can_be_saved_as_detect_prints_them(
    page: Opened, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(page, scene)
    page.status(re.compile("4 detections"))
    with page.page.expect_download() as download:
        page.page.get_by_role("button", name="Save").click()
    lines = Path(download.value.path()).read_text().splitlines()
    expected = detected(scene, capsys)
    for line, event in zip(lines, expected, strict=True):
        found = json.loads(line)
        assert found["score"] == round(found["score"], 4)
        assert found.pop("score") == pytest.approx(event["score"], abs=TOLERANCE)
        assert found == {
            "type": "detection",
            "source": "scene.wav",
            "keyword": event["keyword"],
            "time": event["time"],
        }


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, server: PageServer, width: int) -> None:
    size = {"width": width, "height": 800}
    with page_browser.opened(browser, server.url, viewport=size) as found:
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        # Whoever hears the page instead of seeing it is told what each control is.
        for control in found.page.locator("button, select, input, [role=meter], canvas").all():
            if control.is_visible():
                assert re.search(r'"\w+|\w+:', control.aria_snapshot()), control


def test_without_a_secure_origin_the_page_says_why_there_is_no_microphone(
    browser: Browser, server: PageServer, scene: Path
) -> None:
    url = server.url.replace("127.0.0.1", page_browser.NAME)
    with page_browser.opened(browser, url) as found:
        expect(found.page.get_by_role("alert")).to_contain_text("https")
        expect(found.page.get_by_role("button", name="Listen")).to_be_disabled()
        read(found, scene)
        found.status("scene.wav: 4 detections in 9.0 s")


def drop(page: Opened, path: Path) -> None:
    """Drop a file onto the page."""
    transfer = page.page.evaluate_handle(
        """({name, bytes}) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(bytes)], name));
          return transfer;
        }""",
        {"name": path.name, "bytes": list(path.read_bytes())},
    )
    page.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
