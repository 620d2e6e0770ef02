// The page: a code, then screen after screen, then thanks.

import { language, speaker } from "./language.js";
import { recall, remember } from "./memory.js";
import { Players } from "./player.js";
import { STRINGS } from "./strings.js";

/** @param {string} id */
const get = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");

let tongue = language(STRINGS);
let t = speaker(STRINGS, tongue);
let code = recall("listener") ?? "";
/** @type {any} what the server says is to be done */
let task = null;
/** @type {string | null} */
let trouble = null;
let busy = false;
const players = new Players(show, () => report("sound"));

// -- what is shown -------------------------------------------------------------------------------

function translate() {
  document.documentElement.lang = tongue;
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-label]")) element.ariaLabel = t(element.dataset.label);
  get("language").lang = tongue === "en" ? "zh-TW" : "en";
  paintTheme();
  if (task?.screen) build();
  show();
}

/** What changes as a recording plays. */
function show() {
  const at = task === null ? "enter" : task.screen ? "screen" : "done";
  for (const id of ["enter", "screen", "done"]) get(id).hidden = id !== at;
  get("trouble").hidden = trouble === null;
  if (trouble !== null) get("trouble").querySelector("span").textContent = t(`trouble.${trouble}`);
  get("retry").hidden = at === "enter";
  if (at !== "screen") return;
  const { heard } = players;
  [...get("sounds").children].forEach((row, i) => {
    const player = players.all[i];
    const button = row.querySelector("button");
    button.disabled = !player;
    if (!player) return;
    const { audio } = player;
    button.querySelector("use").setAttribute("href", audio.paused ? "#icon-play" : "#icon-pause");
    button.ariaLabel = t(audio.paused ? "play" : "pause", { part: row.querySelector(".part").textContent });
    row.querySelector(".bar span").style.width = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
    row.querySelector(".heard").textContent = player.heard ? t("heard") : "";
  });
  get("scale").disabled = !heard || busy;
  const instructed = heard && task.screen.choose !== null;
  if (get("choose").hidden === instructed) {
    get("choose").hidden = !instructed;
    get("choose").textContent = instructed ? t("choose", { rating: wording(task.screen.choose) }) : "";
  }
  const told = players.all.length === 0 ? "loading" : !heard ? "listen" : chosen() === null ? "rate" : null;
  const text = told === null ? "" : t(told);
  if (get("told").textContent !== text) get("told").textContent = text;
  get("next").disabled = !heard || chosen() === null || busy;
}

/** A new screen. */
function build() {
  const { kind, screen, done, total } = task;
  const picked = chosen();
  const prompted = kind === "mmos" && screen.sounds.length > 1;
  get("progress").max = total;
  get("progress").value = done;
  get("count").textContent = t("count", { number: done + 1, total });
  get("question").textContent = t(kind);
  get("legend").textContent = t(kind);
  get("explained").textContent = t(prompted ? "mmos.prompted" : `${kind}.explained`);
  get("choose").hidden = true;
  get("sounds").replaceChildren(
    ...screen.sounds.map(({ part }, i) => {
      const row = document.createElement("li");
      row.innerHTML =
        '<button type="button" class="play"><svg aria-hidden="true"><use href="#icon-play"/></svg></button>' +
        '<span class="part"></span><span class="bar"><span></span></span><span class="heard quiet"></span>';
      row.querySelector(".part").textContent = t(`part.${prompted && part === "sound" ? "continuation" : part}`);
      row.querySelector("button").addEventListener("click", () => players.toggle(i));
      return row;
    }),
  );
  get("ratings").replaceChildren(
    ...ratings().map((rating, i) => {
      const row = document.createElement("label");
      row.innerHTML = '<input type="radio" name="rating"><kbd aria-hidden="true"></kbd><span></span>';
      const input = row.querySelector("input");
      input.value = String(rating);
      input.checked = rating === picked;
      input.addEventListener("change", show);
      row.querySelector("kbd").textContent = kind === "cmos" ? i + 1 : rating;
      row.querySelector("span").textContent = wording(rating, false);
      return row;
    }),
  );
}

/** Ratings in the order in which they are listed: the best first, or from the first of a pair to the second. */
function ratings() {
  const [low, high] = task.scale;
  const all = Array.from({ length: high - low + 1 }, (_, i) => low + i);
  return task.kind === "cmos" ? all : all.reverse();
}

/**
 * @param {number} rating
 * @param {boolean} numbered
 */
function wording(rating, numbered = task.kind !== "cmos") {
  const text = t(`${task.kind === "pmos" ? "mos" : task.kind}.${rating}`);
  return numbered ? `${rating} (${text})` : text;
}

/** @returns {number | null} */
function chosen() {
  const input = document.querySelector("#ratings input:checked");
  return input ? Number(input.value) : null;
}

// -- to and from the server ----------------------------------------------------------------------

/**
 * @param {string} path
 * @param {object} body
 */
async function ask(path, body) {
  if (busy) return;
  busy = true;
  trouble = null;
  show();
  try {
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ code, ...body }),
    });
    const answer = await response.json();
    if (response.ok) await begin(answer);
    else trouble = answer.error ?? "server";
  } catch (error) {
    trouble = error.message === "sound" ? "sound" : "away";
  } finally {
    busy = false;
    show();
  }
}

async function begin(answer) {
  task = answer;
  players.clear();
  get("ratings").replaceChildren();
  remember("listener", code);
  if (task.screen) {
    build();
    show();
    get("question").focus();
    await players.load(task.screen.sounds);
  }
}

/** @param {string} what */
function report(what) {
  trouble = what;
  show();
}

// -- what is pressed -----------------------------------------------------------------------------

get("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  code = get("code").value.trim();
  if (code) ask("/api/next", {});
});

get("screen").addEventListener("submit", (event) => {
  event.preventDefault();
  const rating = chosen();
  if (players.heard && rating !== null) ask("/api/rate", { screen: task.screen.token, rating, plays: players.plays });
});

get("retry").addEventListener("click", () => ask("/api/next", {}));

document.addEventListener("keydown", (event) => {
  if (!task?.screen || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const on = event.target instanceof Element ? event.target : document.body;
  if (event.key === " " && !on.closest("button")) {
    event.preventDefault();
    players.toggle();
  } else if (event.key === "Enter" && !on.closest("button, input")) {
    get("screen").requestSubmit();
  } else if (/^[1-7]$/.test(event.key) && !get("scale").disabled) {
    const inputs = [...document.querySelectorAll("#ratings input")];
    const wanted = task.kind === "cmos" ? inputs[event.key - 1] : inputs.find((input) => input.value === event.key);
    if (wanted) wanted.checked = true;
    show();
  }
});

get("language").addEventListener("click", () => {
  tongue = tongue === "en" ? "zh-TW" : "en";
  remember("language", tongue);
  t = speaker(STRINGS, tongue);
  translate();
});

function isDark() {
  return (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
}

function paintTheme() {
  get("theme").ariaLabel = get("theme").title = t(isDark() ? "theme.light" : "theme.dark");
  get("theme").querySelector("use").setAttribute("href", `#icon-${isDark() ? "sun" : "moon"}`);
}

get("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  remember("theme", theme);
  document.documentElement.dataset.theme = theme;
  paintTheme();
});
dark.addEventListener("change", paintTheme);

get("code").value = code;
translate();
get("code").focus();
