//! The clients of `docs/clients` call every operation of both roles, and read every kind of response.

use std::collections::BTreeSet;

use purse::kernel::Role;
use serde_json::{Value, json};

use crate::clients::Language;
use crate::openapi::printed;
use crate::support::{World, service_token};

const TYPESCRIPT: &str = r#"
import { Purse, PurseService } from "@purse/client";
import { randomUUID } from "node:crypto";
const [users, wallet, serviceToken] = process.argv.slice(1);
const key = () => ({ idempotencyKey: randomUUID() });
const all = async (items) => { const found = []; for await (const item of items) found.push(item); return found; };
const registered = async (firstName) => {
  const purse = new Purse({ users, wallet });
  const secret = { email: `${firstName}@example.com`, password: "correct horse battery" };
  const { user } = await purse.registerUser({ firstName, lastName: "Client", ...secret }, key());
  await purse.login(secret);
  await purse.waitForWallet();
  return [purse, user.id];
};
const [ada, adaId] = await registered("ada");
const [grace, graceId] = await registered("grace");
const seen = { ids: (await ada.getCurrentUser()).id === adaId };

const texts = { description: "first", reference: "order-17", metadata: { shop: "b", orderId: "17" } };
const credit = await ada.creditWallet({ amountMinor: 1000, ...texts }, key());
seen.texts = [credit.reference, credit.metadata.shop];
const debit = await ada.debitWallet({ amountMinor: 100 }, key());
await ada.createTransaction({ type: "credit", amountMinor: 50 }, key());
const items = [{ type: "credit", amountMinor: 10 }, { type: "debit", amountMinor: 5 }];
seen.atomic = (await ada.createTransactions({ items }, key())).items.map((item) => item.amountMinor);
const each = [{ type: "credit", amountMinor: 20, ...key() }, { type: "debit", amountMinor: 1_000_000, ...key() }];
const results = await ada.createTransactions({ items: each, atomic: false }, { idempotencyKey: null });
seen.each = results.items.map((item) => [item.status, item.transaction?.amountMinor ?? item.code]);
seen.reverses = (await ada.reverseTransaction(debit.id, { amountMinor: 40 }, key())).reverses === debit.id;
seen.reversed = (await ada.getTransaction(debit.id)).reversedMinor;
seen.found = (await all(ada.transactions({ limit: 1, reference: "order-17", metadata: { shop: "b", orderId: "17" } }))).length;
seen.missed = (await ada.listTransactions({ metadata: { shop: "c" } })).items.length;

const transfer = await ada.createTransfer({ toUserId: graceId, amountMinor: 200 }, key());
seen.transfer = [(await grace.getTransfer(transfer.id)).transfer.direction, (await ada.getTransfer(transfer.id)).amountMinor];

const hold = await ada.createHold({ amountMinor: 300, expiresInS: 60 }, key());
seen.held = [(await ada.getHold(hold.id)).status, (await ada.getBalance()).heldMinor];
const captured = await ada.captureHold(hold.id, { amountMinor: 100, final: false }, key());
seen.captured = [captured.transaction.amountMinor, captured.hold.remainingMinor];
seen.open = (await all(ada.holds({ limit: 1 }))).length;
seen.voided = (await ada.voidHold(hold.id, key())).status;
seen.holds = [(await ada.listHolds()).items.length, (await ada.listHolds({ status: "all" })).items.length];

const day = (days) => new Date(Date.now() + days * 86_400_000).toISOString();
const csv = await ada.getStatement({ from: day(-1), to: day(1), bom: true });
seen.csv = [csv.text.startsWith("\ufeffdate,id,type"), csv.text.includes("order-17")];
seen.statement = [csv.openingMinor, csv.closingMinor, csv.isFinal];
const ndjson = await ada.getStatement({ from: day(-1), to: day(1), format: "ndjson" });
seen.ndjson = ndjson.text.trim().split("\n").map((line) => JSON.parse(line).amountMinor);

const receipt = await ada.getReceipt(credit.id);
const chain = await all(ada.chain({ limit: 4 }));
const head = await ada.getLedgerHead();
seen.chain = [chain[0].hash === receipt.hash, chain.at(-1).hash === head.hash, head.seq === chain.length];
seen.after = (await all(ada.chain({ after: head.seq - 1 }))).length;
seen.keys = (await ada.getSigningKeys()).keys.length;

const service = new PurseService({ wallet, serviceToken });
const other = service.walletOf(adaId);
const deposit = await other.creditWallet({ amountMinor: 500 }, key());
seen.postedBy = (await other.getTransaction(deposit.id)).postedBy;
await other.debitWallet({ amountMinor: 1 }, key());
await other.createTransaction({ type: "debit", amountMinor: 1 }, key());
await other.reverseTransaction(deposit.id, { amountMinor: 3 }, key());
const payout = await other.createTransfer({ toUserId: graceId, amountMinor: 10 }, key());
seen.payout = (await other.getTransfer(payout.id)).transfer.userId === graceId;
const placed = await other.createHold({ amountMinor: 5 }, key());
await other.captureHold(placed.id, { amountMinor: 2, final: false }, key());
seen.placed = [(await all(other.holds())).length, (await other.voidHold(placed.id, key())).capturedMinor];
seen.ended = (await other.getHold(placed.id)).status;
seen.newest = (await all(other.transactions({ limit: 100, type: "credit" })))[0].id === deposit.id;
seen.balances = [(await other.getBalance()).availableMinor, (await grace.getBalance()).balanceMinor];
seen.closing = (await other.getStatement({ from: day(-1), to: day(1) })).closingMinor;
console.log(JSON.stringify(seen));
"#;

const PYTHON: &str = r#"
import datetime, json, sys, uuid
from purse_client import Purse, PurseService
users, wallet, service_token = sys.argv[1:4]
def key():
    return {"idempotency_key": str(uuid.uuid4())}
def registered(name):
    purse = Purse(users, wallet)
    secret = {"email": f"{name}@example.com", "password": "correct horse battery"}
    user = purse.register_user(first_name=name, last_name="Client", **secret, **key())["user"]
    purse.login(**secret)
    purse.wait_for_wallet()
    return purse, user["id"]
ada, ada_id = registered("ada")
grace, grace_id = registered("grace")
seen = {"ids": ada.get_current_user()["id"] == ada_id}

pairs = {"shop": "b", "orderId": "17"}
credit = ada.credit_wallet(1000, description="first", reference="order-17", metadata=pairs, **key())
seen["texts"] = [credit["reference"], credit["metadata"]["shop"]]
debit = ada.debit_wallet(100, **key())
ada.create_transaction("credit", 50, **key())
items = [{"type": "credit", "amountMinor": 10}, {"type": "debit", "amountMinor": 5}]
seen["atomic"] = [item["amountMinor"] for item in ada.create_transactions(items, **key())["items"]]
each = [
    {"type": "credit", "amountMinor": 20, "idempotencyKey": str(uuid.uuid4())},
    {"type": "debit", "amountMinor": 1_000_000, "idempotencyKey": str(uuid.uuid4())},
]
results = ada.create_transactions(each, atomic=False, idempotency_key=None)["items"]
seen["each"] = [[r["status"], r["transaction"]["amountMinor"] if "transaction" in r else r["code"]] for r in results]
seen["reverses"] = ada.reverse_transaction(debit["id"], 40, **key())["reverses"] == debit["id"]
seen["reversed"] = ada.get_transaction(debit["id"])["reversedMinor"]
seen["found"] = len(list(ada.transactions(limit=1, reference="order-17", metadata=pairs)))
seen["missed"] = len(ada.list_transactions(metadata={"shop": "c"})["items"])

transfer = ada.create_transfer(grace_id, 200, **key())["id"]
seen["transfer"] = [grace.get_transfer(transfer)["transfer"]["direction"], ada.get_transfer(transfer)["amountMinor"]]

hold = ada.create_hold(300, expires_in_s=60, **key())["id"]
seen["held"] = [ada.get_hold(hold)["status"], ada.get_balance()["heldMinor"]]
captured = ada.capture_hold(hold, 100, final=False, **key())
seen["captured"] = [captured["transaction"]["amountMinor"], captured["hold"]["remainingMinor"]]
seen["open"] = len(list(ada.holds(limit=1)))
seen["voided"] = ada.void_hold(hold, **key())["status"]
seen["holds"] = [len(ada.list_holds()["items"]), len(ada.list_holds(status="all")["items"])]

def day(days):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).isoformat()
csv = ada.get_statement(from_=day(-1), to=day(1), bom=True)
seen["csv"] = [csv.text.startswith("\ufeffdate,id,type"), "order-17" in csv.text]
seen["statement"] = [csv.opening_minor, csv.closing_minor, csv.is_final]
ndjson = ada.get_statement(from_=day(-1), to=day(1), format="ndjson")
seen["ndjson"] = [json.loads(line)["amountMinor"] for line in ndjson.text.splitlines()]

receipt = ada.get_receipt(credit["id"])
chain = list(ada.chain(limit=4))
head = ada.get_ledger_head()
seen["chain"] = [chain[0]["hash"] == receipt["hash"], chain[-1]["hash"] == head["hash"], head["seq"] == len(chain)]
seen["after"] = len(list(ada.chain(after=head["seq"] - 1)))
seen["keys"] = len(ada.get_signing_keys()["keys"])

other = PurseService(wallet, service_token=service_token).wallet_of(ada_id)
deposit = other.credit_wallet(500, **key())["id"]
seen["postedBy"] = other.get_transaction(deposit)["postedBy"]
other.debit_wallet(1, **key())
other.create_transaction("debit", 1, **key())
other.reverse_transaction(deposit, 3, **key())
payout = other.create_transfer(grace_id, 10, **key())["id"]
seen["payout"] = other.get_transfer(payout)["transfer"]["userId"] == grace_id
placed = other.create_hold(5, **key())["id"]
other.capture_hold(placed, 2, final=False, **key())
seen["placed"] = [len(list(other.holds())), other.void_hold(placed, **key())["capturedMinor"]]
seen["ended"] = other.get_hold(placed)["status"]
seen["newest"] = next(other.transactions(limit=100, type="credit"))["id"] == deposit
seen["balances"] = [other.get_balance()["availableMinor"], grace.get_balance()["balanceMinor"]]
seen["closing"] = other.get_statement(from_=day(-1), to=day(1)).closing_minor
print(json.dumps(seen))
"#;

#[tokio::test]
async fn each_client_calls_every_operation_of_both_roles() {
    for (language, program) in [(Language::TypeScript, TYPESCRIPT), (Language::Python, PYTHON)] {
        let world = World::new().await;
        let (users, wallet, _client) = world.both().await;
        let token = service_token("payments", "wallet:read wallet:post");
        let seen: Value =
            serde_json::from_str(&language.run(program, &[&users.url(), &wallet.url(), &token]).await).expect("JSON");
        let expected = json!({
            "ids": true,
            "texts": ["order-17", "b"],
            "atomic": [10, 5],
            "each": [[201, 20], [409, "INSUFFICIENT_FUNDS"]],
            "reverses": true,
            "reversed": 40,
            "found": 1,
            "missed": 0,
            "transfer": ["in", 200],
            "held": ["open", 300],
            "captured": [100, 200],
            "open": 1,
            "voided": "voided",
            "holds": [0, 1],
            "csv": [true, true],
            "statement": [0, 715, false],
            "ndjson": [1000, 100, 50, 10, 5, 20, 40, 200, 100],
            "chain": [true, true, true],
            "after": 1,
            "keys": 0,
            "postedBy": "payments",
            "payout": true,
            "placed": [1, 2],
            "ended": "voided",
            "newest": true,
            "balances": [1198, 210],
            "closing": 1198,
        });
        assert_eq!(seen, expected, "{language:?}");

        for (role, process) in [(Role::Users, &users), (Role::Wallet, &wallet)] {
            let called: BTreeSet<_> = process
                .logged("request")
                .iter()
                .filter(|line| line["status"].as_u64().is_some_and(|status| status < 300))
                .map(|line| format!("{} {}", line["method"], line["route"]).replace('"', ""))
                .collect();
            for (method, path, _) in printed(role.as_str()).operations() {
                let operation = format!("{method} {path}");
                assert!(called.contains(&operation), "{language:?} never calls {operation}: {called:?}");
            }
        }
    }
}
