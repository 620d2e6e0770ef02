// AudioWorklet: the microphone, at 24 kHz, in pieces that know when they were heard.

import { RATE } from "./pcm.js";
import { Resampler } from "./resample.js";

const PIECE = 960;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
    /** Where the next sample stands on the clock of the context, counted at 24 kHz. */
    this.at = null;
  }

  process([channels]) {
    if (!channels.length) return true;
    const now = Math.round((currentFrame * RATE) / sampleRate);
    // Counted, not read off, so that no rounding opens a gap; read off again after a pause.
    if (this.at === null || Math.abs(this.at + this.filled - now) > RATE / 20) {
      this.filled = 0;
      this.at = now;
    }
    for (const sample of this.resampler.push(mono(channels))) {
      this.piece[this.filled++] = sample;
      if (this.filled === PIECE) this.#send();
    }
    return true;
  }

  #send() {
    this.port.postMessage({ at: this.at, samples: this.piece.slice() });
    this.at += PIECE;
    this.filled = 0;
  }
}

/** @param {Float32Array[]} channels */
function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

registerProcessor("capture", Capture);
