// Presets to load, and many tiles ordered together: ticked presets or a pasted list.

import { h, fill, icon, iconButton, button, settled } from "./dom.js";
import { complaint, percent, t } from "./i18n.js";
import { readMix, writeMix } from "./mix.js";
import { sentence } from "./mix-editor.js";
import { recipes } from "./recipes.js";

export class Presets {
  /** `form` is the order form; `order(order)` places one order. `say(text, wrong)` shows a notice. */
  constructor(form, order, say) {
    this.form = form;
    this.order = order;
    this.say = say;
    this.element = h("dialog", { class: "sheet presets", "aria-labelledby": "presets-title" });
  }

  open() {
    const { palette } = this.form.editor;
    this.palette = palette;
    this.ticked = new Map();
    this.list = h("textarea", {
      id: "presets-list",
      rows: 4,
      spellcheck: false,
      placeholder: "50% red, 50% black\n70% blue, 30% white",
      "aria-describedby": "presets-remarks",
      on: { input: settled(() => this.count(), 150) },
    });
    this.remarks = h("div", { class: "remarks", id: "presets-remarks", "aria-live": "polite" });
    this.total = h("span", { class: "presets-total", role: "status" });
    this.submit = button("", () => this.send(), { class: "button primary" });
    fill(
      this.element,
      h(
        "div",
        { class: "sheet-head" },
        h("h2", { id: "presets-title", text: t("presets.title") }),
        iconButton("close", t("close"), () => this.element.close()),
      ),
      h(
        "div",
        { class: "sheet-body" },
        h("p", { class: "hint", text: `${t("presets.text")} ${t("presets.seed")}` }),
        recipes(palette).map((group) => this.group(group)),
        h("label", { class: "label", htmlFor: "presets-list", text: t("presets.paste") }),
        this.list,
        this.remarks,
      ),
      h("div", { class: "sheet-foot" }, this.total, this.submit),
    );
    this.count();
    this.element.showModal();
  }

  group({ name, mixes }) {
    const items = mixes.map((parts) => this.item(parts));
    const all = button(
      t("presets.all"),
      () => {
        const on = items.some(({ box }) => !box.checked);
        for (const { box, text } of items) {
          box.checked = on;
          this.tick(text, on);
        }
      },
      { class: "button small quiet" },
    );
    const title = name === "solos" ? t("presets.solos", mixes.length) : t(`presets.${name}`);
    return h(
      "fieldset",
      { class: "recipes" },
      h("legend", {}, title, all),
      h(
        "div",
        { class: "recipe-list" },
        items.map(({ element }) => element),
      ),
    );
  }

  item(parts) {
    const text = writeMix(parts, this.palette);
    const label = parts
      .map((part) => (parts.length > 1 ? `${percent(part.share)} ${part.color.label}` : part.color.label))
      .join(", ");
    const box = h("input", { type: "checkbox", on: { change: () => this.tick(text, box.checked) } });
    const load = iconButton("into", `${t("presets.load")}: ${label}`, () => {
      this.form.editor.setText(text);
      this.element.close();
    });
    const stripe = h(
      "span",
      { class: "recipe-stripe", "aria-hidden": "true" },
      parts.map((part) => h("i", { vars: { "--share": String(Math.max(part.share, 4)), "--color": part.color.srgb } })),
    );
    return { box, text, element: h("div", { class: "recipe" }, h("label", {}, box, stripe, h("span", { text: label })), load) };
  }

  tick(text, on) {
    if (on) this.ticked.set(text, text);
    else this.ticked.delete(text);
    this.count();
  }

  /** The mixes of the pasted list; those that cannot be read are complained about, line by line. */
  pasted() {
    const complaints = [];
    const mixes = [];
    this.list.value.split("\n").forEach((line, at) => {
      if (!line.trim()) return;
      const { errors } = readMix(line, this.palette);
      if (errors.length) complaints.push(t("presets.line", at + 1, sentence(errors[0])));
      else mixes.push(line.trim());
    });
    return { mixes, complaints };
  }

  count() {
    const { mixes, complaints } = this.pasted();
    const count = this.ticked.size + mixes.length;
    this.list.setAttribute("aria-invalid", String(complaints.length > 0));
    fill(
      this.remarks,
      complaints.map((text) => h("p", { class: "remark wrong" }, icon("warning"), text)),
    );
    this.total.textContent = t("presets.count", count);
    this.submit.textContent = t("presets.order", count);
    this.submit.disabled = count === 0 || complaints.length > 0;
  }

  async send() {
    const mixes = [...this.ticked.values(), ...this.pasted().mixes];
    this.submit.disabled = true;
    let done = 0;
    try {
      for (const mix of mixes) {
        await this.order(this.form.orderOf(mix));
        done += 1;
        this.total.textContent = `${done} / ${mixes.length}`;
      }
      this.say(t("presets.done", done));
    } catch (error) {
      this.say(t("presets.partly", done, mixes.length, complaint(error)), true);
    }
    this.element.close();
  }
}
