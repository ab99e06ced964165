//! What a process counts and measures, and the text in which Prometheus reads it.
//!
//! Not the crate's global recorder: metrics are a value that is handed down, and each part takes its handles when it is
//! built. What a number is made of that lies about anyway (a pool, a queue, the health board) is read when somebody asks.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use metrics::{Counter, Gauge, Histogram};

/// Upper ends of the buckets of a duration, in seconds: from a write that found no queue to the longest wait of a client.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Upper ends of the buckets of a batch, in what it holds.
const BATCH: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 10_000.0];

/// How something is named, and what it is in one sentence.
#[derive(Clone, Copy, Debug)]
pub struct MetricName {
    /// With its unit, and `_total` where it only grows.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
}

/// Labels with their values. Every value comes from a closed list: each of them is a series that is kept for ever.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// Reads a number that lies about anyway.
type Reading = Box<dyn Fn() + Send + Sync>;

/// Where handles come from and where their text is written.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    text: PrometheusHandle,
    readings: Mutex<Vec<Reading>>,
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    ///
    /// # Errors
    /// Buckets that the exporter does not take, which is our own fault.
    pub fn try_new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .set_buckets(&BATCH)?
            .build_recorder();
        let text = recorder.handle();
        Ok(Self(Arc::new(Inner { recorder, text, readings: Mutex::default() })))
    }

    /// Something that only grows.
    pub fn counter(&self, metric: MetricName, labels: Labels<'_>) -> Counter {
        self.0.recorder.describe_counter(KeyName::from(metric.name), Some(Unit::Count), metric.help.into());
        self.0.recorder.register_counter(&key(metric, labels), &METADATA)
    }

    /// Something that goes up and down.
    pub fn gauge(&self, metric: MetricName, labels: Labels<'_>) -> Gauge {
        self.0.recorder.describe_gauge(KeyName::from(metric.name), None, metric.help.into());
        self.0.recorder.register_gauge(&key(metric, labels), &METADATA)
    }

    /// Something whose distribution is of interest: a duration, or the size of a batch.
    pub fn histogram(&self, metric: MetricName, labels: Labels<'_>) -> Histogram {
        self.0.recorder.describe_histogram(KeyName::from(metric.name), None, metric.help.into());
        self.0.recorder.register_histogram(&key(metric, labels), &METADATA)
    }

    /// Has `reading` set its handles each time somebody asks for the text.
    pub fn when_asked(&self, reading: impl Fn() + Send + Sync + 'static) {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(reading));
    }

    /// The text, as of now.
    pub fn text(&self) -> String {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|reading| reading());
        self.0.text.render()
    }

    /// Sorts measured durations into their buckets. To be called now and then: they are kept one by one otherwise, until
    /// somebody asks for the text.
    pub fn tidy(&self) {
        self.0.text.run_upkeep();
    }
}

const METADATA: Metadata<'_> = Metadata::new("purse", Level::INFO, None);

fn key(metric: MetricName, labels: Labels<'_>) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect::<Vec<_>>();
    Key::from_parts(metric.name, labels)
}

/// A count as the exporter takes it.
pub fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A count as a counter takes it.
pub fn many(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBS: MetricName = MetricName { name: "purse_jobs_total", help: "Jobs." };

    #[test]
    fn what_was_never_counted_is_shown_as_zero_with_its_help() {
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
    fn a_batch_has_buckets_of_its_own_and_a_reading_is_taken_when_asked() {
        let metrics = Metrics::try_new().expect("metrics");
        metrics.histogram(MetricName { name: "purse_batch_jobs", help: "Jobs a batch." }, &[]).record(3.0);
        metrics.tidy();
        let depth = metrics.gauge(MetricName { name: "purse_queue_jobs", help: "Jobs that wait." }, &[]);
        metrics.when_asked(move || depth.increment(1.0));
        assert!(metrics.text().contains("purse_queue_jobs 1\n"));
        let text = metrics.text();
        assert!(text.contains("purse_queue_jobs 2\n"), "{text}");
        assert!(text.contains("purse_batch_jobs_bucket{le=\"2\"} 0\n"), "{text}");
        assert!(text.contains("purse_batch_jobs_bucket{le=\"4\"} 1\n"), "{text}");
    }
}
