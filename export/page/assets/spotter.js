/** The model run over a stream: audio of any length in, chunks with posteriors and detections out. */
import { Decider } from "./decision.js";

/**
 * @typedef {{keyword: string, time: number, score: number}} Detection time in seconds of audio
 *   consumed by the step that fired; score is the smoothed posterior.
 * @typedef {{pcm: Float32Array, posteriors: Float32Array, smoothed: Float32Array,
 *   detections: Detection[], seconds: number, peak: number, rms: number, milliseconds: number}} Chunk
 *   of one call of the model: its audio, posteriors and moving averages [steps * labels], audio time
 *   at its end, level in [0, 1], time that the call and the decision took.
 */

/** One stream; see earmark.runtime.stream.Stream. */
export class Spotter {
  #manifest;
  #run;
  #decider;
  #cache;
  #pcm;
  #filled = 0;
  /** Samples before the last gap, and of finished chunks since. */
  #origin = 0;
  #scored = 0;

  /**
   * @param {import("./manifest.js").Manifest} manifest
   * @param {import("./manifest.js").Decision} decision
   * @param {(pcm: Float32Array, cache: Float32Array) => Promise<{posteriors: Float32Array,
   *   cache: Float32Array}>} run the graph, on one chunk.
   */
  constructor(manifest, decision, run) {
    const { chunk, step, sample_rate: rate } = manifest.geometry;
    this.#manifest = manifest;
    this.#run = run;
    this.#decider = new Decider(decision, manifest.labels, step / rate);
    this.#pcm = new Float32Array(chunk);
    this.#cache = new Float32Array(manifest.geometry.cache);
  }

  /** Audio time taken so far, seconds, losses included. */
  get seconds() {
    return (this.#origin + this.#scored + this.#filled) / this.#manifest.geometry.sample_rate;
  }

  /**
   * @param {Float32Array} pcm at the model's rate, in [-1, 1).
   * @returns {Promise<Chunk[]>} what `pcm` completes.
   */
  async push(pcm) {
    const chunks = [], size = this.#pcm.length;
    for (let start = 0; start < pcm.length; ) {
      const count = Math.min(size - this.#filled, pcm.length - start);
      this.#pcm.set(pcm.subarray(start, start + count), this.#filled);
      this.#filled += count;
      start += count;
      if (this.#filled === size) chunks.push(await this.#score());
    }
    return chunks;
  }

  /**
   * End the stream: decide what only silence was missing for.
   * @param {number} tail at least so many seconds of zeros follow the audio. No detection is given a
   *   time beyond the audio itself.
   */
  async finish(tail) {
    const end = this.seconds, size = this.#pcm.length;
    const padding = Math.round(tail * this.#manifest.geometry.sample_rate);
    const chunks = await this.push(
      new Float32Array(Math.ceil((this.#filled + padding) / size) * size - this.#filled));
    for (const chunk of chunks) {
      for (const detection of chunk.detections) detection.time = Math.min(detection.time, end);
    }
    return chunks;
  }

  /** @param {import("./manifest.js").Decision} decision to decide by from now on. */
  retune(decision) {
    this.#decider.retune(decision);
  }

  /**
   * Audio was lost: the model and the moving average restart, audio time goes on.
   * @param {number} samples about how many, at the model's rate.
   */
  gap(samples) {
    const lost = this.#filled + samples;
    this.#decider.gap(Math.floor(lost / this.#manifest.geometry.step));
    this.#origin += this.#scored + lost;
    this.#scored = this.#filled = 0;
    this.#cache.fill(0);
  }

  async #score() {
    const { labels, geometry: { step, sample_rate: rate } } = this.#manifest;
    const begin = performance.now();
    const { posteriors, cache } = await this.#run(this.#pcm, this.#cache);
    const smoothed = new Float32Array(posteriors.length);
    const detections = this.#decider.update(posteriors, smoothed).map(({ label, row, score }) => (
      { keyword: labels[label], time: (this.#origin + this.#scored + (row + 1) * step) / rate, score }
    ));
    const milliseconds = performance.now() - begin;
    this.#cache = cache;
    this.#scored += this.#pcm.length;
    this.#filled = 0;
    let peak = 0, power = 0;
    for (const sample of this.#pcm) {
      peak = Math.max(peak, Math.abs(sample));
      power += sample * sample;
    }
    const rms = Math.sqrt(power / this.#pcm.length);
    return { pcm: this.#pcm.slice(), posteriors, smoothed, detections, seconds: this.seconds, peak,
      rms, milliseconds };
  }
}
