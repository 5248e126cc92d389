//! Sends the proxy's own answers.

use mesh_proxy_core::filter::{Answer, Reply};
use mesh_proxy_core::h1::encode::decimal;
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::head::{FieldError, Head, Kind, Method};
use mesh_proxy_core::plan::listener::HttpPlan;
use mesh_proxy_core::reply::reply_for;
use mesh_proxy_core::retry::resend;

use super::downstream::{Downstream, Follows};
use super::event::Broken;
use super::exchange::{Scratch, is_grpc};
use super::prepare;

/// What an answer says of sending the request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing.
    Final,
    /// It is safe: see `mesh_proxy_core::retry::resend`.
    SendAgain,
}

/// Sends an answer instead of an upstream's response. Where it is to be sent again, HTTP/2 has no answer but a reset of the
/// stream, which every client understands.
///
/// # Errors
/// When the client is gone, or no answer can be given: the connection must be closed.
pub async fn send(
    http: Option<&HttpPlan>,
    reply: Reply,
    says: Says,
    scratch: &mut Scratch,
    down: &mut Downstream<'_>,
) -> Result<(), Broken> {
    let method = scratch.request.method();
    let body: std::borrow::Cow<'_, [u8]> = match &reply {
        Reply::Fault(fault) => {
            scratch.record.fail(fault);
            let local = reply_for(fault, is_grpc(&scratch.request));
            local.write_head(&mut scratch.response).map_err(|_| Broken::Closed)?;
            scratch.record.grpc_status = local.grpc_status;
            match local.body {
                std::borrow::Cow::Borrowed(text) => text.as_bytes().into(),
                std::borrow::Cow::Owned(text) => text.into_bytes().into(),
            }
        }
        Reply::Answer(answer) => {
            write_answer(answer, &mut scratch.response).map_err(|_| Broken::Closed)?;
            scratch.record.details = answer.details.into();
            answer.body.as_ref().into()
        }
    };
    if let Some(http) = http {
        prepare::own_response(http, &mut scratch.response);
    }
    scratch.record.status = scratch.response.status();
    if says == Says::SendAgain {
        if down.refuse() {
            return Ok(());
        }
        // A field that does not fit costs a request that is not sent again.
        let _ = scratch.response.set(KnownName::XMeshResend, resend::SAFE);
    }
    if down.awaits_continue() || !down.side().is_recv_ended() {
        // The rest of the request will not be read.
        down.close_after();
    }
    let follows = match body.len() {
        0 => Follows::Nothing,
        len => Follows::Length(len as u64),
    };
    down.send_head(&scratch.response, method, follows)?;
    if !body.is_empty() && method != Method::Head {
        scratch.progress.sent += body.len() as u64;
        down.side().send_bytes(&body);
    }
    if !body.is_empty() {
        down.side().finish(None)?;
    }
    std::future::poll_fn(|cx| down.side().poll_flush(cx)).await
}

fn write_answer(answer: &Answer, head: &mut Head) -> Result<(), FieldError> {
    head.reset(Kind::Response);
    head.set_status(answer.status)?;
    if answer.status != 204 {
        let mut length = Vec::with_capacity(20);
        decimal(answer.body.len() as u64, &mut length);
        head.append(KnownName::ContentLength, &length)?;
    }
    answer.headers.iter().try_for_each(|(name, value)| head.append(*name, value))
}
