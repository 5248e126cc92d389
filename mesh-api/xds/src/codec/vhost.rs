//! Virtual hosts.

use super::error::{At, DecodeError, EncodeError, each, each_arc, fail, leftover};
use super::route;
use crate::ir::route::VirtualHost;
use crate::pb::route::VirtualHost as Message;
use crate::pb::route::virtual_host::TlsRequirementType;

pub(super) fn encode(host: &VirtualHost) -> Result<Message, EncodeError> {
    Ok(Message {
        name: host.name.to_string(),
        domains: host.domains.iter().map(ToString::to_string).collect(),
        routes: each("routes", &*host.routes, route::encode)?,
        require_tls: if host.require_tls { TlsRequirementType::All.into() } else { TlsRequirementType::None.into() },
        include_request_attempt_count: host.attempt_count,
        ..Message::default()
    })
}

pub(super) fn decode(mut message: Message) -> Result<VirtualHost, DecodeError> {
    // Told to tracers and dumps only.
    message.metadata = None;
    let host = VirtualHost {
        name: std::mem::take(&mut message.name).into(),
        domains: std::mem::take(&mut message.domains).into_iter().map(|d| d.to_ascii_lowercase().into()).collect(),
        routes: each_arc("routes", std::mem::take(&mut message.routes), route::decode)?,
        require_tls: match TlsRequirementType::try_from(std::mem::take(&mut message.require_tls)) {
            Ok(TlsRequirementType::None) => false,
            Ok(TlsRequirementType::All) => true,
            Ok(TlsRequirementType::ExternalOnly) | Err(_) => {
                return fail("only NONE and ALL are supported").at("require_tls");
            }
        },
        attempt_count: std::mem::take(&mut message.include_request_attempt_count),
    };
    leftover(&message)?;
    Ok(host)
}
