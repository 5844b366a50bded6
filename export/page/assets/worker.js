/**
 * The model in a thread of its own. Messages in: {load}, {decision}, {listen, rate}, {file},
 * {samples}, {stop}, {taken}; out: {loaded}, {started}, {chunks}, {lost}, {ended}, {undecoded},
 * {failed, source}. Of the jobs load, listen, file and samples one runs at a time; a new one ends
 * the one before it.
 */
import * as ort from "./ort/ort.js";
import { UserError } from "./errors.js";
import { readManifest } from "./manifest.js";
import { POSTERIORS, withPosteriors } from "./onnx.js";
import { Resampler } from "./resampler.js";
import { Spotter } from "./spotter.js";
import { openWav } from "./wav.js";

const MAX_MODEL_BYTES = 256 * 2 ** 20;
/** Silence after the end of a recording, so that a word that ends with it is decided. */
const TAIL_SECONDS = 0.5;
/** Calls on silence before the first audio: a browser compiles what it sees used. */
const WARM_UP_CALLS = 30;
/** Messages with chunks that the page may be behind before a recording waits for it. */
const MAX_AHEAD = 4;

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort.wasm", import.meta.url).href };
ort.env.logLevel = "error";

let model = null;
/** The job that runs or comes next: its abort signal and, once it has begun, its stream. */
let job = newJob();
/** Jobs take turns: a session runs one call at a time. */
let turn = Promise.resolve();
let ahead = 0, resume = () => {};

onmessage = ({ data }) => {
  if ("taken" in data) {
    ahead--;
    resume();
  } else if ("decision" in data) {
    model.decision = data.decision;
    job.spotter?.retune(data.decision);
  } else {
    job.controller.abort();
    resume();
    if ("stop" in data) return;
    const mine = job = newJob();
    turn = turn.then(() => perform(data, mine));
  }
};

function newJob() {
  const controller = new AbortController();
  return { controller, signal: controller.signal };
}

async function perform(data, mine) {
  try {
    if ("load" in data) await load(data.load);
    else if (mine.signal.aborted) return;
    else if ("listen" in data) await listen(data.listen, data.rate, mine);
    else if ("file" in data) await readFile(data.file, mine);
    else await readSamples(data.samples, mine);
  } catch (error) {
    postMessage({ failed: error instanceof UserError ? error.message : String(error),
      source: sourceOf(data) });
  }
}

/** Name of what a job reads; the model beside the page has none. */
function sourceOf({ listen: port, load: model, file, samples }) {
  return port ? "microphone" : (model ?? file ?? samples).name;
}

/** @param {Blob} file */
async function load(file) {
  if (file.size > MAX_MODEL_BYTES) {
    throw new UserError(`has ${file.size} bytes, more than the largest model`);
  }
  const data = new Uint8Array(await file.arrayBuffer());
  const manifest = readManifest(data);
  const { chunk, cache } = manifest.geometry;
  const values = chunk / manifest.geometry.step * manifest.labels.length;
  let session;
  try {
    session = await ort.InferenceSession.create(withPosteriors(data, manifest.activation),
      { executionProviders: ["wasm"] });
    const run = async (pcm, state) => {
      const found = await session.run({
        pcm: new ort.Tensor("float32", pcm, [1, chunk]),
        cache: new ort.Tensor("float32", state, [1, cache]),
      });
      return { posteriors: found[POSTERIORS].data, cache: found.cache_out.data };
    };
    let posteriors;
    for (let call = 0; call < WARM_UP_CALLS; call++) {
      ({ posteriors } = await run(new Float32Array(chunk), new Float32Array(cache)));
    }
    if (posteriors.length !== values || !posteriors.every(Number.isFinite)) {
      throw new UserError("gives other posteriors than its manifest says");
    }
    await model?.session.release();
    model = { manifest, session, run, decision: manifest.decision };
  } catch (error) {
    await session?.release();
    if (error instanceof UserError) throw error;
    throw new UserError(`onnxruntime cannot run the graph (${String(error).slice(0, 200)})`);
  }
  postMessage({ loaded: manifest, bytes: data.length, name: file.name });
}

function begin(mine, source, seconds) {
  mine.spotter = new Spotter(model.manifest, model.decision, model.run);
  postMessage({ started: source, seconds });
}

/** Audio from capture.js, until the job is aborted. */
async function listen(port, rate, mine) {
  const target = model.manifest.geometry.sample_rate;
  let resampler = resampling(rate, target);
  begin(mine, "microphone");
  let busy = 0;
  const tell = (chunks) => {
    if (!chunks.length) return;
    postMessage({ chunks, milliseconds: busy });
    busy = 0;
  };
  const take = async ({ pcm, lost }) => {
    if (mine.signal.aborted) return;
    const start = performance.now();
    if (lost) {
      // What the resampler held back comes before the loss.
      if (resampler) tell(await mine.spotter.push(resampler.finish()));
      const samples = Math.round(lost * target / rate);
      mine.spotter.gap(samples);
      resampler = resampling(rate, target);
      postMessage({ lost: samples / target });
    }
    const chunks = await mine.spotter.push(resampler ? resampler.push(pcm) : pcm);
    port.postMessage({ taken: pcm.length });
    busy += performance.now() - start;
    tell(chunks);
  };
  let last = Promise.resolve();
  await new Promise((resolve, reject) => {
    mine.signal.addEventListener("abort", resolve);
    port.onmessage = ({ data }) => { last = last.then(() => take(data)).catch(reject); };
  });
  port.close();
  await last;
  postMessage({ ended: mine.spotter.seconds });
}

/** @param {File} file as fast as it goes. */
async function readFile(file, mine) {
  const wav = await openWav(file);
  if (wav === null) return postMessage({ undecoded: file.name });
  const target = model.manifest.geometry.sample_rate, resampler = resampling(wav.rate, target);
  begin(mine, file.name, wav.frames / wav.rate);
  for (let start = 0; start < wav.frames && !mine.signal.aborted; start += wav.rate) {
    const pcm = await wav.read(start, wav.rate);
    await push(() => (resampler ? resampler.push(pcm) : pcm), mine);
  }
  if (resampler && !mine.signal.aborted) await push(() => resampler.finish(), mine);
  await finish(mine);
}

/** @param {{name: string, pcm: Float32Array}} decoded at the model's rate. */
async function readSamples({ name, pcm }, mine) {
  const rate = model.manifest.geometry.sample_rate;
  begin(mine, name, pcm.length / rate);
  for (let start = 0; start < pcm.length && !mine.signal.aborted; start += rate) {
    await push(() => pcm.subarray(start, start + rate), mine);
  }
  await finish(mine);
}

async function finish(mine) {
  const seconds = mine.spotter.seconds;
  if (!mine.signal.aborted) {
    const start = performance.now();
    const chunks = await mine.spotter.finish(TAIL_SECONDS);
    send(chunks, performance.now() - start);
  }
  postMessage({ ended: seconds });
}

/** @param {() => Float32Array} audio made within the time that is measured. */
async function push(audio, mine) {
  const start = performance.now();
  const chunks = await mine.spotter.push(audio());
  send(chunks, performance.now() - start);
  while (ahead >= MAX_AHEAD && !mine.signal.aborted) {
    await new Promise((resolve) => { resume = resolve; });
  }
}

function send(chunks, milliseconds) {
  ahead++;
  postMessage({ chunks, milliseconds });
}

function resampling(rate, target) {
  return rate === target ? null : new Resampler(rate, target);
}
