// What the page remembers: language and theme for good, the token and the unsent order for as long as the tab lives.

function storage(kind) {
  try {
    const found = window[kind];
    found.getItem("granule.probe");
    return found;
  } catch {
    // A browser may forbid it; the page then remembers until it is closed.
    const kept = new Map();
    return {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, value) => kept.set(key, value),
      removeItem: (key) => kept.delete(key),
    };
  }
}

const lasting = storage("localStorage");
const passing = storage("sessionStorage");

export const LANGUAGES = ["en", "ru"];
export const THEMES = ["auto", "light", "dark"];

/** The language that was chosen, or else the first of the browser's that the page speaks. */
export function language() {
  const chosen = lasting.getItem("granule.language");
  if (LANGUAGES.includes(chosen)) return chosen;
  return navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => LANGUAGES.includes(tag)) ?? "en";
}

export function keepLanguage(tag) {
  lasting.setItem("granule.language", tag);
}

export function theme() {
  const chosen = lasting.getItem("granule.theme");
  return THEMES.includes(chosen) ? chosen : "auto";
}

export function keepTheme(name) {
  lasting.setItem("granule.theme", name);
  document.documentElement.dataset.theme = name;
}

export function token() {
  return passing.getItem("granule.token") ?? "";
}

export function keepToken(text) {
  if (text) passing.setItem("granule.token", text);
  else passing.removeItem("granule.token");
}

/** The order that was being put together when the page was left, or null. */
export function draft() {
  try {
    return JSON.parse(passing.getItem("granule.draft") ?? "null");
  } catch {
    return null;
  }
}

export function keepDraft(order) {
  passing.setItem("granule.draft", JSON.stringify(order));
}
