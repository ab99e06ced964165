//! A file that is no receipt at all is reported as that, by both verifiers.

use std::fs;
use std::process::Command;

use crate::support::{CommandOutput, purse, repository};

const NO_RECEIPT: &str = "is no receipt, page of the hash chain or head";

async fn verify_with_python(file: &str) -> CommandOutput {
    let mut command = Command::new("python3");
    command.arg(repository::root().join("docs/clients/receipt.py")).arg(file);
    let output = tokio::task::spawn_blocking(move || command.output().expect("python3")).await.expect("thread");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test]
async fn a_file_that_is_no_receipt_is_reported_as_that_by_both_verifiers() {
    let folder = std::env::temp_dir().join(format!("purse-no-receipts-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    for (number, content) in [
        "",
        "<html>not found</html>",
        "[]",
        "17",
        "null",
        "{}",
        r#"{"code":"UNAUTHORIZED","message":"Missing or invalid access token."}"#,
        r#"{"balanceMinor":5,"heldMinor":0,"availableMinor":5,"currency":"USD"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.join(number.to_string());
        fs::write(&file, content).expect("written");
        let file = file.to_str().expect("a path");
        let rust = purse(&["ledger", "verify-receipt", "--json", file], &[].into()).await;
        assert_eq!(rust.code, Some(1), "{content}: {rust:?}");
        let message = rust.json()["faults"][0]["message"].as_str().expect("a message").to_owned();
        assert!(message.starts_with(NO_RECEIPT), "{content}: {message}");
        let python = verify_with_python(file).await;
        assert_eq!(python.code, Some(1), "{content}: {python:?}");
        assert!(python.err.contains(NO_RECEIPT), "{content}: {python:?}");
    }
    fs::remove_dir_all(&folder).expect("removed");
}
