//! Small parts that many messages share: durations, wrappers, addresses, `Any`, config sources.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use prost::{Message, Name};

use super::error::{At, DecodeError, bad, fail, leftover, only};
use crate::ir::PerMillion;
use crate::pb;
use crate::pb::core::config_source::ConfigSourceSpecifier;
use crate::pb::core::socket_address::PortSpecifier;
use crate::pb::kind::fractional_percent::DenominatorType;

/// Envoy's duration. Longer ones than it can hold (292 billion years) are cut.
pub(super) fn duration(value: Duration) -> pb::protobuf::Duration {
    pb::protobuf::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration, or what Envoy takes when there is none.
pub(super) fn read_duration(
    value: Option<pb::protobuf::Duration>,
    default: Duration,
    field: &str,
) -> Result<Duration, DecodeError> {
    let Some(value) = value else { return Ok(default) };
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => bad("a duration", format!("{}s {}ns", value.seconds, value.nanos)).at(field),
    }
}

/// A duration where zero and, unless there is a default, absence mean "no limit".
pub(super) fn read_limit(
    value: Option<pb::protobuf::Duration>,
    default: Duration,
    field: &str,
) -> Result<Option<Duration>, DecodeError> {
    Ok(Some(read_duration(value, default, field)?).filter(|limit| !limit.is_zero()))
}

pub(super) const fn u32_value(value: u32) -> Option<pb::protobuf::UInt32Value> {
    Some(pb::protobuf::UInt32Value { value })
}

pub(super) fn read_u32(value: Option<pb::protobuf::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |wrapped| wrapped.value)
}

pub(super) const fn bool_value(value: bool) -> Option<pb::protobuf::BoolValue> {
    Some(pb::protobuf::BoolValue { value })
}

pub(super) fn read_bool(value: Option<pb::protobuf::BoolValue>, default: bool) -> bool {
    value.map_or(default, |wrapped| wrapped.value)
}

pub(super) fn read_port(value: u32, field: &str) -> Result<u16, DecodeError> {
    u16::try_from(value).or_else(|_| bad("a port", value).at(field))
}

/// A message in an `Any`.
pub(super) fn any<M: Message + Name>(message: &M) -> pb::protobuf::Any {
    pb::protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// The message in an `Any`, which must be of this type.
pub(super) fn unpack<M: Message + Name + Default>(any: &pb::protobuf::Any) -> Result<M, DecodeError> {
    if any.type_url != M::type_url() {
        return fail(format!("{} is not supported, only {}", any.type_url, M::type_url()));
    }
    M::decode(Bytes::copy_from_slice(&any.value)).or_else(|error| fail(format!("not a {}: {error}", M::NAME)))
}

/// Resources that come over the same stream as this one. Envoy waits for them without limit, as Istio has it.
pub(super) fn ads() -> pb::core::ConfigSource {
    pb::core::ConfigSource {
        initial_fetch_timeout: Some(duration(Duration::ZERO)),
        resource_api_version: pb::core::ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(pb::core::AggregatedConfigSource::default())),
        ..pb::core::ConfigSource::default()
    }
}

/// Checks that a resource comes over the aggregated stream, the only source there is.
pub(super) fn expect_ads(source: Option<pb::core::ConfigSource>, field: &str) -> Result<(), DecodeError> {
    match source.and_then(|source| source.config_source_specifier) {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        _ => fail("only resources over ADS are supported").at(field),
    }
}

/// An address with a port.
pub(super) fn address(value: SocketAddr) -> pb::core::Address {
    host_address(value.ip().to_string(), value.port())
}

/// A host, by name or address, with a port.
pub(super) fn host_address(host: String, port: u16) -> pb::core::Address {
    pb::core::Address {
        address: Some(pb::core::address::Address::SocketAddress(pb::core::SocketAddress {
            address: host,
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..pb::core::SocketAddress::default()
        })),
    }
}

/// Host and port of an address.
pub(super) fn read_host(value: Option<pb::core::Address>) -> Result<(String, u16), DecodeError> {
    let Some(pb::core::address::Address::SocketAddress(mut socket)) = value.and_then(|value| value.address) else {
        return fail("only socket addresses are supported");
    };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier.take() else { return fail("has no port number") };
    let host = std::mem::take(&mut socket.address);
    socket.ipv4_compat = false;
    leftover(&socket)?;
    Ok((host, read_port(port, "port_value")?))
}

/// A socket address.
pub(super) fn read_address(value: Option<pb::core::Address>, field: &str) -> Result<SocketAddr, DecodeError> {
    let (host, port) = read_host(value).at(field)?;
    let ip: IpAddr = host.parse().or_else(|_| bad("an IP address", &host).at(field))?;
    Ok(SocketAddr::new(ip, port))
}

/// A share of requests.
pub(super) fn share(value: PerMillion) -> pb::kind::FractionalPercent {
    pb::kind::FractionalPercent { numerator: value.0, denominator: DenominatorType::Million.into() }
}

/// A share of requests; more than all are all.
pub(super) fn read_share(value: pb::kind::FractionalPercent) -> Result<PerMillion, DecodeError> {
    let factor = match DenominatorType::try_from(value.denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => return bad("a denominator", value.denominator),
    };
    Ok(PerMillion(value.numerator.saturating_mul(factor).min(PerMillion::ALL.0)))
}

/// A share of requests with a default at run time, which we have no way to change.
pub(super) fn read_runtime_share(value: pb::core::RuntimeFractionalPercent) -> Result<PerMillion, DecodeError> {
    only(&value.runtime_key, &String::new(), "runtime_key")?;
    value.default_value.map_or(Ok(PerMillion::ALL), read_share)
}

/// Bytes in the message; a text counts as its bytes.
pub(super) fn read_inline(source: Option<pb::core::DataSource>, field: &str) -> Result<Vec<u8>, DecodeError> {
    match source.and_then(|source| source.specifier) {
        Some(pb::core::data_source::Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(pb::core::data_source::Specifier::InlineString(text)) => Ok(text.into_bytes()),
        Some(_) => fail("only inline content is supported").at(field),
        None => Ok(Vec::new()),
    }
}

pub(super) fn inline(bytes: &[u8]) -> pb::core::DataSource {
    pb::core::DataSource {
        specifier: Some(pb::core::data_source::Specifier::InlineBytes(bytes.to_vec())),
        ..pb::core::DataSource::default()
    }
}
