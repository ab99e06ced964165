//! `purse ledger verify-receipt`: verifies receipts, pages of the hash chain and heads, as the API returned them, without a
//! database.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};

use crate::infra::security::signing_key::PublicKey;
use crate::kernel::UserId;
use crate::operate::failure::{Failure, Outcome};
use crate::operate::help::help_end;
use crate::operate::humanize::{count, count_entries, harmless};
use crate::operate::output::{Format, List};
use crate::wallet::domain::{ChainPlace, EntryHash, Receipt, ReceiptFault, signed_bytes};
use crate::wallet::http::receipt_body::{
    ChainPageBody, ChainedEntryBody, Head, HeadBody, ReceiptBody, ShownState, SignatureBody,
};

/// Largest file; a page of the chain is much smaller.
const FILE_BYTES_MAX: u64 = 16 << 20;

pub(super) fn command() -> Command {
    Command::new("verify-receipt")
        .about("Verify receipts offline; exit code 1 if one of them is wrong")
        .long_about(
            "Verifies receipts, pages of the hash chain and heads, each as the API returned it, without any connection or \
             setting. Computes each hash and each digest of texts again, and compares entries with consecutive sequence \
             numbers. With --keys, a valid signature has to cover every entry and head: its own, or that of a later entry or \
             head to which the entries in the files are linked. Entries that are older than the hash chain are counted as sealed \
             if the first hash after them is there, and as unchained otherwise.",
        )
        .arg(
            Arg::new("keys")
                .long("keys")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Public keys, from /.well-known/purse-keys.json; without them no signature is verified"),
        )
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("Files to verify together; - is standard input"),
        )
        .after_help(help_end(
            None,
            &[
                "purse ledger verify-receipt receipt.json",
                "purse ledger verify-receipt --keys purse-keys.json chain-1.json chain-2.json head.json",
            ],
        ))
}

pub(super) fn run(arguments: &ArgMatches, format: Format) -> Outcome {
    let keys = arguments.get_one::<PathBuf>("keys").map(|path| read_keys(path)).transpose()?;
    let mut evidence = Evidence { keys, wallets: BTreeMap::new(), faults: Vec::new(), signatures: 0 };
    for path in arguments.get_many::<PathBuf>("file").into_iter().flatten() {
        evidence.add_file(path)?;
    }
    evidence.compare();
    evidence.print(format)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e: io::Error| Failure::Usage(format!("cannot read {}: {e}", path.display()));
    let mut content = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut content)
    } else {
        let file = File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut content)
    };
    let bytes = read.map_err(failed)?;
    if u64::try_from(bytes).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(Failure::Usage(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(content)
}

/// Keys of other kinds may be in the set too.
fn read_keys(path: &Path) -> Result<Vec<PublicKey>, Failure> {
    let set: Value = serde_json::from_slice(&read(path)?).unwrap_or_default();
    let member = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
    let is_ours =
        |key: &&Value| member(key, "kty").as_deref() == Some("OKP") && member(key, "crv").as_deref() == Some("Ed25519");
    let keys = set.get("keys").and_then(Value::as_array).into_iter().flatten().filter(is_ours);
    let keys: Vec<PublicKey> = keys.filter_map(|key| PublicKey::from_jwk(&member(key, "x")?)).collect();
    if keys.is_empty() {
        let message =
            format!("{} has no Ed25519 key; save /.well-known/purse-keys.json of the wallet role", path.display());
        return Err(Failure::Usage(message));
    }
    Ok(keys)
}

/// One file, recognised by its fields.
enum Document {
    Receipt(Box<ReceiptBody>),
    Entry(Box<ChainedEntryBody>),
    Page(ChainPageBody),
    Head(HeadBody),
}

impl Document {
    /// # Errors
    /// What is wrong with the content.
    fn parse(content: &[u8]) -> Result<Self, String> {
        const NO_RECEIPT: &str = "is no receipt, page of the hash chain or head";
        let document: Value =
            serde_json::from_slice(content).map_err(|e| format!("{NO_RECEIPT}: it is not JSON: {e}"))?;
        let fields = ["items", "entry", "hash"];
        let Some(document) = document.as_object().filter(|object| fields.iter().any(|name| object.contains_key(*name)))
        else {
            return Err(format!("{NO_RECEIPT}: save the whole response of the API"));
        };
        let parsed = if document.contains_key("items") {
            serde_json::from_slice(content).map(Self::Page)
        } else if document.contains_key("entry") && document.contains_key("version") {
            serde_json::from_slice(content).map(|receipt| Self::Receipt(Box::new(receipt)))
        } else if document.contains_key("entry") {
            serde_json::from_slice(content).map(|entry| Self::Entry(Box::new(entry)))
        } else {
            serde_json::from_slice(content).map(Self::Head)
        };
        parsed.map_err(|e| format!("{NO_RECEIPT}: {e}"))
    }
}

/// What the files say about one sequence number of a wallet.
struct Known {
    /// `None` if only a head names it.
    entry: Option<ChainPlace>,
    /// The hash that the next entry continues.
    hash: EntryHash,
    shown: ShownState,
    /// Whether the entry has texts that are in none of the files: erased, or left out.
    lacks_texts: bool,
    is_signed: bool,
    file: String,
}

struct Fault {
    file: String,
    place: Option<(UserId, i64)>,
    message: String,
}

/// Everything that the files say, and what is wrong with it.
struct Evidence {
    keys: Option<Vec<PublicKey>>,
    wallets: BTreeMap<UserId, BTreeMap<i64, Known>>,
    faults: Vec<Fault>,
    /// In the files, whether verified or not.
    signatures: u64,
}

impl Evidence {
    fn add_file(&mut self, path: &Path) -> Result<(), Failure> {
        let (bytes, file) = (read(path)?, path.display().to_string());
        match Document::parse(&bytes) {
            Ok(Document::Receipt(body)) => {
                let signature = body.signature.clone();
                self.add_receipt(&file, Receipt::try_from(*body).map_err(|e| e.to_string()), signature.as_ref());
            }
            Ok(Document::Entry(body)) => {
                self.add_receipt(&file, Receipt::try_from(*body).map_err(|e| e.to_string()), None);
            }
            Ok(Document::Page(page)) => {
                if let Err(e) = page.check_version() {
                    self.fault(&file, None, e.to_string());
                }
                for body in page.items {
                    self.add_receipt(&file, Receipt::try_from(body).map_err(|e| e.to_string()), None);
                }
            }
            Ok(Document::Head(head)) => self.add_head(&file, &head),
            Err(message) => self.fault(&file, None, message),
        }
        Ok(())
    }

    fn fault(&mut self, file: &str, place: Option<(UserId, i64)>, message: impl Into<String>) {
        self.faults.push(Fault { file: file.to_owned(), place, message: message.into() });
    }

    fn add_receipt(&mut self, file: &str, receipt: Result<Receipt, String>, signature: Option<&SignatureBody>) {
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(message) => return self.fault(file, None, message),
        };
        let (user, seq, place) = (receipt.entry.user_id, receipt.entry.seq, receipt.place());
        if let Err(e) = receipt.check() {
            self.fault(file, Some((user, seq)), e.to_string());
        }
        let is_signed = self.is_signed(file, (user, seq), &receipt.signed_bytes(), signature);
        let known = Known {
            entry: Some(place),
            hash: place.continued,
            shown: ShownState::from(&receipt.entry),
            lacks_texts: receipt.texts.is_none() && receipt.entry.texts_digest.is_some(),
            is_signed,
            file: file.to_owned(),
        };
        self.add(user, seq, known);
    }

    fn add_head(&mut self, file: &str, head: &HeadBody) {
        let Head { user_id: user, seq, hash, shown } = match head.read() {
            Ok(read) => read,
            Err(e) => return self.fault(file, None, e.to_string()),
        };
        if seq == 0 && hash != EntryHash::genesis(user) {
            self.fault(file, Some((user, seq)), ReceiptFault::Genesis.to_string());
        }
        if seq == 0 && shown != ShownState::EMPTY {
            self.fault(file, Some((user, seq)), "a wallet without entries has no balance and no time");
        }
        let is_signed = self.is_signed(file, (user, seq), &signed_bytes(user, seq, hash), head.signature.as_ref());
        let known = Known { entry: None, hash, shown, lacks_texts: false, is_signed, file: file.to_owned() };
        self.add(user, seq, known);
    }

    /// Whether there is a signature that one of the keys verifies.
    fn is_signed(
        &mut self,
        file: &str,
        place: (UserId, i64),
        signed: &[u8],
        signature: Option<&SignatureBody>,
    ) -> bool {
        let Some(signature) = signature else { return false };
        self.signatures = self.signatures.saturating_add(1);
        let Some(keys) = &self.keys else { return false };
        let fault = match keys.iter().find(|key| key.kid() == signature.kid) {
            None => format!("is signed with the unknown key {}", signature.kid),
            Some(key) if !key.verifies(signed, &signature.value) => "its signature is not valid".to_owned(),
            Some(_) => return true,
        };
        self.fault(file, Some(place), fault);
        false
    }

    fn add(&mut self, user: UserId, seq: i64, new: Known) {
        let wallet = self.wallets.entry(user).or_default();
        let Some(known) = wallet.get_mut(&seq) else {
            wallet.insert(seq, new);
            return;
        };
        if known.hash != new.hash {
            let message = format!("another entry has this sequence number in {}", known.file);
            self.fault(&new.file, Some((user, seq)), message);
            return;
        }
        // The signature of a head does not cover them, but the hash of the entry does.
        if known.shown != new.shown {
            let (file, other) = if new.entry.is_some() { (&known.file, &new.file) } else { (&new.file, &known.file) };
            let message = format!("its balance, held amount or time is not that in {other}");
            self.faults.push(Fault { file: file.clone(), place: Some((user, seq)), message });
        }
        known.lacks_texts = match (known.entry, new.entry) {
            (Some(_), Some(_)) => known.lacks_texts && new.lacks_texts,
            _ => known.lacks_texts || new.lacks_texts,
        };
        known.shown = if known.entry.is_some() { known.shown } else { new.shown };
        known.entry = known.entry.or(new.entry);
        known.is_signed |= new.is_signed;
    }

    /// Compares entries with consecutive sequence numbers and, with keys, requires that each hash is covered by a signature, also
    /// where only a head names it.
    fn compare(&mut self) {
        let mut faults = Vec::new();
        for (user, wallet) in &self.wallets {
            // From the last entry to the first: a signature covers what is linked to it.
            let mut after: Option<(i64, &Known, bool)> = None;
            for (seq, known) in wallet.iter().rev() {
                let mut is_covered = known.is_signed;
                if let Some((_, next, next_is_covered)) = after.filter(|(next, ..)| seq.checked_add(1) == Some(*next)) {
                    match next.check_after(known) {
                        Ok(()) => is_covered |= next_is_covered,
                        Err(e) => faults.push((next.file.clone(), (*user, seq.saturating_add(1)), e.to_string())),
                    }
                }
                let is_older_than_the_chain = known.entry.is_some_and(|entry| entry.previous.is_none());
                if self.keys.is_some() && !is_older_than_the_chain && !is_covered {
                    faults.push((known.file.clone(), (*user, *seq), "no signature covers it".to_owned()));
                }
                after = Some((*seq, known, is_covered));
            }
        }
        for (file, place, message) in faults.into_iter().rev() {
            self.fault(&file, Some(place), message);
        }
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for wallet in self.wallets.values() {
            let mut is_followed = false;
            for known in wallet.values().rev() {
                let Some(entry) = known.entry else {
                    tally.heads = tally.heads.saturating_add(1);
                    continue;
                };
                let kind = match (entry.previous, is_followed) {
                    (Some(_), _) => &mut tally.chained,
                    (None, true) => &mut tally.sealed,
                    (None, false) => &mut tally.unchained,
                };
                *kind = kind.saturating_add(1);
                tally.lack_texts = tally.lack_texts.saturating_add(known.lacks_texts.into());
                is_followed |= entry.previous.is_some();
            }
        }
        tally
    }

    fn print(self, format: Format) -> Outcome {
        let tally = self.tally();
        let Tally { chained, sealed, unchained, heads, lack_texts } = tally;
        let entries = chained.saturating_add(sealed).saturating_add(unchained);
        let scope = format!("{} ({chained} chained, {sealed} sealed, {unchained} unchained)", count_entries(entries));
        let signatures = match (self.signatures, &self.keys) {
            (0, None) => String::new(),
            (signatures, None) => {
                format!(" {} not verified, because --keys is missing.", count(signatures, "signature"))
            }
            (_, Some(_)) => " Every hash is covered by a valid signature.".to_owned(),
        };
        let texts = (lack_texts > 0)
            .then(|| format!(" Not verified, because erased or left out: the texts of {}.", count_entries(lack_texts)));
        let funds = (heads > 0).then(|| {
            let of = count(heads, "head");
            format!(" Not verified without its entry: the balance, held amount and time of {of}.")
        });
        let not_verified: String = [texts, funds].into_iter().flatten().collect();
        let is_empty = chained == 0 && heads == 0;
        let result = match self.faults.len() {
            0 if is_empty => format!("{scope}: nothing was verified, because no entry has a hash."),
            0 => format!("{scope}: all consistent.{signatures}{not_verified}"),
            1 => format!("{scope}: 1 fault."),
            faults => format!("{scope}: {faults} faults."),
        };
        let mut list = List::begin(format, "faults", &["FILE", "USER", "ENTRY", "PROBLEM"])?;
        for fault in &self.faults {
            let (user, seq) = fault.place.map_or((None, None), |(user, seq)| (Some(user.to_string()), Some(seq)));
            let json = json!({"file": fault.file, "userId": user, "seq": seq, "message": fault.message});
            let seq = seq.map(|seq| seq.to_string()).unwrap_or_default();
            let row = [fault.file.clone(), user.unwrap_or_default(), seq, fault.message.clone()];
            list.item(&json, [row.map(|cell| harmless(&cell)).into()]);
        }
        let totals = json!({
            "entries": entries, "chained": chained, "sealed": sealed, "unchained": unchained, "heads": heads,
            "withoutTexts": lack_texts, "signatures": self.signatures, "signaturesVerified": self.keys.is_some(),
        });
        list.end(totals, &result)?;
        Ok(self.faults.is_empty() && !is_empty)
    }
}

impl Known {
    /// # Errors
    /// [`ReceiptFault`] if this is not what follows `before`.
    fn check_after(&self, before: &Self) -> Result<(), ReceiptFault> {
        let Some(entry) = self.entry else { return Ok(()) };
        let before = before.entry.unwrap_or(ChainPlace { previous: None, continued: before.hash });
        entry.check_after(&before)
    }
}

/// How many entries are covered by what.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    chained: u64,
    /// Older than the hash chain, and followed by an entry with a hash.
    sealed: u64,
    unchained: u64,
    /// Heads whose entry is in no file.
    heads: u64,
    /// Entries whose texts are in no file.
    lack_texts: u64,
}
