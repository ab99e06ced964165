//! `purse config template`, `completions` and `man` print valid output.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use purse::kernel::Role;

use crate::support::{command, purse};

#[tokio::test]
async fn the_template_is_valid_as_printed_and_with_every_default_uncommented() {
    let nothing = BTreeMap::new();
    let printed = purse(&["config", "template"], &nothing).await;
    assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""));
    // Only lines that show a default, `# key = value`, are uncommented.
    let is_default =
        |line: &str| line.split_once(" = ").is_some_and(|(key, value)| !key.contains(' ') && !value.starts_with('<'));
    let uncommented: Vec<&str> = printed
        .out
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_default(rest)).unwrap_or(line))
        .collect();
    assert!(uncommented.iter().filter(|line| is_default(line)).count() > 25, "{uncommented:?}");
    let folder = std::env::temp_dir().join(format!("purse-template-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("folder");
    for text in [printed.out.clone(), uncommented.join("\n")] {
        fs::write(folder.join("base.toml"), text).expect("written");
        for role in Role::ALL {
            let settings: BTreeMap<String, String> = [
                ("USERS_DATABASE_URL", "postgres://u:p@127.0.0.1:1/x"),
                ("WALLET_DATABASE_URL", "postgres://u:p@127.0.0.1:1/x"),
                ("RABBITMQ_URL", "amqp://127.0.0.1:1"),
                ("JWT_PRIVATE_KEY", "ILIACHALLENGE"),
                ("INTERNAL_JWT_PRIVATE_KEY", "ILIACHALLENGE_INTERNAL"),
                ("PURSE_CONFIG_DIR", folder.to_str().expect("path")),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
            let checked = purse(&["check-config", "--role", role.as_str()], &settings).await;
            assert_eq!(checked.code, Some(0), "{checked:?}");
        }
    }
    fs::remove_dir_all(&folder).expect("removed");
}

#[tokio::test]
async fn the_completion_script_of_every_shell_contains_the_commands() {
    let nothing = BTreeMap::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = purse(&["completions", shell], &nothing).await;
        assert_eq!((script.code, script.err.as_str()), (Some(0), ""), "{shell}");
        for word in ["redrive", "republish", "verify", "dry-run", "outbox-batch-max", "doctor", "show"] {
            assert!(script.out.contains(word), "the script for {shell} does not contain {word}");
        }
    }
    let bash = purse(&["completions", "bash"], &nothing).await;
    let read = Command::new("bash").args(["-n", "-c", &bash.out]).output();
    // The check needs bash.
    if let Ok(read) = read {
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
    for arguments in [&["completions"][..], &["completions", "tcsh"]] {
        assert_eq!(purse(arguments, &nothing).await.code, Some(64), "{arguments:?}");
    }
}

#[tokio::test]
async fn every_command_has_a_manual_page() {
    let nothing = BTreeMap::new();
    for (words, title) in [
        (&[][..], "purse"),
        (&["migrate"], "purse-migrate"),
        (&["dlq"], "purse-dlq"),
        (&["dlq", "redrive"], "purse-dlq-redrive"),
        (&["outbox", "republish"], "purse-outbox-republish"),
        (&["ledger", "verify"], "purse-ledger-verify"),
        (&["config", "template"], "purse-config-template"),
        (&["config", "show"], "purse-config-show"),
        (&["doctor"], "purse-doctor"),
    ] {
        let page = purse(&[&["man"], words].concat(), &nothing).await;
        assert_eq!((page.code, page.err.as_str()), (Some(0), ""), "{words:?}");
        assert!(page.out.contains(&format!("\n.TH {title} 1 ")), "{words:?}\n{}", page.out);
        assert!(page.out.contains("\n.SH NAME\n") && page.out.contains("\n.SH SYNOPSIS\n"), "{words:?}");
    }
    let unknown = purse(&["man", "dlq", "burn"], &nothing).await;
    assert_eq!(unknown.code, Some(64));
    assert!(unknown.err.contains("dlq has no command burn"), "{unknown:?}");
}

#[test]
fn a_reader_that_closes_the_pipe_early_is_not_an_error() {
    for arguments in [&["completions", "bash"][..], &["man"], &["config", "template"]] {
        let mut command = command(arguments, &BTreeMap::new());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
        drop(child.stdout.take());
        let mut errors = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut errors).expect("text");
        assert_eq!((child.wait().expect("ended").code(), errors.as_str()), (Some(0), ""), "{arguments:?}");
    }
}
