// The mix, edited three ways at once: swatches, sliders that always make 100, and text in the prompt's own grammar.

import { h, fill, icon, iconButton, settled } from "./dom.js";
import { t, percent, number } from "./i18n.js";
import { COLORS_MAX, addColor, bounds, readMix, removePart, setShare, writeMix } from "./mix.js";
import { ink } from "./palette.js";
import { drawSketch } from "./sketch.js";

export const FIRST_MIX = "50% red, 30% black, 20% pearl";
const TYPING_PAUSE_MS = 250;

export class MixEditor {
  /** `onChange()` is called after every change, whoever made it. */
  constructor(palette, onChange) {
    this.onChange = onChange;
    this.parts = [];
    this.extras = [];
    this.rows = new Map();
    this.canvas = h("canvas", { class: "sketch", role: "img", "aria-label": t("order.sketch"), title: t("order.sketch") });
    this.bar = h("div", { class: "mix-bar", "aria-hidden": "true" });
    this.list = h("div", { class: "mix-rows" });
    this.swatches = h("div", { class: "palette", role: "group", "aria-label": t("order.palette") });
    this.notice = h("p", { class: "notice", role: "status" });
    this.text = h("textarea", {
      id: "mix-text",
      rows: 2,
      maxLength: 2000,
      spellcheck: false,
      autocapitalize: "off",
      placeholder: t("order.textHint"),
      "aria-describedby": "mix-remarks",
      on: {
        input: () => {
          this.typed = true;
          this.readText();
        },
        blur: () => this.readText(true),
        keydown: (event) => this.enter(event),
      },
    });
    this.remarks = h("div", { id: "mix-remarks", class: "remarks", "aria-live": "polite" });
    this.settleRemarks = settled(() => this.showRemarks(), TYPING_PAUSE_MS);
    this.element = h(
      "div",
      { class: "mix-editor" },
      h("div", { class: "mix-head" }, this.canvas, h("div", { class: "mix-side" }, this.bar, this.list)),
      h("label", { class: "label", htmlFor: "mix-text" }, t("order.text")),
      this.text,
      this.remarks,
      h(
        "div",
        { class: "label-line" },
        h("span", { class: "label", text: t("order.palette") }),
        h("span", { class: "hint", text: t("order.paletteHint", COLORS_MAX) }),
      ),
      this.swatches,
      this.notice,
    );
    this.setPalette(palette);
  }

  /** Work with another model's colours; what is in the mix stays as far as they know it. */
  setPalette(palette) {
    const text = this.text.value;
    this.palette = palette;
    fill(
      this.swatches,
      palette.sorted().map((color) => this.swatch(color)),
    );
    if (text) this.setText(text);
  }

  /** Take over a prompt. */
  setText(text) {
    this.text.value = text;
    this.typed = true;
    this.readText(true);
  }

  /** The prompt as it would be sent. */
  prompt() {
    return this.text.value.trim();
  }

  /** What keeps the mix from being ordered, as a list of remarks; empty when nothing does. */
  get errors() {
    return this.reading.errors;
  }

  /** Show a complaint of the server about the prompt. */
  showError(detail) {
    this.refused = detail;
    this.showRemarks();
    this.text.focus();
  }

  readText(atOnce = false) {
    this.refused = null;
    this.reading = readMix(this.text.value, this.palette);
    if (this.typed && this.reading.errors.length === 0) {
      const locks = new Map(this.parts.map((part) => [part.name, part.locked]));
      this.parts = this.reading.parts.map((part) => ({ ...part, locked: locks.get(part.name) ?? false }));
      this.extras = this.reading.extras;
      this.render();
    }
    if (atOnce) this.showRemarks();
    else this.settleRemarks();
    this.onChange();
  }

  /** A mix has one line: Enter orders it. */
  enter(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.text.form?.requestSubmit();
  }

  edit(parts) {
    this.parts = parts;
    this.typed = false;
    this.text.value = writeMix(parts, this.palette, this.extras);
    this.notice.textContent = "";
    this.render();
    this.readText(true);
  }

  toggle(color) {
    const at = this.parts.findIndex((part) => part.color === color);
    if (at >= 0) {
      this.edit(removePart(this.parts, at));
      return;
    }
    const more = addColor(this.parts, color);
    if (more === this.parts)
      this.notice.textContent = this.parts.length >= COLORS_MAX ? t("order.full", COLORS_MAX) : t("order.locked");
    else this.edit(more);
  }

  swatch(color) {
    return h(
      "button",
      {
        type: "button",
        class: "swatch",
        title: `${color.label} · ${color.code}`,
        "aria-pressed": "false",
        vars: { "--color": color.srgb, "--ink": ink(color.srgb) },
        data: { code: color.code },
        on: { click: () => this.toggle(color) },
      },
      h("span", { class: "chip" }, icon("check")),
      h("span", { class: "swatch-name", text: color.label }),
    );
  }

  render() {
    const chosen = new Set(this.parts.map((part) => part.color?.code));
    for (const swatch of this.swatches.children) swatch.setAttribute("aria-pressed", String(chosen.has(swatch.dataset.code)));
    this.renderRows();
    fill(
      this.bar,
      this.parts.map((part) =>
        h("span", {
          class: "mix-segment",
          vars: {
            "--share": String(part.share),
            "--color": part.color?.srgb ?? "var(--unknown)",
            "--ink": ink(part.color?.srgb ?? "#9a958c"),
          },
          text: part.share >= 9 ? percent(part.share) : "",
        }),
      ),
    );
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => drawSketch(this.canvas, this.parts, { size_px: 176, across: 22 }));
  }

  renderRows() {
    // Rows stay where they are while a slider is dragged: only new and gone ones change the list.
    const names = this.parts.map((part) => part.name);
    if (names.join("\n") !== [...this.rows.keys()].join("\n")) {
      this.rows = new Map(this.parts.map((part) => [part.name, this.row(part)]));
      fill(
        this.list,
        [...this.rows.values()].map((row) => row.element),
      );
    }
    this.parts.forEach((part, index) => this.rows.get(part.name).show(part, ...bounds(this.parts, index), this.parts.length));
  }

  row(part) {
    const label = part.color?.label ?? part.name;
    const index = () => this.parts.findIndex((other) => other.name === part.name);
    const change = (event) => {
      if (event.target.value !== "") this.edit(setShare(this.parts, index(), Number(event.target.value)));
    };
    const slider = h("input", {
      type: "range",
      min: 0,
      max: 100,
      step: 1,
      "aria-label": t("order.share", label),
      on: { input: change },
    });
    const box = h("input", {
      type: "number",
      class: "share",
      min: 0,
      max: 100,
      step: "any",
      inputMode: "decimal",
      "aria-label": t("order.share", label),
      on: { change },
    });
    const lock = iconButton("unlock", "", () =>
      this.edit(this.parts.map((other) => (other.name === part.name ? { ...other, locked: !other.locked } : other))),
    );
    const remove = iconButton("close", t("order.remove", label), () => this.edit(removePart(this.parts, index())));
    const element = h(
      "div",
      { class: "mix-row", vars: { "--color": part.color?.srgb ?? "var(--unknown)" } },
      h("span", { class: "dot" }),
      h("span", { class: "mix-name", text: label }),
      box,
      h("span", { class: "unit", text: "%" }),
      lock,
      remove,
      slider,
    );
    const show = (now, least, most, count) => {
      const text = String(Math.round(now.share * 100) / 100);
      if (document.activeElement !== box || box.value === "") box.value = text;
      slider.value = text;
      slider.style.setProperty("--at", `${now.share}%`);
      slider.disabled = box.disabled = now.locked || least === most;
      slider.setAttribute("aria-valuetext", percent(now.share));
      lock.setAttribute("aria-pressed", String(now.locked));
      lock.title = t(now.locked ? "order.unlock" : "order.lock", label);
      lock.setAttribute("aria-label", t("order.lock", label));
      fill(lock, icon(now.locked ? "lock" : "unlock"));
      lock.hidden = remove.hidden = count < 2;
    };
    return { element, show };
  }

  showRemarks() {
    const { errors, warnings } = this.reading;
    const wrong = this.refused ? [this.refused] : errors.map((error) => sentence(error));
    this.text.setAttribute("aria-invalid", String(wrong.length > 0));
    // Leaving the field says nothing new, and an offer that is being clicked must not be put in another's place.
    const said = JSON.stringify([wrong, warnings.map(sentence)]);
    if (said === this.said) return;
    this.said = said;
    fill(
      this.remarks,
      wrong.map((text) => h("p", { class: "remark wrong" }, icon("warning"), text)),
      wrong.length ? null : warnings.map((warning) => h("p", { class: "remark" }, sentence(warning), this.offers(warning))),
    );
  }

  /** Colours that an unknown name may have meant, to be taken with a click. */
  offers(warning) {
    const [name, suggested] = warning.given;
    if (warning.key !== "mix.unknown" || !suggested.length) return null;
    const take = (color) =>
      this.edit(this.parts.map((part) => (part.name === name ? { ...part, color, name: color.name } : part)));
    return [
      " ",
      t("mix.didYouMean"),
      " ",
      ...suggested.flatMap((color) => [
        h("button", {
          type: "button",
          class: "offer",
          text: color.label,
          vars: { "--color": color.srgb },
          on: { click: () => take(color) },
        }),
        " ",
      ]),
    ];
  }
}

/** Say a remark in the page's language. */
export function sentence(remark) {
  return t(remark.key, ...remark.given.map((given) => (typeof given === "number" ? number(given) : given)));
}
