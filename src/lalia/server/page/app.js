// The page: what is pressed, what is shown.

import { Conversation } from "./conversation.js";
import { language, speaker } from "./language.js";
import { recall, remember } from "./memory.js";
import { Sound } from "./sound.js";
import { STRINGS } from "./strings.js";
import { Strip } from "./strip.js";
import { Transcript } from "./transcript.js";

/** @param {string} id */
const get = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 859px)");
const dark = matchMedia("(prefers-color-scheme: dark)");

let tongue = language(STRINGS);
let t = speaker(STRINGS, tongue);
/** @type {{id: string, voices?: string[], kind?: string}[]} */
let models = [];
/** @type {"loading" | "away" | "key" | null} what is in the way before there can be a conversation */
let missing = "loading";
let key = recall("key", "sessionStorage");

export const conversation = new Conversation({
  turn: (turn) => (turn ? transcript.show(turn) : transcript.all(conversation.turns)),
  state: () => show(),
  error: (message) => notice("trouble.server", { message }),
  lost: () => notice("trouble.lost"),
});
const modelName = () => conversation.settings.model || "lalia";
/** Whether a model hears and speaks at once. */
const isDuplex = (id) => models.find((model) => model.id === id)?.kind === "duplex";
const transcript = new Transcript(get("transcript"), get("told"), (...words) => t(...words), modelName);
const strip = new Strip(
  get("strip"),
  () => ({ timeline: conversation.timeline, position: conversation.sound.position, running: conversation.sound.running }),
  () => ({ gap: (ms) => `${ms} ms`, cut: t("strip.cut") }),
);

// -- what is shown -------------------------------------------------------------------------------

function translate() {
  document.documentElement.lang = tongue;
  document.title = t("title");
  const each = (name, act) => {
    for (const element of document.querySelectorAll(`[data-${name}]`)) act(element, t(element.dataset[name]));
  };
  each("t", (element, text) => (element.textContent = text));
  each("label", (element, text) => element.setAttribute("aria-label", text));
  each("hint", (element, text) => (element.placeholder = text));
  each("title", (element, text) => (element.title = text));
  for (const button of document.querySelectorAll("button.icon[aria-label]")) button.title = button.ariaLabel;
  get("language").lang = tongue === "en" ? "zh-TW" : "en";
  get("stop").title = t("stop.hint");
  paintTheme();
  listVoices();
  transcript.all(conversation.turns);
  show();
}

/** Everything that depends on the state. */
function show() {
  const { settings, sound, turns, latencies } = conversation;
  const state = missing ?? conversation.state;
  document.body.dataset.state = state;
  // Whose turn it is one hears; a screen reader need not speak over it.
  get("state").ariaLive = conversation.state === "off" || missing || state === "waiting" ? "polite" : "off";
  set(get("state-text"), t(`state.${state}`));
  const seconds = Math.max(0, Math.ceil((conversation.connection.due - performance.now()) / 1000));
  set(get("state-seconds"), state === "waiting" ? t("state.seconds", { seconds }) : "");
  get("retry").hidden = state !== "waiting";

  const held = conversation.pressed !== null;
  const on = settings.handsFree ? sound.microphone : held;
  get("talk").setAttribute("aria-pressed", String(on));
  get("talk").classList.toggle("on", on);
  const words = settings.handsFree ? ["talk.start", "talk.mute"] : ["talk.hold", "talk.release"];
  set(get("talk-text"), t(words[Number(on)]));
  get("talk-icon").setAttribute("href", `#icon-${on && settings.handsFree ? "mic-off" : "mic"}`);
  get("talk").disabled = missing !== null;
  // One that hears and speaks at once does not read.
  get("send").disabled = missing !== null || settings.duplex;
  get("message").disabled = settings.duplex;
  get("message").placeholder = t(settings.duplex ? "type.none" : "type.hint");
  // Not disabled: it would drop the focus of whoever pressed it.
  get("stop").setAttribute("aria-disabled", String(state !== "speaking" && state !== "thinking"));

  const empty = !turns.length;
  get("empty").hidden = !empty;
  get("transcript").hidden = empty;
  set(get("empty-title"), t("empty.title", { model: modelName() }));
  set(get("empty-text"), t(settings.duplex ? "empty.duplex" : settings.handsFree ? "empty.hands-free" : "empty.push"));
  for (const element of document.querySelectorAll("[data-model]")) set(element, modelName());
  for (const id of ["save-audio", "save-text", "new"]) get(id).disabled = empty;

  set(get("latency-last"), latencies.length ? `${latencies.at(-1)} ms` : "–");
  set(get("latency-median"), latencies.length ? `${median(latencies)} ms` : "–");
  strip.draw();
}

/** Only what changed, so that nothing is read out twice. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : Math.round((sorted[middle - 1] + sorted[middle]) / 2);
}

function notice(name, values) {
  get("notice-text").textContent = t(name, values);
  get("notice").hidden = false;
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
}

function paintTheme() {
  const name = isDark() ? "theme.light" : "theme.dark";
  get("theme").ariaLabel = get("theme").title = t(name);
  get("theme").querySelector("use").setAttribute("href", `#icon-${isDark() ? "sun" : "moon"}`);
  strip.draw();
}

function listVoices() {
  const model = models.find(({ id }) => id === conversation.settings.model);
  const voices = model?.voices ?? [];
  const options = voices.length ? voices.map((voice) => new Option(voice, voice)) : [new Option(t("voice.only"), "")];
  get("voice").replaceChildren(...options);
  get("voice").disabled = voices.length < 2;
  const voice = voices.includes(conversation.settings.voice) ? conversation.settings.voice : "";
  if (voice) get("voice").value = voice;
  // A model that hears and speaks at once has no turns to hold a button for, and takes no instructions.
  const { duplex, handsFree } = conversation.settings;
  for (const radio of document.querySelectorAll("[name=mode]")) radio.disabled = duplex;
  get("instructions").disabled = duplex;
  if (duplex && !handsFree) chooseMode(true);
}

// -- the server ----------------------------------------------------------------------------------

/** Ask what models there are, until somebody answers. */
async function find() {
  try {
    const health = await (await fetch("/health")).json();
    if (health.api_key && !key) return askKey(false);
    const answer = await fetch("/v1/models", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
    if (answer.status === 401 || answer.status === 403) return askKey(true);
    if (!answer.ok) throw new Error(answer.statusText);
    models = (await answer.json()).data;
  } catch {
    missing = "away";
    show();
    setTimeout(find, 3000);
    return;
  }
  missing = null;
  const wanted = recall("model");
  const model = (models.find(({ id }) => id === wanted) ?? models[0])?.id ?? "";
  get("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
  get("model").value = model;
  get("model").disabled = models.length < 2;
  conversation.set({ model, key, duplex: isDuplex(model) });
  listVoices();
  show();
}

function askKey(wrong) {
  missing = "key";
  get("key-wrong").hidden = !wrong;
  get("key").value = "";
  if (!get("key-dialog").open) get("key-dialog").showModal();
  show();
}

get("key-dialog").addEventListener("cancel", (event) => event.preventDefault());
get("key-form").addEventListener("submit", (event) => {
  key = get("key").value.trim();
  // No header holds any other letters.
  if (!/^[!-~]+$/.test(key)) {
    event.preventDefault();
    key = "";
    return askKey(true);
  }
  remember("key", key, "sessionStorage");
  find();
});
get("retry").addEventListener("click", () => conversation.connection.retry());
setInterval(() => conversation.state === "waiting" && show(), 500);

// -- talking -------------------------------------------------------------------------------------

/** @param {() => Promise<void>} act what may fail for want of sound */
async function trying(act) {
  get("notice").hidden = true;
  try {
    await act();
  } catch (error) {
    if (!error.trouble) throw error;
    notice(`trouble.${error.trouble}`);
  }
  show();
}

function toggle() {
  if (conversation.sound.microphone) conversation.deafen();
  else trying(() => conversation.listen());
}

let holding = false;

async function press() {
  holding = true;
  if (!conversation.sound.microphone) await trying(() => conversation.listen());
  else get("notice").hidden = true;
  // While the browser asked for the microphone it may have been released.
  if (holding && conversation.sound.microphone) conversation.press();
}

function release() {
  holding = false;
  if (!conversation.release()) notice("talk.short");
}

get("talk").addEventListener("click", () => conversation.settings.handsFree && toggle());
get("talk").addEventListener("pointerdown", (event) => {
  if (conversation.settings.handsFree || event.button !== 0) return;
  get("talk").setPointerCapture(event.pointerId);
  press();
});
for (const name of ["pointerup", "pointercancel"]) get("talk").addEventListener(name, release);
// A long touch is not a wish for a menu.
get("talk").addEventListener("contextmenu", (event) => event.preventDefault());

/** Whether a key is for what has the focus, not for the page. */
const taken = (target) => target.closest("input, textarea, select, button:not(#talk), dialog") !== null;

document.addEventListener("keydown", (event) => {
  // What is typed of a Chinese character is not for the page.
  if (event.isComposing) return;
  if (event.key === "Escape") {
    if (settingsOpen()) openSettings(false);
    else if (!get("key-dialog").open) stop();
  }
  const talks = event.key === " " || (event.key === "Enter" && event.target === get("talk"));
  if (!talks || conversation.settings.handsFree || taken(event.target) || missing) return;
  event.preventDefault();
  if (!event.repeat) press();
});
document.addEventListener("keyup", (event) => {
  if ((event.key !== " " && event.key !== "Enter") || conversation.settings.handsFree) return;
  if (!taken(event.target)) event.preventDefault();
  release();
});
// The key may be released elsewhere.
window.addEventListener("blur", release);

function stop() {
  if (get("stop").ariaDisabled !== "true") conversation.stop();
}
get("stop").addEventListener("click", stop);

get("dock").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = get("message").value.trim();
  if (!text || missing) return;
  get("message").value = "";
  trying(() => conversation.type(text));
});
get("notice-close").addEventListener("click", () => {
  get("notice").hidden = true;
  get("talk").focus();
});

// -- settings ------------------------------------------------------------------------------------

const settingsOpen = () => document.body.classList.contains("sheet");

function openSettings(open) {
  document.body.classList.toggle("sheet", open);
  get("settings-open").setAttribute("aria-expanded", String(open));
  document.querySelector("main").inert = document.querySelector("header").inert = open;
  get(open ? "settings-close" : "settings-open").focus();
}
get("settings-open").addEventListener("click", () => openSettings(true));
get("settings-close").addEventListener("click", () => openSettings(false));
narrow.addEventListener("change", () => settingsOpen() && openSettings(false));

function chooseMode(handsFree) {
  document.querySelector(`[name=mode][value=${handsFree ? "hands-free" : "push"}]`).checked = true;
  conversation.release();
  conversation.set({ handsFree });
  show();
}
for (const radio of document.querySelectorAll("[name=mode]")) {
  radio.addEventListener("change", () => chooseMode(radio.value === "hands-free"));
}
get("model").addEventListener("change", ({ target }) => {
  remember("model", target.value);
  conversation.set({ model: target.value, duplex: isDuplex(target.value), voice: "" });
  listVoices();
  show();
});
get("voice").addEventListener("change", ({ target }) => conversation.set({ voice: target.value }));
get("instructions").addEventListener("change", ({ target }) => conversation.set({ instructions: target.value.trim() }));
get("new").addEventListener("click", () => {
  conversation.restart();
  if (settingsOpen()) openSettings(false);
  get("talk").focus();
});

function save(blob, ending) {
  const now = new Date();
  const stamp = new Date(now - 60000 * now.getTimezoneOffset()).toISOString().slice(0, 16).replace(/[:T]/g, "-");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `lalia-${stamp}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
get("save-audio").addEventListener("click", () => save(conversation.timeline.wav(), "wav"));
get("save-text").addEventListener("click", () => {
  const title = `lalia, ${modelName()}, ${new Date().toLocaleString(tongue)}`;
  save(transcript.file(conversation.turns, title), "txt");
});

get("language").addEventListener("click", () => {
  tongue = tongue === "en" ? "zh-TW" : "en";
  remember("language", tongue);
  t = speaker(STRINGS, tongue);
  translate();
});
get("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  remember("theme", theme);
  document.documentElement.dataset.theme = theme;
  paintTheme();
});
dark.addEventListener("change", paintTheme);

translate();
if (Sound.trouble) notice(`trouble.${Sound.trouble}`);
find();
