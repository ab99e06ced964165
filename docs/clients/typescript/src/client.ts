import {
  OPERATIONS,
  type Balance,
  type Credentials,
  type Error as ErrorBody,
  type GetBalanceQuery,
  type GetWalletStatusQuery,
  type ListTransactionsQuery,
  type Registration,
  type RegistrationResult,
  type Results,
  type Token,
  type Transaction,
  type TransactionPage,
  type TransactionRequest,
  type TypedTransactionRequest,
  type User,
  type WalletStatus,
} from "./api.js";
import { ApiError, NoResponseError, PurseError } from "./errors.js";

export interface PurseOptions {
  /** Base URL of the users role. */
  users: string;
  /** Base URL of the wallet role. */
  wallet: string;
  /** From an earlier registration or login. */
  accessToken?: string | null;
  /** Longest time for one attempt, in milliseconds; 20,000 by default. */
  timeoutMs?: number;
  /** How long a call is retried, in milliseconds; 60,000 by default. No attempt starts later, and none is cut short. */
  retryForMs?: number;
}

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

interface Request {
  path?: Record<string, string>;
  query?: object;
  body?: object;
  idempotencyKey?: string | null;
  /** Whether repeating the request does no harm. True for GET, and with an idempotency key. */
  repeatable?: boolean;
}

/** Responses with these codes were sent before anything was changed. */
const NOTHING_CHANGED = ["RATE_LIMITED", "REQUEST_TIMEOUT", "WALLET_PROVISIONING", "DEPENDENCY_UNAVAILABLE", "OVERLOADED"];
/** Statuses after which another attempt may succeed; those of a gateway are included. */
const MAY_PASS = [408, 429, 502, 503, 504];
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5_000;
/** Longest time that the server is asked to wait for a wallet, in seconds. */
const LONGEST_WAIT_S = 10;

/** A client of both roles, for one user. Methods are named after the operations of the OpenAPI document. */
export class Purse implements Record<keyof Results, unknown> {
  readonly #options: Required<PurseOptions>;
  #accessToken: string | null;

  constructor(options: PurseOptions) {
    this.#options = { accessToken: null, timeoutMs: 20_000, retryForMs: 60_000, ...options };
    this.#accessToken = this.#options.accessToken;
  }

  /** Sent with every request. Set by `registerUser` and `login`. */
  get accessToken(): string | null {
    return this.#accessToken;
  }

  set accessToken(token: string | null) {
    this.#accessToken = token;
  }

  /** Registers a user and stores the token. The key must be random, because all clients share the keys of registrations. */
  async registerUser(body: Registration, { idempotencyKey, ...options }: KeyOptions): Promise<RegistrationResult> {
    const result = await this.#send("registerUser", { body, idempotencyKey }, options);
    this.#accessToken = result.accessToken;
    return result;
  }

  /** Logs in and stores the token. */
  async login(body: Credentials, options?: CallOptions): Promise<Token> {
    const token = await this.#send("login", { body, repeatable: true }, options);
    this.#accessToken = token.accessToken;
    return token;
  }

  getCurrentUser(options?: CallOptions): Promise<User> {
    return this.#send("getCurrentUser", {}, options);
  }

  /** Waits until the wallet exists: it is created shortly after the registration. */
  waitForWallet(options?: CallOptions): Promise<WalletStatus> {
    // The server responds before this attempt times out. While there is no wallet it returns 503, which is retried.
    const wait = Math.min(LONGEST_WAIT_S, Math.floor(this.#options.timeoutMs / 2000));
    return this.getWalletStatus({ wait }, options);
  }

  getWalletStatus(query: GetWalletStatusQuery = {}, options?: CallOptions): Promise<WalletStatus> {
    return this.#send("getWalletStatus", { query }, options);
  }

  getBalance(query: GetBalanceQuery = {}, options?: CallOptions): Promise<Balance> {
    return this.#send("getBalance", { query }, options);
  }

  creditWallet(body: TransactionRequest, { idempotencyKey, ...options }: KeyOptions): Promise<Transaction> {
    return this.#send("creditWallet", { body, idempotencyKey }, options);
  }

  debitWallet(body: TransactionRequest, { idempotencyKey, ...options }: KeyOptions): Promise<Transaction> {
    return this.#send("debitWallet", { body, idempotencyKey }, options);
  }

  createTransaction(body: TypedTransactionRequest, { idempotencyKey, ...options }: KeyOptions): Promise<Transaction> {
    return this.#send("createTransaction", { body, idempotencyKey }, options);
  }

  getTransaction(id: string, options?: CallOptions): Promise<Transaction> {
    return this.#send("getTransaction", { path: { id } }, options);
  }

  /** One page. `transactions` follows the pages by itself. */
  listTransactions(query: ListTransactionsQuery = {}, options?: CallOptions): Promise<TransactionPage> {
    return this.#send("listTransactions", { query }, options);
  }

  /** Every transaction, newest first. The next page is fetched when it is needed; `limit` is the size of a page. */
  async *transactions(query: Omit<ListTransactionsQuery, "cursor"> = {}, options?: CallOptions) {
    let cursor: string | null = null;
    do {
      const page: TransactionPage = await this.listTransactions(cursor === null ? query : { ...query, cursor }, options);
      yield* page.items;
      cursor = page.nextCursor;
    } while (cursor !== null);
  }

  /** Sends a request, and again where another attempt may succeed and can do no harm. */
  async #send<K extends keyof Results>(operation: K, request: Request, options: CallOptions = {}): Promise<Results[K]> {
    const giveUpAt = performance.now() + (options.retryForMs ?? this.#options.retryForMs);
    const safe = OPERATIONS[operation].method === "GET" || request.repeatable || request.idempotencyKey != null;
    for (let attempt = 0; ; attempt++) {
      options.signal?.throwIfAborted();
      let error: PurseError;
      try {
        return await this.#attempt<Results[K]>(operation, request, options.signal);
      } catch (failed) {
        if (!(failed instanceof PurseError)) throw failed;
        error = failed;
      }
      const pauseMs = pauseBeforeRetry(error, safe, attempt);
      if (pauseMs === null || performance.now() + pauseMs > giveUpAt) throw error;
      await pause(pauseMs, options.signal);
    }
  }

  async #attempt<T>(operation: keyof Results, request: Request, signal?: AbortSignal): Promise<T> {
    const { role, method, path } = OPERATIONS[operation];
    const url = new URL(this.#options[role].replace(/\/+$/, "") + filled(path, request.path ?? {}));
    for (const [name, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers: Record<string, string> = { Accept: "application/json" };
    if (this.#accessToken) headers["Authorization"] = `Bearer ${this.#accessToken}`;
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
      text = await response.text();
    } catch (cause) {
      signal?.throwIfAborted();
      throw new NoResponseError(`${method} ${url.pathname}: no response`, { cause });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
    const content: unknown = parsed(text);
    if (response.ok && content !== null) return content as T;
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
