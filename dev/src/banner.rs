//! What `up` shows when both roles are ready: the addresses, and a session to paste; and what `env` prints.

use std::env;
use std::path::Path;

use crate::databases::RoleDatabases;
use crate::error::DevError;
use crate::hints::another_command;
use crate::ports::Ports;
use crate::role::Role;
use crate::servers::ServerAddresses;

pub(crate) fn table(ports: &Ports, addresses: &ServerAddresses, databases: &RoleDatabases) -> String {
    let rows = [
        ("users API", format!("{}/docs", ports.url(Role::Users))),
        ("wallet API", format!("{}/docs", ports.url(Role::Wallet))),
        (
            "RabbitMQ UI",
            format!("{}  (login {} / {})", addresses.management_url(), addresses.amqp_user, addresses.amqp_password),
        ),
        ("RabbitMQ", addresses.amqp_url("/")),
        ("users database", format!("psql {}", addresses.superuser_url(&databases.users.database))),
        ("wallet database", format!("psql {}", addresses.superuser_url(&databases.wallet.database))),
    ];
    let widest = rows.iter().map(|(_, place)| place.len()).max().unwrap_or_default();
    let rule = format!("  {}\n", "-".repeat(widest + 18));
    let body = rows.map(|(what, place)| format!("  {what:<16}  {place}\n")).concat();
    format!("\n{rule}{body}{rule}").trim_end().to_owned()
}

/// A registration, a wallet, a credit, a debit, the balance and the history. Needs a shell, curl and sed.
pub(crate) fn session(ports: &Ports) -> String {
    let own = env::current_exe().ok().and_then(|path| shlex::try_quote(path.to_str()?).ok().map(String::from));
    format!(
        r#"
  Try it: open the first address in a browser, or paste this into another terminal:

USERS={users} WALLET={wallet}
EMAIL="ada-$(date +%s)@example.com"
TOKEN=$(curl -s "$USERS/v1/auth/register" -H 'content-type: application/json' \
  -d "{{\"firstName\":\"Ada\",\"lastName\":\"Lovelace\",\"email\":\"$EMAIL\",\"password\":\"correct horse battery\"}}" |
  sed -n 's/.*"accessToken":"\([^"]*\)".*/\1/p')
AUTH="authorization: Bearer $TOKEN"
curl -s "$WALLET/v1/wallet/status?wait=30" -H "$AUTH"
curl -s "$WALLET/v1/transactions/credit" -H "$AUTH" -H "idempotency-key: $EMAIL-1" \
  -H 'content-type: application/json' -d '{{"amountMinor":1500,"description":"first deposit"}}'
curl -s "$WALLET/v1/transactions/debit" -H "$AUTH" -H "idempotency-key: $EMAIL-2" \
  -H 'content-type: application/json' -d '{{"amountMinor":400}}'
curl -s "$WALLET/v1/balance" -H "$AUTH"
curl -s "$WALLET/v1/transactions?limit=10" -H "$AUTH"

  For purse and psql in another terminal:  eval "$({own} env)"
  Ctrl-C stops everything and keeps the data; `{reset}` removes it.
"#,
        users = ports.url(Role::Users),
        wallet = ports.url(Role::Wallet),
        own = own.as_deref().unwrap_or("purse-dev"),
        reset = another_command("reset"),
    )
}

/// `export` commands: the settings, and PATH with the folders of `purse` and `psql` first.
pub(crate) fn environment(settings: &[(&str, String)], purse: &Path, psql_folder: &Path) -> Result<String, DevError> {
    let quoted = |value: &str| {
        let quoted = shlex::try_quote(value).map(String::from);
        quoted.map_err(|_| DevError::Setting("a setting contains a NUL character".into()))
    };
    let export = |(name, value): &(&str, String)| Ok(format!("export {name}={}\n", quoted(value)?));
    let exports = settings.iter().map(export).collect::<Result<String, DevError>>()?;
    let folders = [purse.parent().unwrap_or(purse), psql_folder].map(|folder| folder.display().to_string());
    Ok(exports + &format!("export PATH={}:\"$PATH\"\n", quoted(&folders.join(":"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn shell(arguments: &[&str]) -> String {
        let output = Command::new("sh").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_session_is_a_script_that_a_shell_can_read() {
        let text = session(&Ports { users: 4002, wallet: 4001, ..Ports::default() });
        let script: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("  Try") && !line.starts_with("  Ctrl-C")).collect();
        shell(&["-n", "-c", &script.join("\n")]);
        assert!(text.contains("http://localhost:4002") && text.contains("http://localhost:4001"));
    }

    #[test]
    fn a_shell_reads_every_value_back_as_it_is() {
        let key = "it's $(rm -rf /) \"quoted\" `x` \\ and\nhas lines";
        let text = environment(&[("JWT_PRIVATE_KEY", key.into())], Path::new("/a b/purse"), Path::new("/p")).unwrap();
        let read = shell(&["-c", &format!("PATH=/old\n{text}\nprintf '%s|%s' \"$JWT_PRIVATE_KEY\" \"$PATH\"")]);
        assert_eq!(read, format!("{key}|/a b:/p:/old"));
    }
}
