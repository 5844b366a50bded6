/**
 * The page. What happens is also told as events of the document, for scripts of your own:
 * `document.addEventListener("earmark", ({detail}) => ...)`, where `detail.type` is `loaded`,
 * `started`, `chunk`, `detection`, `gap` or `ended`.
 */
import { showCard } from "./card.js";
import { UserError } from "./errors.js";
import { microphones, obstacle, openMicrophone } from "./microphone.js";
import { MAX_LANES, Plot } from "./plot.js";
import { showSettings } from "./settings.js";
import { Timing } from "./timing.js";

/** Detections in the list, and kept to be saved. */
const SHOWN = 200, KEPT = 100000;
/** Largest recording that the browser decodes, which it does in memory. */
const MAX_DECODED_BYTES = 256 * 2 ** 20;
const QUIETEST_DB = -60;
/** The model beside the page. */
const MODEL = "model.onnx";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((e) => [e.id, e]));
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const plot = new Plot(page.plot);
let manifest;
/** What is heard: "", "microphone" or a file's name. */
let source = "";
let length, heard = 0, timing = new Timing(), microphone = null, detections = [];
/** The microphone and the recording that were asked for last; null where stopped since. */
let opening = null, reading = null;

worker.onerror = () => problem("The model's thread cannot be started: serve the page with "
  + "earmark serve, or from a web server.");
worker.onmessage = ({ data }) => {
  try {
    received(data);
  } catch (error) {
    failed(error);
  }
};

function received(data) {
  if ("loaded" in data) loaded(data.loaded, data.bytes, data.name);
  else if ("started" in data) started(data.started, data.seconds);
  else if ("chunks" in data) took(data.chunks, data.milliseconds);
  else if ("lost" in data) lost(data.lost);
  else if ("ended" in data && source) ended(data.ended);
  else if ("undecoded" in data) {
    if (reading?.name === data.undecoded) decode(reading).catch(failed);
  } else if ("failed" in data) {
    if (data.source === "microphone") stop();
    failed(new UserError(`${data.source ?? MODEL}: ${data.failed}`));
  }
}

function tell(type, fields) {
  document.dispatchEvent(new CustomEvent("earmark", { detail: { type, ...fields } }));
}

function loaded(found, bytes, name = MODEL) {
  manifest = found;
  page.name.textContent = manifest.name;
  document.title = `${manifest.name} · Earmark`;
  page.about.textContent = `${manifest.keywords.length} keywords · ${manifest.precision} · `
    + `${Math.round(bytes / 1000)} kB`;
  page.words.textContent = manifest.keywords.slice(0, 12).join(", ")
    + (manifest.keywords.length > 12 ? " …" : "");
  showCard(page.card, manifest);
  plot.setModel(manifest);
  showSettings(page, name, manifest, (decision) => {
    worker.postMessage({ decision });
    plot.setThresholds(decision.thresholds);
    page["plot-note"].textContent = `${manifest.keywords.length > MAX_LANES
      ? `The first ${MAX_LANES} keywords. ` : ""}Mean over ${decision.smoothing} s; dashed: threshold`;
  });
  clear();
  const reason = obstacle();
  if (reason) problem(reason);
  offerListen();
  for (const button of [page["open-audio"], page["open-model"]]) button.disabled = false;
  status("Ready", "ready");
  tell("loaded", { manifest });
}

function started(name, seconds) {
  source = name;
  length = seconds;
  heard = 0;
  timing = new Timing();
  clear();
  plot.start(seconds);
  status(name === "microphone" ? "Listening" : `Reading ${name}`, "running");
  setListening(name === "microphone");
  tell("started", { source });
}

function took(chunks, milliseconds) {
  if (source !== "microphone") worker.postMessage({ taken: true });
  timing.add(chunks.map((chunk) => chunk.milliseconds), milliseconds);
  for (const chunk of chunks) {
    plot.add(chunk.smoothed, manifest.labels.length, chunk.detections);
    heard = Math.min(chunk.seconds, length ?? Infinity); // after a recording comes silence
    const { pcm, posteriors } = chunk;
    tell("chunk", { time: chunk.seconds, pcm, posteriors });
    chunk.detections.forEach(detected);
  }
  const last = chunks.at(-1);
  if (last) showLevel(last.rms, last.peak);
  showFigures();
}

function detected({ keyword, time, score }) {
  const detection = { type: "detection", source, keyword, time, score };
  if (detections.length < KEPT) detections.push(detection);
  const item = document.createElement("li");
  for (const [name, text] of [["word", keyword], ["time", `at ${time.toFixed(2)} s`],
    ["score", score.toFixed(2)]]) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    item.append(part, " ");
  }
  page.detections.prepend(item);
  if (page.detections.children.length > SHOWN) page.detections.lastChild.remove();
  page.nothing.hidden = true;
  page.save.disabled = page.clear.disabled = false;
  tell("detection", detection);
}

function lost(seconds) {
  plot.skip(seconds);
  problem(`${seconds.toFixed(1)} s of audio were lost: this machine is too busy.`);
  tell("gap", { seconds });
}

function ended(seconds) {
  const words = detections.length === 1 ? "1 detection" : `${detections.length} detections`;
  status(`${source === "microphone" ? "Heard" : source}: ${words} in ${seconds.toFixed(1)} s`, "ready");
  if (source !== "microphone" && !detections.length) page.nothing.hidden = false;
  tell("ended", { source, seconds });
  source = "";
  setListening(false);
  showLevel(0, 0);
}

/** Until the browser gives the microphone, something else may be asked for: then it is closed. */
async function listen() {
  stop();
  page.problem.hidden = true;
  const mine = opening = {};
  offerListen();
  try {
    const opened = await openMicrophone(page.device.value, (reason) => {
      stop();
      problem(reason);
    });
    if (opening !== mine) return opened.close();
    microphone = opened;
    worker.postMessage({ listen: microphone.port, rate: microphone.rate }, [microphone.port]);
    await listDevices(opened.device);
  } catch (error) {
    if (opening === mine) throw error;
  } finally {
    if (opening === mine) opening = null;
    offerListen();
  }
}

function stop() {
  microphone?.close();
  microphone = opening = reading = null;
  worker.postMessage({ stop: true });
  offerListen();
}

/** Not while a microphone is waited for, nor while one waits for the worker. */
function offerListen() {
  const waiting = opening || (microphone && source !== "microphone");
  page.listen.disabled = Boolean(!manifest || obstacle() || waiting);
}

async function listDevices(current) {
  const found = await microphones();
  page.device.replaceChildren(...found.map(({ deviceId, label }) => new Option(label, deviceId)));
  page.device.value = current;
  page.devices.hidden = found.length < 2;
}

function open(file) {
  if (!file) return;
  stop();
  page.problem.hidden = true;
  if (/\.onnx$/i.test(file.name)) {
    status(`Loading ${file.name}`, "busy");
    worker.postMessage({ load: file });
  } else if (manifest) {
    reading = file;
    worker.postMessage({ file });
  }
}

/** A recording of a format that only the browser knows. */
async function decode(file) {
  if (file.size > MAX_DECODED_BYTES) {
    throw new UserError(`${file.name}: is too large to be decoded: convert it to WAV`);
  }
  const context = new OfflineAudioContext(1, 1, manifest.geometry.sample_rate);
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    if (reading !== file) return;
    throw new UserError(`${file.name}: is no recording that this browser can decode`);
  }
  if (reading !== file) return;
  const pcm = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((sample, index) => {
      pcm[index] += sample / buffer.numberOfChannels;
    });
  }
  worker.postMessage({ samples: { name: file.name, pcm } });
}

function failed(error) {
  problem(error instanceof UserError ? error.message : String(error));
  if (source) {
    stop();
    ended(heard);
  } else if (manifest) {
    status("Ready", "ready");
  } else {
    status("No model", "ready");
  }
  page["open-model"].disabled = false;
}

function problem(text) {
  page.problem.textContent = text;
  page.problem.hidden = false;
}

function status(text, state) {
  if (page.status.textContent !== text) page.status.textContent = text;
  page.status.dataset.state = state;
}

function setListening(on) {
  page.listen.setAttribute("aria-pressed", on);
  page["listen-label"].textContent = on ? "Stop" : "Listen";
  offerListen();
}

function showLevel(rms, peak) {
  const decibels = (value) => Math.max(QUIETEST_DB, 20 * Math.log10(value));
  const share = (value) => 1 - decibels(value) / QUIETEST_DB;
  const [bar, mark] = page.level.children;
  bar.style.transform = `scaleX(${share(rms)})`;
  mark.style.left = `${100 * share(peak)}%`;
  mark.style.opacity = peak > 0 ? 1 : 0;
  page.level.setAttribute("aria-valuenow", Math.round(decibels(rms)));
  page["level-text"].textContent = `${Math.round(decibels(rms))} dB`.replace("-", "−");
}

function showFigures() {
  const figures = timing.figures;
  if (!figures || !heard) return;
  page["chunk-time"].textContent = `${figures.median.toFixed(2)} ms`;
  page["chunk-slow"].textContent = `${figures.slow.toFixed(2)} ms`;
  const { chunk, sample_rate: rate } = manifest.geometry;
  page.load.textContent = `${(100 * figures.all / (1000 * chunk / rate)).toFixed(1)} %`;
  page.seconds.textContent = `${heard.toFixed(1)} s`;
}

function clear() {
  detections = [];
  page.detections.replaceChildren();
  page.nothing.hidden = false;
  page.save.disabled = page.clear.disabled = true;
}

/** As the lines of `earmark detect`, which have four digits. */
function save() {
  const rounded = (value) => Math.round(value * 1e4) / 1e4;
  const lines = detections.map(({ time, score, ...rest }) => (
    `${JSON.stringify({ ...rest, time: rounded(time), score: rounded(score) })}\n`));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = "detections.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
}

page.listen.onclick = () => (source === "microphone" ? stop() : listen().catch(failed));
page["open-audio"].onclick = () => page["audio-file"].click();
page["open-model"].onclick = () => page["model-file"].click();
page["audio-file"].onchange = page["model-file"].onchange = ({ target }) => {
  open(target.files[0]);
  target.value = "";
};
page.device.onchange = () => {
  if (source !== "microphone") return;
  stop();
  listen().catch(failed);
};
page.save.onclick = save;
page.clear.onclick = clear;

let inside = 0;
addEventListener("dragenter", (event) => {
  event.preventDefault();
  inside++;
  page.drop.hidden = false;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("dragleave", () => {
  page.drop.hidden = --inside > 0;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  page.drop.hidden = true;
  open(event.dataTransfer.files[0]);
});

const first = await fetch(new URL(MODEL, import.meta.url));
if (first.ok) worker.postMessage({ load: await first.blob() });
else failed(new UserError(`${MODEL}: is not beside the page: open a model`));
