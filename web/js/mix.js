// The mix a tile is ordered in, `50% red, 30% black, 20% pearl`: read as the server reads it, written, and kept at 100 percent.

export const SUM_TOLERANCE = 0.5;
export const COLORS_MAX = 5;

const SHARE = /^([+\-\u2212]?(?:[0-9]+(?:[.,][0-9]*)?|\.[0-9]+))\s*%\s*(.*)$/s;
const SECOND_SHARE = /[0-9]\s*%/;
const PIECE = /\s*(?:[+\-\u2212]?[0-9]+,[0-9]+\s*%)?[^,;]*/g;

/**
 * @typedef {{color: object|null, name: string, share: number, locked?: boolean}} Part one colour and its percent
 * @typedef {{key: string, given: any[]}} Remark what is wrong or odd: a key of the word list and what the text speaks of
 * @typedef {{parts: Part[], extras: string[], errors: Remark[], warnings: Remark[]}} Reading
 */

/**
 * Read a prompt. `parts` are its shares in the order written, `extras` its other words.
 * @returns {Reading}
 */
export function readMix(text, palette) {
  const cleaned = text
    .normalize("NFKC")
    .replace(/\p{Cf}/gu, "")
    .split(/\s+/)
    .join(" ")
    .trim();
  const pieces = (cleaned.match(PIECE) ?? []).map((piece) => piece.trim()).filter(Boolean);
  const reading = { parts: [], extras: [], errors: [], warnings: [] };
  if (pieces.length === 0) return { ...reading, errors: [remark("mix.empty")] };
  const alone = pieces.length === 1 && palette.find(pieces[0]);
  if (alone) return { ...reading, parts: [{ color: alone, name: alone.name, share: 100 }] };
  for (const piece of pieces) readPiece(piece, palette, reading);
  if (reading.parts.length) checkWhole(reading);
  return reading;
}

function readPiece(piece, palette, reading) {
  const match = SHARE.exec(piece);
  if (!match) {
    reading.extras.push(piece);
    reading.warnings.push(palette.find(piece) ? remark("mix.noShare", piece) : remark("mix.extra", piece));
    return;
  }
  const name = match[2].trim();
  const share = Math.round(Number(match[1].replace(",", ".").replace("\u2212", "-")) * 100) / 100;
  if (SECOND_SHARE.test(name)) reading.errors.push(remark("mix.noComma", piece));
  else if (!name.replace(/[\s_-]+/g, "")) reading.errors.push(remark("mix.noColor", piece));
  else if (share <= 0) reading.errors.push(remark("mix.tooSmall", piece));
  else if (share > 100) reading.errors.push(remark("mix.tooLarge", piece));
  else {
    const color = palette.find(name);
    if (!color) reading.warnings.push(remark("mix.unknown", name, palette.suggest(name)));
    reading.parts.push({ color, name: color ? color.name : name, share });
  }
}

function checkWhole(reading) {
  const seen = new Set();
  for (const part of reading.parts) {
    if (seen.has(part.name.toLowerCase())) reading.errors.push(remark("mix.twice", part.color?.label ?? part.name));
    seen.add(part.name.toLowerCase());
  }
  const total = Math.round(reading.parts.reduce((sum, part) => sum + part.share, 0) * 100) / 100;
  if (reading.errors.length === 0 && Math.abs(total - 100) > SUM_TOLERANCE) {
    reading.errors.push(
      remark(total < 100 ? "mix.missing" : "mix.tooMuch", Math.round(Math.abs(100 - total) * 100) / 100, total),
    );
  }
}

function remark(key, ...given) {
  return { key, given };
}

/** Write parts and further words as a prompt. */
export function writeMix(parts, palette, extras = []) {
  return [...parts.map((part) => `${part.share}% ${part.color ? palette.written(part.color) : part.name}`), ...extras].join(
    ", ",
  );
}

/**
 * Split percents among weights, each part at least 1 and whole but for one that takes the fraction, so that nothing is lost.
 * @returns {number[]}
 */
export function divide(percents, weights) {
  const total = Math.floor(percents + 1e-9);
  const sum = weights.reduce((one, other) => one + other, 0);
  const room = total - weights.length;
  const exact = weights.map((weight) => (sum > 0 ? (room * weight) / sum : room / weights.length));
  const shares = exact.map(Math.floor);
  const order = exact
    .map((value, index) => [value - shares[index], index])
    .sort((one, other) => other[0] - one[0] || one[1] - other[1]);
  const left = room - shares.reduce((one, other) => one + other, 0);
  for (const [, index] of order.slice(0, left)) shares[index] += 1;
  const largest = shares.indexOf(Math.max(...shares));
  return shares.map((share, index) => round(share + 1 + (index === largest ? percents - total : 0)));
}

/** What a part can have, given the locks of the others: [least, most] in percent. */
export function bounds(parts, index) {
  const others = parts.filter((_, at) => at !== index);
  const locked = others.filter((part) => part.locked).reduce((sum, part) => sum + part.share, 0);
  const free = others.filter((part) => !part.locked).length;
  const most = 100 - locked - free;
  return free === 0 ? [most, most] : [1, Math.max(1, most)];
}

/** Give one part a share; the others that are not locked make room in proportion, and the whole stays 100. */
export function setShare(parts, index, wanted) {
  const [least, most] = bounds(parts, index);
  const share = Math.min(most, Math.max(least, Math.round(wanted)));
  const free = parts.flatMap((part, at) => (at === index || part.locked ? [] : [at]));
  const locked = parts.reduce((sum, part, at) => (at !== index && part.locked ? sum + part.share : sum), 0);
  const divided = free.length
    ? divide(
        100 - locked - share,
        free.map((at) => parts[at].share),
      )
    : [];
  return parts.map((part, at) => {
    if (at === index) return { ...part, share: free.length ? share : round(100 - locked) };
    return part.locked ? part : { ...part, share: divided[free.indexOf(at)] };
  });
}

/** Add a colour: it takes an even part of what is not locked. The same parts come back where there is no room. */
export function addColor(parts, color) {
  const free = parts.filter((part) => !part.locked);
  const room = Math.round(free.reduce((sum, part) => sum + part.share, 0));
  if (parts.length === 0) return [{ color, name: color.name, share: 100, locked: false }];
  if (parts.length >= COLORS_MAX || room < free.length + 1) return parts;
  const added = [...parts, { color, name: color.name, share: room / (free.length + 1), locked: false }];
  return setShare(
    added.map((part) => (part.locked ? part : { ...part, share: Math.max(1, part.share) })),
    added.length - 1,
    room / (free.length + 1),
  );
}

/** Take a part out; the others that are not locked share what it had. With nobody to take it, all locks open. */
export function removePart(parts, index) {
  let rest = parts.filter((_, at) => at !== index);
  if (rest.length === 0) return parts;
  if (rest.every((part) => part.locked)) rest = rest.map((part) => ({ ...part, locked: false }));
  const free = rest.filter((part) => !part.locked);
  const locked = rest.reduce((sum, part) => (part.locked ? sum + part.share : sum), 0);
  const divided = divide(
    100 - locked,
    free.map((part) => part.share),
  );
  return rest.map((part) => (part.locked ? part : { ...part, share: divided[free.indexOf(part)] }));
}

function round(value) {
  return Math.round(value * 100) / 100;
}
