// All tiles, newest first: what is being drawn and what was kept, with filters, selection and the API's own pages.

import { ApiError } from "./api.js";
import { Card } from "./card.js";
import { h, fill, icon, button, settled } from "./dom.js";
import { complaint, t } from "./i18n.js";
import { nameOf, partsOf } from "./tile.js";

const REFRESH_MS = 15_000;
/** With a filter on, older pages are loaded until so many tiles fit, or there are no more. */
const ENOUGH = 12;
const STATUSES = ["starting", "processing", "succeeded", "failed", "canceled"];

export class Gallery {
  /**
   * `palettes.of(slug)` is a loaded palette; `actions` go to the cards and `actions.selection(predictions)` is told what is
   * selected; `onNew(prediction)` gets each prediction that was not known before.
   */
  constructor(api, palettes, actions, onNew) {
    this.api = api;
    this.palettes = palettes;
    this.actions = { ...actions, select: (prediction, on) => this.mark(prediction, on) };
    this.onNew = onNew;
    this.cards = new Map();
    this.selected = new Map();
    this.next = "predictions";
    this.grid = h("div", { class: "grid", role: "feed", "aria-busy": "true" });
    this.state = h("div", { class: "gallery-state", role: "status" });
    this.sentinel = h("div", { class: "sentinel" });
    this.element = h("div", { class: "gallery" }, this.filters(), this.grid, this.state, this.sentinel);
    new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) this.more();
      },
      { rootMargin: "600px" },
    ).observe(this.sentinel);
    setInterval(() => {
      if (!document.hidden) this.refresh();
    }, REFRESH_MS);
  }

  filters() {
    const apply = () => this.apply();
    const choice = (name, values) =>
      h(
        "select",
        { "aria-label": t(name), on: { change: apply } },
        h("option", { value: "", text: `${t(name)}: ${t("tiles.any")}` }),
        values.map(([value, text]) => h("option", { value, text })),
      );
    this.search = h("input", {
      type: "search",
      placeholder: t("tiles.search"),
      "aria-label": t("tiles.search"),
      on: { input: settled(apply, 150) },
    });
    this.status = choice(
      "tiles.status",
      STATUSES.map((status) => [status, t(`status.${status}`)]),
    );
    this.color = choice(
      "tiles.color",
      this.palettes.main.sorted().map((color) => [color.name, color.label]),
    );
    this.model = choice(
      "tiles.model",
      this.palettes.slugs.map((slug) => [slug, slug]),
    );
    this.model.hidden = this.palettes.slugs.length < 2;
    return h(
      "div",
      { class: "filters" },
      h("div", { class: "search" }, icon("search"), this.search),
      this.status,
      this.color,
      this.model,
    );
  }

  get filtered() {
    return Boolean(this.search.value.trim() || this.status.value || this.color.value || this.model.value);
  }

  fits(prediction) {
    const words = this.search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const palette = this.palettes.of(prediction.model);
    const parts = partsOf(prediction, palette);
    const text = [
      prediction.id,
      prediction.seed,
      prediction.input?.prompt,
      nameOf(prediction, palette),
      ...parts.map((part) => part.color?.code),
    ]
      .join(" ")
      .toLowerCase();
    return (
      words.every((word) => text.includes(word)) &&
      (!this.status.value || prediction.status === this.status.value) &&
      (!this.model.value || prediction.model === this.model.value) &&
      (!this.color.value || parts.some((part) => part.name === this.color.value))
    );
  }

  apply() {
    for (const card of this.cards.values()) card.element.hidden = !this.fits(card.prediction);
    this.showState();
    if (this.filtered && this.visible().length < ENOUGH) this.more();
  }

  clear() {
    this.search.value = this.status.value = this.color.value = this.model.value = "";
    this.apply();
  }

  /** The predictions that are shown, newest first. */
  visible() {
    return [...this.grid.children]
      .filter((element) => !element.hidden)
      .map((element) => this.cards.get(element.dataset.id).prediction);
  }

  /** Show a prediction that is new, or a newer version of one that is here. */
  put(prediction, atEnd = false) {
    const card = this.cards.get(prediction.id);
    if (card) {
      card.show(prediction);
      return;
    }
    const fresh = new Card(prediction, this.palettes.of(prediction.model), this.actions);
    fresh.element.hidden = !this.fits(prediction);
    this.cards.set(prediction.id, fresh);
    if (atEnd) this.grid.append(fresh.element);
    else this.grid.prepend(fresh.element);
    this.onNew(prediction);
    this.showState();
  }

  drop(id) {
    this.cards.get(id)?.element.remove();
    this.cards.delete(id);
    this.selected.delete(id);
    this.showState();
  }

  get(id) {
    return this.cards.get(id)?.prediction;
  }

  /** Load the next page, as far as there is one. */
  async more() {
    if (this.loading || !this.next) return;
    this.loading = true;
    this.showState();
    try {
      const page = await this.api.get(this.next);
      for (const prediction of page.results) if (!prediction.data_removed) this.put(prediction, true);
      this.next = page.next;
      this.failed = null;
    } catch (error) {
      this.failed = error;
    } finally {
      this.loading = false;
      this.grid.setAttribute("aria-busy", "false");
      this.showState();
    }
    if (!this.failed && this.filtered && this.visible().length < ENOUGH) await this.more();
  }

  /** Look for tiles that were ordered elsewhere. */
  async refresh() {
    if (this.loading) return;
    if (this.failed) {
      await this.more();
      return;
    }
    try {
      const page = await this.api.get("predictions");
      for (const prediction of page.results.reverse()) {
        const known = this.cards.get(prediction.id);
        if (known && prediction.data_removed) this.drop(prediction.id);
        else if (!prediction.data_removed && (!known || known.prediction.status !== prediction.status)) this.put(prediction);
      }
    } catch (error) {
      if (error instanceof TypeError) throw error; // what the server did not answer is asked again later
    }
  }

  /** Say what there is instead of tiles, or below them. What is said already stays: a click on it may be under way. */
  showState() {
    const [kind, ...children] = this.stateNow();
    if (kind === this.saying) return;
    this.saying = kind;
    fill(this.state, ...children);
    this.state.classList.toggle("skeletons", kind === "skeletons");
  }

  /** A name for what is to be said, and its elements. */
  stateNow() {
    if (this.loading && this.cards.size) return ["loading", h("p", { text: t("tiles.loading") })];
    if (this.loading) return ["skeletons", ...Array.from({ length: 6 }, () => h("div", { class: "skeleton" }))];
    if (this.failed) {
      const text = `${t("tiles.failed")} ${this.failed instanceof ApiError ? complaint(this.failed) : ""}`;
      return [text, h("p", { class: "wrong", text }), button(t("tiles.again"), () => this.more())];
    }
    if (!this.cards.size) return ["welcome", this.welcome()];
    if (this.visible().length) return ["nothing"];
    return ["none found", h("p", { text: t("tiles.noneFound") }), button(t("tiles.clear"), () => this.clear())];
  }

  welcome() {
    return h("div", { class: "welcome" }, h("h2", { text: t("tiles.none") }), h("p", { text: t("tiles.noneText") }));
  }

  // -- selection

  /** Switch selecting on or off; off forgets what was selected. */
  selecting(on) {
    this.element.classList.toggle("selecting", on);
    if (!on) {
      for (const card of this.cards.values()) card.box.checked = false;
      this.selected.clear();
    }
    this.actions.selection([...this.selected.values()]);
  }

  mark(prediction, on) {
    if (on) this.selected.set(prediction.id, prediction);
    else this.selected.delete(prediction.id);
    this.actions.selection([...this.selected.keys()].map((id) => this.get(id)));
  }
}
