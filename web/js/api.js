// The service's own HTTP API, as any other client would call it.

/** An answer that is an error. `code` is the stable word, `fields` the complaints about single fields. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `HTTP ${status}`);
    this.status = status;
    this.code = problem.code ?? "unknown";
    this.fields = problem.invalid_fields ?? [];
    this.retryAfter_s = problem.retry_after ?? 0;
  }
}

/** No answer at all. */
export class Unreachable extends Error {}

const TIMEOUT_MS = 20_000;

/** Turn an address that the API handed out into one of the origin that this page came from: a proxy may have two names. */
export function own(address) {
  const at = address.indexOf("/v1/");
  return at < 0 ? address : new URL(address.slice(at + 1), document.baseURI).href;
}

export class Api {
  /**
   * `session.token()` is sent when there is one; `session.ask(wasWrong)` must resolve to a new one when the server wants one.
   * `onReach(boolean)` is told whether the server answered.
   */
  constructor(session, onReach) {
    this.session = session;
    this.onReach = onReach;
    this.asking = null;
  }

  get(path) {
    return this.call("GET", path);
  }

  post(path, body, headers) {
    return this.call("POST", path, body, headers);
  }

  remove(path) {
    return this.call("DELETE", path);
  }

  /** Send a request and return its answer's JSON. Raises ApiError and Unreachable. */
  async call(method, path, body, headers = {}) {
    for (;;) {
      const token = this.session.token();
      try {
        return await this.send(method, path, body, headers, token);
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 401) throw error;
        // Another request may have got a new token meanwhile.
        if (token === this.session.token()) {
          this.asking ??= this.session.ask(Boolean(token)).finally(() => (this.asking = null));
          await this.asking;
        }
      }
    }
  }

  /** Live workers by model, or null when the server does not answer. Needs no token. */
  async health() {
    try {
      const response = await fetch(new URL("readyz", document.baseURI), {
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      this.onReach(true);
      return (await response.json()).workers ?? {};
    } catch {
      this.onReach(false); // whatever it was, the server's health is not known
      return null;
    }
  }

  async send(method, path, body, headers, token) {
    const all = { ...headers };
    if (token) all.Authorization = `Bearer ${token}`;
    if (body !== undefined) all["Content-Type"] = "application/json";
    const address = path.includes("/v1/") ? own(path) : new URL(`v1/${path}`, document.baseURI);
    let response;
    try {
      response = await fetch(address, {
        method,
        headers: all,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch (error) {
      this.onReach(false);
      throw new Unreachable(String(error), { cause: error });
    }
    // A proxy whose server is away answers in its place.
    this.onReach(![502, 504].includes(response.status));
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new ApiError(response.status, answer);
    return answer;
  }
}
