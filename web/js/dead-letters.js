// Dead letters: webhook messages that were given up, and predictions over which workers died.

import { button, h } from "./dom.js";
import { number, t } from "./i18n.js";
import { nothing, table, tileLink } from "./tables.js";

/** What was given up, each with a button to set it off again; `act(work)` does that and says what came of it. */
export function deadLetters({ delivery_count: deliveryCount, deliveries, prediction_count: jobCount, predictions }, api, act) {
  const redeliver = ({ prediction, number: count }) =>
    button(t("ops.redeliver"), () => act(() => api.post(`predictions/${prediction}/deliveries/${count}/redeliver`)), {
      class: "button small",
      data: { key: `redeliver ${prediction} ${count}` },
    });
  const requeue = (id) =>
    button(t("ops.requeue"), () => act(() => api.post(`dead-letters/predictions/${id}/requeue`)), {
      class: "button small",
      data: { key: `requeue ${id}` },
    });
  if (!deliveryCount && !jobCount) return nothing("ops.noDead");
  return h(
    "div",
    { class: "part" },
    deliveryCount
      ? [
          h(
            "div",
            { class: "ops-head" },
            h("h3", { text: t("ops.deadDeliveries", number(deliveryCount)) }),
            button(t("ops.redeliverAll"), () => act(() => api.post("dead-letters/deliveries/redeliver")), {
              class: "button small",
              data: { key: "redeliver" },
            }),
          ),
          table(
            [t("look.id"), t("ops.event"), t("ops.receiver"), t("ops.lastTry"), ""],
            deliveries.map((one) => [
              tileLink(one.prediction),
              one.event,
              h("code", { text: one.url }),
              one.tries.at(-1)?.note ?? "–",
              redeliver(one),
            ]),
          ),
        ]
      : null,
    jobCount
      ? [
          h("h3", { text: t("ops.deadJobs", number(jobCount)) }),
          table(
            [t("look.id"), ""],
            predictions.map((id) => [tileLink(id), requeue(id)]),
          ),
        ]
      : null,
  );
}
