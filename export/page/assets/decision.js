/**
 * From posteriors to detections, step for step as earmark.runtime.decision decides: moving average,
 * threshold, hysteresis, refractory period. Times are audio time, counted in steps.
 */

/**
 * Posteriors are held as integers in units of 2 ** -32, whose sums are exact in doubles for windows
 * of up to 2 ** 21 steps.
 */
const UNIT = 2 ** 32;

/** @typedef {{label: number, row: number, score: number}} Firing label and row are indices, score
 *   is the smoothed posterior at that step. */

/** Decision state of one stream; see earmark.runtime.decision.Decider. */
export class Decider {
  #labels;
  #stepSeconds;
  /** Steps that are averaged. */
  #window;
  /** In steps. */
  #refractory;
  /** By label: the sum at which it fires, infinity for one that is no keyword. */
  #fire;
  /** By label: the sum below which it re-arms. */
  #rearm;
  /** The last steps in units, [window, labels]; the oldest is the next to be replaced. */
  #rows;
  #next;
  #totals;
  #armed;
  /** By label: the step from which it may fire again. */
  #ready;
  #clock;

  /**
   * @param {import("./manifest.js").Decision} decision
   * @param {string[]} labels in the order of the posteriors' columns.
   * @param {number} stepSeconds audio between two rows of posteriors.
   */
  constructor(decision, labels, stepSeconds) {
    this.#labels = labels;
    this.#stepSeconds = stepSeconds;
    this.#ready = labels.map(() => 0);
    this.#clock = 0;
    this.#setRule(decision);
    this.gap();
  }

  /** Smoothed posteriors of the last step, by label; zero at the start. */
  get smoothed() {
    return this.#totals.map((total) => total / (this.#window * UNIT));
  }

  /**
   * Take the next steps.
   * @param {Float32Array} posteriors [steps * labels], each in [0, 1].
   * @param {Float32Array} [smoothed] where the moving averages are written, shaped alike.
   * @returns {Firing[]} what fires, in the order of the steps.
   */
  update(posteriors, smoothed) {
    const count = this.#labels.length, full = this.#window * UNIT, firings = [];
    for (let row = 0; row * count < posteriors.length; row++, this.#clock++) {
      const oldest = this.#next * count;
      this.#next = (this.#next + 1) % this.#window;
      for (let label = 0; label < count; label++) {
        const value = Math.floor(posteriors[row * count + label] * UNIT);
        const total = this.#totals[label] += value - this.#rows[oldest + label];
        this.#rows[oldest + label] = value;
        if (smoothed) smoothed[row * count + label] = total / full;
        if (!this.#armed[label]) {
          this.#armed[label] = total < this.#rearm[label];
        } else if (total >= this.#fire[label] && this.#clock >= this.#ready[label]) {
          firings.push({ label, row, score: total / full });
          this.#armed[label] = false;
          this.#ready[label] = this.#clock + this.#refractory;
        }
      }
    }
    return firings;
  }

  /**
   * Forget the audio before a loss of about `steps` steps. Refractory periods run on over the loss.
   * @param {number} [steps]
   */
  gap(steps = 0) {
    this.#rows = new Float64Array(this.#window * this.#labels.length);
    this.#next = 0;
    this.#totals = new Float64Array(this.#labels.length);
    this.#armed = this.#labels.map(() => true);
    this.#clock += steps;
  }

  /**
   * Decide by other settings from now on. What was heard is kept, unless it is averaged over
   * another time.
   * @param {import("./manifest.js").Decision} decision
   */
  retune(decision) {
    const window = this.#window;
    this.#setRule(decision);
    if (this.#window !== window) this.gap();
  }

  #setRule({ thresholds, smoothing, release, refractory }) {
    this.#window = Math.max(1, roundHalfEven(smoothing / this.#stepSeconds));
    this.#refractory = Math.ceil(refractory / this.#stepSeconds - 1e-9);
    const full = this.#window * UNIT;
    // Truncation loses less than one unit per row, so a mean of exactly the threshold still fires.
    this.#fire = this.#labels.map((label) => Object.hasOwn(thresholds, label)
      ? Math.max(1, Math.ceil(thresholds[label] * full) - this.#window) : Infinity);
    this.#rearm = this.#labels.map((label, index) => Object.hasOwn(thresholds, label)
      ? Math.min(this.#fire[index], Math.max(1, Math.ceil(release * thresholds[label] * full)))
      : 0);
  }
}

/** As Python rounds: halves go to the even neighbour. */
function roundHalfEven(value) {
  const below = Math.floor(value), rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below + below % 2;
}
