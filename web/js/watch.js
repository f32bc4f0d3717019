// Predictions that have not ended, followed until they have: by event stream for the one or two that are being drawn, by
// polling for all others and wherever a stream cannot be had.

import { ApiError, Unreachable, own } from "./api.js";

const TICK_MS = 1000;
const HIDDEN_TICK_MS = 5000;
const BACKOFF_MAX_MS = 10_000;
/** Each poll is a request: with many jobs waiting the rest take turns. */
const POLLS_A_TICK = 4;
/** A browser opens six connections to one server; streams must leave room for everything else. */
const STREAMS_MAX = 2;
const STREAMS_LOCK = "granule.streams";
const STEP = /(\d+)\/(\d+)/g;

const ENDED = new Set(["succeeded", "failed", "canceled"]);

export function hasEnded(prediction) {
  return ENDED.has(prediction.status);
}

export class Watch {
  /** `onChange(prediction)` gets every version of a prediction that is followed; `onGone(id)` those that are not there any more. */
  constructor(api, onChange, onGone) {
    this.api = api;
    this.onChange = onChange;
    this.onGone = onGone;
    this.live = new Map();
    this.streams = new Map();
    this.mayStream = false;
    this.failures = 0;
    // Of all tabs only the first one streams: a stream keeps a connection, and the browser shares six of them among all tabs.
    navigator.locks?.request(STREAMS_LOCK, () => {
      this.mayStream = true;
      return new Promise(() => {});
    });
    addEventListener("pagehide", () => this.closeStreams());
    addEventListener("online", () => this.soon());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.soon();
    });
  }

  /** Follow a prediction until it has ended. */
  follow(prediction) {
    if (hasEnded(prediction)) return;
    this.live.set(prediction.id, prediction);
    this.soon();
  }

  forget(id) {
    this.live.delete(id);
    this.closeStream(id);
  }

  soon(delay_ms = 0) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tick(), delay_ms);
  }

  async tick() {
    if (this.ticking || this.live.size === 0) return;
    this.ticking = true;
    try {
      const answers = await Promise.all(this.due().map((id) => this.poll(id)));
      this.failures = answers.includes(false) ? this.failures + 1 : 0;
    } finally {
      this.ticking = false;
    }
    this.openStreams();
    const pause_ms = document.hidden ? HIDDEN_TICK_MS : TICK_MS;
    if (this.live.size) this.soon(Math.min(pause_ms * 2 ** this.failures, Math.max(pause_ms, BACKOFF_MAX_MS)));
  }

  /** The predictions to ask about now: those that are drawn without a stream first, then the others in turn. */
  due() {
    const open = [...this.live.values()].filter(({ id }) => !this.streams.has(id));
    const [drawn, waiting] = [open.filter(isDrawn), open.filter((prediction) => !isDrawn(prediction))];
    const chosen = [...drawn, ...waiting].slice(0, POLLS_A_TICK).map(({ id }) => id);
    for (const id of chosen) {
      const prediction = this.live.get(id);
      this.live.delete(id);
      this.live.set(id, prediction);
    }
    return chosen;
  }

  /** Ask about one prediction. False: the server could not say. */
  async poll(id) {
    try {
      this.update(await this.api.get(`predictions/${encodeURIComponent(id)}`));
      return true;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) {
        this.forget(id);
        this.onGone(id);
        return true;
      }
      if (error instanceof ApiError || error instanceof Unreachable) return false;
      throw error;
    }
  }

  update(prediction) {
    const followed = this.live.has(prediction.id);
    if (hasEnded(prediction)) this.forget(prediction.id);
    else if (followed) this.live.set(prediction.id, prediction);
    if (followed) this.onChange(prediction);
  }

  openStreams() {
    if (!this.mayStream || document.hidden) return;
    for (const prediction of this.live.values()) {
      if (this.streams.size >= STREAMS_MAX) return;
      if (isDrawn(prediction) && prediction.urls.stream && !this.streams.has(prediction.id)) this.openStream(prediction);
    }
  }

  openStream({ id, urls }) {
    const stream = new EventSource(own(urls.stream));
    this.streams.set(id, stream);
    stream.addEventListener("logs", (event) => this.advance(id, event.data));
    stream.addEventListener("done", () => this.finish(id));
    // The server's own `error` event has data; without data it is the connection's, and the browser tries again by itself
    // unless the stream was refused.
    stream.addEventListener("error", (event) => {
      if (event.data === undefined && stream.readyState === EventSource.CLOSED) {
        this.closeStream(id);
        this.mayStream = false;
        setTimeout(() => (this.mayStream = true), BACKOFF_MAX_MS);
      } else if (event.data === undefined) {
        this.api.health(); // which tells the reader when the server is away
      }
    });
  }

  advance(id, text) {
    const prediction = this.live.get(id);
    const last = [...text.matchAll(STEP)].at(-1);
    if (!prediction || !last) return;
    const [step, steps] = [Number(last[1]), Number(last[2])];
    const left_s = prediction.eta_s === null ? null : Math.max(0, prediction.eta_s * (1 - step / steps));
    const logs = prediction.logs + text;
    this.update({ ...prediction, logs, progress: { step, steps, fraction: step / steps }, eta_left_s: left_s });
  }

  finish(id) {
    this.closeStream(id);
    this.poll(id).then(() => this.soon(TICK_MS));
  }

  closeStream(id) {
    this.streams.get(id)?.close();
    this.streams.delete(id);
  }

  closeStreams() {
    for (const id of [...this.streams.keys()]) this.closeStream(id);
  }
}

function isDrawn(prediction) {
  return prediction.status === "processing";
}
