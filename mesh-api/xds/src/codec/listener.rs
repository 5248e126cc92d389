//! Listeners.

use std::sync::Arc;
use std::time::Duration;

use super::chain;
use super::common::{address, any, bool_value, duration, read_address, read_bool, read_duration, read_port};
use super::error::{At, DecodeError, EncodeError, each, each_arc, fail, leftover};
use crate::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};
use crate::pb;
use crate::pb::core::TrafficDirection;
use crate::pb::listener::listener_filter::ConfigType;
use crate::pb::listener::listener_filter_chain_match_predicate::{MatchSet, Rule};
use crate::pb::listener::{ListenerFilter, ListenerFilterChainMatchPredicate};

const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";
const TLS_INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
const HTTP_INSPECTOR: &str = "envoy.filters.listener.http_inspector";
/// Envoy's default time for listener filters.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn encode(listener: &Listener) -> Result<pb::listener::Listener, EncodeError> {
    Ok(pb::listener::Listener {
        name: listener.name.to_string(),
        address: Some(address(listener.address)),
        additional_addresses: listener
            .additional_addresses
            .iter()
            .map(|more| pb::listener::AdditionalAddress {
                address: Some(address(*more)),
                ..pb::listener::AdditionalAddress::default()
            })
            .collect(),
        filter_chains: each("chains", &*listener.chains, |chain| chain::encode(chain))?,
        default_filter_chain: listener.default_chain.as_deref().map(chain::encode).transpose().at("default_chain")?,
        use_original_dst: if listener.original_dst == OriginalDst::HandOff { bool_value(true) } else { None },
        bind_to_port: if listener.binding == Binding::HandedOver { bool_value(false) } else { None },
        listener_filters: encode_filters(listener),
        listener_filters_timeout: Some(duration(listener.inspect.timeout)),
        continue_on_listener_filters_timeout: true,
        traffic_direction: match listener.direction {
            Direction::Inbound => TrafficDirection::Inbound.into(),
            Direction::Outbound => TrafficDirection::Outbound.into(),
        },
        ..pb::listener::Listener::default()
    })
}

pub(super) fn decode(mut message: pb::listener::Listener) -> Result<Listener, DecodeError> {
    // Names of statistics, notes for others, and how Envoy spreads accepted connections over its own threads.
    message.stat_prefix.clear();
    message.metadata = None;
    message.enable_reuse_port = None;
    message.connection_balance_config = None;
    let address = read_address(message.address.take(), "address")?;
    let more = std::mem::take(&mut message.additional_addresses);
    let additional_addresses = each_arc("additional_addresses", more, |mut more| {
        let address = read_address(more.address.take(), "address")?;
        leftover(&more)?;
        Ok(address)
    })?;
    let (inspect, recovers) = decode_filters(&mut message)?;
    let hands_off = read_bool(message.use_original_dst.take(), false);
    let listener = Listener {
        name: std::mem::take(&mut message.name).into(),
        address,
        additional_addresses,
        binding: if read_bool(message.bind_to_port.take(), true) { Binding::Socket } else { Binding::HandedOver },
        original_dst: match (recovers, hands_off) {
            (false, false) => OriginalDst::Ignore,
            (true, false) => OriginalDst::Recover,
            (_, true) => OriginalDst::HandOff,
        },
        direction: match TrafficDirection::try_from(std::mem::take(&mut message.traffic_direction)) {
            Ok(TrafficDirection::Inbound) => Direction::Inbound,
            Ok(TrafficDirection::Outbound | TrafficDirection::Unspecified) => Direction::Outbound,
            Err(_) => return fail("is not a direction").at("traffic_direction"),
        },
        inspect,
        chains: each_arc("filter_chains", std::mem::take(&mut message.filter_chains), |chain| {
            chain::decode(chain).map(Arc::new)
        })?,
        default_chain: message
            .default_filter_chain
            .take()
            .map(chain::decode)
            .transpose()
            .at("default_filter_chain")?
            .map(Arc::new),
    };
    leftover(&message)?;
    Ok(listener)
}

fn encode_filters(listener: &Listener) -> Vec<ListenerFilter> {
    let filter = |name: &str, config, disabled| ListenerFilter {
        name: name.to_owned(),
        filter_disabled: disabled,
        config_type: Some(ConfigType::TypedConfig(config)),
    };
    let inspect = &listener.inspect;
    let recover = (listener.original_dst != OriginalDst::Ignore)
        .then(|| filter(ORIGINAL_DST, any(&pb::original_dst::OriginalDst {}), None));
    let except = || except_ports(&inspect.except_ports);
    let tls = inspect.tls.then(|| filter(TLS_INSPECTOR, any(&pb::tls_inspector::TlsInspector::default()), except()));
    let http = inspect.http.then(|| filter(HTTP_INSPECTOR, any(&pb::http_inspector::HttpInspector {}), except()));
    [recover, tls, http].into_iter().flatten().collect()
}

fn except_ports(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let rule = |port: &u16| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(pb::kind::Int32Range {
            start: i32::from(*port),
            end: i32::from(*port) + 1,
        })),
    };
    match ports {
        [] => None,
        [port] => Some(rule(port)),
        ports => Some(ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet { rules: ports.iter().map(rule).collect() })),
        }),
    }
}

/// What is inspected, and whether the original destination is recovered.
fn decode_filters(message: &mut pb::listener::Listener) -> Result<(Inspect, bool), DecodeError> {
    let timeout = read_duration(message.listener_filters_timeout.take(), INSPECT_TIMEOUT, "listener_filters_timeout")?;
    let mut inspect = Inspect { timeout, ..Inspect::default() };
    let mut recovers = false;
    let mut ports = None;
    for (position, filter) in std::mem::take(&mut message.listener_filters).into_iter().enumerate() {
        let place = format!("listener_filters[{position}]");
        match filter.name.as_str() {
            ORIGINAL_DST => {
                recovers = true;
                continue;
            }
            TLS_INSPECTOR => inspect.tls = true,
            HTTP_INSPECTOR => inspect.http = true,
            other => return fail(format!("the filter {other} is not supported")).at(&place),
        }
        let these =
            filter.filter_disabled.map(read_ports).transpose().at("filter_disabled").at(&place)?.unwrap_or_default();
        if ports.replace(these.clone()).is_some_and(|others| others != these) {
            return fail("the inspectors are disabled on different ports").at(&place);
        }
    }
    inspect.except_ports = ports.unwrap_or_default().into();
    let goes_on = std::mem::take(&mut message.continue_on_listener_filters_timeout);
    if (inspect.tls || inspect.http) && !timeout.is_zero() && !goes_on {
        return fail("only true is supported").at("continue_on_listener_filters_timeout");
    }
    Ok((inspect, recovers))
}

fn read_ports(predicate: ListenerFilterChainMatchPredicate) -> Result<Vec<u16>, DecodeError> {
    match predicate.rule {
        Some(Rule::DestinationPortRange(range)) if range.start.checked_add(1) == Some(range.end) => {
            let port = u32::try_from(range.start).or_else(|_| fail("is not a port"))?;
            Ok(vec![read_port(port, "destination_port_range")?])
        }
        Some(Rule::OrMatch(set)) => {
            let ports: Vec<Vec<u16>> = each("or_match", set.rules, read_ports)?;
            Ok(ports.concat())
        }
        _ => fail("only single ports are supported"),
    }
}
