/**
 * The service's HTTP API, as the page calls it.
 *
 * Does not depend on the document. Invariant: the API key is in this object's memory and nowhere
 * else: not in storage, a cookie, an address or the copied code.
 */

/** The service's own address, with the path that a proxy may have put before it. */
export const SERVICE = new URL("..", import.meta.url);
const KEY = /^[\x21-\x7e]{1,1024}$/;

/** An answer that is not a success, or none at all (status 0). */
export class Refused extends Error {
  constructor({ status, code, message, places = [], requestId = "", retryAfter = null }) {
    super(message);
    this.status = status;
    this.code = code;
    this.places = places;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }
}

export class Service {
  #key = "";

  get hasKey() {
    return this.#key !== "";
  }

  /** Use an API key from now on; returns whether it can be one. */
  useKey(key) {
    const isKey = KEY.test(key);
    if (isKey) this.#key = key;
    return isKey;
  }

  forgetKey() {
    this.#key = "";
  }

  async info() {
    return (await this.#call("info")).body;
  }

  /** Names of the models that the caller may use, aliases with what they stand for. */
  async models() {
    return (await this.#call("v1/models")).body.data;
  }

  /**
   * Rank the documents of a request, given as JSON text.
   *
   * Returns `{answer, stages, milliseconds}`: stages as the service measured them, milliseconds as
   * this page did.
   */
  async rerank(json, signal) {
    const started = performance.now();
    const { body, headers } = await this.#call("rerank", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: json,
      signal,
    });
    const stages = stagesOf(headers.get("server-timing") ?? "");
    return { answer: body, stages, milliseconds: performance.now() - started };
  }

  async #call(path, { headers = {}, ...options } = {}) {
    const authorization = this.#key ? { authorization: `Bearer ${this.#key}` } : {};
    let response;
    let text;
    try {
      response = await fetch(new URL(path, SERVICE), {
        ...options,
        headers: { ...headers, ...authorization },
        cache: "no-store",
        credentials: "omit",
      });
      text = await response.text();
    } catch (failure) {
      if (failure.name === "AbortError") throw failure;
      throw new Refused({
        status: 0,
        code: "no_answer",
        message: "The service did not answer. It may have stopped, or the network is away.",
      });
    }

    const body = parsed(text);
    if (response.ok && body !== null) return { body, headers: response.headers };
    throw refusal(response, body);
  }
}

/** The stages of a `Server-Timing` header: `[{name, milliseconds}]`. */
export function stagesOf(header) {
  const stages = [];
  for (const entry of header.split(",")) {
    const [name, ...parameters] = entry.split(";").map((part) => part.trim());
    const duration = parameters.find((parameter) => parameter.startsWith("dur="));
    if (name && duration) stages.push({ name, milliseconds: Number(duration.slice(4)) });
  }
  return stages;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** What an answer says that is not a success: the service's own, or a proxy's before it. */
function refusal(response, body) {
  const seconds = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  return new Refused({
    status: response.status,
    code: body?.code ?? "unknown",
    message: body?.message ?? `The answer (${response.status}) is not one of this service.`,
    places: body?.errors ?? [],
    requestId: body?.request_id ?? response.headers.get("x-request-id") ?? "",
    retryAfter: Number.isFinite(seconds) ? seconds : null,
  });
}
