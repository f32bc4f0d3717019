// What the page says of a prediction: its mix, its name, its pictures, its status.

import { own } from "./api.js";
import { duration, number, percent, t } from "./i18n.js";
import { readMix } from "./mix.js";

/** The parts of a prediction's mix; an empty list for free text. */
export function partsOf(prediction, palette) {
  const prompt = prediction.input?.prompt;
  return prompt ? readMix(prompt, palette).parts : [];
}

/** A prediction's mix in the page's language, or its text. */
export function nameOf(prediction, palette) {
  const parts = partsOf(prediction, palette);
  if (!parts.length) return prediction.input?.prompt ?? t("status.removed");
  return parts.map((part) => `${percent(part.share)} ${part.color ? palette.written(part.color) : part.name}`).join(", ");
}

/** The addresses of a prediction's pictures, on this page's own origin. */
export function picturesOf(prediction) {
  return [prediction.output ?? []].flat().map(own);
}

/** The addresses of small versions of a prediction's pictures; for tiles that have none the pictures themselves. */
export function smallPicturesOf(prediction) {
  const small = prediction.thumbnails ?? [];
  return small.length ? small.map(own) : picturesOf(prediction);
}

/** The address of the latest preview of a prediction that is being drawn, another one after each step; or null. */
export function previewOf({ status, urls, progress }) {
  return status === "processing" && urls?.preview && progress.step ? `${own(urls.preview)}?step=${progress.step}` : null;
}

/** The word for how a prediction stands. */
export function standingOf(prediction) {
  return prediction.data_removed ? "removed" : prediction.status;
}

/** One line about a prediction that has not ended. */
export function outlookOf(prediction) {
  if (prediction.queue_note) return t("watch.noWorker");
  const { queue_position: position, progress } = prediction;
  const left_s = prediction.eta_left_s ?? prediction.eta_s;
  const place =
    prediction.status === "processing"
      ? progress.step
        ? t("watch.step", progress.step, progress.steps)
        : ""
      : position === null
        ? ""
        : position === 0
          ? t("watch.next")
          : t("watch.ahead", number(position));
  return [place, left_s > 0.5 ? t("watch.eta", duration(left_s)) : ""].filter(Boolean).join(" · ");
}

/** How good a colour error of 0 to 1 is: good, fair or poor. */
export function grade(error) {
  return error <= 0.05 ? "good" : error <= 0.15 ? "fair" : "poor";
}
