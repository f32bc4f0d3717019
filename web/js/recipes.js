// Mixes to start from: one to three colours that go together, a hint of one colour in another, and every colour alone.

const MONO = ["black", "gray", "terracotta", "grass green", "blue", "sand"];
const DUO = [
  ["red", 50, "black", 50],
  ["blue", 60, "light gray", 40],
  ["grass green", 70, "yellow", 30],
  ["terracotta", 65, "sand", 35],
  ["dark gray", 80, "orange", 20],
  ["turquoise", 55, "white", 45],
];
const TRIO = [
  ["red", 50, "black", 30, "pearl", 20],
  ["blue", 40, "sky blue", 40, "white", 20],
  ["dark green", 50, "grass green", 30, "lime green", 20],
  ["brown", 45, "sand", 35, "beige", 20],
  ["dark gray", 60, "gray", 25, "yellow", 15],
  ["violet", 40, "lilac", 35, "pearl", 25],
];
const EDGE = [
  ["yellow", 1, "black", 99],
  ["red", 1, "gray", 99],
  ["white", 1, "dark blue", 99],
  ["black", 1, "beige", 99],
];

/** Groups of mixes, `[{name, mixes: Part[][]}]`, of the colours that a palette has. */
export function recipes(palette) {
  const groups = [
    { name: "mono", mixes: MONO.map((name) => [name, 100]) },
    { name: "duo", mixes: DUO },
    { name: "trio", mixes: TRIO },
    { name: "edge", mixes: EDGE },
    { name: "solos", mixes: palette.sorted().map((color) => [color.name, 100]) },
  ];
  return groups
    .map(({ name, mixes }) => ({ name, mixes: mixes.map((mix) => parts(mix, palette)).filter(Boolean) }))
    .filter(({ mixes }) => mixes.length);
}

function parts(mix, palette) {
  const found = [];
  for (let at = 0; at < mix.length; at += 2) {
    const color = palette.byName.get(mix[at]);
    if (!color) return null;
    found.push({ color, name: color.name, share: mix[at + 1] });
  }
  return found;
}
