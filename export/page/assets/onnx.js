/**
 * The little of an ONNX file that a page has to know, by the wire format of protocol buffers and the
 * field numbers of onnx.proto: its metadata is read, and one operator is added to its graph.
 */
import { UserError } from "./errors.js";

const MODEL = { graph: 7, metadata: 14 };
const ENTRY = { key: 1, value: 2 };
const VARINT = 0, EIGHT_BYTES = 1, BYTES = 2, FOUR_BYTES = 5;
const OPERATORS = { softmax: "Softmax", sigmoid: "Sigmoid" };

/** Name of the output that {@link withPosteriors} adds. */
export const POSTERIORS = "posteriors";

/**
 * The file's metadata_props.
 * @param {Uint8Array} data
 * @returns {Map<string, string>}
 * @throws {UserError} it is no ONNX file.
 */
export function metadata(data) {
  const found = new Map();
  for (const [number, value] of fields(data)) {
    if (number !== MODEL.metadata || !(value instanceof Uint8Array)) continue;
    const entry = new Map(fields(value));
    found.set(text(entry.get(ENTRY.key)), text(entry.get(ENTRY.value)));
  }
  return found;
}

/**
 * The same file with a graph that also gives posteriors, shaped as its logits. Messages of protocol
 * buffers that follow one another are one message, so nothing of the file is rewritten.
 * @param {Uint8Array} data
 * @param {"softmax" | "sigmoid"} activation
 * @returns {Uint8Array}
 */
export function withPosteriors(data, activation) {
  // Fields: GraphProto.node, .output; NodeProto.input, .output, .op_type; ValueInfoProto.name.
  const node = [...message(1, utf8("logits")), ...message(2, utf8(POSTERIORS)),
    ...message(4, utf8(OPERATORS[activation]))];
  const graph = [...message(1, node), ...message(12, message(1, utf8(POSTERIORS)))];
  const tail = message(MODEL.graph, graph);
  const whole = new Uint8Array(data.length + tail.length);
  whole.set(data);
  whole.set(tail, data.length);
  return whole;
}

/** Field numbers with their values: numbers, or bytes. */
function* fields(data) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; factor < 2 ** 70 && at < data.length; factor *= 128) {
      const byte = data[at++];
      value += (byte & 127) * factor; // beyond 2 ** 53 inexact, and then of no interest
      if (byte < 128) return value;
    }
    throw damaged();
  };
  const skip = (count) => {
    if (count > data.length - at) throw damaged();
    at += count;
    return data.subarray(at - count, at);
  };
  while (at < data.length) {
    const key = varint();
    const number = Math.floor(key / 8);
    switch (key % 8) {
      case VARINT: yield [number, varint()]; break;
      case BYTES: yield [number, skip(varint())]; break;
      case EIGHT_BYTES: skip(8); break;
      case FOUR_BYTES: skip(4); break;
      default: throw damaged();
    }
  }
}

function damaged() {
  return new UserError("is no ONNX model, or is damaged: use a file that earmark export wrote");
}

function text(value) {
  if (value === undefined) return "";
  if (!(value instanceof Uint8Array)) throw damaged();
  return new TextDecoder().decode(value);
}

function utf8(value) {
  return [...new TextEncoder().encode(value)];
}

/** A field of bytes; one byte holds a length below 128. */
function message(number, content) {
  return [number * 8 + BYTES, content.length, ...content];
}
