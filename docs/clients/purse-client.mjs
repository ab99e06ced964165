#!/usr/bin/env node
/**
 * A small client of purse for Node 18 or later; it needs no package.
 *
 * It shows the three things that a client of purse has to do right:
 *
 * - wait for the wallet after a registration (`waitForWallet`),
 * - send a credit or a debit again under the same key until it is answered (`post`),
 * - follow the pages of the history (`history`).
 *
 * Run it against a running purse, and it walks through all three:
 *
 *     node docs/clients/purse-client.mjs http://localhost:3002 http://localhost:3001
 */

/** How long to go on trying. */
const PATIENCE_MS = 60_000;
/** Longest wait for one answer; the server waits for a wallet up to 10 seconds when it is asked to. */
const TIMEOUT_MS = 20_000;

/** An answer that trying again will not change. */
export class Refused extends Error {
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

  /** Registers and keeps the token. A registration whose answer was lost is found by logging in. */
  async register(person) {
    try {
      const answer = await this.#send("POST", `${this.users}/v1/auth/register`, person);
      this.#token = answer.accessToken;
    } catch (refused) {
      if (refused.code !== "EMAIL_EXISTS") throw refused;
      await this.logIn(person.email, person.password);
    }
  }

  async logIn(email, password) {
    const answer = await this.#send("POST", `${this.users}/v1/auth/login`, { email, password });
    this.#token = answer.accessToken;
  }

  /** The wallet is made a moment after the registration; until then the answer is 503, which `#send` waits out. */
  waitForWallet() {
    return this.#send("GET", `${this.wallet}/v1/wallet/status?wait=10`);
  }

  /** Credits or debits. The key belongs to this one intent and is the same in each try, so it happens once. */
  post(kind, amountMinor, description = null) {
    const body = { amountMinor, description };
    return this.#send("POST", `${this.wallet}/v1/transactions/${kind}`, body, crypto.randomUUID());
  }

  async balance() {
    return (await this.#send("GET", `${this.wallet}/v1/balance`)).balanceMinor;
  }

  /** Every transaction, newest first, page by page. What is posted meanwhile does not shift the pages. */
  async *history(limit = 100) {
    let cursor = null;
    do {
      const query = new URLSearchParams({ limit, ...(cursor && { cursor }) });
      const page = await this.#send("GET", `${this.wallet}/v1/transactions?${query}`);
      yield* page.items;
      cursor = page.nextCursor;
    } while (cursor !== null);
  }

  /** Sends until there is an answer that counts: 429 and 503 say when to come back, a broken connection does not. */
  async #send(method, url, body, key) {
    const headers = { Accept: "application/json" };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (key) headers["Idempotency-Key"] = key;
    const giveUpAt = Date.now() + PATIENCE_MS;
    let pauseMs = 200;
    for (;;) {
      let waitMs, refused;
      try {
        const signal = AbortSignal.timeout(TIMEOUT_MS);
        const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body), signal });
        const told = await answer.json();
        if (answer.ok) return told;
        refused = new Refused(answer.status, told);
        if (answer.status === 429 || answer.status === 503) waitMs = 1000 * Number(answer.headers.get("Retry-After"));
      } catch (broken) {
        // Whether the request arrived is not known. Each request of this client may be sent again: reads change
        // nothing, posts have a key, and a second registration is refused.
        refused = broken;
        waitMs = pauseMs;
        pauseMs = Math.min(2 * pauseMs, 5000);
      }
      if (waitMs === undefined) throw refused;
      // A little later than asked for, and not all clients at once.
      waitMs += 200 * Math.random();
      if (Date.now() + waitMs > giveUpAt) throw refused;
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
  await purse.post("debit", 1_000_000).catch((refused) => console.error(`as expected: ${refused.message}`));
  const amounts = [];
  for await (const entry of purse.history(2)) amounts.push(entry.amountMinor);
  console.log(JSON.stringify({ balanceMinor: await purse.balance(), amounts }));
}

// Run as a program, and not imported or loaded by a page.
if (globalThis.process?.argv[1] && import.meta.url === new URL(`file://${process.argv[1]}`).href) {
  const { webcrypto } = await import("node:crypto");
  globalThis.crypto ??= webcrypto; // Node 18 has it under this name alone
  await main(...process.argv.slice(2, 4));
}
