/**
 * How long the work took, over the last thousand chunks. A page cannot ask for processor time, only
 * for a clock; so what tells the cost is a median, which waiting for the processor does not move as
 * long as it is the exception.
 */

const KEPT = 1000;

export class Timing {
  #model = [];
  #all = [];

  /**
   * @param {number[]} model time of the model and the decision of each chunk, ms.
   * @param {number} all time of all work on these chunks, resampling included, ms.
   */
  add(model, all) {
    if (!model.length) return;
    this.#model = [...this.#model, ...model].slice(-KEPT);
    this.#all = [...this.#all, ...model.map(() => all / model.length)].slice(-KEPT);
  }

  /** Of a chunk, ms: median and 99th percentile of the model, median of all work; null without
   * any. */
  get figures() {
    if (!this.#model.length) return null;
    return { median: quantile(this.#model, 0.5), slow: quantile(this.#model, 0.99),
      all: quantile(this.#all, 0.5) };
  }
}

function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
