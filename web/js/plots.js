// Small plots, drawn as SVG.

import { shape, svg } from "./dom.js";
import { duration, t, number } from "./i18n.js";

const WIDTH = 600;
const HEIGHT = 120;
const FLOOR = 100;

/** For each part of the last hour a bar from the time that half of the tiles took to the one that 95 in 100 did. */
export function spreads(spans, label) {
  const root = svg(WIDTH, HEIGHT, label);
  const most = Math.max(1, ...spans.map((span) => span.p95_s ?? 0));
  const width = WIDTH / spans.length;
  const minutes = 60 / spans.length;
  const height = (seconds) => FLOOR - (seconds / most) * (FLOOR - 6);
  shape(root, "line", { x1: 0, x2: WIDTH, y1: FLOOR + 0.5, y2: FLOOR + 0.5, class: "axis" });
  shape(root, "line", { x1: 0, x2: WIDTH, y1: 6.5, y2: 6.5, class: "guide" });
  spans.forEach(({ p50_s: half, p95_s: nearly }, at) => {
    if (half === null) return;
    const group = shape(root, "g", {});
    const middle = (at + 0.5) * width;
    const [top, bottom] = [height(nearly), height(half)];
    shape(group, "rect", { x: middle - 5, y: top, width: 10, height: Math.max(2, bottom - top), rx: 3, class: "range" });
    shape(group, "rect", { x: middle - 9, y: bottom - 2, width: 18, height: 4, rx: 2 });
    shape(group, "title", {}).textContent =
      `${t("ops.minutesAgo", (spans.length - at) * minutes)}: ${duration(half)} / ${duration(nearly)}`;
  });
  axis(root, duration(most));
  return root;
}

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
  axis(root, number(most));
  return root;
}

/** The hour below a plot, and what its upper line stands for. */
function axis(root, most) {
  const write = (x, y, anchor, text) => {
    shape(root, "text", { x, y, "text-anchor": anchor }).textContent = text;
  };
  write(0, HEIGHT - 5, "start", t("ops.minutesAgo", 60));
  write(WIDTH, HEIGHT - 5, "end", t("ops.now"));
  write(2, 19, "start", most);
}
