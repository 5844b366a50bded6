/** How long chunks took, over the last minute or so. */

const KEPT = 1000;

export class Timing {
  #times = [];
  #busy = 0;

  /** @param {number[]} times of chunks, ms. @param {number} busy all work that led to them, ms. */
  add(times, busy) {
    this.#times.push(...times);
    this.#times.splice(0, this.#times.length - KEPT);
    this.#busy += busy;
  }

  /** Median and 99th percentile of a chunk, and all work since the start, ms; null without any. */
  get figures() {
    if (!this.#times.length) return null;
    const sorted = Float64Array.from(this.#times).sort();
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    return { median: at(0.5), slow: at(0.99), busy: this.#busy };
  }
}
