//! Prometheus metrics.
//!
//! Metrics are a value that is passed down, not a global recorder: each component registers its handles when it is built.
//! State that exists anyway (a pool, a queue, the health) is read at the time of a scrape.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use metrics::{Counter, Gauge, Histogram};

/// Upper bounds of duration buckets, in seconds: from a write without queueing to the longest wait of a client.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Upper bounds of batch size buckets, in items.
const BATCH: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 10_000.0];

#[derive(Clone, Copy, Debug)]
pub struct MetricName {
    /// Ends with the unit, and with `_total` for a counter.
    pub name: &'static str,
    pub help: &'static str,
}

/// Label names and values. Values come from a closed list: each one is a time series that is never removed.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// Updates gauges and counters from existing state.
type Reading = Box<dyn Fn() + Send + Sync>;

#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    text: PrometheusHandle,
    readings: Mutex<Vec<Reading>>,
}

impl Metrics {
    /// # Errors
    /// The exporter rejects the buckets, which is a bug.
    pub fn try_new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .set_buckets(&BATCH)?
            .build_recorder();
        let text = recorder.handle();
        Ok(Self(Arc::new(Inner { recorder, text, readings: Mutex::default() })))
    }

    pub fn counter(&self, metric: MetricName, labels: Labels<'_>) -> Counter {
        self.0.recorder.describe_counter(KeyName::from(metric.name), Some(Unit::Count), metric.help.into());
        self.0.recorder.register_counter(&key(metric, labels), &METADATA)
    }

    pub fn gauge(&self, metric: MetricName, labels: Labels<'_>) -> Gauge {
        self.0.recorder.describe_gauge(KeyName::from(metric.name), None, metric.help.into());
        self.0.recorder.register_gauge(&key(metric, labels), &METADATA)
    }

    /// A duration in seconds or a batch size, by the suffix of its name.
    pub fn histogram(&self, metric: MetricName, labels: Labels<'_>) -> Histogram {
        self.0.recorder.describe_histogram(KeyName::from(metric.name), None, metric.help.into());
        self.0.recorder.register_histogram(&key(metric, labels), &METADATA)
    }

    /// Calls `reading` before every scrape.
    pub fn on_scrape(&self, reading: impl Fn() + Send + Sync + 'static) {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(reading));
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> String {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|reading| reading());
        self.0.text.render()
    }

    /// Sorts recorded values into their buckets. Without it every value is kept until the next scrape.
    pub fn aggregate(&self) {
        self.0.text.run_upkeep();
    }
}

const METADATA: Metadata<'_> = Metadata::new("purse", Level::INFO, None);

fn key(metric: MetricName, labels: Labels<'_>) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect::<Vec<_>>();
    Key::from_parts(metric.name, labels)
}

/// A count as the value of a gauge or histogram.
pub fn gauge_value(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A count as the value of a counter.
pub fn counter_value(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBS: MetricName = MetricName { name: "purse_jobs_total", help: "Jobs." };

    #[test]
    fn a_metric_is_shown_as_zero_with_its_help_before_it_is_recorded() {
        let metrics = Metrics::try_new().expect("metrics");
        let _ = metrics.counter(JOBS, &[("result", "done")]);
        let _ = metrics.histogram(MetricName { name: "purse_job_duration_seconds", help: "Time." }, &[]);
        let text = metrics.text();
        assert!(text.contains("# HELP purse_jobs_total Jobs.\n# TYPE purse_jobs_total counter\n"), "{text}");
        assert!(text.contains("purse_jobs_total{result=\"done\"} 0\n"), "{text}");
        assert!(text.contains("purse_job_duration_seconds_bucket{le=\"0.0005\"} 0\n"), "{text}");
        assert!(text.contains("purse_job_duration_seconds_count 0\n"), "{text}");
    }

    #[test]
    fn a_batch_has_its_own_buckets_and_a_reading_is_taken_at_each_scrape() {
        let metrics = Metrics::try_new().expect("metrics");
        metrics.histogram(MetricName { name: "purse_batch_jobs", help: "Jobs per batch." }, &[]).record(3.0);
        metrics.aggregate();
        let depth = metrics.gauge(MetricName { name: "purse_queue_jobs", help: "Jobs in the queue." }, &[]);
        metrics.on_scrape(move || depth.increment(1.0));
        assert!(metrics.text().contains("purse_queue_jobs 1\n"));
        let text = metrics.text();
        assert!(text.contains("purse_queue_jobs 2\n"), "{text}");
        assert!(text.contains("purse_batch_jobs_bucket{le=\"2\"} 0\n"), "{text}");
        assert!(text.contains("purse_batch_jobs_bucket{le=\"4\"} 1\n"), "{text}");
    }
}
