// What is known of a tile beside its picture: shares ordered and measured, where it came from, and how to order it again.

import { h, button, fill, icon } from "./dom.js";
import { complaint, duration, moment, number, percent, t } from "./i18n.js";
import { snippets } from "./snippets.js";
import { grade, outlookOf, partsOf, standingOf } from "./tile.js";
import { hasEnded } from "./watch.js";

/** How a prediction stands, in a line. */
export function standing(prediction) {
  const word = standingOf(prediction);
  const text = hasEnded(prediction) ? (prediction.error ?? "") : outlookOf(prediction);
  const said = prediction.error_code ? complaint({ code: prediction.error_code, message: prediction.error }) : text;
  return h(
    "p",
    { class: "standing-line" },
    h("span", { class: `standing ${word}`, text: t(`status.${word}`) }),
    said ? ` ${said}` : "",
    prediction.reused_from ? ` ${t("watch.reused")}` : "",
  );
}

/** Ordered beside measured shares, colour by colour, and how far off the whole is. */
export function shares(prediction, palette) {
  const { composition, color_error: error } = prediction;
  const rows =
    composition ?? partsOf(prediction, palette).map((part) => ({ color: part.name, ordered: part.share, measured: null }));
  if (!rows.length) return h("p", { class: "hint", text: t("look.unmeasured") });
  const table = h(
    "table",
    { class: "shares" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { text: t("tiles.color"), scope: "col" }),
        h("th", { text: t("look.ordered"), scope: "col" }),
        h("th", { text: t("look.measured"), scope: "col" }),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((row) => shareRow(row, palette)),
    ),
  );
  return [
    table,
    error === null || error === undefined
      ? null
      : h(
          "p",
          { class: "error-line", title: t("look.errorHint") },
          h("span", { text: t("look.error") }),
          h("strong", { class: `grade ${grade(error)}`, text: percent(Math.round(error * 1000) / 10) }),
          h("span", { class: "hint", text: t(`look.${grade(error)}`) }),
        ),
  ];
}

function shareRow({ color: name, ordered, measured, measured_srgb: found, ciede2000: distance }, palette) {
  const color = palette.byName.get(name) ?? palette.find(name);
  const paint = color?.srgb ?? "var(--unknown)";
  const bar = (value, kind, shown = paint) =>
    h("i", { class: kind, vars: { "--share": `${Math.min(100, value ?? 0)}%`, "--color": shown } });
  // The swatch as ordered and, beside it, as it came out.
  const swatch = h("span", {
    class: found ? "dot pair" : "dot",
    vars: { "--color": paint, "--found": found ?? paint },
    title: distance ? t("look.distance", number(distance)) : "",
  });
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row" },
      swatch,
      color?.label ?? (name === "other" ? t("look.other") : name),
      h(
        "span",
        { class: "share-bars", "aria-hidden": "true" },
        bar(ordered, "ordered"),
        measured === null ? null : bar(measured, "measured", found ?? paint),
      ),
    ),
    h("td", { text: percent(ordered) }),
    h("td", { text: measured === null ? "–" : percent(Math.round(measured * 10) / 10) }),
  );
}

/** Names and values of a tile, provenance included. */
export function facts(prediction) {
  const { input, metrics, provenance } = prediction;
  const known = [
    ["look.seed", prediction.seed],
    ["look.model", prediction.model],
    ["look.version", prediction.version.slice(0, 12)],
    ["look.created", moment(prediction.created_at)],
    ["look.took", metrics.predict_time ? duration(metrics.predict_time) : null],
    ["look.total", metrics.total_time ? duration(metrics.total_time) : null],
    ["look.tileScore", metrics.tile_score === undefined ? null : number(metrics.tile_score)],
    ["look.seamScore", metrics.seam_score === undefined ? null : number(metrics.seam_score)],
    ["look.attempts", prediction.attempts > 1 ? number(prediction.attempts) : null],
    ["look.expires", prediction.expires_at ? moment(prediction.expires_at) : null],
    ["look.prompt", input.prompt],
    ["look.negative", input.negative_prompt],
    ["order.priority", t(`order.${prediction.priority}`)],
    ["look.id", prediction.id],
  ];
  return [
    list(known.map(([key, value]) => [t(key), value])),
    provenance ? folded(t("look.provenance"), list(flat(provenance))) : null,
  ];
}

/** Nested values as one list of dotted names. */
function flat(value, prefix = "") {
  return Object.entries(value).flatMap(([name, inner]) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? flat(inner, `${prefix}${name}.`)
      : [[prefix + name, Array.isArray(inner) ? inner.join(", ") : inner]],
  );
}

function list(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .flatMap(([name, value]) => [h("dt", { text: name }), h("dd", { text: String(value) })]),
  );
}

export function folded(title, ...content) {
  return h("details", { class: "folded" }, h("summary", { text: title }), ...content);
}

/** The order as a program would place it, in three languages. */
export function code(prediction, say) {
  const origin = new URL(".", document.baseURI).href.replace(/\/$/, "");
  const found = snippets(prediction, origin);
  const block = h("pre", { tabIndex: 0 });
  const tabs = h("div", { class: "segments" });
  const radios = found.map(({ name, text }, at) =>
    h("input", {
      type: "radio",
      name: "snippet",
      id: `snippet-${at}`,
      checked: at === 0,
      on: {
        change: () => {
          block.textContent = text;
        },
      },
    }),
  );
  fill(
    tabs,
    radios.flatMap((radio, at) => [radio, h("label", { htmlFor: radio.id, text: found[at].name })]),
  );
  block.textContent = found[0].text;
  return h(
    "details",
    { class: "folded" },
    h("summary", { text: t("look.code") }),
    h(
      "div",
      { class: "code-head" },
      tabs,
      button([icon("copy"), t("look.copy")], () => copy(block.textContent, say), { class: "button small" }),
    ),
    block,
  );
}

/** Put a text on the clipboard and say what came of it. */
export async function copy(text, say) {
  try {
    await navigator.clipboard.writeText(text);
    say(t("look.copied"));
  } catch {
    say(t("look.copyFailed"), true); // plain http from another machine, or the reader refused
  }
}

/** What the server found odd about the order. */
export function warnings(prediction) {
  if (!prediction.warnings.length) return null;
  return h(
    "div",
    { class: "remarks" },
    h("h3", { text: t("look.warnings") }),
    prediction.warnings.map((warning) => h("p", { class: "remark", text: warning })),
  );
}

/** The log, folded away. */
export function log(prediction) {
  return prediction.logs ? folded(t("look.log"), h("pre", { class: "log", tabIndex: 0, text: prediction.logs })) : null;
}

/** A link that downloads a tile's picture under its own name. */
export function downloadLink(address) {
  const filename = decodeURIComponent(new URL(address).pathname.split("/").at(-1));
  return h(
    "a",
    { class: "button primary", href: address, download: filename, title: filename },
    icon("download"),
    t("look.download"),
  );
}
