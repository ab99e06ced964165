//! `purse doctor`: checks everything that a role depends on, and says what to do about each finding. Changes nothing.

mod broker;
mod database;
mod finding;
mod target;
mod wallets;

use std::future::Future;
use std::time::Duration;

use clap::Command;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::timeout;

pub use finding::Check;
pub(super) use target::Target;

use crate::infra::config::{DatabaseConfig, ProcessConfig, Section};
use crate::kernel::{ExitStatus, Role};
use crate::operate::doctor::finding::{Finding, Level};
use crate::operate::failure::Failure;
use crate::operate::help::help_end;
use crate::operate::humanize::count;
use crate::operate::output::{Format, List};

/// Longest duration of the checks of one server. The servers are checked at the same time.
const SERVER_MAX: Duration = Duration::from_secs(30);

pub(super) fn command() -> Command {
    let width = Check::ALL.map(|check| check.name().len()).into_iter().max().unwrap_or(0);
    let checks = Check::ALL.map(|check| format!("\n  {:width$}  {}", check.name(), check.about()));
    Command::new("doctor")
        .about("Check the servers, permissions, migrations and queues that a role needs, and say what to do")
        .long_about(format!(
            "Connects to the database and the broker of a role with the role's own accounts, checks what the role depends \
             on, and says what to do about each finding. Runs beside the roles, reads only, and ends within a minute. With \
             the database URL of the other role in the environment it also finds users without a wallet. The exit code is \
             0 if there are no findings, 1 if there are warnings or errors, and 69 if a server could not be reached.\n\n\
             Checks:{}",
            checks.concat()
        ))
        .after_help(help_end(
            Some((Section::Role, &Role::ALL)),
            &["purse doctor --role users", "purse doctor --role wallet --json"],
        ))
}

/// `other` is the database of the other role, if its URL is known.
pub(super) async fn run(
    target: Target,
    other: Option<DatabaseConfig>,
    io: Handle,
    format: Format,
) -> Result<ExitStatus, Failure> {
    let process = target.process();
    let role = process.role;
    let (database, broker, wallets) = tokio::join!(
        within(Check::Database, database::check(role, &process.database, io.clone())),
        within(Check::Broker, broker::check(&target, io.clone())),
        wallets::check(role, &process.database, other.as_ref(), io.clone()),
    );
    let mut findings = configuration(process);
    findings.extend(database);
    findings.extend(broker);
    findings.push(wallets);
    report(role, &findings, format)
}

/// The findings of `checks`, or that the server did not respond in time.
async fn within(server: Check, checks: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    timeout(SERVER_MAX, checks).await.unwrap_or_else(|_| {
        let message = format!("the checks did not end within {} seconds", SERVER_MAX.as_secs());
        vec![Finding::unreachable(server, message, "Check the load of the server and the network, then try again.")]
    })
}

fn configuration(process: &ProcessConfig) -> Vec<Finding> {
    let check = Check::Configuration;
    if process.warnings.is_empty() {
        return vec![Finding::ok(check, format!("the configuration of the {} role is valid", process.role))];
    }
    let advice = "Change it; `purse config show` shows where each value comes from.";
    process.warnings.iter().map(|warning| Finding::warning(check, warning, advice)).collect()
}

fn report(role: Role, findings: &[Finding], format: Format) -> Result<ExitStatus, Failure> {
    let mut list = List::begin(format, "checks", &["RESULT", "CHECK", "FINDING"])?;
    for finding in findings {
        list.item(&finding.json(), finding.rows());
    }
    let of = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (of(Level::Error), of(Level::Warning));
    let number = |number: usize, noun| count(u64::try_from(number).unwrap_or(u64::MAX), noun);
    let summary = if errors + warnings == 0 {
        format!("The {role} role has everything that it needs.")
    } else {
        format!("{}, {}.", number(errors, "error"), number(warnings, "warning"))
    };
    list.end(json!({"role": role.as_str(), "errors": errors, "warnings": warnings}), &summary)?;
    Ok(if findings.iter().any(|finding| finding.unreachable) {
        ExitStatus::Unavailable
    } else if errors + warnings > 0 {
        ExitStatus::CheckFailed
    } else {
        ExitStatus::Success
    })
}
