/** Smoothed posteriors of the keywords over time, one lane each, on a canvas. */

/** Most keywords that are drawn. */
export const MAX_LANES = 32;
/** Seconds in view while audio is live. */
const LIVE_SECONDS = 12;
/** Most columns for a recording, which is drawn whole. */
const MAX_COLUMNS = 1500;
const NAMES = 60, VALUES = 44, AXIS = 24, GAP = 7;

export class Plot {
  #canvas;
  #keywords = [];
  /** Places of the keywords among the labels. */
  #labels = [];
  #thresholds = {};
  /** Largest value of each column, [columns, keywords]. While live it is a ring. */
  #values = new Float32Array(0);
  #columns = 1;
  #columnSteps = 1;
  #live = true;
  /** Steps taken, and seconds of one. */
  #steps = 0;
  #stepSeconds = 1;
  #last = [];
  #marks = [];
  #colours = {};
  #due = 0;
  #drawn = 0;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const dress = () => {
      const style = getComputedStyle(document.documentElement);
      for (const name of ["ink", "soft", "line", "accent", "mark", "threshold"]) {
        this.#colours[name] = style.getPropertyValue(`--${name}`);
      }
      this.draw();
    };
    dark.addEventListener("change", dress);
    dress();
  }

  /** @param {import("./manifest.js").Manifest} manifest */
  setModel(manifest) {
    this.#keywords = manifest.keywords.slice(0, MAX_LANES);
    this.#labels = this.#keywords.map((keyword) => manifest.labels.indexOf(keyword));
    this.#stepSeconds = manifest.geometry.step / manifest.geometry.sample_rate;
    this.start();
  }

  /** @param {Object<string, number>} thresholds */
  setThresholds(thresholds) {
    this.#thresholds = thresholds;
    this.draw();
  }

  /** Begin anew. @param {number} [seconds] length of a recording; without it audio is live. */
  start(seconds) {
    this.#live = seconds === undefined;
    const steps = Math.ceil((this.#live ? LIVE_SECONDS : seconds) / this.#stepSeconds);
    this.#columnSteps = this.#live ? 1 : Math.max(1, Math.ceil(steps / MAX_COLUMNS));
    this.#columns = Math.max(1, Math.ceil(steps / this.#columnSteps));
    this.#values = new Float32Array(this.#columns * this.#keywords.length);
    this.#last = this.#keywords.map(() => 0);
    this.#marks = [];
    this.#steps = 0;
    this.draw();
  }

  /**
   * @param {Float32Array} smoothed [steps * labels]
   * @param {number} labels
   * @param {{keyword: string, time: number}[]} detections
   */
  add(smoothed, labels, detections) {
    for (let row = 0; row < smoothed.length / labels; row++, this.#steps++) {
      const column = this.#live ? this.#steps % this.#columns
        : Math.floor(this.#steps / this.#columnSteps);
      this.#labels.forEach((label, lane) => {
        const value = this.#last[lane] = smoothed[row * labels + label];
        const at = column * this.#labels.length + lane;
        if (this.#live || value > this.#values[at]) this.#values[at] = value;
      });
    }
    const seen = this.#live ? this.#steps * this.#stepSeconds - LIVE_SECONDS : 0;
    this.#marks = [...this.#marks, ...detections].filter(({ time }) => time > seen);
    this.draw();
  }

  /** Time that the plot leaves out: audio was lost. @param {number} seconds */
  skip(seconds) {
    for (let left = Math.min(this.#columns, Math.round(seconds / this.#stepSeconds)); left; left--) {
      this.#values.fill(0, this.#steps % this.#columns * this.#labels.length,
        (this.#steps % this.#columns + 1) * this.#labels.length);
      this.#steps++;
    }
  }

  /** Draw with the next frame of the screen, or twice a second where motion is unwelcome. */
  draw() {
    if (this.#due) return;
    const wait = this.#calm.matches ? Math.max(0, 500 - (performance.now() - this.#drawn)) : 0;
    this.#due = setTimeout(() => requestAnimationFrame(() => {
      this.#due = 0;
      this.#drawn = performance.now();
      this.#paint();
    }), wait);
  }

  #paint() {
    const lanes = this.#keywords.length;
    const width = this.#canvas.clientWidth;
    const lane = lanes > 16 ? 24 : lanes > 4 ? 38 : 64, height = lanes * lane + AXIS;
    const ratio = devicePixelRatio || 1;
    this.#canvas.style.height = `${height}px`;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    const pen = this.#canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = `13px ${getComputedStyle(this.#canvas).fontFamily}`;
    pen.textBaseline = "middle";
    const longest = Math.max(NAMES, ...this.#keywords.map((word) => pen.measureText(word).width));
    const left = Math.min(longest, 0.3 * width) + 16;
    const area = { left, width: width - left - VALUES };
    this.#paintAxis(pen, area, lanes * lane, lane);
    this.#keywords.forEach((keyword, index) => {
      this.#paintLane(pen, keyword, index, { ...area, top: index * lane + GAP,
        height: lane - GAP - 1 });
    });
  }

  #paintLane(pen, keyword, index, { left, width, top, height }) {
    const colours = this.#colours, bottom = top + height, lanes = this.#keywords.length;
    const threshold = this.#thresholds[keyword], value = this.#last[index];
    const loud = this.#live && value >= threshold;
    pen.fillStyle = loud ? colours.accent : colours.ink;
    pen.textAlign = "left";
    pen.fillText(shortened(pen, keyword, left - 16), 0, bottom - height / 2);
    pen.fillStyle = loud ? colours.accent : colours.soft;
    pen.textAlign = "right";
    if (this.#live) pen.fillText(value.toFixed(2), left + width + VALUES, bottom - height / 2);

    pen.fillStyle = colours.line;
    pen.fillRect(left, bottom, width, 1);

    // Columns that are wider than a pixel meet; of narrower ones the largest in a pixel counts.
    const path = new Path2D(), first = this.#live ? this.#steps : 0;
    path.moveTo(left, bottom);
    let peak = 0, pixel = -1;
    for (let column = 0; column < this.#columns; column++) {
      const at = (first + column) % this.#columns;
      peak = Math.max(peak, this.#values[at * lanes + index]);
      const x = (column + 1) * width / this.#columns;
      if (Math.floor(x) > pixel) {
        pixel = Math.floor(x);
        path.lineTo(left + x, bottom - peak * height);
        peak = 0;
      }
    }
    const edge = new Path2D(path);
    path.lineTo(left + width, bottom);
    pen.fillStyle = pen.strokeStyle = colours.accent;
    pen.globalAlpha = 0.18;
    pen.fill(path);
    pen.globalAlpha = 1;
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.stroke(edge);

    pen.strokeStyle = colours.threshold;
    pen.lineWidth = 1;
    pen.setLineDash([3, 4]);
    pen.beginPath();
    pen.moveTo(left, bottom - threshold * height);
    pen.lineTo(left + width, bottom - threshold * height);
    pen.stroke();
    pen.setLineDash([]);

    pen.fillStyle = colours.mark;
    for (const mark of this.#marks) {
      if (mark.keyword !== keyword) continue;
      const x = left + width * this.#place(mark.time);
      pen.fillRect(x - 0.75, top, 1.5, height);
      pen.beginPath();
      pen.arc(x, top, 3.5, 0, 2 * Math.PI);
      pen.fill();
    }
  }

  #paintAxis(pen, { left, width }, bottom, lane) {
    const seconds = this.#columns * this.#columnSteps * this.#stepSeconds;
    const most = Math.max(2, width / 90);
    const unit = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200]
      .find((step) => seconds / step <= most) ?? seconds;
    pen.textAlign = "center";
    for (let time = 0; time <= seconds; time += unit) {
      const x = left + width * (this.#live ? 1 - time / seconds : time / seconds);
      pen.fillStyle = this.#colours.line;
      pen.globalAlpha = 0.6;
      pen.fillRect(Math.round(x), GAP, 1, bottom - GAP);
      pen.globalAlpha = 1;
      pen.fillStyle = this.#colours.soft;
      const label = !this.#live ? clock(time) : time ? `−${time} s` : "now";
      pen.fillText(label, x, bottom + AXIS / 2 + 2);
    }
  }

  /** Where a time is in view, 0 to 1. */
  #place(time) {
    const seconds = this.#columns * this.#columnSteps * this.#stepSeconds;
    return this.#live ? 1 - (this.#steps * this.#stepSeconds - time) / seconds : time / seconds;
  }
}

/** Seconds as 9 s, 1:05 or 1:00:00. */
function clock(time) {
  if (time < 60) return `${time} s`;
  const two = (value) => String(value).padStart(2, "0");
  const minutes = Math.floor(time / 60);
  if (minutes < 60) return `${minutes}:${two(time % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(time % 60)}`;
}

function shortened(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && pen.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return `${text.slice(0, length)}…`;
}
