// One tile, large, with all that is known of it; or two of them side by side.

import { code, copy, downloadLink, facts, log, shares, standing, warnings } from "./details.js";
import { h, fill, icon, iconButton, button } from "./dom.js";
import { t } from "./i18n.js";
import { Preview } from "./preview.js";
import { drawSketch } from "./sketch.js";
import { Stage } from "./stage.js";
import { nameOf, partsOf, picturesOf, previewOf, smallPicturesOf } from "./tile.js";
import { hasEnded } from "./watch.js";

export class Viewer {
  /**
   * `palettes.of(slug)` is a palette; `actions` are what buttons call with the prediction: use, redraw, cancel, remove;
   * `actions.neighbour(prediction, by)` is the tile beside it in the gallery or undefined; `say(text, wrong)` shows a notice.
   */
  constructor(palettes, actions, say) {
    this.palettes = palettes;
    this.actions = actions;
    this.say = say;
    this.element = h("dialog", {
      class: "viewer",
      "aria-labelledby": "viewer-title",
      on: { close: () => this.left(), keydown: (event) => this.key(event) },
    });
  }

  get isOpen() {
    return this.element.open;
  }

  /** Show one tile. */
  open(prediction) {
    this.shown = [prediction.id];
    this.stage = new Stage();
    this.picture = 0;
    this.state = null;
    this.title = h("h2", { id: "viewer-title" });
    this.strip = h("div", { class: "strip" });
    this.side = h("div", { class: "look-side" });
    this.tools = this.stageTools([this.stage]);
    this.previous = iconButton("back", t("look.previous"), () => this.step(-1), { class: "icon-button turn back" });
    this.next = iconButton("next", t("look.next"), () => this.step(1), { class: "icon-button turn next" });
    fill(
      this.element,
      h("div", { class: "look-stage" }, this.stage.element, this.previous, this.next, this.strip, this.tools),
      h("div", { class: "look-panel" }, this.head(), this.side),
    );
    this.update(prediction);
    this.show(`tile=${prediction.id}`);
  }

  head() {
    return h(
      "div",
      { class: "look-head" },
      this.title,
      iconButton("close", t("close"), () => this.element.close()),
    );
  }

  /** Show a newer version of a tile that is open. */
  update(prediction) {
    if (!this.shown?.includes(prediction.id) || this.shown.length > 1) return;
    const before = this.prediction;
    this.prediction = prediction;
    const palette = this.palettes.of(prediction.model);
    const name = nameOf(prediction, palette);
    this.title.textContent = name;
    const pictures = picturesOf(prediction);
    if (before?.id !== prediction.id || picturesOf(before).length !== pictures.length) {
      this.preview = new Preview();
      this.stage.show(pictures[this.picture] ?? null, name, [this.sketch(prediction, palette), this.preview.element]);
      this.showStrip(pictures, name);
    }
    if (hasEnded(prediction)) this.preview.end();
    else this.preview.show(previewOf(prediction));
    this.tools.hidden = !pictures.length;
    this.previous.disabled = !this.actions.neighbour(prediction, -1);
    this.next.disabled = !this.actions.neighbour(prediction, 1);
    const line = standing(prediction);
    const state = [prediction.id, prediction.status, prediction.data_removed, this.picture].join();
    if (state === this.state) {
      // Only the progress is new: what the reader has open or in focus stays.
      this.line.replaceWith(line);
      this.line = line;
      return;
    }
    [this.state, this.line] = [state, line];
    const open = [...this.side.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent);
    fill(
      this.side,
      line,
      this.buttons(prediction, pictures),
      h("h3", { text: t("look.shares") }),
      shares(prediction, palette),
      warnings(prediction),
      h("h3", { text: t("look.details") }),
      facts(prediction),
      log(prediction),
      hasEnded(prediction) ? code(prediction, this.say) : null,
    );
    for (const summary of this.side.querySelectorAll("details > summary"))
      summary.parentElement.open = open.includes(summary.textContent);
  }

  showStrip(pictures, name) {
    this.strip.hidden = pictures.length < 2;
    const small = smallPicturesOf(this.prediction);
    fill(
      this.strip,
      pictures.map((address, at) =>
        h(
          "button",
          {
            type: "button",
            "aria-label": pictureLabel(this.prediction, at),
            title: pictureLabel(this.prediction, at),
            "aria-pressed": String(at === this.picture),
            on: {
              click: () => {
                this.picture = at;
                this.stage.show(address, name);
                this.showStrip(pictures, name);
                this.update(this.prediction);
              },
            },
          },
          h("img", { src: small[at], alt: "" }),
        ),
      ),
    );
  }

  sketch(prediction, palette) {
    const canvas = h("canvas", { class: "sketch" });
    const parts = partsOf(prediction, palette);
    if (parts.length) drawSketch(canvas, parts, { size_px: 256, across: 26, seed: prediction.seed });
    return canvas;
  }

  buttons(prediction, pictures) {
    const address = pictures[this.picture];
    const ended = hasEnded(prediction);
    return h(
      "div",
      { class: "look-buttons" },
      address ? downloadLink(address) : null,
      ended ? null : button([icon("close"), t("watch.cancel")], () => this.actions.cancel(prediction)),
      button([icon("link"), t("look.share")], () => copy(new URL(`./#tile=${prediction.id}`, document.baseURI).href, this.say)),
      ended
        ? button([icon("again"), t("look.redraw")], () => this.actions.redraw(prediction), { title: t("look.redrawHint") })
        : null,
      button([icon("layers"), t("look.use")], () => {
        this.element.close();
        this.actions.use(prediction);
      }),
      ended ? iconButton("trash", t("look.delete"), () => this.actions.remove(prediction)) : null,
    );
  }

  stageTools(stages) {
    const floor = h(
      "button",
      {
        type: "button",
        class: "button small",
        "aria-pressed": "false",
        title: t("look.floorHint"),
        on: {
          click: () => {
            const on = !stages[0].isFloor;
            for (const stage of stages) stage.setFloor(on);
            floor.setAttribute("aria-pressed", String(on));
          },
        },
      },
      icon("floor"),
      t("look.floor"),
    );
    return h(
      "div",
      { class: "stage-tools", role: "toolbar", "aria-label": t("look.view") },
      iconButton("minus", t("look.zoomOut"), () => stages[0].zoomOut()),
      button(t("look.fit"), () => stages[0].reset(), { class: "button small" }),
      iconButton("plus", t("look.zoomIn"), () => stages[0].zoomIn()),
      floor,
    );
  }

  /** Show two finished tiles side by side; they are zoomed and moved together. */
  compare(one, other) {
    this.shown = [one.id, other.id];
    const stages = [new Stage(), new Stage()];
    stages[0].join(stages[1]);
    const same = one.seed === other.seed;
    this.title = h("h2", { id: "viewer-title", text: `${t("compare.title")} · ${t(same ? "compare.same" : "compare.other")}` });
    const sides = [one, other].map((prediction, at) => {
      const palette = this.palettes.of(prediction.model);
      stages[at].show(picturesOf(prediction)[0] ?? null, nameOf(prediction, palette), this.sketch(prediction, palette));
      return h(
        "div",
        { class: "compare-side" },
        stages[at].element,
        h(
          "div",
          { class: "compare-text" },
          h("h3", { text: nameOf(prediction, palette) }),
          h("p", { class: "hint", text: `${prediction.model} · ${t("look.seed")} ${prediction.seed}` }),
          shares(prediction, palette),
        ),
      );
    });
    fill(
      this.element,
      h("div", { class: "compare" }, this.head(), this.stageTools(stages), h("div", { class: "compare-sides" }, sides)),
    );
    this.show(`compare=${one.id},${other.id}`);
  }

  show(hash) {
    history.replaceState(null, "", `#${hash}`);
    if (!this.element.open) this.element.showModal();
    this.element.classList.toggle("comparing", this.shown.length > 1);
    this.element.querySelector(".look-head .icon-button").focus();
  }

  step(by) {
    const neighbour = this.actions.neighbour(this.prediction, by);
    if (!neighbour) return;
    this.shown = [neighbour.id];
    this.picture = 0;
    this.update(neighbour);
    history.replaceState(null, "", `#tile=${neighbour.id}`);
  }

  key(event) {
    if (this.shown.length > 1 || event.target.closest("input, textarea, select, pre")) return;
    if (event.key === "ArrowLeft") this.step(-1);
    if (event.key === "ArrowRight") this.step(1);
  }

  left() {
    this.shown = null;
    this.prediction = null;
    fill(this.element);
    history.replaceState(null, "", location.pathname);
  }
}

/** What one of several pictures shows: the tile at one of the ordered angles, or behind those the legend. */
function pictureLabel({ input }, at) {
  const angle = (input.angles ?? [0])[at];
  return angle === undefined ? t("look.legend") : `${angle}°`;
}
