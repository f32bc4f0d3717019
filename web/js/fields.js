// The rest of an order's input, built from what the model's own schema says of it: a field that a model has is shown, one that
// it has not is not.

import { h, fill, icon, iconButton } from "./dom.js";
import { knows, lang, t } from "./i18n.js";

const SEED_MAX = 2 ** 32 - 1;
/** Fields that need no explanation. */
const PLAIN = ["output_format"];
/** What stands in front, in this order; the rest follows under "more options". */
const FIRST = ["seed", "output_format", "guidance_mode", "num_candidates"];
/** What is on here though the API leaves it off: whoever orders on this page watches. */
const ON = ["preview"];
const ELSEWHERE = ["prompt"];
const SAME_AS_ANOTHER = { output_format: ["jpeg"] };
/** Whole numbers of so few values are shown as a choice. */
const CHOICE_MAX = 6;

/** A random seed as the server would choose it. */
export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

function label(name, schema) {
  return knows(`field.${name}`) ? t(`field.${name}`) : (schema.title ?? name);
}

function hint(name, schema) {
  if (knows(`field.${name}.hint`)) return t(`field.${name}.hint`);
  return lang === "en" ? (schema.description ?? "") : "";
}

function optionLabel(name, option) {
  if (option === undefined) return t("field.unset");
  return knows(`field.${name}.${option}`) ? t(`field.${name}.${option}`) : String(option);
}

/** Follow a reference inside a model's document. */
function resolved(schema, document) {
  const reference = schema.$ref ?? schema.allOf?.[0]?.$ref;
  if (!reference) return schema;
  const target = reference
    .replace("#/", "")
    .split("/")
    .reduce((found, key) => found?.[key], document);
  return { ...target, ...schema };
}

export class Fields {
  /** `document` is the `openapi_schema` of a model's version; `onChange()` is called when a value changes. */
  constructor(document, onChange) {
    this.onChange = onChange;
    this.fields = new Map();
    const properties = document.components.schemas.Input.properties;
    for (const [name, given] of Object.entries(properties)) {
      if (ELSEWHERE.includes(name)) continue;
      const field = this.build(name, resolved(given, document));
      if (field) this.fields.set(name, field);
    }
    const first = FIRST.filter((name) => this.fields.has(name));
    this.front = first.map((name) => this.fields.get(name).element);
    this.rest = [...this.fields].filter(([name]) => !first.includes(name)).map(([, field]) => field.element);
    this.fields.get("output_format")?.watch?.(() => this.showQuality());
    this.showQuality();
  }

  /** What was chosen. Fields left at "the model's own" are not sent. */
  values() {
    const chosen = {};
    for (const [name, field] of this.fields) {
      const value = field.get();
      if (value !== undefined && !field.element.hidden) chosen[name] = value;
    }
    return chosen;
  }

  /** Take over the input of an order. */
  set(input) {
    for (const [name, field] of this.fields) if (name in input) field.set(input[name]);
    this.showQuality();
  }

  /** After an order: a seed that was not locked changes. */
  roll() {
    this.fields.get("seed")?.roll?.();
  }

  get seedKept() {
    return this.fields.get("seed")?.kept() ?? false;
  }

  /** Show complaints of the server, `[{field, description}]`; returns those about fields that are not here. */
  showErrors(complaints) {
    for (const field of this.fields.values()) field.complain("");
    return complaints.filter(({ field, description }) => {
      const found = this.fields.get(field.replace(/^input\./, ""));
      found?.complain(description);
      return !found;
    });
  }

  showQuality() {
    const quality = this.fields.get("output_quality");
    if (quality) quality.element.hidden = this.fields.get("output_format")?.get() === "png";
  }

  build(name, schema) {
    if (name === "seed") return this.seed(schema);
    if (schema.enum) return this.choice(name, schema, schema.enum);
    if (schema.type === "boolean") return this.flag(name, schema);
    if (schema.type === "integer" && schema.maximum - schema.minimum < CHOICE_MAX) {
      const { minimum, maximum } = schema;
      return this.choice(
        name,
        schema,
        Array.from({ length: maximum - minimum + 1 }, (_, at) => minimum + at),
      );
    }
    if (schema.type === "integer" || schema.type === "number") return this.amount(name, schema);
    if (schema.type === "array" && ["integer", "number"].includes(schema.items?.type)) return this.series(name, schema);
    if (schema.type === "string") return this.words(name, schema);
    return null;
  }

  frame(name, schema, control, id = `field-${name}`) {
    const error = h("p", { class: "remark wrong", id: `${id}-error`, hidden: true });
    const about = hint(name, schema);
    const element = h(
      "div",
      { class: "field" },
      h("label", { class: "label", htmlFor: id, text: label(name, schema) }),
      control,
      about ? h("p", { class: "hint", id: `${id}-hint`, text: about }) : null,
      error,
    );
    const input = control.id === id ? control : control.querySelector(`#${id}`);
    input?.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
    const complain = (text) => {
      error.hidden = !text;
      fill(error, text ? icon("warning") : null, text);
      input?.setAttribute("aria-invalid", String(Boolean(text)));
    };
    return { element, complain };
  }

  seed(schema) {
    let kept = false;
    const input = h("input", {
      type: "number",
      id: "field-seed",
      min: 0,
      max: schema.maximum ?? SEED_MAX,
      step: 1,
      value: newSeed(),
      on: { change: this.onChange },
    });
    const keep = iconButton("unlock", "", () => show(!kept));
    const roll = () => {
      if (!kept) input.value = newSeed();
    };
    const dice = iconButton("dice", t("seed.dice"), () => {
      input.value = newSeed();
      this.onChange();
    });
    const show = (value) => {
      kept = value;
      keep.title = t(kept ? "seed.release" : "seed.keep");
      keep.setAttribute("aria-label", t("seed.keep"));
      keep.setAttribute("aria-pressed", String(kept));
      fill(keep, icon(kept ? "lock" : "unlock"));
      this.onChange();
    };
    const framed = this.frame("seed", schema, h("div", { class: "joined" }, input, dice, keep));
    keep.setAttribute("aria-pressed", "false");
    keep.setAttribute("aria-label", t("seed.keep"));
    keep.title = t("seed.keep");
    return {
      ...framed,
      roll,
      kept: () => kept,
      get: () => (input.value === "" ? undefined : Number(input.value)),
      set: (value) => {
        if (value !== null && value !== -1) {
          input.value = value;
          show(true);
        }
      },
    };
  }

  choice(name, schema, values) {
    const options = values.filter((option) => !SAME_AS_ANOTHER[name]?.includes(option));
    if (schema.nullable && (schema.default ?? null) === null) options.unshift(undefined);
    if (options.length < 2) return null;
    const watchers = [];
    const radios = options.map((option, at) =>
      h("input", {
        type: "radio",
        name: `field-${name}`,
        id: `field-${name}-${at}`,
        checked: option === (schema.default ?? undefined),
        on: {
          change: () => {
            watchers.forEach((watcher) => watcher());
            this.onChange();
          },
        },
      }),
    );
    const group = h(
      "div",
      { class: "segments", role: "radiogroup", "aria-labelledby": `field-${name}-label` },
      radios.flatMap((radio, at) => [radio, h("label", { htmlFor: radio.id, text: optionLabel(name, options[at]) })]),
    );
    const error = h("p", { class: "remark wrong", hidden: true });
    const about = hint(name, schema);
    const element = h(
      "div",
      { class: "field" },
      h("span", { class: "label", id: `field-${name}-label`, text: label(name, schema) }),
      group,
      about && !PLAIN.includes(name) ? h("p", { class: "hint", text: about }) : null,
      error,
    );
    return {
      element,
      complain: (text) => {
        error.hidden = !text;
        error.textContent = text;
      },
      watch: (watcher) => watchers.push(watcher),
      get: () => options[radios.findIndex((radio) => radio.checked)],
      set: (value) =>
        radios.forEach((radio, at) => {
          radio.checked = options[at] === (value ?? undefined);
        }),
    };
  }

  flag(name, schema) {
    const id = `field-${name}`;
    const box = h("input", {
      type: "checkbox",
      role: "switch",
      id,
      checked: schema.default === true || ON.includes(name),
      on: { change: this.onChange },
    });
    const error = h("p", { class: "remark wrong", hidden: true });
    const element = h(
      "div",
      { class: "field flag" },
      box,
      h(
        "label",
        { htmlFor: id },
        h("span", { class: "label", text: label(name, schema) }),
        h("span", { class: "hint", text: hint(name, schema) }),
      ),
      error,
    );
    return {
      element,
      complain: (text) => {
        error.hidden = !text;
        error.textContent = text;
      },
      // Off is "the model's own" where a model has a word in it.
      get: () => (box.checked || !schema.nullable ? box.checked : undefined),
      set: (value) => {
        box.checked = value === true;
      },
    };
  }

  amount(name, schema) {
    const input = h("input", {
      type: "number",
      id: `field-${name}`,
      min: schema.minimum,
      max: schema.maximum,
      step: schema.type === "integer" ? 1 : "any",
      value: schema.default ?? "",
      placeholder: schema.nullable ? t("field.unset") : "",
      on: { change: this.onChange },
    });
    return {
      ...this.frame(name, schema, input),
      get: () => (input.value === "" ? undefined : Number(input.value)),
      set: (value) => {
        input.value = value ?? "";
      },
    };
  }

  /** Numbers with commas between them. */
  series(name, schema) {
    const input = h("input", {
      type: "text",
      id: `field-${name}`,
      inputMode: "numeric",
      value: (schema.default ?? []).join(", "),
      on: { change: this.onChange },
    });
    return {
      ...this.frame(name, schema, input),
      get: () => {
        const written = input.value.split(/[\s,;]+/).filter(Boolean);
        return written.length ? written.map(Number) : undefined;
      },
      set: (value) => {
        input.value = (value ?? []).join(", ");
      },
    };
  }

  words(name, schema) {
    const input = h("textarea", {
      id: `field-${name}`,
      rows: 2,
      maxLength: schema.maxLength ?? 2000,
      value: schema.default ?? "",
      placeholder: schema.nullable ? t("field.unset") : "",
      on: { change: this.onChange },
    });
    return {
      ...this.frame(name, schema, input),
      get: () => (input.value.trim() === "" ? undefined : input.value.trim()),
      set: (value) => {
        input.value = value ?? "";
      },
    };
  }
}
