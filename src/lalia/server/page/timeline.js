// What was heard and what was played, on one time line: for the picture and for the recording.

import { RATE, toInt16, wavHeader } from "./pcm.js";

export const USER = 0;
export const MODEL = 1;

/** Samples that one value of the picture stands for. */
export const BUCKET = RATE / 100;

const SEGMENT = 10 * RATE;

/**
 * @typedef {object} Mark
 * @property {"interruption" | "latency"} kind
 * @property {number} at sample at which it begins
 * @property {number} until sample at which it ends
 */

export class Timeline {
  /** @param {number} origin sample of the clock at which it begins */
  constructor(origin = 0) {
    this.origin = origin;
    this.length = 0;
    /** @type {Mark[]} */
    this.marks = [];
    /** @type {(Int16Array | Blob | undefined)[]} both sides in turn; undefined where nothing sounded */
    this.segments = [];
    this.peaks = [new Uint8Array(4096), new Uint8Array(4096)];
  }

  /**
   * @param {number} lane USER or MODEL
   * @param {number} at sample of the clock
   * @param {Float32Array} samples
   */
  write(lane, at, samples) {
    const start = at - this.origin;
    if (start < 0) return;
    const values = toInt16(samples);
    for (let i = 0; i < values.length; ) {
      const index = Math.floor((start + i) / SEGMENT);
      const offset = (start + i) % SEGMENT;
      const n = Math.min(values.length - i, SEGMENT - offset);
      const segment = this.#segment(index);
      if (segment) for (let j = 0; j < n; j++) segment[2 * (offset + j) + lane] = values[i + j];
      i += n;
    }
    this.#paint(lane, start, samples);
    this.length = Math.max(this.length, start + values.length);
  }

  #segment(index) {
    if (!this.segments[index]) {
      this.segments[index] = new Int16Array(2 * SEGMENT);
      // The browser may put a Blob on disk: an hour of talk is 340 MB.
      for (let i = 0; i < index - 1; i++) {
        if (this.segments[i] instanceof Int16Array) this.segments[i] = new Blob([this.segments[i]]);
      }
    }
    const segment = this.segments[index];
    return segment instanceof Int16Array ? segment : null;
  }

  #paint(lane, start, samples) {
    const last = Math.floor((start + samples.length) / BUCKET);
    while (last >= this.peaks[lane].length) {
      const wider = new Uint8Array(2 * this.peaks[lane].length);
      wider.set(this.peaks[lane]);
      this.peaks[lane] = wider;
    }
    const peaks = this.peaks[lane];
    for (let i = 0; i < samples.length; i++) {
      const bucket = Math.floor((start + i) / BUCKET);
      const value = Math.min(255, Math.round(255 * Math.abs(samples[i])));
      if (value > peaks[bucket]) peaks[bucket] = value;
    }
  }

  /**
   * The loudest sample of some buckets, from 0 to 1.
   *
   * @param {number} lane
   * @param {number} from first bucket
   * @param {number} to the bucket behind the last
   */
  peak(lane, from, to) {
    let most = 0;
    const peaks = this.peaks[lane];
    for (let i = Math.max(0, from); i < Math.min(to, peaks.length); i++) if (peaks[i] > most) most = peaks[i];
    return most / 255;
  }

  /**
   * @param {Mark["kind"]} kind
   * @param {number} at sample of the clock
   * @param {number} [until]
   */
  mark(kind, at, until = at) {
    this.marks.push({ kind, at: at - this.origin, until: until - this.origin });
  }

  /** @returns {Blob} a WAV file: the user left, the model right */
  wav() {
    /** @type {BlobPart[]} */
    const parts = [wavHeader(this.length, 2, RATE)];
    for (let i = 0; i * SEGMENT < this.length; i++) {
      const frames = Math.min(SEGMENT, this.length - i * SEGMENT);
      const segment = this.segments[i] ?? new Int16Array(2 * frames);
      parts.push(segment instanceof Blob ? segment.slice(0, 4 * frames) : segment.subarray(0, 2 * frames));
    }
    return new Blob(parts, { type: "audio/wav" });
  }
}
