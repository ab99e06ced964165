//! Spans of a trace: the request, the publishing of its event, the provisioning of the wallet.
//!
//! Trace ids are logged by every build. Spans are sent only by a binary that was built with the feature `otlp` and where
//! `OTLP_URL` is set; otherwise [`Spans`] is empty and recording one costs nothing.

use std::time::Duration;

use crate::kernel::{Role, TraceParent};

/// The unit of work that a span covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanName {
    /// An HTTP request.
    Request,
    /// The publishing of one event, until the broker's confirm.
    Publish,
    /// The provisioning of one wallet, from delivery to outcome.
    Provision,
}

/// A span that has just ended.
#[derive(Debug)]
pub struct Span<'a> {
    /// The unit of work.
    pub name: SpanName,
    /// The trace, and the client's span: all spans of a trace are its direct children.
    pub trace: &'a TraceParent,
    /// Duration, up to now.
    pub took: Duration,
    /// Whether it failed because of a bug or a dependency, not because of the caller.
    pub failed: bool,
    /// By their OpenTelemetry names.
    pub attributes: Vec<(&'static str, String)>,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("the span exporter could not be set up: {0}")]
pub struct SpansError(String);

/// The span exporter of a process, if it has one.
#[derive(Clone, Default)]
pub struct Spans {
    #[cfg(feature = "otlp")]
    exporter: Option<otlp::Exporter>,
}

impl Spans {
    /// Whether this binary can send spans.
    pub const AVAILABLE: bool = cfg!(feature = "otlp");

    /// Sends to the collector at `url`, if there is one.
    ///
    /// # Errors
    /// When the HTTP client of the exporter cannot be set up.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "this build sends nothing"))]
    pub fn try_new(url: Option<&str>, role: Role) -> Result<Self, SpansError> {
        #[cfg(feature = "otlp")]
        return Ok(Self { exporter: url.map(|url| otlp::Exporter::try_new(url, role)).transpose()? });
        #[cfg(not(feature = "otlp"))]
        Ok(Self::default())
    }

    /// Records a span, which is built only if it is sent.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "this build sends nothing"))]
    pub fn record<'a>(&self, span: impl FnOnce() -> Span<'a>) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            exporter.record(span());
        }
    }

    /// Sends what is still buffered, within two seconds.
    pub fn close(&self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            exporter.close();
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

    use super::{Span, SpanName, SpansError};
    use crate::kernel::{Role, TraceParent};

    /// Longest wait for the collector, at each export and at shutdown.
    const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

    /// Sends a batch every few seconds, on a thread of its own; what the collector does not accept in time is dropped.
    #[derive(Clone)]
    pub(super) struct Exporter {
        provider: SdkTracerProvider,
        tracer: SdkTracer,
    }

    impl Exporter {
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
            let Some(parent) = context(span.trace) else { return };
            let ended = SystemTime::now();
            let (name, kind) = match span.name {
                SpanName::Request => ("request", SpanKind::Server),
                SpanName::Publish => ("publish user.registered", SpanKind::Producer),
                SpanName::Provision => ("provision wallet", SpanKind::Consumer),
            };
            let mut recorded = self
                .tracer
                .span_builder(name)
                .with_kind(kind)
                .with_start_time(ended.checked_sub(span.took).unwrap_or(ended))
                .with_attributes(span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)))
                .start_with_context(&self.tracer, &Context::new().with_remote_span_context(parent));
            if span.failed {
                recorded.set_status(Status::error(""));
            }
            recorded.end_with_timestamp(ended);
        }

        pub(super) fn close(&self) {
            // If the collector is unreachable the spans are lost, which the exporter logs.
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
