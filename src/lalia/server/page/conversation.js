// The conversation: whose turn it is, what was said, what was heard of it, and when.

import { Connection } from "./connection.js";
import { RATE, fromBase64, toFloat, toInt16 } from "./pcm.js";
import { Sound } from "./sound.js";
import { BUCKET, MODEL, Timeline, USER } from "./timeline.js";

/**
 * @typedef {object} Turn
 * @property {string} id of the item
 * @property {"user" | "model" | "break"} role
 * @property {string} text
 * @property {number} at sample of the time line at which it begins
 * @property {boolean} spoken whether it is sound, too
 * @property {"open" | "done" | "cut" | "unclear"} state
 * @property {number} received samples of sound that came
 * @property {number} played samples of it that were heard
 * @property {boolean} whole whether all of the sound came
 * @property {string} [heard] the part of the text that was heard, where the server tells
 */

/** Milliseconds of silence after which the user is done; the server counts them to what he said. */
const SILENCE = 500;

/** Shorter than this, a press of the button was none. */
const SHORTEST = RATE / 5;

/** Nothing is wrong if there was nothing to stop, and the end of a session is told by its end. */
const HARMLESS = new Set(["response_cancel_not_active", "session_idle", "session_expired", "server_stopping"]);

const milliseconds = (samples) => Math.floor((1000 * samples) / RATE);

export class Conversation {
  /**
   * @param {object} on
   * @param {(turn: Turn | null) => void} on.turn a turn is new or changed; null: all of them
   * @param {() => void} on.state something else did
   * @param {(text: string) => void} on.error what the server says is wrong
   * @param {() => void} on.lost the microphone was taken away
   */
  constructor(on) {
    this.on = on;
    this.settings = { model: "", duplex: false, key: null, voice: "", instructions: "", handsFree: true };
    this.sound = new Sound({
      heard: (at, samples) => this.#heard(at, samples),
      played: (...piece) => this.#played(...piece),
      finished: (item, played) => this.#finished(item, played),
      lost: () => on.lost(),
    });
    this.connection = new Connection({ event: (event) => this.#told(event), state: (...state) => this.#connected(...state) });
    this.#begin();
  }

  #begin() {
    /** @type {Turn[]} */
    this.turns = [];
    this.timeline = new Timeline(this.sound.position);
    /** @type {number[]} milliseconds from the end of what the user said to the first sound of the answer */
    this.latencies = [];
    /** @type {{act: () => void, turn?: Turn} | null} what is done once the socket is open, and the turn it tells */
    this.later = null;
    this.#forget();
  }

  /** What is only true while a socket is open. */
  #forget() {
    /** @type {string | null} the response that is being made */
    this.active = null;
    this.hearing = false;
    this.expecting = false;
    /** @type {number | null} sample at which the user fell silent */
    this.spokenUntil = null;
    this.sent = 0;
    this.instructed = false;
    /** @type {{sent: number, at: number}[]} where on the clock the samples stand that were sent */
    this.places = [];
    /** @type {number | null} samples that were said since the button was pressed, while it is */
    this.pressed = null;
    this.pressedAt = 0;
    /** Whether the last piece of what was said under the button is still to come. */
    this.releasing = false;
    /** @type {[Float32Array, number][]} what was said before the socket was open */
    this.early = [];
    // What was typed is still to be told.
    if (!this.later?.turn) this.later = null;
  }

  /** Replies that are heard or are to be heard: one, unless the server is quicker than it was told to stop. */
  get sounding() {
    return this.turns.filter(({ role, state, received }) => role === "model" && state === "open" && received > 0);
  }

  /** @returns {"off" | "connecting" | "waiting" | "hearing" | "thinking" | "speaking" | "listening" | "ready"} */
  get state() {
    if (this.connection.state === "closed") return "off";
    if (this.connection.state !== "open") return this.connection.state;
    if (this.hearing || this.pressed !== null) return "hearing";
    if (this.sounding.length) return "speaking";
    if (this.expecting || this.active) return "thinking";
    return this.sound.microphone && this.settings.handsFree ? "listening" : "ready";
  }

  // -- what the user does ----------------------------------------------------------------------

  /** Open the microphone, and the connection. */
  async listen() {
    await this.sound.open();
    this.#connect();
    this.on.state();
  }

  /** Close the microphone. */
  deafen() {
    this.sound.close();
    // The server waits for silence to end the turn, and nothing comes any more.
    if (this.settings.handsFree && this.hearing) this.#append(new Float32Array(RATE), this.sound.position);
    this.pressed = null;
    if (this.releasing) this.#commit();
    this.#rest();
    this.on.state();
  }

  /** The button is pressed, to talk while it is. */
  press() {
    if (this.pressed !== null) return;
    this.stop();
    this.#connect();
    this.connection.send({ type: "input_audio_buffer.clear" });
    this.pressed = 0;
    this.pressedAt = this.sound.position;
    this.on.state();
  }

  /** @returns {boolean} whether something was said */
  release() {
    if (this.pressed === null) return true;
    const said = this.pressed >= SHORTEST;
    this.pressed = null;
    if (said) {
      this.expecting = true;
      this.spokenUntil = this.sound.position;
      this.releasing = true;
    } else {
      this.early = [];
      this.connection.send({ type: "input_audio_buffer.clear" });
    }
    this.on.state();
    return said;
  }

  #commit() {
    this.releasing = false;
    this.#whenOpen(() => {
      this.connection.send({ type: "input_audio_buffer.commit" });
      this.connection.send({ type: "response.create" });
    });
  }

  /** @param {string} text that was typed */
  async type(text) {
    if (!Sound.trouble) await this.sound.start();
    await this.stop();
    this.#connect();
    const item = { id: `item_${crypto.getRandomValues(new Uint32Array(3)).join("")}`, type: "message", role: "user" };
    const turn = this.#add(item.id, "user", { text, state: "done", spoken: false });
    this.spokenUntil = null;
    this.expecting = true;
    this.#whenOpen(() => {
      this.connection.send({
        type: "conversation.item.create",
        item: { ...item, content: [{ type: "input_text", text }] },
      });
      this.connection.send({ type: "response.create" });
    }, turn);
    this.on.state();
  }

  /** Have the reply end where it is. */
  async stop() {
    if (this.active || this.expecting) this.connection.send({ type: "response.cancel" });
    this.active = null;
    this.expecting = false;
    await this.#silence();
  }

  /** Begin a new one. */
  restart() {
    const open = this.connection.state !== "closed";
    this.sound.stop();
    this.connection.close();
    this.#begin();
    this.on.turn(null);
    if (open && this.sound.microphone) this.#connect();
    this.on.state();
  }

  /**
   * @param {Partial<Conversation["settings"]>} changes
   */
  set(changes) {
    const before = this.settings;
    this.settings = { ...before, ...changes };
    if (before.handsFree !== this.settings.handsFree) {
      // The server forgets a turn that is heard when turns end in another way.
      this.hearing = false;
      for (const turn of this.turns.filter(({ role, state }) => role === "user" && state === "open")) {
        if (before.handsFree) this.#change(turn, { state: "unclear" });
      }
    }
    if (this.connection.state === "closed") return;
    if (before.model !== this.settings.model || before.key !== this.settings.key) {
      this.sound.stop();
      this.connection.close();
      this.#connect();
    } else if (this.connection.state === "open") {
      this.#configure();
    }
    this.on.state();
  }

  // -- the socket ------------------------------------------------------------------------------

  #connect() {
    const { model, key, duplex } = this.settings;
    if (this.connection.state === "closed") this.connection.open(model, key, duplex);
    else this.connection.retry();
  }

  #whenOpen(act, turn) {
    if (this.connection.state === "open") act();
    else this.later = { act, turn };
  }

  #connected(state, ended) {
    if (state === "waiting" || state === "closed") {
      this.#silence();
      for (const turn of this.turns.filter((other) => other.state === "open")) {
        this.#change(turn, { state: turn.text ? "cut" : "unclear" });
      }
      this.#forget();
    }
    if (state === "waiting" && this.turns.length && this.turns.at(-1).role !== "break") {
      this.#add(`break-${this.turns.length}`, "break", { state: "done" });
    }
    if (ended && this.sound.microphone && this.settings.handsFree) this.#connect();
    this.on.state();
  }

  #configure() {
    const { model, voice, instructions, handsFree } = this.settings;
    this.instructed ||= instructions !== "";
    const format = { type: "audio/pcm", rate: RATE };
    this.connection.send({
      type: "session.update",
      session: {
        type: "realtime",
        output_modalities: [Sound.trouble ? "text" : "audio"],
        // Without any, those that the server gives.
        ...(instructions || this.instructed ? { instructions } : {}),
        audio: {
          input: {
            format,
            transcription: { model },
            turn_detection: handsFree
              ? { type: "server_vad", silence_duration_ms: SILENCE, create_response: true, interrupt_response: true }
              : null,
          },
          output: { format, ...(voice ? { voice } : {}) },
        },
      },
    });
  }

  /** Tell a new session what was said before a turn. */
  #restore(now) {
    for (const turn of this.turns) {
      const { role, text, state } = turn;
      const said = role === "model" ? heardText(turn) : text;
      if (turn === now || role === "break" || state === "open" || !said.trim()) continue;
      const part = role === "model" ? "output_text" : "input_text";
      this.connection.send({
        type: "conversation.item.create",
        item: { type: "message", role: role === "model" ? "assistant" : "user", content: [{ type: part, text: said }] },
      });
    }
  }

  /** @param {any} event */
  #told(event) {
    const turn = this.turns.find(({ id }) => id === event.item_id);
    switch (event.type) {
      case "session.created": {
        this.#configure();
        const { early, later } = this;
        this.early = [];
        this.later = null;
        this.#restore(later?.turn);
        for (const piece of early) this.#append(...piece);
        later?.act();
        break;
      }
      case "error":
        if (!HARMLESS.has(event.error?.code)) this.on.error(event.error?.message ?? "");
        if (!this.active) this.expecting = false;
        break;
      case "input_audio_buffer.speech_started":
        this.hearing = true;
        this.expecting = false;
        this.spokenUntil = null;
        this.#silence();
        this.#add(event.item_id, "user", { at: this.#place(event.audio_start_ms) - this.timeline.origin });
        break;
      case "input_audio_buffer.speech_stopped":
        this.hearing = false;
        this.expecting = true;
        this.spokenUntil = this.#lastSound(this.#place(event.audio_end_ms - SILENCE));
        break;
      case "input_audio_buffer.committed":
        if (!turn) this.#add(event.item_id, "user", { at: this.pressedAt - this.timeline.origin });
        break;
      case "conversation.item.input_audio_transcription.delta":
        if (turn) this.#change(turn, { text: turn.text + event.delta });
        break;
      case "conversation.item.input_audio_transcription.completed":
        if (turn) this.#understood(turn, event.transcript);
        break;
      case "conversation.item.input_audio_transcription.failed":
        if (turn) this.#understood(turn, "");
        break;
      case "conversation.item.truncated":
        // Only the server knows which words sound where.
        this.connection.send({ type: "conversation.item.retrieve", item_id: event.item_id });
        break;
      case "conversation.item.retrieved":
        this.#retrieved(event.item);
        break;
      case "conversation.item.deleted":
        this.turns = this.turns.filter((other) => other !== turn);
        this.on.turn(null);
        break;
      case "response.created":
        this.active = event.response.id;
        break;
      case "response.output_item.added":
        if (event.item.type === "message") this.#add(event.item.id, "model", { spoken: !Sound.trouble });
        break;
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        if (turn && event.type === "response.output_text.delta") turn.spoken = false;
        if (turn?.state === "open") this.#change(turn, { text: turn.text + event.delta });
        break;
      case "response.output_audio_transcript.done":
      case "response.output_text.done":
        if (turn?.state === "open") this.#change(turn, { text: event.transcript ?? event.text });
        break;
      case "response.output_audio.delta":
        if (turn?.state === "open") this.#sound(turn, event.samples ?? toFloat(fromBase64(event.delta)));
        break;
      case "response.output_audio.done":
        if (turn?.state === "open") {
          turn.whole = true;
          this.sound.end(turn.id);
        }
        break;
      case "response.done":
        this.#answered(event.response);
        break;
    }
    this.on.state();
  }

  #answered({ status, status_details: details, output }) {
    this.active = null;
    this.expecting = false;
    for (const { id } of output ?? []) {
      const turn = this.turns.find((other) => other.id === id);
      if (turn?.state !== "open") continue;
      const whole = status === "completed" || status === "incomplete";
      if (!turn.received) this.#change(turn, { state: whole ? "done" : "cut" });
      // However it ended, nothing more comes.
      else if (!turn.whole) this.sound.end(id);
    }
    if (status === "failed") this.on.error(details?.error?.message ?? "");
    this.#rest();
  }

  #retrieved({ id, content }) {
    const turn = this.turns.find((other) => other.id === id);
    const heard = content?.[0]?.transcript?.trim();
    // Some servers drop the words with the sound, and then tell nothing.
    if (turn && heard && turn.text.startsWith(heard)) this.#change(turn, { heard });
  }

  #understood(turn, text) {
    const state = text.trim() ? "done" : "unclear";
    if (state === "unclear") this.expecting = false;
    this.#change(turn, { text: text.trim(), state });
  }

  // -- turns -----------------------------------------------------------------------------------

  /** @returns {Turn} */
  #add(id, role, fields = {}) {
    const fresh = { id, role, text: "", spoken: true, state: "open", received: 0, played: 0, whole: false };
    const known = this.turns.find((turn) => turn.id === id);
    const turn = known ?? { ...fresh, at: this.sound.position - this.timeline.origin };
    if (!known) this.turns.push(turn);
    this.#change(turn, fields);
    return turn;
  }

  #change(turn, fields) {
    Object.assign(turn, fields);
    this.on.turn(turn);
  }

  // -- sound -----------------------------------------------------------------------------------

  #heard(at, samples) {
    const { state } = this.connection;
    const wanted = this.settings.handsFree || this.pressed !== null || this.releasing;
    if (!wanted || !(state === "open" || state === "connecting")) return;
    this.timeline.write(USER, at, samples);
    if (this.pressed !== null) this.pressed += samples.length;
    if (state === "open") this.#append(samples, at);
    else this.early.push([samples, at]);
    if (this.releasing) this.#commit();
  }

  #append(samples, at) {
    const last = this.places.at(-1);
    if (!last || at - last.at !== this.sent - last.sent) this.places.push({ sent: this.sent, at });
    this.sent += samples.length;
    this.connection.hear(toInt16(samples));
  }

  /** The sample of the clock that the server calls so many milliseconds of what it was sent. */
  #place(ms) {
    const sent = (ms * RATE) / 1000;
    const place = this.places.findLast((other) => other.sent <= sent);
    return place ? Math.round(place.at + sent - place.sent) : this.sound.position;
  }

  /** The end of what the user said, which the server tells a little late: where he was last as loud as a voice. */
  #lastSound(until) {
    const { timeline } = this;
    const end = Math.floor((until - timeline.origin) / BUCKET);
    const loud = timeline.peak(USER, end - 200, end) / 20;
    for (let i = end; i > end - 30; i--) {
      if (timeline.peak(USER, i - 1, i) > loud) return timeline.origin + i * BUCKET;
    }
    return until;
  }

  #sound(turn, samples) {
    turn.received += samples.length;
    this.sound.push(turn.id, samples);
  }

  #played(item, at, samples, played) {
    this.timeline.write(MODEL, at, samples);
    const turn = this.turns.find(({ id }) => id === item);
    if (!turn) return;
    if (turn.played === 0) {
      turn.at = at - this.timeline.origin;
      if (this.spokenUntil !== null && at >= this.spokenUntil) {
        this.latencies.push(milliseconds(at - this.spokenUntil));
        this.timeline.mark("latency", this.spokenUntil, at);
        this.on.state();
      }
      this.spokenUntil = null;
    }
    this.#change(turn, { played });
  }

  #finished(item, played) {
    const turn = this.turns.find(({ id }) => id === item);
    if (turn?.state === "open") this.#change(turn, { played, state: "done" });
    this.#rest();
    this.on.state();
  }

  /** What is heard stops; what was not heard was not said. */
  async #silence() {
    const turns = this.sounding;
    if (!turns.length) return;
    const { timeline } = this;
    const asked = this.sound.position;
    for (const turn of turns) this.#change(turn, { state: "cut" });
    const { item, played, at } = await this.sound.stop();
    timeline.mark("interruption", asked, at);
    for (const turn of turns) {
      if (turn.id === item) this.#change(turn, { played });
      this.connection.send({
        type: "conversation.item.truncate",
        item_id: turn.id,
        content_index: 0,
        audio_end_ms: milliseconds(turn.played),
      });
    }
    this.#rest();
    this.on.state();
  }

  #rest() {
    if (!this.sound.microphone && !this.sounding.length && !this.active && !this.expecting) this.sound.rest();
  }
}

/**
 * As much of a reply's text as was heard. While it is played no word has a time: the share of the sound, up to the end
 * of a word.
 *
 * @param {Turn} turn
 * @returns {string}
 */
export function heardText({ text, state, spoken, received, played, whole, heard }) {
  if (heard !== undefined) return heard;
  if (!spoken || state === "done") return text;
  if (played === 0) return "";
  // Until all of the sound is there, its length is guessed by the length of the text, at 15 letters a second.
  const total = whole ? received : Math.max(received, (text.length / 15) * RATE);
  const share = played / total;
  if (share >= 1) return text;
  const begun = Math.round(share * text.length);
  // Between ideographs any place is one between words.
  const rest = text.slice(begun).search(/[\s\u3000-\u9fff]/);
  return rest < 0 ? text : text.slice(0, begun + rest);
}
