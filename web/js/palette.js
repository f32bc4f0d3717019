// The colours of one model, as the API lists them.

/** Reduce a colour's name to the form in which names are compared, as the server does. */
export function fold(text) {
  return text
    .normalize("NFKC")
    .toLowerCase()
    .replaceAll("ё", "е")
    .replace(/[\s_-]+/g, "");
}

/** Red, green, blue of `#RRGGBB`, 0 to 255. */
export function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** Relative luminance of WCAG, 0 to 1. */
export function luminance(hex) {
  const [r, g, b] = rgb(hex).map((value) => (value <= 10 ? value / 3294 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** The better readable of black and white on a colour. */
export function ink(hex) {
  return luminance(hex) > 0.179 ? "#000" : "#fff";
}

function hueOrder(color) {
  const [r, g, b] = rgb(color.srgb);
  const high = Math.max(r, g, b);
  const spread = high - Math.min(r, g, b);
  // Whites to blacks come first, then round the circle from red.
  if (spread < 28) return -high;
  const sixth = high === r ? ((g - b) / spread + 6) % 6 : high === g ? (b - r) / spread + 2 : (r - g) / spread + 4;
  return 1000 + ((sixth * 60 + 20) % 360);
}

function distance(one, other) {
  let row = [...other].map((_, index) => index + 1);
  for (let i = 0; i < one.length; i++) {
    let corner = i;
    let left = i + 1;
    row = row.map((above, j) => {
      const value = Math.min(above + 1, left + 1, corner + (one[i] === other[j] ? 0 : 1));
      corner = above;
      left = value;
      return value;
    });
  }
  return row.at(-1) ?? one.length;
}

export class Palette {
  constructor(colors, lang) {
    this.colors = colors.map((color) => ({ ...color, label: lang === "ru" ? color.name_ru : capital(color.name) }));
    this.lang = lang;
    this.bySpelling = new Map(this.colors.flatMap((color) => color.spellings.map((spelling) => [spelling, color])));
    this.byName = new Map(this.colors.map((color) => [color.name, color]));
  }

  /** All colours as they look best side by side. */
  sorted() {
    return [...this.colors].sort((one, other) => hueOrder(one) - hueOrder(other));
  }

  /** The colour that a text spells, or null. */
  find(text) {
    return this.bySpelling.get(fold(text)) ?? null;
  }

  /** How a colour is written in a mix, in the page's language. */
  written(color) {
    return this.lang === "ru" ? color.name_ru.toLowerCase() : color.name;
  }

  /** Up to four colours that an unknown text may have meant. */
  suggest(text) {
    const wanted = fold(text);
    const parts = text
      .toLowerCase()
      .replaceAll("ё", "е")
      .split(/[\s_-]+/)
      .filter(Boolean);
    const near = this.colors.filter((color) => color.near.includes(wanted));
    const shared = this.colors.filter((color) =>
      `${color.name} ${color.name_ru.toLowerCase()}`.split(/[\s-]/).some((word) => parts.includes(word)),
    );
    const alike = this.colors.filter((color) =>
      color.spellings.some((spelling) => distance(wanted, spelling) <= (wanted.length > 5 ? 2 : 1)),
    );
    return [near, shared, alike].find((found) => found.length)?.slice(0, 4) ?? [];
  }
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
