// A model that hears and speaks at once, on the socket that Moshi's clients use: told in the events of one that takes
// turns, each stretch of its sound being a reply.

import { RATE, toFloat } from "./pcm.js";

/** Kinds of messages, each the first byte of its own; see lalia/server/fullduplex.py. */
const HANDSHAKE = 0;
const SOUND = 1;
const TEXT = 2;
const ERROR = 5;

/** Samples below this are silence (-40 dBFS). */
const QUIET = 327;

/** Samples of silence after which what was said is over. */
const PAUSE = 0.6 * RATE;

/** Replies so far, on whatever socket: an item of one that was lost is not that of the next. */
let replies = 0;

export class Chat {
  /**
   * @param {(event: any) => void} tell
   */
  constructor(tell) {
    this.tell = tell;
    /** @type {string | null} the reply that is said */
    this.item = null;
    this.quiet = 0;
    /** Whether nothing is to be heard of it until it falls silent. */
    this.muted = false;
  }

  /**
   * What the user says.
   *
   * @param {Int16Array} samples
   * @returns {Uint8Array}
   */
  static message(samples) {
    const bytes = new Uint8Array(1 + samples.byteLength);
    bytes[0] = SOUND;
    bytes.set(new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength), 1);
    return bytes;
  }

  /** Nobody can tell it to stop; what it says on is not heard. */
  stop() {
    this.muted = this.item !== null;
    this.#end("cancelled");
  }

  /** @param {ArrayBuffer} data */
  received(data) {
    const kind = new Uint8Array(data, 0, 1)[0];
    const text = () => new TextDecoder().decode(new Uint8Array(data, 1));
    if (kind === HANDSHAKE) this.tell({ type: "session.created" });
    else if (kind === ERROR) this.tell({ type: "error", error: { message: text() } });
    else if (kind === TEXT && !this.muted) this.#wrote(text());
    else if (kind === SOUND) this.#said(new Int16Array(data.slice(1)));
  }

  #wrote(text) {
    this.#begin();
    this.tell({ type: "response.output_audio_transcript.delta", item_id: this.item, delta: text });
  }

  #said(samples) {
    const loud = samples.some((sample) => Math.abs(sample) > QUIET);
    this.quiet = loud ? 0 : this.quiet + samples.length;
    if (this.quiet >= PAUSE) this.muted = false;
    // Silence between replies is not played: it would put off the next one by whatever the clocks differ.
    if (this.muted || (!loud && this.item === null)) return;
    this.#begin();
    this.tell({ type: "response.output_audio.delta", item_id: this.item, samples: toFloat(samples) });
    if (this.quiet >= PAUSE) this.#end("completed");
  }

  #begin() {
    if (this.item !== null) return;
    this.item = `reply-${++replies}`;
    this.quiet = 0;
    this.tell({ type: "response.created", response: { id: this.item } });
    this.tell({ type: "response.output_item.added", item: { id: this.item, type: "message" } });
  }

  #end(status) {
    const { item } = this;
    if (item === null) return;
    this.item = null;
    this.tell({ type: "response.output_audio.done", item_id: item });
    this.tell({ type: "response.done", response: { status, output: [{ id: item }] } });
  }
}
