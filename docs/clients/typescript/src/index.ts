export * from "./api.js";
export * from "./client.js";
export * from "./errors.js";
export type { CallOptions, KeyOptions } from "./transport.js";
export type { Statement, TransactionsQuery, Wallet } from "./wallet.js";
