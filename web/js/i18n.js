// The page in two languages. A word list maps keys to texts, or to functions of what is put into them.

import { language } from "./prefs.js";

export const lang = language();
const words = { ...(await import(`./words-${lang}.js`)).default };

/** Add another list, such as that of the operators' page. */
export async function alsoSpeak(name) {
  Object.assign(words, (await import(`./words-${name}-${lang}.js`)).default);
}

/** The text called `key`, with what it speaks of. */
export function t(key, ...given) {
  const found = words[key] ?? key;
  return typeof found === "function" ? found(...given) : found;
}

/** Whether there is a text called `key`. */
export function knows(key) {
  return key in words;
}

const numbers = new Intl.NumberFormat(lang, { maximumFractionDigits: 2 });
const moments = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit" });

export function number(value) {
  return numbers.format(value);
}

export function percent(value) {
  return lang === "ru" ? `${numbers.format(value)}\u00a0%` : `${numbers.format(value)}%`;
}

/** A time of day where it was today, else day and time. */
export function moment(iso) {
  const when = new Date(iso);
  return when.toDateString() === new Date().toDateString() ? clock.format(when) : moments.format(when);
}

/** Seconds as people say them: 7 s, 3 min, 2 h. */
export function duration(seconds) {
  if (seconds < 1) return t("seconds", number(Math.round(seconds * 100) / 100));
  if (seconds < 90) return t("seconds", number(seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds)));
  if (seconds < 5400) return t("minutes", Math.round(seconds / 60));
  return t("hours", number(Math.round(seconds / 360) / 10));
}

/** What went wrong, in the page's language where the page knows the code, else in the server's words. */
export function complaint(error) {
  const key = `error.${error.code}`;
  if (knows(key)) return t(key, error);
  return error.name === "Error" && !error.code ? t("error.unreachable") : error.message;
}
