//! Messages and their codes. The table is that of istio/istio: pkg/config/analysis/msg/messages.yaml.

use std::fmt;

use serde::Serialize;

use super::objects::Subject;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Probably not meant.
    Warning,
    /// Does not work.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        })
    }
}

/// A code of the table.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// `IST` or `MESH`: the latter are ours, for what Istio has no word.
    pub family: &'static str,
    /// The number behind it.
    pub number: u16,
    /// Its name.
    pub name: &'static str,
    /// Its level.
    pub level: Level,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:04}", self.family, self.number)
    }
}

macro_rules! codes {
    ($( $constant:ident = $family:literal $number:literal $name:ident $level:ident; )*) => {
        $(
            #[doc = stringify!($name)]
            pub static $constant: Code =
                Code { family: $family, number: $number, name: stringify!($name), level: Level::$level };
        )*

        /// Every code that a check tells.
        pub static CODES: &[&Code] = &[$(&$constant),*];
    };
}

codes! {
    DEPRECATED = "IST" 2 Deprecated Warning;
    NOT_FOUND = "IST" 101 ReferencedResourceNotFound Error;
    NAMESPACE_NOT_INJECTED = "IST" 102 NamespaceNotInjected Info;
    POD_MISSING_PROXY = "IST" 103 PodMissingProxy Warning;
    SCHEMA_ERROR = "IST" 106 SchemaValidationError Error;
    MISPLACED_ANNOTATION = "IST" 107 MisplacedAnnotation Warning;
    UNKNOWN_ANNOTATION = "IST" 108 UnknownAnnotation Warning;
    CONFLICTING_MESH_HOSTS = "IST" 109 ConflictingMeshGatewayVirtualServiceHosts Error;
    CONFLICTING_SIDECARS = "IST" 110 ConflictingSidecarWorkloadSelectors Error;
    MULTIPLE_SIDECARS = "IST" 111 MultipleSidecarsWithoutWorkloadSelectors Error;
    PORT_REQUIRED = "IST" 112 VirtualServiceDestinationPortSelectorRequired Error;
    MULTIPLE_SERVICES = "IST" 116 DeploymentAssociatedToMultipleServices Warning;
    PORT_NAME = "IST" 118 PortNameIsNotUnderNamingConvention Info;
    MULTIPLE_INJECTION_LABELS = "IST" 123 NamespaceMultipleInjectionLabels Warning;
    INVALID_ANNOTATION = "IST" 125 InvalidAnnotation Warning;
    NO_WORKLOADS = "IST" 127 NoMatchingWorkloadsFound Warning;
    NO_CA_DESTINATION = "IST" 128 NoServerCertificateVerificationDestinationLevel Warning;
    NO_CA_PORT = "IST" 129 NoServerCertificateVerificationPortLevel Warning;
    UNREACHABLE_RULE = "IST" 130 VirtualServiceUnreachableRule Warning;
    INEFFECTIVE_MATCH = "IST" 131 VirtualServiceIneffectiveMatch Info;
    HOST_NOT_IN_GATEWAY = "IST" 132 VirtualServiceHostNotFoundInGateway Warning;
    SCHEMA_WARNING = "IST" 133 SchemaWarning Warning;
    ADDRESSES_REQUIRED = "IST" 134 ServiceEntryAddressesRequired Warning;
    DEPRECATED_ANNOTATION = "IST" 135 DeprecatedAnnotation Info;
    CONFLICTING_PORTS = "IST" 137 DeploymentConflictingPorts Warning;
    DUPLICATE_CERTIFICATE = "IST" 138 GatewayDuplicateCertificate Warning;
    INVALID_WEBHOOK = "IST" 139 InvalidWebhook Error;
    INGRESS_RULES = "IST" 140 IngressRouteRulesNotAffected Warning;
    INVALID_UID = "IST" 144 InvalidApplicationUID Warning;
    CONFLICTING_GATEWAYS = "IST" 145 ConflictingGateways Error;
    IMAGE_AUTO_DEPLOYMENT = "IST" 146 ImageAutoWithoutInjectionWarning Warning;
    IMAGE_AUTO_POD = "IST" 147 ImageAutoWithoutInjectionError Error;
    INJECTED_BY_DEFAULT = "IST" 148 NamespaceInjectionEnabledByDefault Info;
    CLAIM_WITHOUT_AUTHN = "IST" 149 JwtClaimBasedRoutingWithoutRequestAuthN Error;
    EXTERNAL_NAME_PORT = "IST" 150 ExternalNameServiceTypeInvalidPortName Warning;
    FILTER_RELATIVE = "IST" 151 EnvoyFilterUsesRelativeOperation Warning;
    FILTER_REPLACE = "IST" 152 EnvoyFilterUsesReplaceOperationIncorrectly Error;
    FILTER_ADD = "IST" 153 EnvoyFilterUsesAddOperationIncorrectly Error;
    FILTER_REMOVE = "IST" 154 EnvoyFilterUsesRemoveOperationIncorrectly Error;
    FILTER_RELATIVE_VERSION = "IST" 155 EnvoyFilterUsesRelativeOperationWithProxyVersion Warning;
    NO_TELEMETRY_PROVIDER = "IST" 157 InvalidTelemetryProvider Warning;
    IMAGE_MISMATCH = "IST" 158 PodsIstioProxyImageMismatchInNamespace Warning;
    CONFLICTING_TELEMETRIES = "IST" 159 ConflictingTelemetryWorkloadSelectors Error;
    MULTIPLE_TELEMETRIES = "IST" 160 MultipleTelemetriesWithoutWorkloadSelectors Error;
    INVALID_CREDENTIAL = "IST" 161 InvalidGatewayCredential Error;
    GATEWAY_PORT = "IST" 162 GatewayPortNotDefinedOnService Warning;
    CONTROL_PLANE_UNKNOWN = "IST" 163 InvalidExternalControlPlaneConfig Warning;
    CONTROL_PLANE_BY_IP = "IST" 164 ExternalControlPlaneAddressIsNotAHostname Info;
    INTERNAL_GATEWAY = "IST" 165 ReferencedInternalGateway Warning;
    INEFFECTIVE_SELECTOR = "IST" 166 IneffectiveSelector Warning;
    NEGATIVE_CONDITION = "IST" 171 NegativeConditionStatus Warning;
    SUBSET_WITHOUT_PODS = "IST" 173 DestinationRuleSubsetNotSelectPods Error;
    UNKNOWN_RULE_HOST = "IST" 174 UnknownDestinationRuleHost Warning;
    CONFLICTING_ENTRY_PROTOCOL = "IST" 177 ConflictingServiceEntryProtocol Warning;
    NOT_ACTING = "MESH" 4001 NotActing Warning;
    KIND_NOT_ACTING = "MESH" 4002 KindNotActing Warning;
    NOT_CAPTURED = "MESH" 4003 TrafficNotCaptured Error;
    NO_CAPTURE = "MESH" 4004 PodWithoutCapture Warning;
    CERTIFICATE_EXPIRED = "MESH" 4005 CertificateExpired Error;
    CERTIFICATE_EXPIRES_NOW = "MESH" 4006 CertificateExpiresWithinDays Error;
    CERTIFICATE_EXPIRES_SOON = "MESH" 4007 CertificateExpiresSoon Warning;
}

/// Something told about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What kind of thing.
    pub code: &'static Code,
    /// About which object, as its place among the input's.
    pub subject: usize,
    /// Which field, as a finding has it; empty for the object as a whole.
    pub path: String,
    /// In words.
    pub text: String,
}

/// Collects what checks tell.
#[derive(Debug, Default)]
pub struct Messages(Vec<Message>);

impl Messages {
    /// Tells something about an object.
    pub(super) fn tell(
        &mut self,
        code: &'static Code,
        subject: &Subject,
        path: impl Into<String>,
        text: impl Into<String>,
    ) {
        self.0.push(Message { code, subject: subject.index, path: path.into(), text: text.into() });
    }

    /// Tells that what a field names is not there.
    pub(super) fn not_found(&mut self, subject: &Subject, path: impl Into<String>, what: &str, name: &str) {
        self.tell(&NOT_FOUND, subject, path, format!("Referenced {what} not found: {name:?}"));
    }

    pub(super) fn into_vec(self) -> Vec<Message> {
        self.0
    }
}

/// A list as Istio's messages write it: `[a b]`.
pub(super) fn brackets<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(" "))
}
