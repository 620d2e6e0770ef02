// Which language a page speaks, and what it says in it.

import { recall } from "./memory.js";

/**
 * @param {object} strings by language and key
 * @returns {"en" | "zh-TW"} what was chosen, or what the browser prefers
 */
export function language(strings) {
  const chosen = recall("language");
  if (chosen in strings) return chosen;
  const first = navigator.languages.find((tag) => /^(zh|en)\b/i.test(tag)) ?? "en";
  return /^zh/i.test(first) ? "zh-TW" : "en";
}

/**
 * @param {object} strings by language and key
 * @param {string} tag of the language
 * @returns {(key: string, values?: object) => string}
 */
export function speaker(strings, tag) {
  return (key, values = {}) =>
    Object.entries(values).reduce((text, [name, value]) => text.replace(`{${name}}`, value), strings[tag][key]);
}
