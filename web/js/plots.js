// Small plots, drawn as SVG.

import { shape, svg } from "./dom.js";
import { t, number } from "./i18n.js";

const WIDTH = 600;
const HEIGHT = 120;
const FLOOR = 100;

/** A column for each of the last minutes, the earliest at the left. */
export function columns(counts, label) {
  const root = svg(WIDTH, HEIGHT, label);
  const most = Math.max(4, ...counts);
  const width = WIDTH / counts.length;
  shape(root, "line", { x1: 0, x2: WIDTH, y1: FLOOR + 0.5, y2: FLOOR + 0.5, class: "axis" });
  shape(root, "line", { x1: 0, x2: WIDTH, y1: 6.5, y2: 6.5, class: "guide" });
  counts.forEach((count, at) => {
    const height = (count / most) * (FLOOR - 6);
    const column = shape(root, "rect", { x: at * width + 1, y: FLOOR - height, width: width - 2, height, rx: 1.5 });
    shape(column, "title", {}).textContent = `${t("ops.minutesAgo", counts.length - at)}: ${number(count)}`;
  });
  const write = (x, y, anchor, text) => {
    shape(root, "text", { x, y, "text-anchor": anchor }).textContent = text;
  };
  write(0, HEIGHT - 5, "start", t("ops.minutesAgo", counts.length));
  write(WIDTH, HEIGHT - 5, "end", t("ops.now"));
  write(2, 19, "start", number(most));
  return root;
}
