// A sketch of a mix: granules as cells around scattered points, in the palette's colours and exact shares. It is what a card
// shows until the picture is there, and what the form answers with at once. It is not the model's work and does not claim to be.

import { rgb } from "./palette.js";

const UNKNOWN = "#9a958c";

/** Random numbers of 0 to 1 from a 32-bit seed (mulberry32). */
export function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function cells(parts, count, random) {
  const total = parts.reduce((sum, part) => sum + part.share, 0) || 1;
  const colors = [];
  let due = 0;
  for (const part of parts) {
    due += (part.share / total) * count;
    const value = rgb(part.color?.srgb ?? UNKNOWN);
    while (colors.length < Math.round(due)) colors.push(value);
  }
  for (let i = colors.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [colors[i], colors[j]] = [colors[j], colors[i]];
  }
  return colors.map((color) => {
    const light = 0.88 + random() * 0.2;
    return { x: 0.1 + random() * 0.8, y: 0.1 + random() * 0.8, color: color.map((value) => Math.min(255, value * light)) };
  });
}

/**
 * Draw a mix on a canvas.
 * @param {HTMLCanvasElement} canvas is made `size_px` wide and high
 * @param {{color: object|null, share: number}[]} parts
 * @param {{size_px?: number, across?: number, seed?: number}} options `across` is how many granules lie side by side
 */
export function drawSketch(canvas, parts, { size_px = 160, across = 26, seed = 7 } = {}) {
  canvas.width = canvas.height = size_px;
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(size_px, size_px);
  const points = cells(parts, across * across, randomFrom(seed));
  const scale = across / size_px;
  for (let y = 0, at = 0; y < size_px; y++) {
    for (let x = 0; x < size_px; x++, at += 4) {
      shadePixel(picture.data, at, x * scale, y * scale, points, across);
    }
  }
  pen.putImageData(picture, 0, 0);
}

function shadePixel(data, at, x, y, points, across) {
  const column = Math.floor(x);
  const row = Math.floor(y);
  let nearest = 9;
  let second = 9;
  let found = null;
  for (let dy = -1; dy <= 1; dy++) {
    for (let dx = -1; dx <= 1; dx++) {
      // The field is closed round its edges, so that no half granules are left there.
      const point = points[((row + dy + across) % across) * across + ((column + dx + across) % across)];
      const distance = (column + dx + point.x - x) ** 2 + (row + dy + point.y - y) ** 2;
      if (distance < nearest) [second, nearest, found] = [nearest, distance, point];
      else if (distance < second) second = distance;
    }
  }
  const gap = Math.sqrt(second) - Math.sqrt(nearest);
  const shade = gap < 0.16 ? 0.62 + gap * 2.2 : 1;
  for (let channel = 0; channel < 3; channel++) data[at + channel] = found.color[channel] * shade;
  data[at + 3] = 255;
}
