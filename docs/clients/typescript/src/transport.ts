import { OPERATIONS, type Error as ErrorBody, type Results } from "./api.js";
import { ApiError, NoResponseError, PurseError } from "./errors.js";

export interface CallOptions {
  /** Replaces the client's `retryForMs` for this call. 0: one attempt. */
  retryForMs?: number;
  /** Aborts the call. */
  signal?: AbortSignal;
}

export interface KeyOptions extends CallOptions {
  /**
   * Names the intent: create it when the user decides, store it, and use it for every attempt, also after a restart. With
   * null, a call whose outcome is unknown is not retried.
   */
  idempotencyKey: string | null;
}

/** A request of one operation. */
export interface Request {
  path?: Record<string, string>;
  query?: object;
  body?: object;
  idempotencyKey?: string | null;
  /** Media types of a response that is no JSON object. */
  accept?: string;
  /** Whether repeating the request does no harm. True for GET, and with an idempotency key. */
  repeatable?: boolean;
}

/** Responses with these codes were sent before anything was changed. */
const NOTHING_CHANGED = ["RATE_LIMITED", "REQUEST_TIMEOUT", "WALLET_PROVISIONING", "DEPENDENCY_UNAVAILABLE", "OVERLOADED"];
/** Statuses after which another attempt may succeed; those of a gateway are included. */
const MAY_PASS = [408, 429, 502, 503, 504];
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5_000;

/** How requests are sent. */
export interface TransportOptions {
  /** Base URL of each role. */
  urls: Record<"users" | "wallet", string>;
  timeoutMs: number;
  retryForMs: number;
}

/** The body of a successful response, and its headers. */
interface Success {
  text: string;
  headers: Headers;
}

/** Sends requests with a token. */
export class Transport {
  readonly #options: TransportOptions;
  token: string | null;

  constructor(options: TransportOptions, token: string | null) {
    this.#options = options;
    this.token = token;
  }

  get timeoutMs(): number {
    return this.#options.timeoutMs;
  }

  async send<K extends keyof Results>(operation: K, request: Request, options?: CallOptions): Promise<Results[K]> {
    const { text } = await this.sendForText(operation, request, options);
    return JSON.parse(text) as Results[K];
  }

  /** Sends a request, and again where another attempt may succeed and can do no harm. */
  async sendForText(operation: keyof Results, request: Request, options: CallOptions = {}): Promise<Success> {
    const giveUpAt = performance.now() + (options.retryForMs ?? this.#options.retryForMs);
    const safe = OPERATIONS[operation].method === "GET" || request.repeatable || request.idempotencyKey != null;
    for (let attempt = 0; ; attempt++) {
      options.signal?.throwIfAborted();
      let error: PurseError;
      try {
        return await this.#attempt(operation, request, options.signal);
      } catch (failed) {
        if (!(failed instanceof PurseError)) throw failed;
        error = failed;
      }
      const pauseMs = pauseBeforeRetry(error, safe, attempt);
      if (pauseMs === null || performance.now() + pauseMs > giveUpAt) throw error;
      await pause(pauseMs, options.signal);
    }
  }

  async #attempt(operation: keyof Results, request: Request, signal?: AbortSignal): Promise<Success> {
    const { role, method, path } = OPERATIONS[operation];
    const url = new URL(this.#options.urls[role].replace(/\/+$/, "") + filled(path, request.path ?? {}));
    for (const [name, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers: Record<string, string> = { Accept: request.accept ?? "application/json" };
    if (this.token) headers["Authorization"] = `Bearer ${this.token}`;
    if (request.idempotencyKey != null) headers["Idempotency-Key"] = request.idempotencyKey;
    if (request.body) headers["Content-Type"] = "application/json";

    const timeout = new AbortController();
    const abort = () => timeout.abort(signal?.reason);
    signal?.addEventListener("abort", abort);
    const late = new DOMException("no response in time", "TimeoutError");
    const timer = setTimeout(() => timeout.abort(late), this.#options.timeoutMs);
    let response: Response, text: string;
    try {
      const body = request.body ? JSON.stringify(request.body) : null;
      // A redirect would send the token to wherever it points.
      response = await fetch(url, { method, headers, body, redirect: "manual", signal: timeout.signal });
      // `response.text()` would remove a byte order mark.
      text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(await response.arrayBuffer());
    } catch (cause) {
      signal?.throwIfAborted();
      throw new NoResponseError(`${method} ${url.pathname}: no response`, { cause });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
    const content = parsed(text);
    if (response.ok && (content !== null || request.accept)) return { text, headers: response.headers };
    throw new ApiError(response.status, content as Partial<ErrorBody> | null, response.headers);
  }
}

/** The path with its parameters filled in. */
function filled(path: string, parameters: Record<string, string>): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(parameters[name] ?? ""));
}

/** The JSON object in a text; null if it is anything else. */
function parsed(text: string): object | null {
  try {
    const content: unknown = JSON.parse(text);
    return typeof content === "object" && !Array.isArray(content) ? content : null;
  } catch {
    return null;
  }
}

function changedNothing(error: PurseError): boolean {
  return error instanceof ApiError && (error.status === 429 || NOTHING_CHANGED.includes(error.code));
}

/** Milliseconds; null if the request must not be sent again. */
function pauseBeforeRetry(error: PurseError, safe: boolean, attempt: number): number | null {
  if (error instanceof ApiError && !MAY_PASS.includes(error.status)) return null;
  if (!safe && !changedNothing(error)) return null;
  const after = error instanceof ApiError ? error.retryAfterMs : null;
  const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS);
  // Jitter, so that clients do not all retry at once.
  return after === null ? pauseMs * (0.5 + 0.5 * Math.random()) : after + Math.max(FIRST_PAUSE_MS, after / 4) * Math.random();
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort);
  });
}
