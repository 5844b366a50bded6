/** What a model file says of itself, read from the file and checked for what the page relies on. */
import { UserError } from "./errors.js";
import { metadata } from "./onnx.js";

const KEY = "earmark";
/** Version of the manifest's fields that this page knows. */
const SCHEMA = 2;
/** Most numbers that are kept for the moving average, as in earmark.runtime.decision. */
const MAX_WINDOW_VALUES = 2 ** 22;

/**
 * @typedef {{thresholds: Object<string, number>, smoothing: number, release: number,
 *   refractory: number}} Decision times in seconds; see earmark.runtime.manifest.Decision.
 * @typedef {{name: string, labels: string[], keywords: string[], activation: "softmax" | "sigmoid",
 *   geometry: {sample_rate: number, chunk: number, step: number, cache: number},
 *   decision: Decision, operating_points: Object<string, Decision>, precision: string,
 *   parameters: number, licence: string, teacher: string | null, metrics: Object<string, any>,
 *   sources: {name: string, licence: string, role?: string, url?: string, attribution?: string}[]
 *   }} Manifest
 *   and what else the file holds, for the model card.
 */

/**
 * @param {Uint8Array} data an ONNX file.
 * @returns {Manifest}
 * @throws {UserError} it is no model of Earmark's, a newer one, or a field is wrong.
 */
export function readManifest(data) {
  const json = metadata(data).get(KEY);
  if (json === undefined) {
    throw new UserError("is an ONNX model without Earmark's manifest: "
      + "use a file that earmark export wrote");
  }
  let raw;
  try {
    raw = JSON.parse(json);
  } catch {
    throw new UserError("manifest is not JSON: export the model again");
  }
  need(isObject(raw), "", "an object");
  need(isCount(raw.schema, 2 ** 31), "schema", "a version number");
  if (raw.schema > SCHEMA) {
    throw new UserError(`manifest has schema ${raw.schema}, this page reads up to ${SCHEMA}: `
      + "make the page with a newer Earmark");
  }
  const labels = raw.labels;
  need(Array.isArray(labels) && labels.length >= 1 && labels.length <= 1000
    && labels.every((label) => typeof label === "string" && label.length > 0)
    && new Set(labels).size === labels.length, "labels", "1 to 1000 names that differ");
  const manifest = { activation: "softmax", operating_points: {}, licence: "", sources: [],
    teacher: null, metrics: {}, ...raw,
    keywords: labels.filter((label) => !label.startsWith("_")) };
  need(typeof manifest.name === "string", "name", "text");
  need(["softmax", "sigmoid"].includes(manifest.activation), "activation", "softmax or sigmoid");
  const geometry = manifest.geometry;
  need(isObject(geometry), "geometry", "an object");
  for (const [name, most] of [["sample_rate", 192000], ["chunk", 2 ** 20], ["step", 2 ** 20],
    ["cache", 2 ** 24]]) {
    need(isCount(geometry[name], most), `geometry.${name}`, `a number from 1 to ${most}`);
  }
  need(geometry.chunk % geometry.step === 0, "geometry.chunk", "a multiple of geometry.step");
  checkDecision(manifest.decision, manifest, "decision");
  need(isObject(manifest.operating_points), "operating_points", "an object");
  for (const [name, point] of Object.entries(manifest.operating_points)) {
    checkDecision(point, manifest, `operating_points.${name}`);
  }
  checkCard(manifest);
  return manifest;
}

/** What the model card shows. What was measured is free in form, and left to the card. */
function checkCard({ precision, parameters, licence, teacher, metrics, sources }) {
  need(["float32", "int8"].includes(precision), "precision", "float32 or int8");
  need(Number.isInteger(parameters) && parameters >= 0, "parameters", "a count");
  need(typeof licence === "string", "licence", "text");
  need(teacher === null || typeof teacher === "string", "teacher", "text or null");
  need(isObject(metrics), "metrics", "an object");
  need(Array.isArray(sources), "sources", "a list");
  sources.forEach((source, index) => {
    const { name, licence: terms, role = "", url = "", attribution = "" } = source ?? {};
    need(isObject(source) && [name, terms, role, url, attribution].every(
      (text) => typeof text === "string"), `sources[${index}]`, "an object with texts");
  });
}

function checkDecision(decision, { keywords, labels, geometry }, where) {
  need(isObject(decision) && isObject(decision.thresholds), where, "an object with thresholds");
  for (const keyword of keywords) {
    const threshold = decision.thresholds[keyword];
    need(isNumber(threshold, 1) && threshold > 0, `${where}.thresholds.${keyword}`,
      "a number above 0 and at most 1");
  }
  for (const [name, most] of [["smoothing", 60], ["release", 1], ["refractory", 3600]]) {
    need(isNumber(decision[name], most), `${where}.${name}`, `0 to ${most}`);
  }
  const steps = decision.smoothing * geometry.sample_rate / geometry.step;
  need(steps * labels.length <= MAX_WINDOW_VALUES, `${where}.smoothing`, "less");
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value, most) {
  return Number.isInteger(value) && value >= 1 && value <= most;
}

function isNumber(value, most) {
  return typeof value === "number" && value >= 0 && value <= most;
}

function need(condition, name, expected) {
  if (!condition) throw new UserError(`manifest field ${name}: expected ${expected}`);
}
