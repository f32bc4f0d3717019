// The rough picture of a tile that is being drawn: fetched anew after each step, and shown once it is there.

import { fill, h } from "./dom.js";

export class Preview {
  constructor() {
    this.element = h("div", { class: "preview" });
  }

  /** Show what is at an address; null leaves what is shown. Where there is nothing yet nothing changes. */
  show(address) {
    if (!address || address === this.address) return;
    this.address = address;
    const image = h("img", { alt: "", decoding: "async" });
    image.addEventListener("load", () => {
      if (this.address === address) fill(this.element, image);
    });
    image.src = address;
  }

  /** Show nothing any more. */
  end() {
    this.address = null;
    fill(this.element);
  }
}
