// Before anything is drawn: the colours that were chosen; without a choice, those of the system.

try {
  const chosen = localStorage.getItem("lalia.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden.
}
