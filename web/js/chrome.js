// What both pages share: the header with health, language and theme, the question for a token, notices, the word about a
// server that does not answer.

import { Api } from "./api.js";
import { h, fill, icon, button, iconButton } from "./dom.js";
import { lang, t } from "./i18n.js";
import { LANGUAGES, THEMES, keepLanguage, keepTheme, keepToken, theme, token } from "./prefs.js";

const HEALTH_MS = 10_000;
const NOTICE_MS = 5000;
const NAMES = { en: "EN", ru: "RU" };

export class Chrome {
  /** `page` is "studio" or "operations". Fills the document's header and makes `api`. */
  constructor(page) {
    document.documentElement.lang = lang;
    document.title = page === "studio" ? t("title") : `${t("operations")} · Granule`;
    this.reached = true;
    this.notice = h("div", { class: "toast", role: "status", "aria-live": "polite" });
    this.banner = h("div", { class: "banner", role: "alert", hidden: true }, icon("warning"), t("offline.text"));
    this.health = h("span", { class: "health", role: "status" });
    this.api = new Api({ token, ask: (wrong) => this.askToken(wrong) }, (reached) => this.showReach(reached));
    this.workers = null;
    document.body.append(this.notice);
    fill(document.querySelector("header"), this.brand(page), this.health, this.switches());
    document.querySelector("header").after(this.banner);
    const skip = document.querySelector(".skip");
    if (skip) skip.textContent = t("skip");
    setInterval(() => {
      if (!document.hidden) this.checkHealth();
    }, HEALTH_MS);
  }

  brand(page) {
    const link = (name, href) => h("a", { href, text: t(name), "aria-current": name === page ? "page" : undefined });
    return [
      h(
        "a",
        { class: "brand", href: "./", "aria-label": "Granule" },
        h("span", { class: "mark", "aria-hidden": "true" }, h("i"), h("i"), h("i"), h("i")),
        h("span", { text: "Granule" }),
      ),
      h("nav", { "aria-label": "Granule" }, link("studio", "./"), link("operations", "./ops"), link("documentation", "./docs")),
    ];
  }

  switches() {
    const languages = h(
      "div",
      { class: "segments", role: "radiogroup", "aria-label": t("language") },
      LANGUAGES.flatMap((tag) => [
        h("input", {
          type: "radio",
          name: "language",
          id: `language-${tag}`,
          checked: tag === lang,
          "aria-label": t(`language.${tag}`),
          on: {
            change: () => {
              keepLanguage(tag);
              location.reload();
            },
          },
        }),
        h("label", { htmlFor: `language-${tag}`, title: t(`language.${tag}`), text: NAMES[tag] }),
      ]),
    );
    const themes = iconButton("theme", t(`theme.${theme()}`), () => {
      const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
      keepTheme(next);
      themes.title = t(`theme.${next}`);
      themes.setAttribute("aria-label", t(`theme.${next}`));
    });
    const forget = token()
      ? button(
          t("token.forget"),
          () => {
            keepToken("");
            location.reload();
          },
          { class: "button small quiet" },
        )
      : null;
    return h("div", { class: "switches" }, forget, languages, themes);
  }

  /** Ask who answers, and show it. */
  async checkHealth() {
    this.workers = await this.api.health();
    this.showHealth();
  }

  showHealth() {
    const ready = Object.values(this.workers ?? {}).reduce((sum, count) => sum + count, 0);
    const state = !this.reached || !this.workers ? "away" : ready ? "ok" : "none";
    this.health.dataset.state = state;
    this.health.textContent = t(`health.${state}`, ready);
  }

  showReach(reached) {
    if (reached === this.reached) return;
    this.reached = reached;
    this.banner.hidden = reached;
    this.showHealth();
    if (reached) document.dispatchEvent(new Event("granule:reached"));
    else setTimeout(() => this.checkHealth(), 2000);
  }

  /** Show a short notice. */
  say(text, wrong = false) {
    this.notice.textContent = text;
    this.notice.classList.toggle("wrong", wrong);
    this.notice.classList.add("shown");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.notice.classList.remove("shown"), NOTICE_MS);
  }

  /** Ask for a token until one is given. */
  askToken(wrong) {
    const input = h("input", { type: "password", id: "token", autocomplete: "off", required: true, spellcheck: false });
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "token-title", text: t("token.title") }),
      h("p", { text: t("token.text") }),
      wrong ? h("p", { class: "remark wrong" }, icon("warning"), t("token.wrong")) : null,
      h("label", { class: "label", htmlFor: "token", text: t("token.label") }),
      input,
      h("div", { class: "sheet-foot" }, h("button", { type: "submit", class: "button primary", text: t("token.use") })),
    );
    const dialog = h(
      "dialog",
      { class: "sheet small", "aria-labelledby": "token-title", on: { cancel: (event) => event.preventDefault() } },
      form,
    );
    document.body.append(dialog);
    dialog.showModal();
    return new Promise((resolve) => {
      form.addEventListener("submit", () => {
        keepToken(input.value.trim());
        dialog.remove();
        resolve();
      });
    });
  }

  /** Ask before something that cannot be undone. Resolves to true or false. */
  confirm(question, yes) {
    const dialog = h(
      "dialog",
      { class: "sheet small", "aria-label": question },
      h(
        "form",
        { method: "dialog" },
        h("p", { text: question }),
        h(
          "div",
          { class: "sheet-foot" },
          h("button", { class: "button", value: "no", text: t("cancel") }),
          h("button", { class: "button primary", value: "yes", text: yes }),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(dialog.returnValue === "yes");
      });
    });
  }
}
