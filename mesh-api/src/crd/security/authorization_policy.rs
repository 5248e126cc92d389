//! AuthorizationPolicy: who may call what. istio/api: security/v1beta1/authorization_policy.proto.

use crate::{
    crd::{
        api, api_enum,
        common::{PolicyTargetReference, WorkloadSelector},
    },
    text::Str,
};

api! {
    /// Who may call what.
    pub struct AuthorizationPolicy {
        /// The workloads; all of the namespace (or mesh, in the root namespace) when absent.
        pub selector: Option<WorkloadSelector>,
        /// Deprecated: use targetRefs.
        pub target_ref: Option<PolicyTargetReference>,
        /// Objects that the policy is attached to instead of workloads.
        pub target_refs: Vec<PolicyTargetReference>,
        /// Rules, of which one must match. An empty rule matches everything; no rule matches nothing.
        pub rules: Vec<Rule>,
        /// What a match means.
        pub action: Action,
        /// Who decides, for action CUSTOM.
        pub provider: Option<ExtensionProvider>,
    }

    /// Conditions that must all hold.
    pub struct Rule {
        /// Clients, of which one must match; none matches all.
        pub from: Vec<From>,
        /// Operations, of which one must match; none matches all.
        pub to: Vec<To>,
        /// Further conditions, which must all hold.
        pub when: Vec<RuleCondition>,
    }

    /// A client.
    pub struct From {
        /// Its properties.
        pub source: Option<Source>,
    }

    /// An operation.
    pub struct To {
        /// Its properties.
        pub operation: Option<Operation>,
    }

    /// Properties of a client: of each list one must match, of each `not` list none may.
    pub struct Source {
        /// Identities from the client's certificate: `domain/ns/NAMESPACE/sa/ACCOUNT`; a `*` in front or at the end.
        pub principals: Vec<Str>,
        /// Excluded identities.
        pub not_principals: Vec<Str>,
        /// Identities from tokens: `ISSUER/SUBJECT`.
        pub request_principals: Vec<Str>,
        /// Excluded identities from tokens.
        pub not_request_principals: Vec<Str>,
        /// Namespaces from the client's certificate.
        pub namespaces: Vec<Str>,
        /// Excluded namespaces.
        pub not_namespaces: Vec<Str>,
        /// Service accounts from the client's certificate, `NAMESPACE/ACCOUNT` or `ACCOUNT` of the own namespace.
        pub service_accounts: Vec<Str>,
        /// Excluded service accounts.
        pub not_service_accounts: Vec<Str>,
        /// Addresses and ranges of the connection's source.
        pub ip_blocks: Vec<Str>,
        /// Excluded addresses.
        pub not_ip_blocks: Vec<Str>,
        /// Addresses and ranges of the original client.
        pub remote_ip_blocks: Vec<Str>,
        /// Excluded addresses of the original client.
        pub not_remote_ip_blocks: Vec<Str>,
        /// Trust domains from the client's certificate.
        pub trust_domains: Vec<Str>,
        /// Excluded trust domains.
        pub not_trust_domains: Vec<Str>,
    }

    /// Properties of an operation: of each list one must match, of each `not` list none may.
    pub struct Operation {
        /// Hosts, without case; a `*` in front or at the end.
        pub hosts: Vec<Str>,
        /// Excluded hosts.
        pub not_hosts: Vec<Str>,
        /// Ports, as text.
        pub ports: Vec<Str>,
        /// Excluded ports.
        pub not_ports: Vec<Str>,
        /// HTTP methods; `POST` for gRPC.
        pub methods: Vec<Str>,
        /// Excluded methods.
        pub not_methods: Vec<Str>,
        /// Paths; a `*` in front or at the end, or a template with `{*}` and `{**}`.
        pub paths: Vec<Str>,
        /// Excluded paths.
        pub not_paths: Vec<Str>,
    }

    /// A further condition.
    pub struct RuleCondition {
        /// An attribute, e.g. `request.headers[x-version]`.
        pub key: Str,
        /// Values, of which one must match.
        pub values: Vec<Str>,
        /// Excluded values.
        pub not_values: Vec<Str>,
    }

    /// Who decides.
    pub struct ExtensionProvider {
        /// A name from MeshConfig.extensionProviders.
        pub name: Str,
    }
}

api_enum! {
    /// What a match means.
    pub enum Action {
        /// Let in; where a policy with this action applies, everything else is refused.
        Allow,
        /// Refuse.
        Deny,
        /// Mark for auditing.
        Audit,
        /// Ask the provider.
        Custom,
    }
}
