// What the browser remembers of a choice, where it remembers anything: storage may be forbidden.

/**
 * @param {string} name
 * @param {"localStorage" | "sessionStorage"} where
 * @returns {string | null}
 */
export function recall(name, where = "localStorage") {
  try {
    return window[where].getItem(`lalia.${name}`);
  } catch {
    return null;
  }
}

/**
 * @param {string} name
 * @param {string} value
 * @param {"localStorage" | "sessionStorage"} where
 */
export function remember(name, value, where = "localStorage") {
  try {
    window[where].setItem(`lalia.${name}`, value);
  } catch {
    // Then it holds until the page is closed.
  }
}
