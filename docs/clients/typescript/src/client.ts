import type {
  BulkRequest,
  BulkResponse,
  BulkResults,
  BulkTransactions,
  ChainPage,
  ChainedEntry,
  Credentials,
  GetWalletStatusQuery,
  LedgerHead,
  ListChainQuery,
  Receipt,
  Registration,
  RegistrationResult,
  SigningKeys,
  Token,
  User,
  WalletStatus,
} from "./api.js";
import { Transport, type CallOptions, type KeyOptions } from "./transport.js";
import { Wallet, type UserOperation } from "./wallet.js";

interface Times {
  /** Longest time for one attempt, in milliseconds; 20,000 by default. */
  timeoutMs?: number;
  /** How long a call is retried, in milliseconds; 60,000 by default. No attempt starts later, and none is cut short. */
  retryForMs?: number;
}

const TIMES = { timeoutMs: 20_000, retryForMs: 60_000 };

export interface PurseOptions extends Times {
  /** Base URL of the users role. */
  users: string;
  /** Base URL of the wallet role. */
  wallet: string;
  /** From an earlier registration or login. */
  accessToken?: string | null;
}

/** Longest time that the server is asked to wait for a wallet, in seconds. */
const LONGEST_WAIT_S = 10;

/** A client of both roles, for one user. Methods are named after the operations of the OpenAPI document. */
export class Purse extends Wallet implements Record<UserOperation, unknown> {
  constructor({ users, wallet, accessToken = null, ...times }: PurseOptions) {
    super(new Transport({ urls: { users, wallet }, ...TIMES, ...times }, accessToken), null);
  }

  /** Sent with every request. Set by `registerUser` and `login`. */
  get accessToken(): string | null {
    return this.transport.token;
  }

  set accessToken(token: string | null) {
    this.transport.token = token;
  }

  /** Registers a user and stores the token. The key must be random, because all clients share the keys of registrations. */
  async registerUser(body: Registration, { idempotencyKey, ...options }: KeyOptions): Promise<RegistrationResult> {
    const result = await this.transport.send("registerUser", { body, idempotencyKey }, options);
    this.accessToken = result.accessToken;
    return result;
  }

  /** Logs in and stores the token. */
  async login(body: Credentials, options?: CallOptions): Promise<Token> {
    const token = await this.transport.send("login", { body, repeatable: true }, options);
    this.accessToken = token.accessToken;
    return token;
  }

  getCurrentUser(options?: CallOptions): Promise<User> {
    return this.transport.send("getCurrentUser", {}, options);
  }

  /** Waits until the wallet exists: it is created shortly after the registration. */
  waitForWallet(options?: CallOptions): Promise<WalletStatus> {
    // The server responds before this attempt times out. While there is no wallet it returns 503, which is retried.
    const wait = Math.min(LONGEST_WAIT_S, Math.floor(this.transport.timeoutMs / 2000));
    return this.getWalletStatus({ wait }, options);
  }

  getWalletStatus(query: GetWalletStatusQuery = {}, options?: CallOptions): Promise<WalletStatus> {
    return this.transport.send("getWalletStatus", { query }, options);
  }

  /**
   * Posts several credits and debits: all or nothing, or with `atomic: false` each on its own, with a result per item. Then
   * each item has an `idempotencyKey` of its own, and that of the request is null.
   */
  createTransactions(body: BulkRequest & { atomic: false }, options: KeyOptions): Promise<BulkResults>;
  createTransactions(body: BulkRequest & { atomic?: true | null }, options: KeyOptions): Promise<BulkTransactions>;
  createTransactions(body: BulkRequest, options: KeyOptions): Promise<BulkResponse>;
  createTransactions(body: BulkRequest, { idempotencyKey, ...options }: KeyOptions): Promise<BulkResponse> {
    const repeatable = body.atomic === false && body.items.every((item) => item.idempotencyKey != null);
    return this.transport.send("createTransactions", { body, idempotencyKey, repeatable }, options);
  }

  /** A transaction with everything that its hash covers. Verify it offline. */
  getReceipt(id: string, options?: CallOptions): Promise<Receipt> {
    return this.transport.send("getReceipt", { path: { id } }, options);
  }

  /** The last hash of the wallet, signed. */
  getLedgerHead(options?: CallOptions): Promise<LedgerHead> {
    return this.transport.send("getLedgerHead", {}, options);
  }

  /** One page. `chain` follows the pages by itself. */
  listChain(query: ListChainQuery = {}, options?: CallOptions): Promise<ChainPage> {
    return this.transport.send("listChain", { query }, options);
  }

  /** Every entry of the hash chain after a sequence number, oldest first. `limit` is the size of a page. */
  async *chain(query: ListChainQuery = {}, options?: CallOptions): AsyncGenerator<ChainedEntry> {
    let page: ChainPage | null = null;
    do {
      page = await this.listChain(page?.nextAfter ? { ...query, after: page.nextAfter } : query, options);
      yield* page.items;
    } while (page.nextAfter !== null);
  }

  /** The public keys of receipts. */
  getSigningKeys(options?: CallOptions): Promise<SigningKeys> {
    return this.transport.send("getSigningKeys", {}, options);
  }
}

export interface PurseServiceOptions extends Times {
  /** Base URL of the wallet role. */
  wallet: string;
  /** From `purse token`, or signed by the service itself. */
  serviceToken: string;
}

/** A client of the wallet role for a back end, which acts on behalf of any user. */
export class PurseService {
  readonly #transport: Transport;

  constructor({ wallet, serviceToken, ...times }: PurseServiceOptions) {
    // A service uses nothing of the users role.
    this.#transport = new Transport({ urls: { users: wallet, wallet }, ...TIMES, ...times }, serviceToken);
  }

  /** Sent with every request, also of wallets that were returned before. Replace it before it expires. */
  get serviceToken(): string {
    return this.#transport.token ?? "";
  }

  set serviceToken(token: string) {
    this.#transport.token = token;
  }

  /** The wallet of a user, by the user's ID. Sends no request. */
  walletOf(userId: string): Wallet {
    return new Wallet(this.#transport, userId);
  }
}
