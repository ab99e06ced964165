//! The runbook "Rotate keys" of docs/operations.md: at no step is a token or an event rejected, whichever role restarts
//! first.

use std::fs;
use std::path::Path;

use purse::kernel::Role;

use crate::support::{Client, PATIENCE, RoleProcess, User, World, eventually, free_port};

const DEAD: &str = "wallet.provision.dlq";

/// Variables with their values, as one step sets them. An empty value is unset.
type Keys = Vec<(String, String)>;

/// The steps of the runbook, from the state before it.
fn runbook() -> Vec<(String, Keys)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = fs::read_to_string(path).expect("page");
    let marked =
        page.split_once("<!-- rotate-keys:begin -->").and_then(|(_, rest)| rest.split_once("<!-- rotate-keys:end -->"));
    let rows: Vec<Vec<&str>> = marked
        .expect("marks")
        .0
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim).collect())
        .collect();
    let (names, steps) = rows.split_first().expect("a table");
    let keys = |row: &[&str]| {
        let pairs = names.iter().zip(row).skip(1);
        pairs.map(|(name, value)| (name.trim_matches('`').to_owned(), (*value).to_owned())).collect()
    };
    steps.iter().map(|row| (row[0].to_owned(), keys(row))).collect()
}

/// Both roles, each on a port that it keeps when it restarts.
struct Roles<'a> {
    world: &'a World,
    ports: [u16; 2],
    running: [Option<RoleProcess>; 2],
}

impl<'a> Roles<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, ports: [free_port(), free_port()], running: [None, None] }
    }

    fn client(&self) -> Client {
        let [users, wallet] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        Client::new(&users, &wallet)
    }

    fn index(role: Role) -> usize {
        usize::from(role == Role::Wallet)
    }

    async fn start(&mut self, role: Role, keys: &Keys) {
        let keys: Vec<(&str, &str)> = keys.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let index = Self::index(role);
        let process = self.world.start_on(role, self.ports[index], &keys).await;
        process.ready().await;
        self.running[index] = Some(process);
    }

    async fn restart(&mut self, role: Role, keys: &Keys) {
        drop(self.running[Self::index(role)].take());
        self.start(role, keys).await;
    }
}

/// What must be accepted at every moment: tokens that were issued earlier, a new one, and the event of a registration.
async fn nothing_is_rejected(roles: &Roles<'_>, earlier: &[User], moment: &str) -> User {
    let client = roles.client();
    let user = client.ready_user().await;
    for user in earlier.iter().chain([&user]) {
        assert_eq!(client.me(&user.token).await.status, 200, "{moment}: the users role");
        assert_eq!(client.get(user, "/v1/balance").await.status, 200, "{moment}: the wallet role");
    }
    assert_eq!(roles.world.broker.depth(DEAD).await, Some(0), "{moment}");
    user
}

#[tokio::test]
async fn keys_are_rotated_as_the_handbook_says_without_a_401_or_a_dead_letter() {
    let steps = runbook();
    assert_eq!(steps.len(), 4, "before, and three steps");
    for first in Role::ALL {
        let world = World::new().await;
        let mut roles = Roles::new(&world);
        let second = if first == Role::Users { Role::Wallet } else { Role::Users };
        let (_, before) = &steps[0];
        roles.start(Role::Wallet, before).await;
        roles.start(Role::Users, before).await;
        let mut users: Vec<User> = Vec::new();
        for (name, keys) in &steps {
            let retired = name.starts_with('3');
            // Tokens with the old keys have expired, as the page says to wait for: the newest one remains.
            let newest = if retired { users.pop() } else { None };
            let old = if retired { std::mem::replace(&mut users, newest.into_iter().collect()) } else { Vec::new() };
            for (role, moment) in [(first, "one role"), (second, "both roles")] {
                let moment = format!("{name}: {moment}, {first} first");
                if role == Role::Wallet {
                    // Events that were signed before the restart wait for the restarted role.
                    drop(roles.running[Roles::index(Role::Wallet)].take());
                    let waiting = roles.client().user().await;
                    eventually(PATIENCE, "the event is in the queue", || async {
                        (world.broker.depth("wallet.provision").await == Some(1)).then_some(())
                    })
                    .await;
                    roles.start(Role::Wallet, keys).await;
                    let status = roles.client().get(&waiting, "/v1/wallet/status?wait=30").await;
                    assert_eq!(status.status, 200, "{moment}: an event that waited");
                    users.push(waiting);
                } else {
                    roles.restart(role, keys).await;
                }
                let user = nothing_is_rejected(&roles, &users, &moment).await;
                users.push(user);
            }
            for user in old.iter().take(1) {
                assert_eq!(roles.client().me(&user.token).await.status, 401, "{name}: the old key is retired");
                assert_eq!(roles.client().get(user, "/v1/balance").await.status, 401, "{name}: the old key is retired");
            }
        }
    }
}

#[tokio::test]
async fn a_switch_without_the_first_step_rejects_tokens_and_events() {
    let steps = runbook();
    let world = World::new().await;
    let mut roles = Roles::new(&world);
    roles.start(Role::Wallet, &steps[0].1).await;
    // The users role signs with the new keys at once.
    roles.start(Role::Users, &steps[2].1).await;
    let user = roles.client().user().await;
    assert_eq!(roles.client().get(&user, "/v1/balance").await.status, 401);
    eventually(PATIENCE, "a dead letter", || async { (world.broker.depth(DEAD).await == Some(1)).then_some(()) }).await;
}
