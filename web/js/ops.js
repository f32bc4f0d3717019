// The operators' page: whether all is well, at a glance, and the few things that are mended by hand.

import { ApiError } from "./api.js";
import { Chrome } from "./chrome.js";
import { h, fill, button } from "./dom.js";
import { alsoSpeak, complaint, duration, moment, number, percent, t } from "./i18n.js";
import { deadLetters } from "./dead-letters.js";
import { columns, spreads } from "./plots.js";
import { nothing, table, tileLink } from "./tables.js";

const REFRESH_MS = 3000;
const OLD_S = 60;
const SILENT_S = 10;
const TAKES_JOBS = ["idle", "busy"];
const GIB = 2 ** 30;

/** A GPU's memory: a bar of what is taken, and the most that the worker ever took; nothing on a CPU. */
function memory(told) {
  if (!told) return "–";
  const gib = (bytes) => number(Math.round((bytes / GIB) * 10) / 10);
  const taken = told.total_bytes - told.free_bytes;
  return h(
    "span",
    { class: "memory", title: t("ops.memoryPeak", gib(told.peak_bytes)) },
    h("i", { "aria-hidden": "true", vars: { "--taken": String(taken / told.total_bytes) } }),
    t("ops.memoryOf", gib(taken), gib(told.total_bytes)),
    h("span", { class: "hint", text: ` ${t("ops.memoryPeak", gib(told.peak_bytes))}` }),
  );
}

class Ops {
  constructor() {
    this.chrome = new Chrome("operations");
    this.api = this.chrome.api;
    this.main = document.querySelector("main");
    this.parts = Object.fromEntries(
      ["tiles", "minutes", "times", "workers", "queues", "running", "models", "failures", "dead"].map((name) => [
        name,
        h("div", { class: `part ${name}` }),
      ]),
    );
  }

  async start() {
    await this.chrome.checkHealth();
    this.lay();
    await this.refresh();
    setInterval(() => {
      if (!document.hidden) this.refresh();
    }, REFRESH_MS);
    document.addEventListener("granule:reached", () => this.refresh());
  }

  lay() {
    const section = (name, title) =>
      h(
        "section",
        { "aria-labelledby": `ops-${name}`, class: `panel ${name}` },
        h("h2", { id: `ops-${name}`, text: t(title) }),
        this.parts[name],
      );
    this.stamp = h("span", { class: "hint" });
    fill(
      this.main,
      h("div", { class: "ops-head" }, h("h1", { text: t("operations") }), this.stamp),
      this.parts.tiles,
      h(
        "div",
        { class: "panels" },
        section("minutes", "ops.minutes"),
        section("times", "ops.times"),
        section("workers", "ops.workers"),
        section("queues", "ops.queues"),
        section("running", "ops.jobs"),
        section("models", "ops.hour"),
        section("failures", "ops.failures"),
        section("dead", "ops.dead"),
      ),
    );
  }

  async refresh() {
    if (this.loading) return;
    this.loading = true;
    try {
      const [overview, dead] = await Promise.all([this.api.get("overview"), this.api.get("dead-letters")]);
      this.show(overview, dead);
    } catch (error) {
      // What was shown stays; the banner tells when the server is away.
      if (error instanceof ApiError)
        fill(
          this.main,
          h(
            "div",
            { class: "welcome" },
            h("h2", { text: complaint(error) }),
            h("p", { text: error.status === 403 ? t("ops.admin") : "" }),
          ),
        );
      if (error instanceof TypeError) throw error;
    } finally {
      this.loading = false;
    }
  }

  show(overview, dead) {
    const focused = document.activeElement?.dataset.key;
    this.showAll(overview, dead);
    if (focused) this.main.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  showAll(overview, dead) {
    this.stamp.textContent = t("ops.stamp", moment(new Date().toISOString()));
    this.showTiles(overview);
    fill(
      this.parts.minutes,
      columns(
        overview.per_minute,
        t(
          "ops.minutesLabel",
          overview.per_minute.reduce((sum, count) => sum + count, 0),
        ),
      ),
    );
    fill(this.parts.times, spreads(overview.totals, t("ops.timesLabel")));
    this.showWorkers(overview.workers);
    this.showQueues(overview.queues);
    this.showJobs(overview);
    this.showModels(overview.models);
    fill(
      this.parts.failures,
      overview.failures.length
        ? table(
            [t("ops.code"), t("ops.count")],
            overview.failures.map(({ code, count }) => [h("code", { text: code }), number(count)]),
          )
        : nothing("ops.noFailures"),
    );
    fill(
      this.parts.dead,
      deadLetters(dead, this.api, (work) => this.act(work)),
    );
  }

  showTiles({
    queues,
    running,
    workers,
    models,
    deliveries_pending: pending,
    deliveries_dead: deadDeliveries,
    predictions_dead: deadJobs,
  }) {
    const waiting = queues.reduce((sum, line) => sum + line.waiting, 0);
    const oldest_s = Math.max(0, ...queues.map((line) => line.oldest_s ?? 0));
    const sum = (name) => models.reduce((total, model) => total + model[name], 0);
    const dead = deadDeliveries + deadJobs;
    const ready = workers.filter(({ state }) => TAKES_JOBS.includes(state));
    const tile = (title, value, note, state = "") =>
      h(
        "div",
        { class: `figure ${state}` },
        h("span", { class: "figure-title", text: title }),
        h("strong", { text: value }),
        h("span", { class: "hint", text: note }),
      );
    fill(
      this.parts.tiles,
      tile(
        t("ops.workersReady"),
        number(ready.length),
        ready.length ? t("ops.busy", ready.filter(({ state }) => state === "busy").length) : t("health.none"),
        ready.length ? "" : "bad",
      ),
      tile(
        t("ops.waiting"),
        number(waiting),
        waiting ? t("ops.oldest", duration(oldest_s)) : t("ops.nobodyWaits"),
        oldest_s > OLD_S ? "fair" : "",
      ),
      tile(t("ops.running"), number(running.length), ""),
      tile(t("ops.succeeded"), number(sum("succeeded")), t("ops.lastHour")),
      tile(t("ops.failed"), number(sum("failed")), t("ops.lastHour"), sum("failed") ? "bad" : ""),
      tile(t("ops.deliveries"), number(pending), dead ? t("ops.deadCount", number(dead)) : t("ops.noDead"), dead ? "bad" : ""),
    );
  }

  showWorkers(workers) {
    fill(
      this.parts.workers,
      workers.length
        ? table(
            [
              t("ops.worker"),
              t("look.model"),
              t("ops.device"),
              t("ops.state"),
              t("ops.workerDuty"),
              t("ops.memory"),
              t("ops.silence"),
              "",
            ],
            workers.map((worker) => [
              h("code", { text: worker.name }),
              worker.model,
              worker.device || "–",
              this.standing(worker),
              worker.duty === null ? "–" : percent(Math.round(worker.duty * 100)),
              memory(worker.memory),
              h("span", { class: worker.silence_s > SILENT_S ? "bad" : "", text: duration(worker.silence_s) }),
              this.drain(worker),
            ]),
          )
        : nothing("ops.noWorkers"),
    );
  }

  standing({ state, prediction }) {
    const word = t(`ops.worker.${state}`);
    return h("span", { class: `badge ${state}` }, prediction ? tileLink(prediction, word) : word);
  }

  /** The button that drains a worker, or resumes it. */
  drain({ name, state }) {
    const action = ["draining", "drained"].includes(state) ? "resume" : "drain";
    return button(t(`ops.${action}`), () => this.act(() => this.api.post(`workers/${encodeURIComponent(name)}/${action}`)), {
      class: "button small",
      title: action === "drain" ? t("ops.drainHint") : "",
      "aria-label": `${t(`ops.${action}`)} ${name}`,
      data: { key: `drain ${name}` },
    });
  }

  showQueues(queues) {
    const models = [...new Set(queues.map(({ model }) => model))];
    const lanes = [...new Set(queues.map(({ lane }) => lane))];
    const cell = (model, lane) => {
      const line = queues.find((one) => one.model === model && one.lane === lane);
      return line.waiting
        ? h(
            "span",
            { class: line.oldest_s > OLD_S ? "fair" : "" },
            h("strong", { text: number(line.waiting) }),
            ` ${t("ops.oldest", duration(line.oldest_s))}`,
          )
        : h("span", { class: "hint", text: "0" });
    };
    fill(
      this.parts.queues,
      table(
        [t("look.model"), ...lanes.map((lane) => t(`ops.lane.${lane}`))],
        models.map((model) => [model, ...lanes.map((lane) => cell(model, lane))]),
      ),
    );
  }

  showJobs({ running, queues }) {
    const cancel = (id) =>
      button(t("watch.cancel"), () => this.act(() => this.api.post(`predictions/${id}/cancel`)), {
        class: "button small",
        "aria-label": `${t("watch.cancel")} ${id}`,
        data: { key: `cancel ${id}` },
      });
    const drawn = running.map((job) => [
      tileLink(job.prediction),
      job.tenant,
      t("watch.step", job.step, job.steps),
      duration(job.running_s),
      cancel(job.prediction),
    ]);
    const waiting = queues.flatMap((line) =>
      line.next.map((job) => [
        tileLink(job.prediction),
        job.tenant,
        t(`ops.lane.${line.lane}`),
        duration(job.waited_s),
        cancel(job.prediction),
      ]),
    );
    fill(
      this.parts.running,
      drawn.length + waiting.length
        ? table([t("look.id"), t("ops.tenant"), t("ops.state"), t("ops.since"), ""], [...drawn, ...waiting])
        : nothing("ops.noJobs"),
    );
  }

  showModels(models) {
    const spread = ({ p50_s: half, p95_s: most }) =>
      half === null
        ? h("span", { class: "hint", text: "–" })
        : h("span", {}, h("strong", { text: duration(half) }), h("span", { class: "hint", text: ` / ${duration(most)}` }));
    fill(
      this.parts.models,
      table(
        [
          t("look.model"),
          t("ops.succeeded"),
          t("ops.failed"),
          t("ops.canceled"),
          t("ops.wait"),
          t("ops.draw"),
          t("ops.total"),
          t("ops.duty"),
        ],
        models.map((model) => [
          model.model,
          number(model.succeeded),
          number(model.failed),
          number(model.canceled),
          spread(model.wait),
          spread(model.draw),
          spread(model.total),
          model.busy === null ? "–" : percent(Math.round(model.busy * 100)),
        ]),
      ),
      h("p", { class: "hint", text: t("ops.spread") }),
    );
  }

  /** Mend something, and say when the server refuses. */
  async act(work) {
    try {
      await work();
      this.chrome.say(t("ops.done"));
      await this.refresh();
    } catch (error) {
      this.chrome.say(complaint(error), true);
    }
  }
}

await alsoSpeak("ops");
await new Ops().start();
