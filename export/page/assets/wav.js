/** WAV files read block by block, as earmark.runtime.audio reads them. */
import { UserError } from "./errors.js";

const PCM = 1, FLOAT = 3, EXTENSIBLE = 0xfffe;
const MAX_CHANNELS = 64, MIN_RATE = 1000, MAX_RATE = 768000;
/** Float samples beyond this are no audio in [-1, 1), whatever the gain. */
const MAX_AMPLITUDE = 100;
/** Programs that write WAV into a pipe give a length of 0, or one at or above this. */
const UNKNOWN_SIZE = 0x7fff0000;

/** By format tag and bits: one sample at a byte, in [-1, 1). */
const SAMPLES = {
  [`${PCM} 8`]: (view, at) => (view.getUint8(at) - 128) / 2 ** 7,
  [`${PCM} 16`]: (view, at) => view.getInt16(at, true) / 2 ** 15,
  [`${PCM} 24`]: (view, at) =>
    (view.getInt8(at + 2) * 2 ** 16 + view.getUint16(at, true)) / 2 ** 23,
  [`${PCM} 32`]: (view, at) => view.getInt32(at, true) / 2 ** 31,
  [`${FLOAT} 32`]: (view, at) => view.getFloat32(at, true),
  [`${FLOAT} 64`]: (view, at) => view.getFloat64(at, true),
};

/**
 * @typedef {{rate: number, frames: number, read: (start: number, count: number) =>
 *   Promise<Float32Array>}} Wav `read` gives mono, all channels averaged.
 */

/**
 * @param {Blob} file
 * @returns {Promise<Wav | null>} null where it is no WAV file, or of a coding not known here.
 * @throws {UserError} it is damaged.
 */
export async function openWav(file) {
  const head = await view(file, 0, 12);
  if (head.byteLength < 12 || tag(head, 0) !== "RIFF" || tag(head, 8) !== "WAVE") return null;
  let layout;
  for (let at = 12; ; ) {
    const chunk = await view(file, at, 8);
    if (chunk.byteLength < 8) throw new UserError("is a WAV file cut off in its header");
    const name = tag(chunk, 0), length = chunk.getUint32(4, true);
    at += 8;
    if (name === "data") {
      if (!layout) throw new UserError("is a WAV file without a format: convert it again");
      return opened(file, layout, at, length, head.getUint32(4, true));
    }
    if (name === "fmt ") {
      layout = format(await view(file, at, Math.min(length, 256)));
      if (layout === null) return null;
    }
    at += length + length % 2;
  }
}

/** Channels, rate and how a sample is read; null for a coding not known here. */
function format(body) {
  if (body.byteLength < 16) throw new UserError("has a damaged WAV header: convert it again");
  let coding = body.getUint16(0, true);
  // The first two bytes of the sub-format are the format tag proper.
  if (coding === EXTENSIBLE && body.byteLength >= 26) coding = body.getUint16(24, true);
  const channels = body.getUint16(2, true), rate = body.getUint32(4, true);
  const bits = body.getUint16(14, true), sample = SAMPLES[`${coding} ${bits}`];
  if (!sample) return null;
  if (channels < 1 || channels > MAX_CHANNELS || rate < MIN_RATE || rate > MAX_RATE
    || body.getUint16(12, true) !== channels * bits / 8) {
    throw new UserError(`has a WAV header with ${channels} channels of ${bits} bits at ${rate} Hz, `
      + "which cannot be: convert it again");
  }
  return { channels, rate, sample, bytes: bits / 8 };
}

function opened(file, { channels, rate, sample, bytes }, start, promised, riff) {
  const left = file.size - start, width = channels * bytes;
  const open = promised >= UNKNOWN_SIZE || (promised === 0 && Math.abs(8 + riff - file.size) > 1);
  if (promised > left && !open) throw new UserError("is truncated: copy or record it again");
  const frames = Math.floor((open ? left : promised) / width);
  if (frames === 0) throw new UserError("holds no samples: record it again");

  async function read(first, count) {
    const data = await view(file, start + first * width, Math.min(count, frames - first) * width);
    const pcm = new Float32Array(Math.floor(data.byteLength / width));
    for (let frame = 0; frame < pcm.length; frame++) {
      let sum = 0;
      for (let channel = 0; channel < channels; channel++) {
        // In 32 bits, as the model takes them, at every step.
        sum = Math.fround(sum + Math.fround(sample(data, frame * width + channel * bytes)));
      }
      pcm[frame] = sum / channels;
      if (!(Math.abs(pcm[frame]) <= MAX_AMPLITUDE)) {
        throw new UserError(`holds what is no audio at ${((first + frame) / rate).toFixed(3)} s: `
          + "repair it, or scale its samples to [-1, 1)");
      }
    }
    return pcm;
  }

  return { rate, frames, read };
}

async function view(file, start, count) {
  return new DataView(await file.slice(start, start + count).arrayBuffer());
}

function tag(data, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((index) => data.getUint8(at + index)));
}
