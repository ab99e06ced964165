//! What `dev up` prints when both roles are ready: where everything is, and a session to paste.
//!
//! The session needs a shell, curl and sed, nothing else.

use super::addresses::ServerAddresses;
use super::databases::RoleDatabases;
use super::roles::HttpPorts;

/// The table of addresses.
pub(super) fn table(http: HttpPorts, addresses: &ServerAddresses, databases: &RoleDatabases) -> String {
    let rows = [
        ("users API", format!("http://localhost:{}", http.users)),
        ("wallet API", format!("http://localhost:{}", http.wallet)),
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

/// A registration, a wallet, a credit, a debit, the balance and the history.
pub(super) fn session(http: HttpPorts) -> String {
    format!(
        r#"
  To try it, paste this into another terminal:

USERS=http://localhost:{users} WALLET=http://localhost:{wallet}
EMAIL="ada-$(date +%s)@example.com"
TOKEN=$(curl -s "$USERS/v1/auth/register" -H 'content-type: application/json' \
  -d "{{\"firstName\":\"Ada\",\"lastName\":\"Lovelace\",\"email\":\"$EMAIL\",\"password\":\"correct horse battery\"}}" |
  sed -n 's/.*"accessToken":"\([^"]*\)".*/\1/p')
AUTH="authorization: Bearer $TOKEN"
curl -s "$WALLET/v1/wallet/status?wait=30" -H "$AUTH"; echo
curl -s "$WALLET/v1/transactions/credit" -H "$AUTH" -H "idempotency-key: $EMAIL-1" \
  -H 'content-type: application/json' -d '{{"amountMinor":1500,"description":"first deposit"}}'; echo
curl -s "$WALLET/v1/transactions/debit" -H "$AUTH" -H "idempotency-key: $EMAIL-2" \
  -H 'content-type: application/json' -d '{{"amountMinor":400}}'; echo
curl -s "$WALLET/v1/balance" -H "$AUTH"; echo
curl -s "$WALLET/v1/transactions?limit=10" -H "$AUTH"; echo

  Ctrl-C ends everything and keeps the data; `just reset` removes it.
"#,
        users = http.users,
        wallet = http.wallet,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_a_script_that_a_shell_can_read() {
        let text = session(HttpPorts { users: 4002, wallet: 4001 });
        let script: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("  To ") && !line.starts_with("  Ctrl-C")).collect();
        let checked = std::process::Command::new("sh").args(["-n", "-c", &script.join("\n")]).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        assert!(text.contains("http://localhost:4002") && text.contains("http://localhost:4001"));
    }
}
