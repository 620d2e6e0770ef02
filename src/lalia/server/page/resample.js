// From one rate to another while the sound comes: windowed sinc, one filter for each phase of the ratio.

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

/** Zero crossings of the filter to each side. */
const ZEROS = 24;

export class Resampler {
  /**
   * @param {number} from rate of what comes in
   * @param {number} to rate of what goes out
   */
  constructor(from, to) {
    const common = gcd(Math.round(from), Math.round(to));
    this.down = Math.round(from) / common;
    this.up = Math.round(to) / common;
    // A little below the lower of both halves of the rates, so that what would fold back is gone.
    const cutoff = 0.94 * Math.min(1, to / from);
    this.half = Math.ceil(ZEROS / cutoff);
    this.taps = 2 * this.half;
    this.filters = this.same ? [] : Array.from({ length: this.up }, (_, phase) => this.#filter(phase, cutoff));
    /** What is still needed of the past; silence before the first sample, so that nothing is shifted in time. */
    this.rest = new Float32Array(this.half - 1);
    /** Where the next sample lies: whole samples into the rest, and phases beyond. */
    this.whole = 0;
    this.phase = 0;
  }

  get same() {
    return this.up === this.down;
  }

  /** Samples that come in before the first one that they decide goes out. */
  get delay() {
    return this.same ? 0 : this.half;
  }

  #filter(phase, cutoff) {
    const weights = new Float32Array(this.taps);
    let sum = 0;
    for (let i = 0; i < this.taps; i++) {
      const x = i - (this.half - 1) - phase / this.up;
      const t = x / this.half;
      const window = Math.abs(t) < 1 ? 0.42 + 0.5 * Math.cos(Math.PI * t) + 0.08 * Math.cos(2 * Math.PI * t) : 0;
      const sinc = x === 0 ? 1 : Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x);
      weights[i] = window * sinc;
      sum += weights[i];
    }
    return weights.map((weight) => weight / sum);
  }

  /**
   * @param {Float32Array} samples the next ones
   * @returns {Float32Array} what they complete
   */
  push(samples) {
    if (this.same) return samples.slice();
    const all = new Float32Array(this.rest.length + samples.length);
    all.set(this.rest);
    all.set(samples, this.rest.length);
    const out = [];
    while (this.whole + this.taps <= all.length) {
      const weights = this.filters[this.phase];
      let sum = 0;
      for (let i = 0; i < this.taps; i++) sum += weights[i] * all[this.whole + i];
      out.push(sum);
      this.phase += this.down;
      this.whole += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    const used = Math.min(this.whole, all.length);
    this.rest = all.slice(used);
    this.whole -= used;
    return Float32Array.from(out);
  }

  /** @returns {Float32Array} the end of the sound, which waited for what would follow */
  flush() {
    return this.push(new Float32Array(this.delay));
  }
}
