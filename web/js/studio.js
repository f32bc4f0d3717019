// The Studio: puts the parts together. Nothing happens at import but this.

import { ApiError } from "./api.js";
import { Chrome } from "./chrome.js";
import { h, fill, button, icon } from "./dom.js";
import { Gallery } from "./gallery.js";
import { complaint, t } from "./i18n.js";
import { OrderForm } from "./order-form.js";
import { Palettes } from "./palettes.js";
import { nameOf } from "./tile.js";
import { Watch, hasEnded } from "./watch.js";

const LANES = ["high", "normal", "low"];

class Studio {
  constructor() {
    this.chrome = new Chrome("studio");
    this.api = this.chrome.api;
    this.say = (text, wrong) => this.chrome.say(text, wrong);
    this.panel = document.querySelector("#order");
    this.main = document.querySelector("main");
  }

  async start() {
    const [, models, account] = await Promise.all([this.chrome.checkHealth(), this.api.get("models"), this.api.get("account")]);
    this.palettes = new Palettes(this.api, models.results);
    await this.palettes.load();
    const served = new Set(
      Object.entries(this.chrome.workers ?? {})
        .filter(([, count]) => count > 0)
        .map(([slug]) => slug),
    );
    const shop = {
      models: models.results,
      served,
      lanes: LANES.filter((lane) => account.token.lanes.includes(lane)),
      palette: (slug) => this.palettes.of(slug),
      order: (order) => this.order(order),
    };
    this.form = new OrderForm(shop, { onPresets: () => this.openPresets() });
    this.watch = new Watch(
      this.api,
      (prediction) => this.changed(prediction),
      (id) => this.gallery.drop(id),
    );
    this.gallery = new Gallery(
      this.api,
      this.palettes,
      {
        open: (prediction) => this.look((viewer) => viewer.open(prediction)),
        cancel: (prediction) => this.attempt(() => this.cancel(prediction)),
        again: (prediction) => this.attempt(() => this.redraw(prediction)),
        selection: (predictions) => this.showSelection(predictions),
      },
      (prediction) => this.watch.follow(prediction),
    );
    this.lay();
    await this.form.start();
    fill(this.panel, this.form.element);
    this.listen();
    await this.gallery.more();
    await this.openLinked();
  }

  lay() {
    this.bar = h("div", { class: "selection-bar", hidden: true });
    this.select = button(t("tiles.select"), () => this.setSelecting(!this.isSelecting), {
      class: "button small",
      "aria-pressed": "false",
    });
    fill(
      this.main,
      h("div", { class: "tiles-head" }, h("h2", { text: t("tiles") }), this.select),
      this.gallery.element,
      this.bar,
    );
  }

  listen() {
    // A viewer that closes at this moment clears the address before this is heard: the event still knows it.
    addEventListener("hashchange", (event) => this.openLinked(new URL(event.newURL).hash));
    document.addEventListener("granule:reached", () => {
      this.gallery.refresh();
      this.watch.soon();
    });
  }

  // What few visits need is fetched when it is asked for.

  async openPresets() {
    const { Presets } = await import("./presets.js");
    if (!this.presets) {
      this.presets = new Presets(this.form, (order) => this.order(order), this.say);
      document.body.append(this.presets.element);
    }
    this.presets.open();
  }

  /** Show something in the viewer. */
  async look(show) {
    const { Viewer } = await import("./viewer.js");
    if (!this.viewer) {
      this.viewer = new Viewer(
        this.palettes,
        {
          use: (prediction) => this.use(prediction),
          redraw: (prediction) => this.attempt(() => this.redraw(prediction)),
          cancel: (prediction) => this.attempt(() => this.cancel(prediction)),
          remove: (prediction) => this.attempt(() => this.remove([prediction])),
          neighbour: (prediction, by) => this.neighbour(prediction, by),
        },
        this.say,
      );
      document.body.append(this.viewer.element);
    }
    show(this.viewer);
  }

  /** Do something that the server may refuse, and say so if it does. */
  async attempt(work) {
    try {
      return await work();
    } catch (error) {
      this.say(complaint(error), true);
      return undefined;
    }
  }

  // -- orders

  /** Place an order; `fresh` has it drawn even where a stored picture would answer. */
  async order({ model, input, priority, fresh = false }) {
    const headers = { "Idempotency-Key": crypto.randomUUID?.() ?? `studio-${Date.now()}-${Math.random()}` };
    if (priority) headers["X-Priority"] = priority;
    if (fresh) headers["Cache-Control"] = "no-cache";
    const prediction = await this.api.post("predictions", { version: model, input }, headers);
    this.gallery.put(prediction);
    if (matchMedia("(max-width: 60rem)").matches) this.main.scrollIntoView({ behavior: "smooth" });
    return prediction;
  }

  async redraw(prediction) {
    const { model, input, seed, priority } = prediction;
    const made = await this.order({ model, input: { ...input, seed }, priority, fresh: true });
    if (this.viewer?.isOpen) this.viewer.open(made);
    else this.say(t("order.sent"));
  }

  use(prediction) {
    this.form.take({
      model: prediction.model,
      input: { ...prediction.input, seed: prediction.seed },
      priority: prediction.priority,
    });
    this.panel.scrollIntoView();
    this.form.editor.text.focus();
  }

  changed(prediction) {
    const before = this.gallery.get(prediction.id);
    this.gallery.put(prediction);
    this.viewer?.update(prediction);
    if (!hasEnded(prediction) || before?.status === prediction.status) return;
    const name = nameOf(prediction, this.palettes.of(prediction.model));
    if (prediction.status === "succeeded") this.say(t("watch.finished", name));
    else if (prediction.status === "failed") this.say(t("watch.failed", name), true);
  }

  async cancel(prediction) {
    this.changed(await this.api.post(`predictions/${prediction.id}/cancel`));
  }

  async remove(predictions) {
    if (!(await this.chrome.confirm(t("tiles.deleteAsk", predictions.length), t("tiles.delete")))) return;
    for (const { id } of predictions) {
      await this.api.remove(`predictions/${id}`);
      this.watch.forget(id);
      this.gallery.drop(id);
    }
    if (this.viewer?.isOpen) this.viewer.element.close();
    this.setSelecting(false);
    this.say(t("tiles.deleted", predictions.length));
  }

  // -- looking

  neighbour(prediction, by) {
    const shown = this.gallery.visible();
    const at = shown.findIndex(({ id }) => id === prediction.id);
    return at < 0 ? undefined : shown[at + by];
  }

  async fetchTile(id) {
    return this.gallery.get(id) ?? this.api.get(`predictions/${encodeURIComponent(id)}`);
  }

  /** Open what an address names behind its `#`: one tile, or two to compare. */
  async openLinked(hash = location.hash) {
    const linked = new URLSearchParams(hash.slice(1));
    const ids = (linked.get("tile") ?? linked.get("compare") ?? "").split(",").filter(Boolean);
    if (!ids.length) return;
    try {
      const [one, other] = await Promise.all(ids.slice(0, 2).map((id) => this.fetchTile(id)));
      await this.look((viewer) => (other ? viewer.compare(one, other) : viewer.open(one)));
      this.watch.follow(one);
    } catch (error) {
      this.say(error instanceof ApiError && error.status === 404 ? t("look.gone") : complaint(error), true);
    }
  }

  // -- selection

  setSelecting(on) {
    this.isSelecting = on;
    this.select.textContent = t(on ? "tiles.done" : "tiles.select");
    this.select.setAttribute("aria-pressed", String(on));
    this.gallery.selecting(on);
  }

  showSelection(predictions) {
    this.bar.hidden = !this.isSelecting;
    const finished = predictions.filter(({ status }) => status === "succeeded");
    const compare = button([icon("compare"), t("tiles.compare")], () => this.look((viewer) => viewer.compare(...finished)), {
      disabled: predictions.length !== 2 || finished.length !== 2,
      title: t("tiles.compareHint"),
    });
    const pack = button([icon("download"), t("tiles.export")], () => this.attempt(() => this.exportSelected(finished)), {
      disabled: !finished.length,
    });
    const remove = button([icon("trash"), t("tiles.delete")], () => this.attempt(() => this.remove(predictions)), {
      disabled: !predictions.length,
    });
    fill(this.bar, h("strong", { role: "status", text: t("tiles.selected", predictions.length) }), compare, pack, remove);
  }

  async exportSelected(predictions) {
    const { exportTiles, save } = await import("./archive.js");
    try {
      const packed = await exportTiles(predictions, (done) => this.say(t("tiles.exporting", done, predictions.length)));
      save(packed, `granule-${new Date().toISOString().slice(0, 10)}.zip`);
      this.say(t("tiles.exported", predictions.length));
    } catch (error) {
      this.say(t("tiles.exportFailed") + complaint(error), true);
    }
  }
}

const studio = new Studio();

/** Start, and where the server does not answer offer to try again. */
async function begin() {
  try {
    await studio.start();
  } catch (error) {
    fill(
      studio.main,
      h(
        "div",
        { class: "welcome" },
        h("h2", { text: complaint(error) }),
        button(t("tiles.again"), () => location.reload(), { class: "button primary" }),
      ),
    );
    throw error;
  }
}

begin();
