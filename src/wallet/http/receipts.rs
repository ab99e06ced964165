//! `GET /v1/transactions/{id}/receipt`, `GET /v1/ledger/head`, `GET /v1/ledger/chain` and `GET /.well-known/purse-keys.json`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Type;
use utoipa::openapi::path::ParameterIn;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, Fields};
use crate::infra::security::signing_key::{PublicKey, SigningKeys};
use crate::kernel::rfc3339;
use crate::wallet::application::receipts::{ChainQuery, ReceiptQueries};
use crate::wallet::domain::{EntryHash, Receipt, signed_bytes};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::gate::{Gate, GatedEndpoint, ReadyWallet, gated};
use crate::wallet::http::get_entry::not_found;
use crate::wallet::http::paging::PageLimit;
use crate::wallet::http::receipt_body::{
    ChainPageBody, ChainedEntryBody, HeadBody, ReceiptBody, SignatureBody, VERSION, hex,
};
use crate::wallet::http::wire::{EntryPath, id_schema};

const LIMIT: PageLimit = PageLimit { default: 100, max: 500 };

/// # Errors
/// 404, also for another user's entry and for an id that is not a UUID; 503; after 401 and the gate.
async fn receipt(
    wallet: ReadyWallet,
    path: web::Path<EntryPath>,
    queries: web::Data<dyn ReceiptQueries>,
    keys: web::Data<SigningKeys>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let id = path.id.parse().map_err(|_| not_found())?;
    let receipt = gate.found(&wallet, queries.receipt(wallet.user_id, id).await, not_found).await?;
    let link = receipt.link.ok_or_else(no_receipt)?;
    let ChainedEntryBody { entry, texts, .. } = ChainedEntryBody::from(&receipt);
    Ok(HttpResponse::Ok().json(ReceiptBody {
        version: VERSION,
        entry,
        texts,
        previous_hash: hex(link.previous.as_bytes()),
        hash: hex(link.hash.as_bytes()),
        signature: keys.sign(&receipt.signed_bytes()).map(SignatureBody::from),
    }))
}

fn no_receipt() -> ApiError {
    let message = "This transaction is older than the hash chain, so it has no receipt.";
    ApiError::new(StatusCode::NOT_FOUND, "RECEIPT_NOT_FOUND", message)
}

/// # Errors
/// 503; after 401 and the gate.
async fn head(
    wallet: ReadyWallet,
    queries: web::Data<dyn ReceiptQueries>,
    keys: web::Data<SigningKeys>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let last = queries.head(wallet.user_id).await.map_err(|e| ApiError::from_failure(&e))?;
    if last.is_none() {
        gate.confirm(&wallet).await?;
    }
    let (entry, user_id) = (last.as_ref().map(|last| &last.entry), wallet.user_id);
    let hash = last.as_ref().map_or_else(|| EntryHash::genesis(user_id), Receipt::continued);
    let seq = entry.map_or(0, |entry| entry.seq);
    Ok(HttpResponse::Ok().json(HeadBody {
        version: VERSION,
        user_id: user_id.to_string(),
        seq,
        hash: hex(hash.as_bytes()),
        balance_minor: entry.map_or(0, |entry| entry.balance_after.cents()),
        held_minor: entry.map_or(0, |entry| entry.held_after.cents()),
        at: entry.map(|entry| rfc3339(entry.created_at)),
        signature: keys.sign(&signed_bytes(user_id, seq, hash)).map(SignatureBody::from),
    }))
}

/// # Errors
/// 400, 503; after 401 and the gate.
async fn chain(
    wallet: ReadyWallet,
    request: HttpRequest,
    queries: web::Data<dyn ReceiptQueries>,
    gate: web::Data<Gate>,
) -> Result<HttpResponse, ApiError> {
    let query = Fields::query(request.query_string()).read(chain_query)?;
    let page = queries.chain(wallet.user_id, query).await.map_err(|e| ApiError::from_failure(&e))?;
    if page.receipts.is_empty() {
        gate.confirm(&wallet).await?;
    }
    Ok(HttpResponse::Ok().json(ChainPageBody {
        version: VERSION,
        items: page.receipts.iter().map(ChainedEntryBody::from).collect(),
        next_after: page.next_after,
    }))
}

fn chain_query(query: &mut Fields) -> Option<ChainQuery> {
    let after = query.optional_text(
        "after",
        |text| text.parse::<i64>().ok().filter(|after| *after >= 0).ok_or("must be a sequence number"),
        |after| {
            after
                .description(Some("Return only entries with larger sequence numbers."))
                .schema_type(Type::Integer)
                .minimum(Some(0))
                .maximum(Some(i64::MAX))
                .default(Some(0.into()))
        },
    );
    let limit = LIMIT.read(query, "entries");
    Some(ChainQuery { after: after?.unwrap_or(0), limit: limit? })
}

/// A set of keys as RFC 7517 §5 has it.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningKeys)]
struct KeySet {
    /// The key that signs first; then those of earlier receipts. Empty if this server signs nothing.
    keys: Vec<Key>,
}

/// A public key as RFC 8037 §2 has it.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningKey)]
struct Key {
    kty: KeyType,
    crv: Curve,
    alg: Algorithm,
    #[serde(rename = "use")]
    usage: Usage,
    /// Thumbprint of the key (RFC 7638).
    kid: String,
    /// Base64url of the 32 bytes of the key.
    x: String,
}

/// Octet key pair.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningKeyType)]
enum KeyType {
    #[serde(rename = "OKP")]
    Okp,
}

/// The curve.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningKeyCurve)]
enum Curve {
    Ed25519,
}

/// The algorithm.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningKeyAlgorithm)]
enum Algorithm {
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Signatures.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningKeyUse)]
enum Usage {
    #[serde(rename = "sig")]
    Signature,
}

impl Key {
    fn new(kid: &str, x: String) -> Self {
        Self {
            kty: KeyType::Okp,
            crv: Curve::Ed25519,
            alg: Algorithm::EdDsa,
            usage: Usage::Signature,
            kid: kid.to_owned(),
            x,
        }
    }
}

impl From<&PublicKey> for Key {
    fn from(key: &PublicKey) -> Self {
        Self::new(key.kid(), key.x())
    }
}

async fn keys(keys: web::Data<SigningKeys>) -> HttpResponse {
    HttpResponse::Ok().json(KeySet { keys: keys.published().iter().map(Key::from).collect() })
}

pub(super) fn endpoints() -> [GatedEndpoint<WalletApi>; 3] {
    [receipt_endpoint(), head_endpoint(), chain_endpoint()]
}

fn receipt_endpoint() -> GatedEndpoint<WalletApi> {
    let ChainedEntryBody { entry, texts, previous_hash, hash } = ChainedEntryBody::example();
    let example = ReceiptBody {
        version: VERSION,
        entry,
        texts,
        previous_hash: previous_hash.unwrap_or_default(),
        hash: hash.unwrap_or_default(),
        signature: Some(SignatureBody::example()),
    };
    let endpoint = Endpoint::get("/v1/transactions/{id}/receipt", receipt, "getReceipt", "Get the receipt of an entry")
        .tag("ledger")
        .about(
            "Everything that the hash of the entry covers, the hash, and a signature of it. Keep it to prove later what the \
             ledger recorded: `purse ledger verify-receipt` and `docs/clients/receipt.py` verify it offline. Also of holds, \
             voids and expiries, by their IDs.",
        )
        .bearer()
        .parameter(ParameterIn::Path, "id", "ID of the transaction, or of another entry of the wallet.", id_schema())
        .returns(StatusCode::OK, "The receipt.", &example)
        .errors([not_found(), no_receipt()]);
    gated(endpoint)
}

fn head_endpoint() -> GatedEndpoint<WalletApi> {
    let ChainedEntryBody { hash, .. } = ChainedEntryBody::example();
    let example = HeadBody {
        version: VERSION,
        user_id: "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e".to_owned(),
        seq: 1,
        hash: hash.unwrap_or_default(),
        balance_minor: 1500,
        held_minor: 0,
        at: Some("2026-01-31T12:00:00.123456Z".to_owned()),
        signature: Some(SignatureBody::example()),
    };
    let endpoint = Endpoint::get("/v1/ledger/head", head, "getLedgerHead", "Get the head of the hash chain")
        .tag("ledger")
        .about(
            "The last hash of the wallet, signed. It covers every earlier entry, so a copy of it shows later whether any of \
             them was changed.",
        )
        .bearer()
        .returns(StatusCode::OK, "The head.", &example);
    gated(endpoint)
}

fn chain_endpoint() -> GatedEndpoint<WalletApi> {
    let page = ChainPageBody { version: VERSION, items: vec![ChainedEntryBody::example()], next_after: Some(1) };
    let endpoint = Endpoint::get("/v1/ledger/chain", chain, "listChain", "List the hash chain, oldest entry first")
        .tag("ledger")
        .about(
            "Every entry of the wallet with what its hash covers, holds, voids and expiries included. Entries that are older \
             than the hash chain have no hash; the first hash after them seals the last of them. Pages of long texts are \
             shorter than `limit`.",
        )
        .bearer()
        .query(chain_query, "limit=0")
        .returns(StatusCode::OK, "A page of the chain.", &page);
    gated(endpoint)
}

pub(super) fn keys_endpoint() -> Endpoint<WalletApi> {
    let SignatureBody { kid, .. } = SignatureBody::example();
    let example = KeySet { keys: vec![Key::new(&kid, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned())] };
    Endpoint::get("/.well-known/purse-keys.json", keys, "getSigningKeys", "Get the public keys of receipts")
        .tag("ledger")
        .about("A JSON Web Key Set (RFC 7517) with the Ed25519 keys that verify signatures of receipts and heads. Needs no token.")
        .returns(StatusCode::OK, "The keys.", &example)
}
