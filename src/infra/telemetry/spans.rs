//! Spans of the steps that a trace goes through: the request, the relay's publishing, the provisioning.
//!
//! The trace itself travels without them: logs name it in every build. Spans are made only by a binary that was built with
//! the feature `otlp` and told where to send them; else [`Spans`] is empty and recording one costs nothing.

use std::time::Duration;

use crate::kernel::{Role, TraceParent};

/// What a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A request was answered.
    Request,
    /// An event went to the broker.
    Publish,
    /// A delivery was handled.
    Provision,
}

/// A step that has just ended.
#[derive(Debug)]
pub struct Span<'a> {
    /// What it was.
    pub step: Step,
    /// Its trace and the span above it. All steps of a trace stand side by side, under the span that the client sent.
    pub trace: &'a TraceParent,
    /// How long it took.
    pub took: Duration,
    /// Whether it went wrong by our own fault or a dependency's.
    pub failed: bool,
    /// More about it.
    pub attributes: Vec<(&'static str, String)>,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("the exporter of spans could not be set up: {0}")]
pub struct SpansError(String);

/// Where spans go.
#[derive(Clone, Default)]
pub struct Spans {
    #[cfg(feature = "otlp")]
    exporting: Option<otlp::Exporting>,
}

impl Spans {
    /// Whether this binary can send spans.
    pub const AVAILABLE: bool = cfg!(feature = "otlp");

    /// To the collector at `url`, or nowhere.
    ///
    /// # Errors
    /// [`SpansError`].
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "nothing can be sent by this build"))]
    pub fn try_new(url: Option<&str>, role: Role) -> Result<Self, SpansError> {
        #[cfg(feature = "otlp")]
        return Ok(Self { exporting: url.map(|url| otlp::Exporting::try_new(url, role)).transpose()? });
        #[cfg(not(feature = "otlp"))]
        Ok(Self::default())
    }

    /// Records a step; `span` is made only where it is sent.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "nothing can be sent by this build"))]
    pub fn record<'a>(&self, span: impl FnOnce() -> Span<'a>) {
        #[cfg(feature = "otlp")]
        if let Some(exporting) = &self.exporting {
            exporting.record(span());
        }
    }

    /// Sends what still waits, within two seconds.
    pub fn close(&self) {
        #[cfg(feature = "otlp")]
        if let Some(exporting) = &self.exporting {
            exporting.close();
        }
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use std::time::{Duration, SystemTime};

    use opentelemetry::trace::{
        Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        Tracer as _, TracerProvider as _,
    };
    use opentelemetry::{Context, KeyValue};
    use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

    use super::{Span, SpansError, Step};
    use crate::kernel::{Role, TraceParent};

    /// Longest wait for a collector, at each export and at the end.
    const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

    /// A batch a few seconds, from a thread of its own; what a collector does not take in time is dropped.
    #[derive(Clone)]
    pub(super) struct Exporting {
        provider: SdkTracerProvider,
        tracer: SdkTracer,
    }

    impl Exporting {
        pub(super) fn try_new(url: &str, role: Role) -> Result<Self, SpansError> {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_endpoint(format!("{url}/v1/traces"))
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(|e| SpansError(e.to_string()))?;
            let resource = Resource::builder().with_service_name(format!("purse-{role}")).build();
            let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
            Ok(Self { tracer: provider.tracer("purse"), provider })
        }

        pub(super) fn record(&self, span: Span<'_>) {
            let Some(above) = context(span.trace) else { return };
            let ended = SystemTime::now();
            let (name, kind) = match span.step {
                Step::Request => ("request", SpanKind::Server),
                Step::Publish => ("publish user.registered", SpanKind::Producer),
                Step::Provision => ("provision wallet", SpanKind::Consumer),
            };
            let mut recorded = self
                .tracer
                .span_builder(name)
                .with_kind(kind)
                .with_start_time(ended.checked_sub(span.took).unwrap_or(ended))
                .with_attributes(span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)))
                .start_with_context(&self.tracer, &Context::new().with_remote_span_context(above));
            if span.failed {
                recorded.set_status(Status::error(""));
            }
            recorded.end_with_timestamp(ended);
        }

        pub(super) fn close(&self) {
            // What a collector that is away does not take is lost, which the exporter has logged.
            let _ = self.provider.shutdown_with_timeout(EXPORT_TIMEOUT);
        }
    }

    fn context(trace: &TraceParent) -> Option<SpanContext> {
        let mut parts = trace.as_str().split('-').skip(1);
        let trace_id = TraceId::from_hex(parts.next()?).ok()?;
        let span_id = SpanId::from_hex(parts.next()?).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
        Some(SpanContext::new(trace_id, span_id, flags, true, TraceState::default()))
    }
}
