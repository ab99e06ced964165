import type { Error as ErrorBody, ErrorCode, ErrorDetail } from "./api.js";

/** Any failure of a call. */
export class PurseError extends Error {
  // Not the name of the class, which a bundler may shorten.
  override name = "PurseError";}

/** No complete response arrived: the connection failed, or the time was over. A post may or may not have taken effect. */
export class NoResponseError extends PurseError {
  override name = "NoResponseError";
}

/** An error response. */
export class ApiError extends PurseError {
  override name = "ApiError";
  /** A later version of the service may add codes. `UNEXPECTED_RESPONSE`: not from purse, for example from a proxy. */
  readonly code: ErrorCode | "UNEXPECTED_RESPONSE" | (string & {});
  /** Each invalid field of a request with `VALIDATION_ERROR`; otherwise empty. */
  readonly details: ErrorDetail[];
  /** Quote it when you report a problem. */
  readonly requestId: string | null;

  constructor(
    readonly status: number,
    body: Partial<ErrorBody> | null,
    headers: Headers,
  ) {
    const code = body?.code ?? "UNEXPECTED_RESPONSE";
    super(`${status} ${code}${body?.message ? `: ${body.message}` : ""}`);
    this.code = code;
    this.details = body?.details ?? [];
    this.requestId = headers.get("x-request-id");
    this.#retryAfter = headers.get("retry-after");
  }

  readonly #retryAfter: string | null;

  /** How long to wait before another attempt, in milliseconds, if the response says so. */
  get retryAfterMs(): number | null {
    if (this.#retryAfter === null) return null;
    // Seconds, or from a proxy perhaps a date.
    const wait = /^\d+$/.test(this.#retryAfter)
      ? 1000 * Number(this.#retryAfter)
      : Date.parse(this.#retryAfter) - Date.now();
    return Number.isNaN(wait) ? null : Math.max(0, wait);
  }
}
