// The socket: opened, opened again when it is lost, closed.

import { Chat } from "./chat.js";
import { toBase64 } from "./pcm.js";

/** Milliseconds before each new try; the last one is repeated. */
const PAUSES = [500, 1000, 2000, 4000, 8000];

/** @typedef {"closed" | "connecting" | "open" | "waiting"} State */

export class Connection {
  /**
   * @param {object} on
   * @param {(event: any) => void} on.event the server says something
   * @param {(state: State, ended: boolean) => void} on.state and whether the server ended a session that was well
   */
  constructor(on) {
    this.on = on;
    /** @type {State} */
    this.state = "closed";
    this.tries = 0;
    /** When the next try is due, by performance.now(). */
    this.due = 0;
    window.addEventListener("online", () => this.retry());
  }

  /**
   * @param {string} model
   * @param {string | null} key
   * @param {boolean} duplex whether the model hears and speaks at once
   */
  open(model, key, duplex) {
    this.close();
    this.model = model;
    this.key = key;
    this.duplex = duplex;
    this.tries = 0;
    this.#connect();
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    this.#enter("closed");
  }

  /** Try again now. */
  retry() {
    if (this.state !== "waiting") return;
    clearTimeout(this.timer);
    this.#connect();
  }

  /** @param {{type: string}} event */
  send(event) {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    if (!this.chat) this.socket.send(JSON.stringify(event));
    else if (event.type === "response.cancel") this.chat.stop();
  }

  /** @param {Int16Array} samples of what the user says */
  hear(samples) {
    if (!this.chat) this.send({ type: "input_audio_buffer.append", audio: toBase64(samples) });
    else if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(Chat.message(samples));
  }

  #connect() {
    const url = new URL(this.duplex ? "/api/chat" : "/v1/realtime", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("model", this.model);
    if (this.duplex) url.searchParams.set("format", "pcm");
    const protocols = [this.duplex ? "chat" : "realtime"];
    // A browser sends no headers with a socket, and takes no letter such as / in a protocol.
    if (this.key) protocols.push(`openai-insecure-api-key.${encodeURIComponent(this.key)}`);
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.#enter("connecting");
    const tell = (event) => {
      if (event.type === "session.created") {
        this.tries = 0;
        this.#enter("open");
      }
      this.on.event(event);
    };
    this.chat = this.duplex ? new Chat(tell) : null;
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      if (this.chat) this.chat.received(data);
      else tell(JSON.parse(data));
    };
    socket.onclose = ({ code }) => {
      if (socket !== this.socket) return;
      // A session has its time; nothing is wrong.
      if (code === 1000 && this.state === "open") this.#enter("closed", true);
      else this.#wait();
    };
  }

  #wait() {
    this.socket = null;
    const pause = PAUSES[Math.min(this.tries++, PAUSES.length - 1)];
    this.due = performance.now() + pause;
    this.timer = setTimeout(() => this.#connect(), pause);
    this.#enter("waiting");
  }

  #enter(state, ended = false) {
    if (state === this.state) return;
    this.state = state;
    this.on.state(state, ended);
  }
}
