//! The deployment files name only settings that exist, and a role accepts the settings that a pod or container gets.

use std::collections::{BTreeMap, BTreeSet};

use purse::infra::config::Setting;
use purse::infra::config::setting::ALL;
use purse::kernel::Role;

use crate::support::repository::text as file;
use crate::support::{World, purse};

/// Whether a word has the form of a variable: `APP_ENV`.
fn is_variable(word: &str) -> bool {
    word.contains('_') && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// The variables that a manifest names, outside its comments.
fn variables(manifest: &str) -> BTreeSet<String> {
    let lines = manifest.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| is_variable(word)).map(str::to_owned).collect()
}

/// The settings that every pod gets: `NAME=value` under `literals`.
fn literals() -> BTreeMap<String, String> {
    let kustomization = file("docker/kubernetes/base/kustomization.yaml");
    let lines = kustomization.lines().filter_map(|line| line.trim_start().strip_prefix("- "));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn every_setting_in_a_manifest_exists_and_belongs_to_the_role() {
    let both = literals().into_keys().collect::<BTreeSet<_>>();
    assert!(both.contains("APP_ENV"), "{both:?}");
    for (name, known) in [("users", Role::Users), ("wallet", Role::Wallet)] {
        let named = variables(&file(&format!("docker/kubernetes/base/{name}.yaml")));
        assert!(named.contains("INTERNAL_JWT_PRIVATE_KEY"), "{named:?}");
        for variable in both.iter().chain(&named) {
            let setting = ALL.iter().find(|setting| setting.env == variable);
            // A setting that the pods of both roles get may belong to one role.
            let fits = setting.is_some_and(|s| both.contains(variable) || s.role.is_none_or(|role| role == known));
            assert!(fits, "docker/kubernetes gives the {known} role {variable}, which is not a setting of that role");
        }
        let secrets = ALL.iter().filter(|s| s.is_secret() && s.role.is_none_or(|role| role == known));
        // Only the migration jobs get the owner's password.
        let (owner, needed): (Vec<&Setting>, Vec<&Setting>) =
            secrets.partition(|s| s.env.ends_with("_MIGRATION_DATABASE_URL"));
        let jobs = variables(&file("docker/kubernetes/base/migrate.yaml"));
        for secret in owner {
            assert!(!named.contains(secret.env) && jobs.contains(secret.env), "{} in {name}.yaml", secret.env);
        }
        for secret in needed {
            assert!(named.contains(secret.env), "docker/kubernetes/base/{name}.yaml does not give {}", secret.env);
        }
    }
    for variable in variables(&file("docker/kubernetes/base/migrate.yaml")) {
        assert!(ALL.iter().any(|setting| setting.env == variable), "migrate.yaml: {variable}");
    }
}

/// The service of a role in docker/compose.yaml.
fn service(stack: &str, role: Role) -> String {
    let (_, from_here) = stack.split_once(&format!("\n  {role}:\n")).expect("the service");
    from_here.lines().take_while(|line| line.starts_with("    ") || line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The part of docker/compose.yaml that begins with this anchor.
fn anchored<'a>(stack: &'a str, anchor: &str) -> &'a str {
    let (_, from_here) = stack.split_once(&format!("\nx-{anchor}: &{anchor}\n")).expect("the anchor");
    from_here.split("\n\n").next().unwrap_or_default()
}

#[test]
fn the_container_stack_passes_every_setting_of_its_environment_file_to_both_roles() {
    let stack = file("docker/compose.yaml");
    assert!(anchored(&stack, "role").contains("\n  env_file: ${PURSE_ENV_FILE:-../.env}\n"));
    assert!(file("docker/stack.sh").contains("export PURSE_ENV_FILE="));
    for role in Role::ALL {
        let service = service(&stack, role);
        assert!(service.contains("<<: *role\n") && service.contains("<<: *role-environment\n"), "{role}");
    }
    // These take precedence over the file, so only known ones are allowed.
    for variable in variables(anchored(&stack, "role-environment")) {
        assert!(
            ALL.iter().any(|setting| setting.env == variable) || variable.ends_with("_PASSWORD"),
            "docker/compose.yaml sets {variable}, which is not a setting"
        );
    }
}

#[test]
fn a_role_receives_no_password_of_the_container_stack_but_its_own() {
    let (stack, example) = (file("docker/compose.yaml"), file("config/.env.example"));
    let names = example.lines().filter_map(|line| line.trim_start_matches("# ").split_once('=')).map(|(name, _)| name);
    let is_secret = |name: &&str| name.ends_with("_PASSWORD") || name.ends_with("_DATABASE_URL");
    let secrets: Vec<&str> = names.filter(is_secret).collect();
    assert!(secrets.len() >= 13, "{secrets:?}");
    for secret in secrets {
        let blanked = format!("\n  {secret}: \"\"\n");
        assert!(format!("{}\n", anchored(&stack, "role-environment")).contains(&blanked), "{secret} reaches the roles");
    }
}

#[tokio::test]
async fn a_role_accepts_the_settings_of_its_pod_and_listens_on_the_port_of_its_probes() {
    for (role, port) in [("users", "3002"), ("wallet", "3001")] {
        let manifest = file(&format!("docker/kubernetes/base/{role}.yaml"));
        let mut environment = literals();
        for variable in variables(&manifest) {
            let literal =
                manifest.split_once(&format!("{{name: {variable}, value: ")).and_then(|(_, rest)| rest.split_once('}'));
            let value = match variable.as_str() {
                _ if literal.is_some() => literal.expect("a value").0.to_owned(),
                "RABBITMQ_URL" => "amqps://user:password@rabbitmq.example:5671/%2f".to_owned(),
                // 32 bytes in base64.
                name if name.starts_with("LEDGER_SIGNING_KEY") => {
                    "c2lnbmluZ3NpZ25pbmdzaWduaW5nc2lnbmluZ3NpZ24=".to_owned()
                }
                name if name.ends_with("_URL") => format!("postgres://{role}:password@database.example:5432/{role}"),
                name => format!("{name:-<32}"),
            };
            environment.insert(variable, value);
        }
        let checked = purse(&["check-config", "--role", role], &environment).await;
        assert_eq!(checked.code, Some(0), "{checked:?}");
        assert!(manifest.contains(&format!("{{name: http, containerPort: {port}}}")), "{role}");
        let metrics = &literals()["METRICS_PORT"];
        assert!(manifest.contains(&format!("{{name: metrics, containerPort: {metrics}}}")), "{role}");
        let name = format!("{}_PORT", role.to_uppercase());
        let setting = ALL.iter().find(|setting| setting.env == name).expect("port");
        assert_eq!(setting.default, purse::infra::config::setting::Fallback::Text(port), "{name}");
        // Without a required setting the check fails.
        environment.remove("INTERNAL_JWT_PRIVATE_KEY");
        let checked = purse(&["check-config", "--role", role], &environment).await;
        assert_eq!(checked.code, Some(64), "{checked:?}");
    }
}

#[test]
fn the_images_of_the_container_stack_are_pinned_to_a_minor_version() {
    let (stack, recipe, script) = (file("docker/compose.yaml"), file("docker/Dockerfile"), file("docker/stack.sh"));
    let images = stack.lines().filter_map(|line| line.trim_start().strip_prefix("image: "));
    let names = images.map(|image| image.split(":-").last().unwrap_or_default().trim_end_matches('}'));
    let builder = recipe.lines().find_map(|line| line.strip_prefix("ARG RUST_IMAGE=")).expect("RUST_IMAGE");
    let all: BTreeSet<&str> = names.chain([builder]).filter(|name| *name != "purse:local").collect();
    assert!(all.len() >= 6, "{all:?}");
    for name in &all {
        let (_, tag) = name.split_once(':').unwrap_or_else(|| panic!("{name} has no tag"));
        let version = tag.trim_start_matches('v').split('-').next().unwrap_or_default();
        let numbers: Vec<&str> = version.split('.').collect();
        let pinned = numbers.len() >= 2 && numbers.iter().all(|number| number.parse::<u32>().is_ok());
        assert!(pinned, "{name} is not pinned to a minor version");
    }
    assert!(script.contains(&format!("FROM {builder}\\n")), "docker/stack.sh trusts another toolchain image");
    let minimum = file("Cargo.toml")
        .lines()
        .find_map(|line| Some(line.strip_prefix("rust-version = \"")?.trim_end_matches('"').to_owned()));
    assert!(builder.starts_with(&format!("rust:{}-", minimum.expect("rust-version"))), "{builder}");
}

#[test]
fn the_roles_trust_the_fixed_address_of_the_proxy_which_no_other_container_can_get() {
    let stack = file("docker/compose.yaml");
    let value = |key: &str| {
        let line = stack.lines().find_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key));
        line.unwrap_or_else(|| panic!("{key}")).trim().to_owned()
    };
    let trusted = value("TRUSTED_PROXIES: ").trim_start_matches("${TRUSTED_PROXIES:-").trim_end_matches('}').to_owned();
    let address = value("edge: {ipv4_address: ").trim_end_matches('}').to_owned();
    assert_eq!(trusted, format!("{address}/32"));
    let network = |text: String| text.parse::<ipnet::Ipv4Net>().unwrap_or_else(|e| panic!("{text}: {e}"));
    let (subnet, others) = (network(value("subnet: ")), network(value("ip_range: ")));
    let address: std::net::Ipv4Addr = address.parse().expect("address");
    assert!(subnet.contains(&address) && !others.contains(&address) && subnet.contains(&others), "{address}");
    for role in Role::ALL {
        let service = service(&stack, role);
        assert!(service.contains(", edge]"), "the proxy does not reach {role}");
        assert!(service.contains("\"${API_HOST:-0.0.0.0}:"), "API_HOST does not close the plain port of {role}");
    }
    // Without the profile there is no proxy, and no role but these has a port of the machine.
    let (_, proxy) = stack.split_once("\n  proxy:\n").expect("the proxy");
    assert!(proxy.split("\n\n").next().unwrap_or_default().contains("profiles: [tls]"));
}

/// The manifest of a role's migration job.
fn job(role: Role) -> String {
    let manifest = file("docker/kubernetes/base/migrate.yaml");
    let of_the_role = format!("name: purse-migrate-{role}\n");
    let found = manifest.split("\n---\n").find(|document| document.contains(&of_the_role));
    found.expect("the job").to_owned()
}

#[tokio::test]
async fn a_migration_job_migrates_with_the_urls_of_its_database_alone() {
    let world = World::new().await;
    for role in Role::ALL {
        let job = job(role);
        assert!(job.contains(&format!("args: [migrate, --role, {role}]\n")), "{job}");
        let (settings, prefix) = (world.settings(role), role.as_str().to_uppercase());
        let named: Vec<String> = variables(&job).into_iter().collect();
        assert_eq!(named, [format!("{prefix}_DATABASE_URL"), format!("{prefix}_MIGRATION_DATABASE_URL")]);
        let mut environment = literals();
        environment.extend(named.into_iter().map(|name| (name.clone(), settings[&name].clone())));
        let migrated = purse(&["migrate", "--role", role.as_str()], &environment).await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        let tables = world.sql(role, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await;
        assert!(tables.parse::<u32>().expect("a number") >= 3, "{tables}");
    }
}

#[test]
fn an_image_has_labels_for_its_version_its_source_and_its_base() {
    let (recipe, stack) = (file("docker/Dockerfile"), file("docker/stack.sh"));
    for label in ["title", "description", "licenses", "version", "revision", "created", "base.name"] {
        assert!(recipe.contains(&format!("org.opencontainers.image.{label}=\"")), "{label}");
    }
    for argument in ["VERSION", "REVISION", "CREATED"] {
        assert!(recipe.contains(&format!("\nARG {argument}=unknown\n")), "{argument}");
        assert!(stack.contains(&format!("--build-arg \"{argument}=")), "docker/stack.sh does not set {argument}");
    }
    let base = recipe.split("org.opencontainers.image.base.name=\"").nth(1).and_then(|rest| rest.split('"').next());
    let last = recipe.lines().filter_map(|line| line.strip_prefix("FROM ")).next_back();
    assert_eq!(base, last, "the label does not name the base image");
}

#[tokio::test]
async fn every_unique_key_of_the_wallet_tables_begins_with_the_user_id() {
    // A condition for distributing the tables by user: docs/scaling.md.
    let world = World::new().await;
    let _wallet = world.start(Role::Wallet).await;
    let keys = "SELECT string_agg(indexrelid::regclass || ' ' || attname, ', ' ORDER BY indexrelid::regclass::text)
                FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
                WHERE indisunique
                  AND indrelid IN ('wallets'::regclass, 'transactions'::regclass, 'entry_texts'::regclass, 'open_holds'::regclass)";
    assert_eq!(
        world.sql(Role::Wallet, keys).await,
        "entry_texts_pkey user_id, open_holds_id_key user_id, open_holds_pkey user_id, transactions_id_key user_id, \
         transactions_idempotency_key user_id, transactions_origin_key user_id, transactions_pkey user_id, \
         transactions_service_key user_id, transactions_transfer_key user_id, wallets_pkey user_id"
    );
}
