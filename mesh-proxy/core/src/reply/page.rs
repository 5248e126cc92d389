//! The reference page of codes, made from the table of kinds and the answers they get.

use super::reply_for;
use crate::fault::{Fault, FaultKind, Retry};
use crate::flags::ResponseFlag;

/// The reference page `docs/reference/codes.md`.
#[must_use]
pub fn reference_page() -> String {
    let mut page = "# Codes of failures\n\n<!-- Generated from mesh-proxy/core/src/fault.rs; do not edit. -->\n\n\
        Every answer that the proxy gives itself carries its code in the field `x-mesh-code`, and `%MESH_CODE%` \
        prints it in access logs. gRPC clients get the gRPC status, others the HTTP status; where there is neither, the stream or connection \
        ends. [Response flags](response-flags.md) are Envoy's.\n"
        .to_owned();
    let chapters = [
        (1, "The client's connection and bytes"),
        (2, "Configuration"),
        (3, "The destination"),
        (4, "Policy"),
        (5, "Limits"),
        (6, "On purpose"),
        (9, "The proxy itself"),
    ];
    for (thousand, title) in chapters {
        page += &format!("\n## {thousand}xxx: {title}\n");
        for kind in FaultKind::ALL.iter().filter(|kind| kind.code().0 / 1000 == thousand) {
            page += &entry(*kind);
        }
    }
    page
}

fn entry(kind: FaultKind) -> String {
    let meaning = kind.meaning();
    let reply = reply_for(&Fault::new(kind), false);
    let answer = match meaning.status {
        0 => "none".to_owned(),
        status => {
            let grpc = reply_for(&Fault::new(kind), true).grpc_status.unwrap_or_default();
            let body = if reply.body.is_empty() { String::new() } else { format!(", `{}`", reply.body) };
            format!("{status}{body}; gRPC status {grpc}")
        }
    };
    let flag = format!("`{}`", meaning.flag.map_or("-", ResponseFlag::text));
    let retry = match meaning.retry {
        Retry::Never => "never",
        Retry::Unprocessed => "always safe",
        Retry::IfIdempotent => "if the method is idempotent",
        Retry::ReusedOnly => "if the method is idempotent or nothing was sent",
    };
    format!(
        "\n### {} {}\n\n{} {}\n\n- Answer: {answer}\n- Flag: {flag}\n- Details: `{}`\n- Retry: {retry}\n",
        kind.code(),
        meaning.name,
        meaning.summary,
        meaning.hint,
        reply.details,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_an_entry_for_each_kind() {
        let page = reference_page();
        for kind in FaultKind::ALL {
            let heading = format!("### {} {}\n", kind.code(), kind.meaning().name);
            assert_eq!(page.matches(&heading).count(), 1, "{heading}");
            assert!(page.contains(kind.meaning().summary) && page.contains(kind.meaning().hint));
        }
        assert_eq!(page.matches("\n### ").count(), FaultKind::ALL.len());
    }
}
