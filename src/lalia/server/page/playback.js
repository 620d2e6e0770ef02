// AudioWorklet: plays replies, counts what was truly played of each, and falls silent at once.

import { RATE } from "./pcm.js";
import { Resampler } from "./resample.js";

/** Samples at 24 kHz that are reported together. */
const PIECE = 480;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    /** @type {{item: string, samples: Float32Array}[]} at the rate of the context */
    this.queue = [];
    this.offset = 0;
    this.item = null;
    /** Samples of the item that went out, at the rate of the context. */
    this.count = 0;
    this.into = null;
    this.back = null;
    this.ended = false;
    /** How often it was told to stop, and has not yet. */
    this.stopping = 0;
    this.played = [];
    this.at = 0;
    /** Where what is played next stands, if nothing comes between. */
    this.next = 0;
    this.port.onmessage = ({ data }) => this.#take(data);
  }

  #take({ type, item, samples }) {
    if (type === "push") {
      if (item !== this.newest) {
        this.newest = item;
        this.into = new Resampler(RATE, sampleRate);
        this.ended = false;
      }
      this.queue.push({ item, samples: this.into.push(samples) });
    } else if (type === "end" && item === this.newest) {
      this.queue.push({ item, samples: this.into.flush() });
      this.ended = true;
    } else if (type === "stop") {
      this.stopping++;
    }
  }

  process(_, [[out]]) {
    const start = Math.round((currentFrame * RATE) / sampleRate);
    let filled = 0;
    while (filled < out.length && this.queue.length) {
      const { item, samples } = this.queue[0];
      if (item !== this.item) {
        if (this.item !== null) this.#finish();
        this.item = item;
        this.count = 0;
        this.back = new Resampler(sampleRate, RATE);
      }
      const n = Math.min(out.length - filled, samples.length - this.offset);
      out.set(samples.subarray(this.offset, this.offset + n), filled);
      filled += n;
      this.offset += n;
      if (this.offset === samples.length) {
        this.queue.shift();
        this.offset = 0;
      }
    }
    // A click is no way to fall silent: down to nothing within these samples.
    if (this.stopping) for (let i = 0; i < out.length; i++) out[i] *= 1 - (i + 1) / out.length;
    if (filled) this.#note(start, out.subarray(0, filled));
    this.count += filled;
    if (this.stopping) this.#stop(start + Math.round((filled * RATE) / sampleRate));
    else if (!this.queue.length && this.item !== null) {
      this.#report();
      if (this.ended && this.item === this.newest) this.#finish();
    }
    return true;
  }

  /** Keep what was played, as it was. */
  #note(start, out) {
    // Counted where it goes on, so that rounding leaves no gaps in the recording.
    if (!this.played.length) this.at = Math.abs(this.next - start) <= this.back.delay + 1 ? this.next : start;
    for (const sample of this.back.push(out)) this.played.push(sample);
    if (this.played.length >= PIECE) this.#report();
  }

  #report() {
    if (!this.played.length) return;
    const samples = Float32Array.from(this.played);
    this.played = [];
    this.next = this.at + samples.length;
    this.port.postMessage({ type: "played", item: this.item, at: this.at, samples, played: this.#whole() });
  }

  /** Samples of the item at 24 kHz that went out. */
  #whole() {
    return Math.floor((this.count * RATE) / sampleRate);
  }

  #finish() {
    this.#report();
    this.port.postMessage({ type: "finished", item: this.item, played: this.#whole() });
    this.item = null;
  }

  #stop(at) {
    this.#report();
    const item = this.item ?? this.queue[0]?.item ?? null;
    const stopped = { type: "stopped", item, played: this.item === null ? 0 : this.#whole(), at };
    // Each who told it waits for an answer.
    for (; this.stopping > 0; this.stopping--) this.port.postMessage(stopped);
    this.queue = [];
    this.offset = 0;
    this.item = null;
    // What still comes of a reply that was stopped is not played.
    this.newest = null;
  }
}

registerProcessor("playback", Playback);
