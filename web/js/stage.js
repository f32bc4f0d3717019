// A picture to look at: whole, close up, or repeated as a floor. Wheel, keys and two fingers zoom; dragging moves.

import { h, fill } from "./dom.js";
import { t } from "./i18n.js";

const ZOOM_MAX = 8;
const STEP = 1.4;

export class Stage {
  constructor() {
    this.image = h("img", { draggable: false });
    this.floor = h("div", { class: "floor", role: "img" });
    this.element = h("div", { class: "stage", tabIndex: 0 });
    this.pointers = new Map();
    this.partners = [];
    this.reset();
    this.listen();
  }

  /** Show a picture; `address` is null while there is none, then `instead`, an element or several, is shown. */
  show(address, name, instead) {
    this.address = address;
    this.element.setAttribute("aria-label", t("look.picture", name));
    if (!address) {
      fill(this.element, instead);
      return;
    }
    this.image.src = address;
    this.image.alt = t("look.picture", name);
    this.floor.setAttribute("aria-label", t("look.picture", name));
    this.floor.style.backgroundImage = `url("${CSS.escape ? address.replace(/["\\]/g, encodeURIComponent) : address}")`;
    this.setFloor(this.isFloor ?? false);
  }

  setFloor(on) {
    this.isFloor = on;
    if (this.address) fill(this.element, on ? this.floor : this.image);
    this.reset();
  }

  /** Have another stage move along with this one. */
  join(other) {
    this.partners.push(other);
    other.partners.push(this);
  }

  reset() {
    this.set(1, 0, 0);
  }

  zoom(factor, x = 0, y = 0) {
    const zoom = Math.min(ZOOM_MAX, Math.max(1, this.zoomed * factor));
    const grown = zoom / this.zoomed;
    this.set(zoom, x - (x - this.x) * grown, y - (y - this.y) * grown);
  }

  zoomIn() {
    this.zoom(STEP);
  }

  zoomOut() {
    this.zoom(1 / STEP);
  }

  set(zoom, x, y, alone = false) {
    const { clientWidth: width, clientHeight: height } = this.element;
    const side = Math.min(width, height) || 1;
    // The picture never leaves the stage altogether.
    const [reachX, reachY] = this.isFloor
      ? [(width * (zoom - 1)) / 2, (height * (zoom - 1)) / 2]
      : [Math.max(0, (side * zoom - width) / 2 + 40), Math.max(0, (side * zoom - height) / 2 + 40)];
    this.zoomed = zoom;
    this.x = zoom === 1 ? 0 : Math.min(reachX, Math.max(-reachX, x));
    this.y = zoom === 1 ? 0 : Math.min(reachY, Math.max(-reachY, y));
    for (const shown of [this.image, this.floor]) shown.style.transform = `translate(${this.x}px, ${this.y}px) scale(${zoom})`;
    this.element.classList.toggle("zoomed", zoom > 1);
    if (!alone) for (const partner of this.partners) partner.set(zoom, this.x, this.y, true);
  }

  at(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  }

  listen() {
    const { element } = this;
    element.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY / 400), ...this.at(event));
      },
      { passive: false },
    );
    element.addEventListener("dblclick", (event) => (this.zoomed > 1 ? this.reset() : this.zoom(2.5, ...this.at(event))));
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    });
    element.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"])
      element.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    element.addEventListener("keydown", (event) => this.key(event));
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const other = [...this.pointers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    if (other) {
      const span = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      this.zoom(span(event) / Math.max(1, span(before)), ...this.at(event));
    } else {
      this.set(this.zoomed, this.x + event.clientX - before.clientX, this.y + event.clientY - before.clientY);
    }
    this.pointers.set(event.pointerId, event);
  }

  key(event) {
    const move = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (event.key === "+" || event.key === "=") this.zoomIn();
    else if (event.key === "-") this.zoomOut();
    else if (event.key === "0") this.reset();
    else if (move && this.zoomed > 1) this.set(this.zoomed, this.x + move[0], this.y + move[1]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
