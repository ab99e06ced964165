// Registers a user, waits for the wallet, moves money and reads the history: node example.js <users URL> <wallet URL>
import { ApiError, Purse } from "@purse/client";

export async function example(users, wallet) {
  const purse = new Purse({ users, wallet });
  const email = `ada-${crypto.randomUUID()}@example.com`;
  const ada = { firstName: "Ada", lastName: "Lovelace", email, password: "correct horse battery" };
  await purse.registerUser(ada, { idempotencyKey: crypto.randomUUID() });
  await purse.waitForWallet();
  for (let number = 1; number <= 5; number++) {
    await purse.creditWallet({ amountMinor: 100 * number }, { idempotencyKey: `deposit-${number}` });
  }
  await purse.debitWallet({ amountMinor: 400 }, { idempotencyKey: "coffee" });
  let rejected = null;
  try {
    await purse.debitWallet({ amountMinor: 1_000_000 }, { idempotencyKey: "yacht" });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    rejected = error.code;
  }
  const amounts = [];
  for await (const transaction of purse.transactions({ limit: 2 })) amounts.push(transaction.amountMinor);
  const { balanceMinor } = await purse.getBalance();
  return { balanceMinor, amounts, rejected };
}

// Only when run as a program, not when imported.
if (globalThis.process?.argv[1]?.endsWith("example.js")) {
  globalThis.crypto ??= (await import("node:crypto")).webcrypto; // Node 18 has it only there
  console.log(JSON.stringify(await example(...process.argv.slice(2, 4))));
}
