//! Extension providers of MeshConfig. None acts yet, so that their own fields are not looked into.

use serde_json::Value;

use crate::{crd::api, text::Str};

api! {
    /// A service that extends the mesh: a name and one of the other fields.
    pub struct ExtensionProvider {
        /// The name that policies use.
        pub name: Str,
        /// Authorization over HTTP.
        pub envoy_ext_authz_http: Option<Value>,
        /// Authorization over gRPC.
        pub envoy_ext_authz_grpc: Option<Value>,
        /// Traces.
        pub zipkin: Option<Value>,
        /// Traces.
        pub lightstep: Option<Value>,
        /// Traces.
        pub datadog: Option<Value>,
        /// Traces, metrics and logs.
        pub stackdriver: Option<Value>,
        /// Traces.
        pub opencensus: Option<Value>,
        /// Traces.
        pub skywalking: Option<Value>,
        /// Traces.
        pub opentelemetry: Option<Value>,
        /// Metrics.
        pub prometheus: Option<Value>,
        /// Access log to a file.
        pub envoy_file_access_log: Option<Value>,
        /// Access log over gRPC.
        pub envoy_http_als: Option<Value>,
        /// Access log over gRPC.
        pub envoy_tcp_als: Option<Value>,
        /// Access log over OpenTelemetry.
        pub envoy_otel_als: Option<Value>,
        /// Secrets.
        pub sds: Option<Value>,
    }

    /// Providers used without being asked for.
    pub struct DefaultProviders {
        /// Of traces.
        pub tracing: Vec<Str>,
        /// Of metrics.
        pub metrics: Vec<Str>,
        /// Of access logs.
        pub access_logging: Vec<Str>,
    }
}
