// Elements without markup in strings: everything shown is text or a node, so nothing that a caller wrote can become HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Build an element. Of the properties, `class` and `text` are short for className and textContent, `on` maps event names to
 * listeners, `vars` sets CSS variables, names with a hyphen and `role` become attributes, all others become properties.
 * Children that are null or false are left out.
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "vars") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put other children into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Strokes on a 24 by 24 field.
const STROKES = {
  again: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  back: "M15 5l-7 7 7 7",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  compare: "M12 4v16M4 6h5v12H4zM15 6h5v12h-5z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  dice: "M4 4h16v16H4zM8.5 8.5h.01M15.5 15.5h.01M15.5 8.5h.01M8.5 15.5h.01M12 12h.01",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  floor: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  into: "M20 12H9M13 7.5L8.5 12l4.5 4.5M4.5 5v14",
  layers: "M12 4l9 5-9 5-9-5zM3 14l9 5 9-5",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7L12 7M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7L12 17",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  minus: "M5 12h14",
  next: "M9 5l7 7-7 7",
  plus: "M12 5v14M5 12h14",
  search: "M11 5a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM15.5 15.5L20 20",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  shuffle: "M4 7h3l10 10h3M4 17h3l3-3M14 10l3-3h3M18 4.5L20.5 7 18 9.5M18 14.5l2.5 2.5-2.5 2.5",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  unlock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 6.7-1.4",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
};

/** Draw one of the icons above. It says nothing by itself: its button carries the label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", STROKES[name]);
  svg.append(path);
  return svg;
}

/** Build a button that shows an icon and is called `label`, for the pointer as a tooltip and for screen readers. */
export function iconButton(name, label, onClick, properties = {}) {
  return h(
    "button",
    { type: "button", class: "icon-button", title: label, "aria-label": label, on: { click: onClick }, ...properties },
    icon(name),
  );
}

/** Build a plain button. */
export function button(label, onClick, properties = {}) {
  return h("button", { type: "button", class: "button", on: { click: onClick }, ...properties }, label);
}

/** Build a line or area from points of 0 to 1 in both directions, as an SVG path of a `width` by `height` field. */
export function svg(width, height, label) {
  const root = document.createElementNS(SVG, "svg");
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("role", "img");
  root.setAttribute("aria-label", label);
  return root;
}

/** Append a shape to an SVG root. */
export function shape(root, tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  root.append(element);
  return element;
}

/** Call `work` once at the end of a run of calls that lie less than `pause_ms` apart. */
export function settled(work, pause_ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), pause_ms);
  };
}
