// Tables of the operators' page.

import { h } from "./dom.js";
import { t } from "./i18n.js";

/** A table that scrolls by itself where it is too wide; a cell is a text or a node. */
export function table(heads, rows) {
  return h(
    "div",
    { class: "scroll", tabIndex: 0 },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((head) => (head ? h("th", { scope: "col", text: head }) : h("td"))),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((cell) => h("td", {}, cell)),
          ),
        ),
      ),
    ),
  );
}

/** What stands where there is nothing to show. */
export function nothing(key) {
  return h("p", { class: "hint", text: t(key) });
}

/** A link to a tile in the Studio, by the start of its id or another word. */
export function tileLink(id, word) {
  return h(
    "a",
    { href: `./#tile=${id}`, title: id, data: { key: `tile ${id} ${word ?? ""}` } },
    word ?? h("code", { text: id.length > 12 ? `${id.slice(0, 10)}…` : id }),
  );
}
