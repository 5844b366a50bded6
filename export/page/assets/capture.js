/** On the audio thread: blocks of the microphone's samples to the worker, and nothing else. */

/** Samples in a block. */
const BLOCK = 1024;
/** Seconds that may wait for the worker; what comes after them is lost, and counted. */
const MAX_WAITING = 5;

class Capture extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK);
  #filled = 0;
  #waiting = 0;
  #lost = 0;
  #worker;

  constructor() {
    super();
    this.port.onmessage = ({ data: { port } }) => {
      this.#worker = port;
      port.onmessage = ({ data: { taken } }) => { this.#waiting -= taken; };
    };
  }

  process([[samples]]) {
    for (let start = 0; samples && this.#worker && start < samples.length; ) {
      const count = Math.min(BLOCK - this.#filled, samples.length - start);
      this.#block.set(samples.subarray(start, start + count), this.#filled);
      this.#filled += count;
      start += count;
      if (this.#filled === BLOCK) this.#send();
    }
    return true;
  }

  #send() {
    this.#filled = 0;
    if (this.#waiting > MAX_WAITING * sampleRate) {
      this.#lost += BLOCK;
      return;
    }
    this.#worker.postMessage({ pcm: this.#block, lost: this.#lost });
    this.#waiting += BLOCK;
    this.#lost = 0;
  }
}

registerProcessor("capture", Capture);
