//! What the operating system reports of this process, under the names that Prometheus' own client libraries use, so that
//! common dashboards and alerts find them. On Linux; elsewhere the metrics are absent.

use crate::infra::metrics::Metrics;

/// Registers the metrics, which are read at each scrape.
#[cfg(target_os = "linux")]
pub(crate) fn register(metrics: &Metrics) {
    use crate::infra::metrics::MetricName;
    use procfs::WithCurrentSystemInfo as _;
    use procfs::process::{LimitValue, Process};

    /// Bytes, descriptors and seconds are exact up to 2^53.
    #[expect(clippy::cast_precision_loss, reason = "no process has so much of anything")]
    const fn number(count: u64) -> f64 {
        count as f64
    }

    let gauge = |name, help| metrics.gauge(MetricName { name, help }, &[]);
    let resident = gauge("process_resident_memory_bytes", "Physical memory that the process uses.");
    let open_fds = gauge("process_open_fds", "Open file descriptors, including connections.");
    let max_fds = gauge("process_max_fds", "File descriptors that the process may open.");
    let start = gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.");
    let cpu = MetricName {
        name: "process_cpu_seconds_total",
        help: "CPU time that the process has used, in whole seconds of one core.",
    };
    let cpu = metrics.counter(cpu, &[]);
    let ticks_per_second = procfs::ticks_per_second().max(1);
    let boot_s = procfs::boot_time_secs().ok();
    metrics.on_scrape(move || {
        // A value that cannot be read keeps its last one.
        let Ok(process) = Process::myself() else { return };
        if let Ok(stat) = process.stat() {
            cpu.absolute(stat.utime.saturating_add(stat.stime) / ticks_per_second);
            resident.set(number(stat.rss_bytes().get()));
            if let Some(boot_s) = boot_s {
                start.set(number(boot_s.saturating_add(stat.starttime / ticks_per_second)));
            }
        }
        if let Ok(count) = process.fd_count() {
            open_fds.set(number(u64::try_from(count).unwrap_or(u64::MAX)));
        }
        if let Ok(limits) = process.limits() {
            match limits.max_open_files.soft_limit {
                LimitValue::Value(limit) => max_fds.set(number(limit)),
                LimitValue::Unlimited => max_fds.set(f64::INFINITY),
            }
        }
    });
}

#[cfg(not(target_os = "linux"))]
pub(crate) const fn register(_: &Metrics) {}
