use std::process::Command;

use purse_dev::ServerAddresses;

/// The machine and the versions that the figures were measured with, a line each.
pub fn describe(on: &ServerAddresses) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("\t: unknown");
    let meminfo = read("/proc/meminfo");
    let kib =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    let first = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("unknown").to_owned()
    };
    let postgres = on.postgres_bin_dir.join("postgres");
    vec![
        format!(
            "{}, {cores} cores, {} GiB",
            model.trim_start_matches(['\t', ':', ' ']),
            kib.unwrap_or(0) / 1024 / 1024
        ),
        first("uname", &["-sr"]),
        first(postgres.to_str().unwrap_or("postgres"), &["--version"]),
        format!("RabbitMQ {}", rabbitmq(on)),
        first("rustc", &["--version"]),
        first("date", &["-u", "+%Y-%m-%d"]),
    ]
}

fn rabbitmq(on: &ServerAddresses) -> String {
    let url = format!("{}/api/overview", on.management_url());
    let (user, password) = (on.amqp_user, on.amqp_password);
    let version = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let response = reqwest::Client::new().get(url).basic_auth(user, Some(password)).send().await.ok()?;
            let overview: serde_json::Value = response.json().await.ok()?;
            overview["rabbitmq_version"].as_str().map(str::to_owned)
        })
    });
    version.join().ok().flatten().unwrap_or_else(|| "unknown".to_owned())
}
