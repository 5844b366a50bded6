// Raw 16-bit mono PCM on standard input, detections as JSON lines on standard output, with the
// model file as the only other input: what `earmark detect -` does, for programs in JavaScript.
//
//     arecord -q -t raw -f S16_LE -r 16000 -c 1 | node detect.js model.onnx [--threshold T]

import { readFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";

const UNIT = 2 ** 32;

// The manifest: the entry "earmark" of ModelProto.metadata_props, field 14 of a message of protocol
// buffers. onnxruntime-node does not give metadata.
function readManifest(model) {
  for (const [field, entry] of messages(model)) {
    if (field !== 14) continue;
    const [key, value] = [...messages(entry)].map(([, content]) => content.toString());
    if (key === "earmark") return JSON.parse(value);
  }
  throw new Error("is no model that earmark export wrote");
}

// Number and content of each field of bytes in a message; integers are passed over.
function* messages(buffer) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = buffer[at++];
      if (byte === undefined) throw new Error("is no ONNX model");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < buffer.length) {
    const tag = varint();
    const size = varint();
    if (tag % 8 !== 2) continue;
    yield [Math.floor(tag / 8), buffer.subarray(at, at + size)];
    at += size;
  }
}

// Posteriors to detections, as runtime/decision.py. Sums are integers in units of 2^-32, so that
// they are exact and the result is that of Earmark.
class Decider {
  constructor({ labels, geometry, decision }, threshold) {
    const step = geometry.step / geometry.sample_rate;
    this.window = Math.max(1, roundHalfToEven(decision.smoothing / step));
    this.refractory = Math.ceil(decision.refractory / step - 1e-9);
    this.full = this.window * UNIT;
    this.rows = Array.from({ length: this.window }, () => labels.map(() => 0));
    this.sums = labels.map(() => 0);
    this.step = 0;
    this.keywords = labels.flatMap((name, label) => {
      if (name.startsWith("_")) return []; // no keyword
      const level = threshold ?? decision.thresholds[name];
      const fire = Math.max(1, Math.ceil(level * this.full) - this.window);
      const rearm = Math.max(1, Math.ceil(decision.release * level * this.full));
      return [{ name, label, fire, rearm: Math.min(fire, rearm), armed: true, ready: 0 }];
    });
  }

  // Takes the next step and returns what fires: [keyword, score] of each.
  update(posteriors) {
    const row = this.rows[this.step % this.window];
    posteriors.forEach((posterior, label) => {
      const value = Math.trunc(posterior * UNIT);
      this.sums[label] += value - row[label];
      row[label] = value;
    });
    const fired = [];
    for (const keyword of this.keywords) {
      const sum = this.sums[keyword.label];
      if (sum < keyword.rearm) keyword.armed = true;
      if (!keyword.armed || sum < keyword.fire || this.step < keyword.ready) continue;
      keyword.armed = false;
      keyword.ready = this.step + this.refractory;
      fired.push([keyword.name, sum / this.full]);
    }
    this.step += 1;
    return fired;
  }
}

function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

function rounded(value) {
  return Math.round(value * 1e4) / 1e4;
}

function toPosteriors(logits, exclusive) {
  if (!exclusive) return logits.map((x) => 1 / (1 + Math.exp(-x)));
  const most = Math.max(...logits);
  const powers = logits.map((x) => Math.exp(x - most));
  const sum = powers.reduce((total, x) => total + x);
  return powers.map((x) => x / sum);
}

async function detect(path, threshold) {
  const model = readFileSync(path);
  const manifest = readManifest(model);
  const { chunk, step, cache: size, sample_rate: rate } = manifest.geometry;
  const exclusive = manifest.activation !== "sigmoid";
  const session = await InferenceSession.create(model, { intraOpNumThreads: 1 });
  const decider = new Decider(manifest, threshold);
  const labels = manifest.labels.length;
  const audio = new Float32Array(chunk);
  const pcm = new Tensor("float32", audio, [1, chunk]);
  let cache = new Tensor("float32", new Float32Array(size), [1, size]); // the start of a stream
  let start = 0;

  // Takes a chunk, or the rest of the audio, which had `total` samples.
  async function take(bytes, total = Infinity) {
    audio.fill(0);
    for (let i = 0; 2 * i + 1 < bytes.length; i++) audio[i] = bytes.readInt16LE(2 * i) / 32768;
    const { logits, cache_out } = await session.run({ pcm, cache });
    cache = cache_out;
    for (let row = 0; row * step < chunk; row++) {
      const scores = logits.data.subarray(row * labels, (row + 1) * labels);
      const time = Math.min(start + (row + 1) * step, total) / rate;
      for (const [keyword, score] of decider.update(toPosteriors(scores, exclusive))) {
        const event = { type: "detection", source: "-", keyword, time: rounded(time) };
        console.log(JSON.stringify({ ...event, score: rounded(score) }));
      }
    }
    start += chunk;
  }

  let rest = Buffer.alloc(0);
  for await (const piece of process.stdin) {
    rest = Buffer.concat([rest, piece]);
    if (start === 0 && rest.toString("latin1", 0, 4) === "RIFF") {
      throw new Error("standard input: is a WAV file: give raw 16-bit samples, no header");
    }
    while (rest.length >= 2 * chunk) {
      await take(rest.subarray(0, 2 * chunk));
      rest = rest.subarray(2 * chunk);
    }
  }
  // Half a second of silence follows the audio, and what completes a chunk.
  const total = start + Math.floor(rest.length / 2);
  if (total === 0) throw new Error("standard input: ended before any audio came");
  const end = total + roundHalfToEven(0.5 * rate);
  while (start < end) {
    await take(rest, total);
    rest = Buffer.alloc(0);
  }
}

const [path, option, value] = process.argv.slice(2);
if (!path || (option !== undefined && (option !== "--threshold" || value === undefined))) {
  console.error("usage: node detect.js MODEL [--threshold T]");
  process.exit(2);
}
const threshold = option === undefined ? undefined : Number(value);
if (threshold !== undefined && !(threshold > 0 && threshold <= 1)) {
  console.error(`detect: --threshold ${value}: give a number above 0 and at most 1`);
  process.exit(1);
}
process.stdout.on("error", (error) => {
  // A reader that has what it wanted is no failure: the status of a program that SIGPIPE ends.
  if (error.code === "EPIPE") process.exit(141);
  console.error(`detect: standard output: ${error.message}`);
  process.exit(1);
});
detect(path, threshold).catch((error) => {
  console.error(`detect: ${error.message}`);
  process.exitCode = 1;
});
