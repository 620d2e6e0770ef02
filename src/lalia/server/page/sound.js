// The browser's sound: microphone in, loudspeaker out, one clock for both.

import { RATE } from "./pcm.js";

const MICROPHONE = { audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true } };

/** @typedef {"insecure" | "unsupported" | "refused" | "absent" | "busy" | "failed" | "lost"} Trouble */

export class SoundError extends Error {
  /** @param {Trouble} trouble */
  constructor(trouble) {
    super(trouble);
    this.trouble = trouble;
  }
}

export class Sound {
  /**
   * @param {object} on
   * @param {(at: number, samples: Float32Array) => void} on.heard a piece of the microphone
   * @param {(item: string, at: number, samples: Float32Array, played: number) => void} on.played a piece of a reply
   * @param {(item: string, played: number) => void} on.finished a reply was played to its end
   * @param {() => void} on.lost the microphone was taken away
   */
  constructor(on) {
    this.on = on;
    /** @type {AudioContext | null} */
    this.context = null;
    /** Where the clock of this context began: there may have been another. */
    this.base = 0;
    this.stream = null;
    /** @type {((stopped: {item: string | null, played: number, at: number}) => void)[]} */
    this.waiting = [];
  }

  /** @returns {Trouble | null} why this page can make no sound */
  static get trouble() {
    if (!window.isSecureContext) return "insecure";
    return window.AudioContext && window.AudioWorkletNode ? null : "unsupported";
  }

  get microphone() {
    return this.stream !== null;
  }

  get running() {
    return this.context?.state === "running";
  }

  /** Samples at 24 kHz since there is sound. */
  get position() {
    return this.base + Math.round((this.context?.currentTime ?? 0) * RATE);
  }

  /** Have the loudspeaker run; the first time, in answer to a key or a click. */
  async start() {
    if (Sound.trouble) throw new SoundError(Sound.trouble);
    this.ready ??= this.#create({ sampleRate: RATE, latencyHint: "interactive" });
    await this.ready;
    if (!this.running) await this.context.resume();
  }

  async #create(options) {
    try {
      this.context = new AudioContext(options);
    } catch {
      this.context = new AudioContext({ latencyHint: "interactive" });
    }
    const worklet = this.context.audioWorklet;
    await Promise.all(["capture.js", "playback.js"].map((name) => worklet.addModule(new URL(name, import.meta.url))));
    this.player = new AudioWorkletNode(this.context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.player.port.onmessage = ({ data }) => this.#told(data);
    this.player.connect(this.context.destination);
  }

  #told({ type, item, at, samples, played }) {
    if (type === "played") this.on.played(item, this.base + at, samples, played);
    else if (type === "finished") this.on.finished(item, played);
    else if (type === "stopped") this.waiting.shift()?.({ item, played, at: this.base + at });
  }

  /** Open the microphone. */
  async open() {
    await this.start();
    if (!navigator.mediaDevices?.getUserMedia) throw new SoundError("unsupported");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia(MICROPHONE);
    } catch (error) {
      const names = { NotAllowedError: "refused", NotFoundError: "absent", NotReadableError: "busy" };
      throw new SoundError(names[error.name] ?? "failed");
    }
    try {
      this.source = this.context.createMediaStreamSource(stream);
    } catch {
      // Firefox connects a microphone only to a context of the same rate: the worklets resample instead.
      this.base = this.position;
      await this.context.close();
      this.ready = this.#create({ latencyHint: "interactive" });
      await this.ready;
      this.source = this.context.createMediaStreamSource(stream);
    }
    this.stream = stream;
    this.capture = new AudioWorkletNode(this.context, "capture", { outputChannelCount: [1] });
    this.capture.port.onmessage = ({ data }) => {
      if (this.stream === stream) this.on.heard(this.base + data.at, data.samples);
    };
    // Its output is silence; a node that leads nowhere need not be run.
    this.source.connect(this.capture).connect(this.context.destination);
    stream.getAudioTracks()[0].onended = () => {
      if (this.stream !== stream) return;
      this.close();
      this.on.lost();
    };
  }

  /** Close the microphone, so that the browser shows it as closed. */
  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.source?.disconnect();
    this.capture?.disconnect();
    this.stream = this.source = this.capture = null;
  }

  /** Nobody listens and nobody speaks: the clock rests too. */
  async rest() {
    if (!this.microphone && this.running) await this.context.suspend();
  }

  /**
   * @param {string} item
   * @param {Float32Array} samples
   */
  push(item, samples) {
    this.player?.port.postMessage({ type: "push", item, samples }, [samples.buffer]);
  }

  /** @param {string} item of which nothing more comes */
  end(item) {
    this.player?.port.postMessage({ type: "end", item });
  }

  /**
   * Fall silent, and forget what was to be played.
   *
   * @returns {Promise<{item: string | null, played: number, at: number}>} samples of the reply that were played, and
   *   when silence began
   */
  stop() {
    if (!this.running) return Promise.resolve({ item: null, played: 0, at: this.position });
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.player.port.postMessage({ type: "stop" });
    });
  }
}
