// One prediction in the gallery: a sketch that turns into the picture, and how it stands.

import { h, fill, iconButton, button } from "./dom.js";
import { moment, percent, t } from "./i18n.js";
import { Preview } from "./preview.js";
import { drawSketch } from "./sketch.js";
import { grade, nameOf, outlookOf, partsOf, picturesOf, previewOf, smallPicturesOf, standingOf } from "./tile.js";
import { hasEnded } from "./watch.js";

export class Card {
  /** `actions` are what its buttons call, each with the prediction: open, cancel, again, select. */
  constructor(prediction, palette, actions) {
    this.palette = palette;
    this.actions = actions;
    this.picture = h("div", { class: "card-picture" });
    this.preview = new Preview();
    this.open = h("button", { type: "button", class: "card-open", on: { click: () => this.actions.open(this.prediction) } });
    this.box = h("input", {
      type: "checkbox",
      class: "card-select",
      on: { change: () => this.actions.select(this.prediction, this.box.checked) },
    });
    this.name = h("span", { class: "card-name" });
    this.state = h("span", { class: "card-state" });
    this.stripe = h("span", { class: "card-stripe", "aria-hidden": "true" });
    this.bar = h("div", { class: "progress", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, h("span"));
    this.buttons = h("div", { class: "card-buttons" });
    this.element = h(
      "article",
      { class: "card", data: { id: prediction.id } },
      this.picture,
      this.bar,
      h("div", { class: "card-text" }, this.stripe, this.name, this.state),
      this.open,
      this.box,
      this.buttons,
    );
    this.show(prediction);
  }

  /** Show a newer version of the prediction. */
  show(prediction) {
    const before = this.prediction;
    this.prediction = prediction;
    const name = nameOf(prediction, this.palette);
    const standing = standingOf(prediction);
    this.element.dataset.standing = standing;
    this.name.textContent = name;
    this.name.title = name;
    this.open.setAttribute("aria-label", `${t("tiles.open", name)} · ${t(`status.${standing}`)}`);
    this.box.setAttribute("aria-label", t("tiles.selectOne", name));
    if (!before) this.showStripe();
    this.showState(standing);
    this.showProgress();
    this.preview.show(previewOf(prediction));
    if (!before || standingOf(before) !== standing) {
      this.showPicture(standing);
      this.showButtons();
    }
  }

  showStripe() {
    fill(
      this.stripe,
      partsOf(this.prediction, this.palette).map((part) =>
        h("i", { vars: { "--share": String(part.share), "--color": part.color?.srgb ?? "var(--unknown)" } }),
      ),
    );
  }

  showState(standing) {
    const { prediction } = this;
    const live = !hasEnded(prediction);
    const error = prediction.color_error;
    const measured =
      standing === "succeeded" && error !== null
        ? h("span", {
            class: `grade ${grade(error)}`,
            title: t("look.errorHint"),
            text: `Δ ${percent(Math.round(error * 1000) / 10)}`,
          })
        : null;
    const word =
      standing === "succeeded" ? moment(prediction.completed_at) : (live && outlookOf(prediction)) || t(`status.${standing}`);
    fill(this.state, h("span", { class: `standing ${standing}`, text: word }), measured);
  }

  showProgress() {
    const live = !hasEnded(this.prediction);
    this.bar.hidden = !live;
    if (!live) return;
    const { fraction } = this.prediction.progress;
    this.bar.firstChild.style.setProperty("--at", String(fraction));
    this.bar.setAttribute("aria-valuenow", String(Math.round(fraction * 100)));
    this.bar.setAttribute("aria-label", nameOf(this.prediction, this.palette));
  }

  showPicture(standing) {
    const [address] = smallPicturesOf(this.prediction);
    if (standing !== "succeeded" || !address) {
      fill(this.picture, this.sketch(), standing === "processing" ? this.preview.element : null);
      return;
    }
    const image = h("img", { alt: "", loading: "lazy", decoding: "async", class: "arriving" });
    // What was there before stays until the picture can be painted: a large one takes a while to decode after it has come.
    image.addEventListener("load", () =>
      image
        .decode()
        .catch(() => {})
        .then(() => image.classList.remove("arriving")),
    );
    const [picture] = picturesOf(this.prediction);
    image.addEventListener("error", () => {
      if (image.getAttribute("src") === picture) this.element.classList.add("broken");
      else image.src = picture;
    });
    image.src = address;
    if (this.picture.childElementCount) this.picture.append(image);
    else fill(this.picture, this.wash(), image);
  }

  sketch() {
    const canvas = h("canvas", { class: "sketch" });
    const parts = partsOf(this.prediction, this.palette);
    if (parts.length) drawSketch(canvas, parts, { size_px: 128, across: 18, seed: this.prediction.seed });
    return canvas;
  }

  /** The mix's colours running into each other: where a picture is about to come, and a sketch would be drawn for nothing. */
  wash() {
    let from = 0;
    const stops = partsOf(this.prediction, this.palette).map((part) => {
      const stop = `${part.color?.srgb ?? "#9a958c"} ${from + part.share / 2}%`;
      from += part.share;
      return stop;
    });
    return h("div", {
      class: "wash",
      vars: stops.length ? { background: `linear-gradient(135deg, ${[...stops, stops.at(-1)].join(", ")})` } : {},
    });
  }

  showButtons() {
    const { prediction } = this;
    const live = !hasEnded(prediction);
    fill(
      this.buttons,
      live ? iconButton("close", t("watch.cancel"), () => this.actions.cancel(prediction)) : null,
      ["failed", "canceled"].includes(standingOf(prediction))
        ? button(t("watch.again"), () => this.actions.again(prediction), { class: "button small" })
        : null,
    );
  }
}
