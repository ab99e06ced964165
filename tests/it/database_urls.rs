//! The URL of a database: its parameters, TLS as psql would use it, several servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use purse::kernel::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Client, CommandOutput, PATIENCE, PrivatePostgres, RoleProcess, World, eventually, purse};

/// Creates a key and a certificate with openssl, which the packages of PostgreSQL bring along.
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `server.crt` and `server.key` as Debian's own: self-signed, and for no name that a test connects by.
fn self_signed(folder: &Path) {
    openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=elsewhere -addext subjectAltName=DNS:elsewhere.example \
         -keyout server.key -out server.crt",
    );
    restrict(folder);
}

/// PostgreSQL requires it of a key.
fn restrict(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(folder.join("server.key"), private).expect("restricted");
}

/// The same files, issued by a CA in `ca.crt`, for the address of this machine.
fn issued(folder: &Path) {
    openssl(folder, "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=ca -keyout ca.key -out ca.crt");
    openssl(folder, "req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr");
    std::fs::write(folder.join("extensions"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("written");
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out server.crt",
    );
    restrict(folder);
}

fn tls_settings(folder: &Path) -> [String; 4] {
    let file = |name: &str| folder.join(name).display().to_string();
    [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", file("server.crt")),
        format!("ssl_key_file={}", file("server.key")),
        "log_connections=on".to_owned(),
    ]
}

/// The settings of a role with these parameters in both URLs.
fn with_parameters(world: &World, role: Role, parameters: &str) -> BTreeMap<String, String> {
    let mut settings = world.settings(role);
    for (name, value) in &mut settings {
        if name.ends_with("DATABASE_URL") {
            value.push_str(parameters);
        }
    }
    settings
}

async fn migrate(world: &World, parameters: &str) -> CommandOutput {
    purse(&["migrate", "--role", "wallet"], &with_parameters(world, Role::Wallet, parameters)).await
}

/// Migrates with these parameters; returns whether the session was encrypted.
async fn encrypted(world: &World, server: &PrivatePostgres, parameters: &str) -> bool {
    let sessions = |log: &str| -> Vec<String> {
        let authorized = |line: &&str| line.contains("connection authorized") && line.contains("wallet_owner");
        log.lines().filter(authorized).map(str::to_owned).collect()
    };
    let before = sessions(&server.log()).len();
    let done = migrate(world, parameters).await;
    assert_eq!(done.code, Some(0), "{parameters}: {done:?}");
    let after = eventually(PATIENCE, "the session is in the log", || async {
        let after = sessions(&server.log());
        (after.len() > before).then_some(after)
    })
    .await;
    after.last().expect("a session").contains("SSL enabled")
}

/// Fails with these parameters, and says this.
async fn refuses(world: &World, parameters: &str, words: &[&str]) {
    let refused = migrate(world, parameters).await;
    assert_eq!(refused.code, Some(69), "{parameters}: {refused:?}");
    for word in words {
        assert!(refused.err.contains(word), "{parameters}: {word} is not in {}", refused.err);
    }
}

async fn server_with_tls(certificate: fn(&Path)) -> (World, PrivatePostgres) {
    let mut world = World::new().await;
    let server = PrivatePostgres::start_prepared(tls_settings, certificate).await;
    world.move_to(&server).await;
    (world, server)
}

#[tokio::test]
async fn a_self_signed_server_is_used_as_libpq_uses_it() {
    let (world, server) = server_with_tls(self_signed).await;
    let certificate = server.folder().join("server.crt").display().to_string();
    for (parameters, expected) in [
        ("", true),
        ("?sslmode=prefer", true),
        ("?sslmode=require", true),
        ("?ssl=true", true),
        ("?sslmode=allow", false),
        ("?sslmode=disable", false),
    ] {
        assert_eq!(encrypted(&world, &server, parameters).await, expected, "{parameters}");
    }
    // What is not trusted is rejected, with what to change.
    for mode in ["verify-ca", "verify-full"] {
        refuses(&world, &format!("?sslmode={mode}"), &["sslrootcert", "sslmode=require"]).await;
    }
    // The certificate may be trusted itself; it has another name.
    for mode in ["verify-ca", "require"] {
        let pinned = format!("?sslmode={mode}&sslrootcert={certificate}");
        assert!(encrypted(&world, &server, &pinned).await, "{mode}");
    }
    refuses(&world, &format!("?sslmode=verify-full&sslrootcert={certificate}"), &["sslmode=verify-ca"]).await;
    // A running role uses TLS in all of its pools.
    let mut wallet = RoleProcess::spawn(&["--role", "wallet"], &with_parameters(&world, Role::Wallet, ""));
    wallet.listening().await;
    wallet.ready().await;
    let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE NOT ssl AND usename LIKE 'private_wallet%'";
    assert_eq!(server.sql(plain), "0");
}

#[tokio::test]
async fn verify_full_accepts_the_name_and_the_issuer_alone() {
    let (world, server) = server_with_tls(issued).await;
    let ca = server.folder().join("ca.crt").display().to_string();
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(encrypted(&world, &server, &format!("?sslmode={mode}&sslrootcert={ca}")).await, "{mode}");
    }
    // Another CA, of the same name.
    let other = std::env::temp_dir().join(format!("purse-other-ca-{}", std::process::id()));
    std::fs::create_dir_all(&other).expect("folder");
    issued(&other);
    let other_ca = other.join("ca.crt").display().to_string();
    for mode in ["require", "verify-ca", "verify-full"] {
        refuses(&world, &format!("?sslmode={mode}&sslrootcert={other_ca}"), &["sslrootcert"]).await;
    }
    std::fs::remove_dir_all(&other).expect("removed");
}

#[tokio::test]
async fn the_rules_of_the_server_choose_between_encrypted_and_plain_where_the_url_leaves_it_open() {
    let (world, server) = server_with_tls(self_signed).await;
    let rules = server.folder().join("data/pg_hba.conf");
    for (accepted, rejected, open_modes) in [
        ("hostssl", "hostnossl", ["", "?sslmode=prefer", "?sslmode=allow"]),
        ("hostnossl", "hostssl", ["", "?sslmode=prefer", "?sslmode=allow"]),
    ] {
        // The superuser keeps its access, for the test itself.
        let rule = format!(
            "host all {} 127.0.0.1/32 scram-sha-256\n{accepted} all all 127.0.0.1/32 scram-sha-256\n{rejected} all all 127.0.0.1/32 reject\n",
            world.addresses.postgres_superuser
        );
        std::fs::write(&rules, rule).expect("written");
        server.sql("SELECT pg_reload_conf()");
        for mode in open_modes {
            let expected = accepted == "hostssl";
            eventually(PATIENCE, "the rules are in force", || async {
                (encrypted(&world, &server, mode).await == expected).then_some(())
            })
            .await;
        }
        let strict = if accepted == "hostssl" { "?sslmode=disable" } else { "?sslmode=require" };
        refuses(&world, strict, &["pg_hba.conf"]).await;
    }
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_named_with_exit_code_64() {
    let world = World::new().await;
    for (parameters, named) in [
        ("?pgbouncer=true", "pgbouncer"),
        ("?sslmode=require&connection_limit=5", "connection_limit"),
        ("?schema=public", "schema"),
        ("?sslmode=on", "sslmode"),
        ("?sslmode=verify-full&sslrootcert=/nonexistent.pem", "/nonexistent.pem"),
        ("?target_session_attrs=standby", "target_session_attrs"),
        ("?connect_timeout=soon", "connect_timeout"),
        ("?channel_binding=maybe", "channel_binding"),
    ] {
        for arguments in [
            ["--role", "wallet", "--check-config"].as_slice(),
            &["check-config", "--role", "wallet"],
            &["--role", "wallet"],
            &["ledger", "verify"],
        ] {
            let refused = purse(arguments, &with_parameters(&world, Role::Wallet, parameters)).await;
            assert_eq!(refused.code, Some(64), "{arguments:?} {parameters}: {refused:?}");
            assert!(
                refused.err.contains("WALLET_DATABASE_URL") && refused.err.contains(named),
                "{parameters}: {refused:?}"
            );
            assert!(!refused.err.contains("@127.0.0.1"), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn known_parameters_are_honoured() {
    let world = World::new().await;
    let parameters = "?sslmode=prefer&target_session_attrs=read-write&connect_timeout=5&application_name=the%20app\
                      &options=-c%20work_mem%3D7MB&keepalives=1&keepalives_idle=30&tcp_user_timeout=20000&channel_binding=prefer";
    let mut wallet = RoleProcess::spawn(&["--role", "wallet"], &with_parameters(&world, Role::Wallet, parameters));
    wallet.listening().await;
    wallet.ready().await;
    let named = "SELECT count(*) > 0 FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'the app'";
    assert_eq!(world.sql(Role::Wallet, named).await, "t");
}

/// The first server of a URL accepts connections and never says anything, as one does that was stopped with SIGSTOP.
#[tokio::test]
async fn a_server_that_hangs_costs_its_own_time_limit_and_the_next_one_is_used() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let hung = listener.local_addr().expect("address").port();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let mut settings = world.settings(Role::Wallet);
    for (name, value) in &mut settings {
        if name.ends_with("DATABASE_URL") {
            *value = value.replace("@127.0.0.1:", &format!("@127.0.0.1:{hung},127.0.0.1:"));
            value.push_str("?target_session_attrs=read-write&connect_timeout=1");
        }
    }
    let migrated = purse(&["migrate", "--role", "wallet"], &settings).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let mut wallet = RoleProcess::spawn(&["--role", "wallet"], &settings);
    wallet.listening().await;
    wallet.ready().await;
    // Each server that failed is logged, although another one was found.
    let silent = format!("127.0.0.1:{hung}: no response within 1000 ms");
    let failures = wallet.logged("no session on a database server");
    assert!(failures.iter().any(|line| line["error"] == silent.as_str()), "{failures:?}");
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    assert_eq!(client.post(&user, "credit", 1, None).await.status, 201);
    let verified = purse(&["ledger", "verify"], &settings).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");

    // All reasons are reported, each with its server.
    for (name, value) in &mut settings {
        if name.ends_with("DATABASE_URL") {
            *value = value.replace(&format!(",127.0.0.1:{}", world.addresses.postgres_port), ",127.0.0.1:1");
        }
    }
    let refused = purse(&["migrate", "--role", "wallet"], &settings).await;
    assert_eq!(refused.code, Some(69), "{refused:?}");
    for reason in [format!("127.0.0.1:{hung}: no response within 1000 ms"), "127.0.0.1:1: ".to_owned()] {
        assert!(refused.err.contains(&reason), "{reason}: {refused:?}");
    }
    held.abort();
}

#[tokio::test]
async fn several_servers_without_target_session_attrs_are_a_warning() {
    let world = World::new().await;
    let port = world.addresses.postgres_port;
    for (parameters, warns) in [("", true), ("?target_session_attrs=read-write", false)] {
        let mut settings = with_parameters(&world, Role::Wallet, parameters);
        for (name, value) in &mut settings {
            if name.ends_with("DATABASE_URL") {
                *value = value.replace("@127.0.0.1:", &format!("@127.0.0.1:{port},127.0.0.1:"));
            }
        }
        let checked = purse(&["check-config", "--role", "wallet"], &settings).await;
        assert_eq!(checked.code, Some(0), "{checked:?}");
        for name in ["WALLET_DATABASE_URL", "WALLET_MIGRATION_DATABASE_URL"] {
            let warning = format!("{name} names several servers but not target_session_attrs=read-write");
            assert_eq!(checked.err.contains(&warning), warns, "{checked:?}");
        }
    }
}

/// A server that authenticates a session and then falls silent, before the limits of the session are lifted.
#[tokio::test]
async fn a_server_that_falls_silent_after_the_login_costs_a_command_its_time_limit() {
    let world = World::new().await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = proxy.local_addr().expect("address").port();
    let server = world.addresses.postgres_port;
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((client, _)) = proxy.accept().await {
            held.push(tokio::spawn(silent_after_login(client, server)));
        }
    });
    let mut settings = world.settings(Role::Wallet);
    for (name, value) in &mut settings {
        if name.ends_with("DATABASE_URL") {
            *value = value.replace(&format!("@127.0.0.1:{server}/"), &format!("@127.0.0.1:{port}/"));
            value.push_str("?sslmode=disable&connect_timeout=1");
        }
    }
    for command in [["migrate", "--role", "wallet"].as_slice(), &["ledger", "verify"]] {
        let ended = tokio::time::timeout(PATIENCE, purse(command, &settings)).await.expect("it ends");
        assert_eq!(ended.code, Some(69), "{ended:?}");
        assert!(ended.err.contains(&format!("127.0.0.1:{port}: no response within 1000 ms")), "{ended:?}");
    }
}

/// Forwards until the server is ready for the first statement.
async fn silent_after_login(mut client: TcpStream, server: u16) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut sent, mut received) = (vec![0; 16_384], vec![0; 16_384]);
    loop {
        tokio::select! {
            read = client.read(&mut sent) => match read? {
                0 => return Ok(()),
                length => server.write_all(&sent[..length]).await?,
            },
            read = server.read(&mut received) => {
                let bytes = &received[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                client.write_all(bytes).await?;
                // ReadyForQuery, idle.
                if bytes.ends_with(b"Z\0\0\0\x05I") {
                    return std::future::pending().await;
                }
            }
        }
    }
}
