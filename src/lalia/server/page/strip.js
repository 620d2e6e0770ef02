// The picture: what the user says above the line, what the model says below, and the time between.

import { RATE } from "./pcm.js";
import { BUCKET, MODEL, USER } from "./timeline.js";

/** Pixels from one bar to the next, and hundredths of a second that a bar stands for. */
const STEP = 4;
const BUCKETS = 5;
const PIXELS = (STEP * RATE) / (BUCKETS * BUCKET);
/** What was played is reported a little later. */
const LAG = 0.06 * RATE;
const AXIS = 18;
/** Milliseconds from one picture to the next, at least: where a model is served, the processor has other work. */
const FRAME = 30;

export class Strip {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => {timeline: import("./timeline.js").Timeline, position: number, running: boolean}} read
   * @param {() => {gap: (ms: number) => string, cut: string}} words
   */
  constructor(canvas, read, words) {
    this.canvas = canvas;
    this.read = read;
    this.words = words;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.still.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.drawing = false;
    this.drawn = 0;
  }

  /** Draw now, and on while there is sound. */
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    const frame = (now) => {
      if (now - this.drawn < FRAME) return requestAnimationFrame(frame);
      this.drawing = false;
      this.drawn = now;
      this.#paint();
      if (this.read().running) this.draw();
    };
    requestAnimationFrame(frame);
  }

  #paint() {
    const { canvas } = this;
    const { timeline, position } = this.read();
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const g = canvas.getContext("2d");
    g.setTransform(scale, 0, 0, scale, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = `11px ${style.fontFamily}`;

    const now = Math.max(0, position - LAG - timeline.origin);
    const shown = (width / PIXELS) * RATE;
    // Whole pages where motion is not wanted; else the present stays at the right.
    const first = this.still.matches ? Math.floor(now / shown) * shown : now - shown;
    const x = (at) => ((at - first) / RATE) * PIXELS;
    const middle = (height - AXIS) / 2;

    g.fillStyle = color("line");
    g.fillRect(0, middle - 0.5, width, 1);
    g.fillStyle = color("faint");
    for (let t = Math.max(0, Math.ceil(first / RATE / 5) * 5); t * RATE <= now; t += 5) {
      g.fillRect(x(t * RATE), height - AXIS + 1, 1, 4);
      g.fillText(clock(t), x(t * RATE) + 4, height - 4);
    }
    const lanes = [
      { lane: USER, up: -1, ink: color("user") },
      { lane: MODEL, up: 1, ink: color("model") },
    ];
    const size = BUCKETS * BUCKET;
    for (const { lane, up, ink } of lanes) {
      g.fillStyle = ink;
      g.beginPath();
      for (let i = Math.max(0, Math.floor(first / size)); i * size < now; i++) {
        // Bent upwards, so that quiet speech is seen, too.
        const loud = timeline.peak(lane, i * BUCKETS, (i + 1) * BUCKETS) ** 0.6;
        if (loud < 0.04) continue;
        const length = Math.min(1, loud) * (middle - 8);
        g.roundRect(x(i * size), up < 0 ? middle - 3 - length : middle + 3, STEP - 1.5, length, 1.25);
      }
      g.fill();
    }
    for (const { kind, at, until } of timeline.marks) {
      if (until < first) continue;
      if (kind === "latency") this.#gap(g, x(at), x(until), middle, milliseconds(until - at), color);
      else this.#cut(g, x(at), height - AXIS, width, color);
    }
  }

  #gap(g, from, to, middle, ms, color) {
    g.fillStyle = color("ink");
    g.fillRect(from, middle - 0.75, Math.max(1, to - from), 1.5);
    g.fillRect(from, middle - 4, 1.5, 8);
    g.fillRect(to - 1.5, middle - 4, 1.5, 8);
    g.fillText(this.words().gap(ms), to + 6, middle - 8);
  }

  #cut(g, at, bottom, width, color) {
    g.strokeStyle = g.fillStyle = color("cut");
    g.lineWidth = 1.5;
    g.setLineDash([3, 3]);
    g.beginPath();
    g.moveTo(at, 4);
    g.lineTo(at, bottom);
    g.stroke();
    g.setLineDash([]);
    const text = this.words().cut;
    const space = g.measureText(text).width + 6;
    g.fillText(text, at + space > width ? at - space : at + 6, bottom - 4);
  }
}

const milliseconds = (samples) => Math.floor((1000 * samples) / RATE);

/** @param {number} seconds */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
