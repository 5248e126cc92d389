//! Fault injection.

use std::time::Duration;

use crate::codec::common::{duration, read_duration, read_share, share};
use crate::codec::error::{At, DecodeError, bad, fail, leftover, required};
use crate::ir::PerMillion;
use crate::ir::filter::{AbortStatus, Fault, FaultAbort, FaultDelay};
use crate::pb;
use crate::pb::common_fault::fault_delay::FaultDelaySecifier;
use crate::pb::http_fault::fault_abort::ErrorType;

pub(super) fn encode(fault: &Fault) -> pb::http_fault::HttpFault {
    pb::http_fault::HttpFault {
        delay: fault.delay.map(|delay| pb::common_fault::FaultDelay {
            percentage: Some(share(delay.share)),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(delay.duration))),
        }),
        abort: fault.abort.map(|abort| pb::http_fault::FaultAbort {
            percentage: Some(share(abort.share)),
            error_type: Some(match abort.status {
                AbortStatus::Http(status) => ErrorType::HttpStatus(status.into()),
                AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status.into()),
            }),
            ..pb::http_fault::FaultAbort::default()
        }),
        ..pb::http_fault::HttpFault::default()
    }
}

pub(super) fn decode(mut message: pb::http_fault::HttpFault) -> Result<Fault, DecodeError> {
    let delay = message.delay.take().map(decode_delay).transpose().at("delay")?;
    let abort = message.abort.take().map(decode_abort).transpose().at("abort")?;
    // Statistics only.
    message.disable_downstream_cluster_stats = false;
    leftover(&message)?;
    Ok(Fault { delay, abort })
}

/// Without a share Envoy injects nothing.
fn read_percentage(percentage: Option<pb::kind::FractionalPercent>) -> Result<PerMillion, DecodeError> {
    percentage.map(read_share).transpose().map(Option::unwrap_or_default).at("percentage")
}

fn decode_delay(message: pb::common_fault::FaultDelay) -> Result<FaultDelay, DecodeError> {
    let share = read_percentage(message.percentage)?;
    let FaultDelaySecifier::FixedDelay(delay) = required(message.fault_delay_secifier, "fixed_delay")? else {
        return fail("is not supported").at("header_delay");
    };
    Ok(FaultDelay { share, duration: read_duration(Some(delay), Duration::ZERO, "fixed_delay")? })
}

fn decode_abort(message: pb::http_fault::FaultAbort) -> Result<FaultAbort, DecodeError> {
    let share = read_percentage(message.percentage)?;
    if !message.response_body.is_empty() {
        return fail("is not supported").at("response_body");
    }
    let status = match required(message.error_type, "http_status")? {
        ErrorType::HttpStatus(status) => match u16::try_from(status) {
            Ok(status @ 200..600) => AbortStatus::Http(status),
            Ok(_) | Err(_) => return bad("a status from 200 to 599", status).at("http_status"),
        },
        ErrorType::GrpcStatus(status) => match u16::try_from(status) {
            Ok(status @ 0..=16) => AbortStatus::Grpc(status),
            Ok(_) | Err(_) => return bad("a status from 0 to 16", status).at("grpc_status"),
        },
        ErrorType::HeaderAbort(_) => return fail("is not supported").at("header_abort"),
    };
    Ok(FaultAbort { share, status })
}
