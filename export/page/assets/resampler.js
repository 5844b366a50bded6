/**
 * Change of sample rate for a stream: band-limited interpolation with a Kaiser-windowed sinc, as a
 * bank of filters, one for each place between two input samples (J. O. Smith, "Digital Audio
 * Resampling", CCRMA).
 */

/** Zero crossings of the sinc on each side of its centre. */
const CROSSINGS = 64;
/** Of the Kaiser window: stop band about 90 dB down. */
const BETA = 9;
/** The middle of the transition band, in units of the lower of the two Nyquist frequencies: the pass
 * band ends at 0.91 of it, and the stop band begins at it. */
const CUTOFF = 0.955;
/** Most filters in the bank. Between rates whose ratio needs more, neighbours are blended. */
const MAX_PHASES = 1024;

/** Mono audio from one rate to another. What comes out does not depend on how it is cut. */
export class Resampler {
  #up;
  #down;
  #phases;
  /** Input samples on each side that an output sample depends on. */
  #reach;
  /** One filter after the other, of 2 * reach taps. */
  #bank;
  /** Input that output to come depends on. */
  #input;
  /** Place of the next output sample after input[reach - 1 + whole], in 1 / up input samples. */
  #whole = 0;
  #part = 0;

  /**
   * @param {number} source Hz.
   * @param {number} target Hz.
   */
  constructor(source, target) {
    const divisor = commonDivisor(Math.round(source), Math.round(target));
    // Output sample n lies at input place n * down / up.
    this.#up = Math.round(target) / divisor;
    this.#down = Math.round(source) / divisor;
    this.#phases = Math.min(this.#up, MAX_PHASES);
    const cutoff = CUTOFF * Math.min(1, target / source);
    this.#reach = 2 * Math.ceil(CROSSINGS / cutoff / 2); // even, for #dot
    this.#bank = filters(this.#phases, this.#reach, cutoff);
    this.#input = new Float32Array(this.#reach); // silence before the start
  }

  /**
   * @param {Float32Array} pcm
   * @returns {Float32Array} all that `pcm` completes; it comes `reach` input samples late.
   */
  push(pcm) {
    const reach = this.#reach, up = this.#up;
    const input = new Float32Array(this.#input.length + pcm.length);
    input.set(this.#input);
    input.set(pcm, this.#input.length);
    // An output sample between input[i] and input[i + 1] needs those from i - reach + 1 to
    // i + reach; input[reach] is the first of the stream.
    const room = input.length - 2 * reach - this.#whole;
    const count = room <= 0 ? 0 : Math.ceil((room * up - this.#part) / this.#down);
    const output = new Float32Array(count);
    for (let index = 0; index < count; index++) {
      output[index] = this.#at(input, this.#whole + 1);
      this.#part += this.#down;
      this.#whole += Math.floor(this.#part / up);
      this.#part %= up;
    }
    const done = Math.min(this.#whole, input.length);
    this.#input = input.slice(done);
    this.#whole -= done;
    return output;
  }

  /** What is still held back, with silence after the end. Ends the stream. */
  finish() {
    return this.push(new Float32Array(this.#reach));
  }

  #at(input, start) {
    const place = this.#part * this.#phases / this.#up;
    const phase = Math.floor(place), blend = place - phase;
    const here = this.#dot(input, start, phase);
    return blend === 0 ? here : here + blend * (this.#dot(input, start, phase + 1) - here);
  }

  #dot(input, start, phase) {
    const bank = this.#bank, taps = 2 * this.#reach, offset = phase * taps;
    // Four sums side by side, as one addition need not wait for another then.
    let a = 0, b = 0, c = 0, d = 0;
    for (let tap = offset, at = start; tap < offset + taps; tap += 4, at += 4) {
      a += bank[tap] * input[at];
      b += bank[tap + 1] * input[at + 1];
      c += bank[tap + 2] * input[at + 2];
      d += bank[tap + 3] * input[at + 3];
    }
    return a + b + (c + d);
  }
}

/** Filters [phases + 1, 2 * reach]: tap t of phase p weighs the sample at t - reach + 1 for an
 * output sample at p / phases. */
function filters(phases, reach, cutoff) {
  const taps = 2 * reach, bank = new Float32Array((phases + 1) * taps);
  for (let phase = 0; phase <= phases; phase++) {
    for (let tap = 0; tap < taps; tap++) {
      const distance = tap - reach + 1 - phase / phases;
      const x = Math.PI * cutoff * distance, edge = distance / reach;
      const window = Math.abs(edge) >= 1 ? 0 : bessel(BETA * Math.sqrt(1 - edge * edge));
      bank[phase * taps + tap] = cutoff * (x === 0 ? 1 : Math.sin(x) / x) * window / bessel(BETA);
    }
  }
  return bank;
}

/** The modified Bessel function of the first kind and order 0, by its power series. */
function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function commonDivisor(a, b) {
  return b === 0 ? a : commonDivisor(b, a % b);
}
