// The palettes of all models, each asked for once.

import { lang } from "./i18n.js";
import { slug } from "./order-form.js";
import { Palette } from "./palette.js";

export class Palettes {
  constructor(api, models) {
    this.api = api;
    this.slugs = models.map(slug);
    this.loaded = new Map();
  }

  /** Load every palette; models that share one have equal ones. */
  async load() {
    await Promise.all(
      this.slugs.map(async (name) => this.loaded.set(name, new Palette(await this.api.get(`models/${name}/colors`), lang))),
    );
  }

  /** The palette of a model; of one that is not served any more, the first there is. */
  of(name) {
    return this.loaded.get(name) ?? this.main;
  }

  get main() {
    return this.loaded.get(this.slugs[0]);
  }
}
