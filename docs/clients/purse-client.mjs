#!/usr/bin/env node
/**
 * A small purse client for Node 18 or later, without dependencies.
 *
 * It shows what a purse client has to do:
 *
 * - wait for the wallet after a registration (`waitForWallet`),
 * - retry credits and debits with the same idempotency key (`post`),
 * - follow the pages of the history (`history`).
 *
 * Run it against a running purse to see all three:
 *
 *     node docs/clients/purse-client.mjs http://localhost:3002 http://localhost:3001
 */

/** How long to keep retrying. */
const PATIENCE_MS = 60_000;
/** Timeout of one request; longer than the 10 seconds that the server may wait for a wallet. */
const TIMEOUT_MS = 20_000;

/** An error response that a retry will not change. */
export class ApiError extends Error {
  constructor(status, body) {
    super(`${status} ${body.code}: ${body.message}`);
    this.status = status;
    this.code = body.code;
    this.details = body.details ?? [];
  }
}

export class Purse {
  #token = null;

  constructor(users, wallet) {
    this.users = users;
    this.wallet = wallet;
  }

  /** Registers and stores the token. If the response to an earlier attempt was lost, logs in instead. */
  async register(user) {
    try {
      const response = await this.#send("POST", `${this.users}/v1/auth/register`, user);
      this.#token = response.accessToken;
    } catch (error) {
      if (error.code !== "EMAIL_EXISTS") throw error;
      await this.logIn(user.email, user.password);
    }
  }

  async logIn(email, password) {
    const response = await this.#send("POST", `${this.users}/v1/auth/login`, { email, password });
    this.#token = response.accessToken;
  }

  /** The wallet is created shortly after the registration; until then the API returns 503, and `#send` retries. */
  waitForWallet() {
    return this.#send("GET", `${this.wallet}/v1/wallet/status?wait=10`);
  }

  /** Credits or debits. All attempts use the same key, so money moves once. */
  post(kind, amountMinor, description = null) {
    const body = { amountMinor, description };
    return this.#send("POST", `${this.wallet}/v1/transactions/${kind}`, body, crypto.randomUUID());
  }

  async balance() {
    return (await this.#send("GET", `${this.wallet}/v1/balance`)).balanceMinor;
  }

  /** Every transaction, newest first, page by page. New transactions do not shift the pages. */
  async *history(limit = 100) {
    let cursor = null;
    do {
      const query = new URLSearchParams({ limit, ...(cursor && { cursor }) });
      const page = await this.#send("GET", `${this.wallet}/v1/transactions?${query}`);
      yield* page.items;
      cursor = page.nextCursor;
    } while (cursor !== null);
  }

  /** Sends a request and retries 429, 503 and dropped connections. */
  async #send(method, url, body, key) {
    const headers = { Accept: "application/json" };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (key) headers["Idempotency-Key"] = key;
    const giveUpAt = Date.now() + PATIENCE_MS;
    let pauseMs = 200;
    for (;;) {
      let waitMs, error;
      try {
        const signal = AbortSignal.timeout(TIMEOUT_MS);
        const response = await fetch(url, { method, headers, body: body && JSON.stringify(body), signal });
        const content = await response.json();
        if (response.ok) return content;
        error = new ApiError(response.status, content);
        if (response.status === 429 || response.status === 503) waitMs = 1000 * Number(response.headers.get("Retry-After"));
      } catch (dropped) {
        // The outcome is unknown. Every request of this client is safe to retry: reads change nothing, posts have a
        // key, and registering twice returns EMAIL_EXISTS.
        error = dropped;
        waitMs = pauseMs;
        pauseMs = Math.min(2 * pauseMs, 5000);
      }
      if (waitMs === undefined) throw error;
      // Jitter, so that clients do not all retry at once.
      waitMs += 200 * Math.random();
      if (Date.now() + waitMs > giveUpAt) throw error;
      await new Promise((resume) => setTimeout(resume, waitMs));
    }
  }
}

async function main(users, wallet) {
  const purse = new Purse(users, wallet);
  const email = `ada-${crypto.randomUUID()}@example.com`;
  await purse.register({ firstName: "Ada", lastName: "Lovelace", email, password: "correct horse battery" });
  await purse.waitForWallet();
  for (let number = 1; number <= 5; number++) await purse.post("credit", 100 * number, `deposit ${number}`);
  await purse.post("debit", 400);
  await purse.post("debit", 1_000_000).catch((error) => console.error(`as expected: ${error.message}`));
  const amounts = [];
  for await (const entry of purse.history(2)) amounts.push(entry.amountMinor);
  console.log(JSON.stringify({ balanceMinor: await purse.balance(), amounts }));
}

// Only when run as a program, not when imported.
if (globalThis.process?.argv[1] && import.meta.url === new URL(`file://${process.argv[1]}`).href) {
  const { webcrypto } = await import("node:crypto");
  globalThis.crypto ??= webcrypto; // Node 18 exports it only here
  await main(...process.argv.slice(2, 4));
}
