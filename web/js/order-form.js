// The left side of the page: a tile is put together and ordered.

import { ApiError } from "./api.js";
import { h, fill, icon, button } from "./dom.js";
import { Fields, newSeed } from "./fields.js";
import { complaint, t } from "./i18n.js";
import { addColor, setShare, writeMix } from "./mix.js";
import { FIRST_MIX, MixEditor, sentence } from "./mix-editor.js";
import { draft, keepDraft } from "./prefs.js";

export class OrderForm {
  /**
   * `shop.models` are the models, `shop.palette(slug)` resolves to a palette, `shop.lanes` are those the caller may use,
   * `shop.order(order)` places `{model, input, priority, fresh}` and resolves to its prediction. `onPresets()` opens the presets.
   */
  constructor(shop, { onPresets }) {
    this.shop = shop;
    this.model = h(
      "select",
      { id: "order-model", on: { change: () => this.changeModel() } },
      shop.models.map((model) =>
        h("option", {
          value: slug(model),
          text: shop.served.has(slug(model)) ? slug(model) : `${slug(model)} (${t("health.none")})`,
        }),
      ),
    );
    this.model.value = slug(likeliest(shop));
    this.priority = h(
      "select",
      { id: "order-priority", on: { change: () => this.keep() } },
      shop.lanes.map((lane) => h("option", { value: lane, text: t(`order.${lane}`), selected: lane === "normal" })),
    );
    this.submit = h("button", { type: "submit", class: "button primary big" });
    this.status = h("p", { class: "order-status", role: "status" });
    this.front = h("div", { class: "fields" });
    this.rest = h("div", { class: "fields" });
    this.element = h("form", {
      class: "order",
      noValidate: true,
      "aria-labelledby": "order-title",
      on: {
        submit: (event) => {
          event.preventDefault();
          this.send();
        },
        // Enter in a number takes the number over; it must not order a tile by accident.
        keydown: (event) => {
          if (event.key === "Enter" && event.target.matches("input")) {
            event.preventDefault();
            event.target.dispatchEvent(new Event("change", { bubbles: true }));
          }
        },
      },
    });
    this.onPresets = onPresets;
  }

  /** Load the palette and show the form. */
  async start() {
    const kept = draft();
    if (kept && this.shop.models.some((model) => slug(model) === kept.model)) this.model.value = kept.model;
    this.editor = new MixEditor(await this.shop.palette(this.model.value), () => this.changed());
    this.build();
    this.makeFields();
    this.take(kept ?? { input: { prompt: FIRST_MIX } });
    if (kept && !kept.kept) this.fields.roll();
  }

  build() {
    fill(
      this.element,
      h(
        "div",
        { class: "order-body" },
        h(
          "div",
          { class: "label-line title-line" },
          h("h1", { id: "order-title", text: t("order.title") }),
          button([icon("layers"), t("order.presets")], this.onPresets, { class: "button quiet" }),
        ),
        this.editor.element,
        this.front,
        h("details", { class: "more" }, h("summary", { text: t("order.more") }), this.rest),
      ),
      h(
        "div",
        { class: "order-foot" },
        this.status,
        h(
          "div",
          { class: "order-actions" },
          button([icon("shuffle")], () => this.surprise(), {
            class: "button big",
            title: t("order.random"),
            "aria-label": t("order.random"),
          }),
          this.submit,
        ),
      ),
    );
    this.submit.textContent = t("order.submit");
  }

  makeFields() {
    const model = this.shop.models.find((one) => slug(one) === this.model.value);
    this.fields = new Fields(model.latest_version.openapi_schema, () => this.keep());
    fill(this.front, this.fields.front);
    const several = this.shop.models.length > 1;
    fill(
      this.rest,
      several
        ? h(
            "div",
            { class: "field" },
            h("label", { class: "label", htmlFor: "order-model", text: t("order.model") }),
            this.model,
          )
        : null,
      this.shop.lanes.length > 1
        ? h(
            "div",
            { class: "field" },
            h("label", { class: "label", htmlFor: "order-priority", text: t("order.priority") }),
            this.priority,
          )
        : null,
      this.fields.rest,
    );
  }

  async changeModel() {
    const input = this.input();
    const kept = this.fields.seedKept;
    this.editor.setPalette(await this.shop.palette(this.model.value));
    this.makeFields();
    this.fields.set(kept ? input : { ...input, seed: null });
    this.keep();
  }

  /** Take over an order's input, to be changed or ordered again. */
  take({ model, input, priority }) {
    if (model && model !== this.model.value && this.shop.models.some((one) => slug(one) === model)) {
      this.model.value = model;
      this.changeModel();
    }
    if (priority) this.priority.value = priority;
    this.fields.set(input);
    this.editor.setText(this.local(input.prompt));
  }

  /** A prompt in the page's language, where it is a mix; anything else as it was written. */
  local(prompt) {
    this.editor.text.value = prompt;
    this.editor.readText();
    const { parts, extras, errors } = this.editor.reading;
    return errors.length || !parts.length ? prompt : writeMix(parts, this.editor.palette, extras);
  }

  input() {
    return { prompt: this.editor.prompt(), ...this.fields.values() };
  }

  /** What all tiles of a batch share with the form; each gets its own mix, and its own seed unless that is locked. */
  orderOf(prompt) {
    const input = { ...this.input(), prompt };
    if (!this.fields.seedKept) input.seed = newSeed();
    return { model: this.model.value, input, priority: this.priority.value };
  }

  changed() {
    const wrong = this.editor.errors.length > 0;
    this.submit.setAttribute("aria-disabled", String(wrong));
    if (this.fields) this.keep();
  }

  keep() {
    keepDraft({ model: this.model.value, input: this.input(), priority: this.priority.value, kept: this.fields.seedKept });
  }

  surprise() {
    const { palette } = this.editor;
    const shuffled = palette.colors.map((color) => [Math.random(), color]).sort((one, other) => one[0] - other[0]);
    let parts = [];
    for (const [, color] of shuffled.slice(0, 2 + Math.floor(Math.random() * 3))) parts = addColor(parts, color);
    this.editor.edit(setShare(parts, 0, 5 * Math.round(6 + Math.random() * 6)));
  }

  async send() {
    this.editor.readText(true);
    if (this.editor.errors.length) {
      this.say(`${t("order.draft")} ${sentence(this.editor.errors[0])}`, true);
      this.editor.text.focus();
      return;
    }
    if (this.submit.disabled) return;
    this.submit.disabled = true;
    this.submit.textContent = t("order.sending");
    try {
      await this.shop.order({ model: this.model.value, input: this.input(), priority: this.priority.value });
      this.fields.showErrors([]);
      this.fields.roll();
      this.keep();
      this.say(t("order.sent"));
    } catch (error) {
      this.refuse(error);
    } finally {
      this.submit.disabled = false;
      this.submit.textContent = t("order.submit");
    }
  }

  refuse(error) {
    const fields = error instanceof ApiError ? error.fields : [];
    const prompt = fields.find(({ field }) => field === "input.prompt");
    if (prompt) this.editor.showError(prompt.description);
    const others = this.fields.showErrors(fields.filter((field) => field !== prompt));
    if (fields.length > others.length && !prompt) this.element.querySelector("details").open = true;
    this.say(fields.length && !others.length ? t("order.draft") : complaint(error), true);
  }

  say(text, wrong = false) {
    this.status.textContent = text;
    this.status.classList.toggle("wrong", wrong);
  }
}

/** The model that an order is most likely meant for: one that is served now, then the one ordered most, then a public one. */
function likeliest({ models, served }) {
  const rank = (model) => [served.has(slug(model)), model.run_count, model.visibility === "public"].map(Number);
  const before = (one, other) => one.map((value, at) => other[at] - value).find((difference) => difference !== 0) ?? 0;
  return [...models].sort((one, other) => before(rank(one), rank(other)))[0];
}

/** `owner/name`, as models are called on the wire. */
export function slug(model) {
  return `${model.owner}/${model.name}`;
}
