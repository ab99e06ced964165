import type {
  Balance,
  Capture,
  CaptureRequest,
  GetBalanceQuery,
  GetStatementQuery,
  Hold,
  HoldPage,
  HoldRequest,
  ListHoldsQuery,
  ListTransactionsQuery,
  Results,
  ReversalRequest,
  Transaction,
  TransactionPage,
  TransactionRequest,
  TransferRequest,
  TypedTransactionRequest,
} from "./api.js";
import type { CallOptions, KeyOptions, Request, Transport } from "./transport.js";

/** An operation of services has this at the end of its name. */
type OfService<K extends string> = `${K}ForUser`;
/** The operations of a wallet that users and services have. */
export type SharedOperation = { [K in keyof Results]: OfService<K> extends keyof Results ? K : never }[keyof Results];
/** The operations that only users have. */
export type UserOperation = Exclude<keyof Results, OfService<SharedOperation>>;

/** The filters of the history. */
export interface TransactionsQuery extends ListTransactionsQuery {
  /** Only transactions with all of these pairs, at most three. */
  metadata?: Record<string, string>;
}

/** A statement as a file. */
export interface Statement {
  /** CSV or NDJSON. */
  text: string;
  /** Balance at the start of the period, in US cents. */
  openingMinor: number;
  /** Balance at the end of the period, in US cents. */
  closingMinor: number;
  /** Whether a later request returns the same. */
  isFinal: boolean;
}

/** What users and services do with a wallet. Methods are named after the operations of the OpenAPI document. */
export class Wallet implements Record<SharedOperation, unknown> {
  /** @internal */
  protected readonly transport: Transport;
  readonly #userId: string | null;

  /** `userId`: the owner of the wallet for a service; null for the owner of the access token. */
  constructor(transport: Transport, userId: string | null) {
    this.transport = transport;
    this.#userId = userId;
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

  /** Undoes a transaction, or a part of it. */
  reverseTransaction(id: string, body: ReversalRequest, { idempotencyKey, ...options }: KeyOptions): Promise<Transaction> {
    return this.#send("reverseTransaction", { path: { id }, body, idempotencyKey }, options);
  }

  getTransaction(id: string, options?: CallOptions): Promise<Transaction> {
    return this.#send("getTransaction", { path: { id } }, options);
  }

  /** One page. `transactions` follows the pages by itself. */
  listTransactions({ metadata, ...query }: TransactionsQuery = {}, options?: CallOptions): Promise<TransactionPage> {
    const pairs = Object.entries(metadata ?? {}).map(([key, value]) => [`metadata.${key}`, value]);
    return this.#send("listTransactions", { query: { ...query, ...Object.fromEntries(pairs) } }, options);
  }

  /** Every transaction, newest first. The next page is fetched when it is needed; `limit` is the size of a page. */
  async *transactions(query: Omit<TransactionsQuery, "cursor"> = {}, options?: CallOptions): AsyncGenerator<Transaction> {
    yield* paged((cursor) => this.listTransactions({ ...query, ...cursor }, options));
  }

  /** All transactions of a period. A long one may need a longer `timeoutMs`. */
  async getStatement(query: GetStatementQuery, options?: CallOptions): Promise<Statement> {
    // Errors are JSON.
    const accept = "text/csv, application/x-ndjson, application/json";
    const { text, headers } = await this.transport.sendForText(...this.#addressed("getStatement", { query, accept }), options);
    return {
      text,
      openingMinor: Number(headers.get("statement-opening-minor")),
      closingMinor: Number(headers.get("statement-closing-minor")),
      isFinal: headers.get("statement-final") === "true",
    };
  }

  /** Debits this wallet and credits that of another user, both or neither. */
  createTransfer(body: TransferRequest, { idempotencyKey, ...options }: KeyOptions): Promise<Transaction> {
    return this.#send("createTransfer", { body, idempotencyKey }, options);
  }

  getTransfer(id: string, options?: CallOptions): Promise<Transaction> {
    return this.#send("getTransfer", { path: { id } }, options);
  }

  /** Reserves a part of the balance. */
  createHold(body: HoldRequest, { idempotencyKey, ...options }: KeyOptions): Promise<Hold> {
    return this.#send("createHold", { body, idempotencyKey }, options);
  }

  /** Debits all of a hold or a part of it, and releases the rest unless `final` is false. */
  captureHold(id: string, body: CaptureRequest, { idempotencyKey, ...options }: KeyOptions): Promise<Capture> {
    return this.#send("captureHold", { path: { id }, body, idempotencyKey }, options);
  }

  /** Releases a hold. */
  voidHold(id: string, { idempotencyKey, ...options }: KeyOptions): Promise<Hold> {
    return this.#send("voidHold", { path: { id }, body: {}, idempotencyKey }, options);
  }

  getHold(id: string, options?: CallOptions): Promise<Hold> {
    return this.#send("getHold", { path: { id } }, options);
  }

  /** One page. `holds` follows the pages by itself. */
  listHolds(query: ListHoldsQuery = {}, options?: CallOptions): Promise<HoldPage> {
    return this.#send("listHolds", { query }, options);
  }

  /** Every open hold, or with `status: "all"` every hold, newest first. `limit` is the size of a page. */
  async *holds(query: Omit<ListHoldsQuery, "cursor"> = {}, options?: CallOptions): AsyncGenerator<Hold> {
    yield* paged((cursor) => this.listHolds({ ...query, ...cursor }, options));
  }

  #send<K extends SharedOperation>(operation: K, request: Request, options?: CallOptions): Promise<Results[K]> {
    return this.transport.send(...this.#addressed(operation, request), options);
  }

  /** The operation and request for the owner of this wallet. */
  #addressed<K extends SharedOperation>(operation: K, request: Request): [K, Request] {
    if (this.#userId === null) return [operation, request];
    // Both have the same result.
    return [`${operation}ForUser` as K, { ...request, path: { ...request.path, userId: this.#userId } }];
  }
}

/** The items of all pages. */
async function* paged<T>(
  list: (cursor: { cursor?: string }) => Promise<{ items: T[]; nextCursor: string | null }>,
): AsyncGenerator<T> {
  let cursor: string | null = null;
  do {
    const page: { items: T[]; nextCursor: string | null } = await list(cursor === null ? {} : { cursor });
    yield* page.items;
    cursor = page.nextCursor;
  } while (cursor !== null);
}
