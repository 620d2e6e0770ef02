// The transcript: one turn after another as they come, and as a file.

import { heardText } from "./conversation.js";
import { RATE } from "./pcm.js";
import { clock } from "./strip.js";

/** @typedef {import("./conversation.js").Turn} Turn */

export class Transcript {
  /**
   * @param {HTMLOListElement} list
   * @param {HTMLElement} region read out by screen readers, whole turns at a time
   * @param {(key: string, values?: object) => string} t
   * @param {() => string} model its name
   */
  constructor(list, region, t, model) {
    this.list = list;
    this.region = region;
    this.t = t;
    this.model = model;
    /** @type {Map<string, HTMLLIElement>} */
    this.rows = new Map();
    /** @type {Map<string, string>} what each row shows */
    this.looks = new Map();
    this.told = new Set();
    // Follow what is new, unless somebody has gone back to read.
    this.follow = true;
    list.addEventListener("scroll", () => {
      this.follow = list.scrollHeight - list.scrollTop - list.clientHeight < 48;
    });
  }

  /** @param {Turn[]} turns all of them, in another language or after some are gone */
  all(turns) {
    this.rows.clear();
    this.looks.clear();
    this.list.replaceChildren();
    for (const turn of turns) this.show(turn);
  }

  /** @param {Turn} turn new or changed */
  show(turn) {
    let row = this.rows.get(turn.id);
    if (!row) {
      row = this.#row(turn);
      this.rows.set(turn.id, row);
      this.list.append(row);
    }
    const heard = turn.role === "model" ? heardText(turn) : turn.text;
    // What is played is told fifty times a second; words are fewer.
    const look = JSON.stringify([turn.state, turn.at, turn.text, heard]);
    if (this.looks.get(turn.id) === look) return;
    this.looks.set(turn.id, look);
    row.dataset.state = turn.state;
    row.querySelector("time").textContent = clock(turn.at / RATE);
    if (turn.role !== "break") this.#fill(row.querySelector("p"), turn, heard);
    if (this.follow) this.list.scrollTop = this.list.scrollHeight;
    this.#tell(turn);
  }

  #row(turn) {
    const row = document.createElement("li");
    row.className = `turn ${turn.role}`;
    const head = row.appendChild(document.createElement("div"));
    head.className = "who";
    const name = head.appendChild(document.createElement("span"));
    name.textContent = this.#name(turn);
    head.append(document.createElement("time"));
    if (turn.role !== "break") row.append(document.createElement("p"));
    return row;
  }

  #name({ role }) {
    return role === "break" ? this.t("turn.break") : role === "user" ? this.t("you") : this.model();
  }

  /** What was heard, what was not, and what became of it. */
  #fill(p, turn, heard) {
    const parts = [document.createTextNode(heard)];
    const rest = turn.text.slice(heard.length);
    if (rest) {
      const element = document.createElement(turn.state === "cut" ? "del" : "span");
      element.className = "unheard";
      element.textContent = rest;
      parts.push(element);
    }
    const note = this.#note(turn);
    if (note) {
      const element = document.createElement("em");
      element.className = "note";
      element.textContent = note;
      parts.push(document.createTextNode(" "), element);
    } else if (!turn.text) {
      const dots = document.createElement("span");
      dots.className = "dots";
      dots.setAttribute("aria-label", this.t(turn.role === "user" ? "state.hearing" : "state.thinking"));
      parts.push(dots);
    }
    p.replaceChildren(...parts);
  }

  #note({ role, state }) {
    if (state === "cut") return this.t(role === "model" ? "turn.cut" : "turn.lost");
    return state === "unclear" ? this.t("turn.unclear") : "";
  }

  #tell(turn) {
    if (turn.state === "open" || this.told.has(turn.id)) return;
    this.told.add(turn.id);
    const line = document.createElement("p");
    line.textContent = [this.#name(turn), heardText(turn), this.#note(turn)].filter(Boolean).join(": ");
    this.region.append(line);
    while (this.region.childElementCount > 4) this.region.firstElementChild.remove();
  }

  /**
   * @param {Turn[]} turns
   * @param {string} title
   * @returns {Blob}
   */
  file(turns, title) {
    const lines = turns.map((turn) => {
      const at = `[${clock(turn.at / RATE)}]`;
      if (turn.role === "break") return `${at} -- ${this.t("turn.break")} --`;
      const heard = turn.role === "model" ? heardText(turn) : turn.text;
      const rest = turn.text.slice(heard.length).trim();
      const note = this.#note(turn);
      const unheard = rest && `[${this.t("turn.unheard")}: ${rest}]`;
      return [`${at} ${this.#name(turn)}:`, heard, note && `[${note}]`, unheard].filter(Boolean).join(" ");
    });
    return new Blob([`${title}\n\n${lines.join("\n")}\n`], { type: "text/plain;charset=utf-8" });
  }
}
