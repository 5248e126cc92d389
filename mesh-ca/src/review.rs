//! What a Kubernetes API server says of a service account's token, and who that makes the caller.
//!
//! The shell asks the API server (`authentication.k8s.io/v1 TokenReview`); here its answer is judged: authenticated, meant
//! for us, a service account and nobody else.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};

/// Prefix of the user names of service accounts.
const USER_PREFIX: &str = "system:serviceaccount:";
/// Most characters of foreign text in a message.
const MAX_QUOTED: usize = 256;

/// The answer of the API server, reduced to what counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// `status.authenticated`.
    pub authenticated: bool,
    /// `status.error`: why not.
    pub error: String,
    /// `status.audiences`: which of the audiences that were asked for the token is meant for.
    pub audiences: Vec<String>,
    /// `status.user.username`.
    pub username: String,
    /// `status.user.extra["authentication.kubernetes.io/pod-name"]`: the pod that the token is bound to.
    pub pod: Option<String>,
    /// `status.user.extra["authentication.kubernetes.io/node-name"]`: the node of that pod.
    pub node: Option<String>,
}

/// A service account whose token was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pod that the token is bound to; `None` for a token that was made for no pod.
    pub pod: Option<String>,
    /// The node of that pod, where the API server says it.
    pub node: Option<String>,
}

/// SHA-256 of a token: what is remembered of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of this token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        // SHA-256 has exactly these many bytes.
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

/// Why a token makes nobody a caller. Never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server does not know it.
    #[error("the API server does not accept the service account token{}", because(.reason))]
    Refused {
        /// What the API server said.
        reason: String,
    },
    /// It is for something else.
    #[error(
        "the service account token is not meant for {wanted}; mount a projected token with `audience: {wanted}` (injected \
         pods have one)"
    )]
    Audience {
        /// What it must be meant for.
        wanted: String,
    },
    /// A user, a node, an anonymous caller.
    #[error("the token is {user:?}'s, which is no service account")]
    NotAServiceAccount {
        /// Whose it is.
        user: String,
    },
    /// Tokens of service accounts travel over TLS only.
    #[error("service account tokens are accepted over TLS only; use the secure port (15012)")]
    Plaintext,
    /// Larger than any token.
    #[error("the service account token is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// The API server cannot be asked now.
    #[error("the API server could not be asked about the service account token: {reason}; the caller should try again")]
    Unavailable {
        /// What failed.
        reason: String,
    },
}

impl ReviewError {
    /// Whether the same token may be accepted a little later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl Review {
    /// Judges the answer. `audiences` are those that were asked for, of which the token must have one; none at all accepts a
    /// token for the API server itself (Istio's `first-party-jwt`).
    ///
    /// # Errors
    /// The first of these that is wrong.
    pub fn judge(self, audiences: &[String]) -> Result<ServiceAccount, ReviewError> {
        if !self.authenticated {
            // The usual reason, which the API server puts in other words in each release.
            if self.error.contains("audience") {
                return Err(ReviewError::Audience { wanted: audiences.join(" or ") });
            }
            return Err(ReviewError::Refused { reason: cut(&self.error).into_owned() });
        }
        // An API server that knows nothing of audiences accepts any token: it must name ours.
        if !audiences.is_empty() && !self.audiences.iter().any(|audience| audiences.contains(audience)) {
            return Err(ReviewError::Audience { wanted: audiences.join(" or ") });
        }
        let parts = self.username.strip_prefix(USER_PREFIX).and_then(|rest| rest.split_once(':'));
        let Some((namespace, name)) = parts.filter(|(namespace, name)| is_name(namespace) && is_name(name)) else {
            return Err(ReviewError::NotAServiceAccount { user: cut(&self.username).into_owned() });
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(ServiceAccount { namespace, name, pod: self.pod, node: self.node })
    }
}

/// Whether a text can be a part of an identity: the characters of Kubernetes names, no slash and no colon.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed)
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

/// Foreign text for a message: bounded.
fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => Cow::Owned(text[..end].to_owned()),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_review(username: &str) -> Review {
        Review {
            authenticated: true,
            audiences: vec!["istio-ca".to_owned()],
            username: username.to_owned(),
            pod: Some("web-1".to_owned()),
            ..Review::default()
        }
    }

    fn ours() -> [String; 1] {
        ["istio-ca".to_owned()]
    }

    #[test]
    fn a_service_account_of_our_audience_is_a_caller() {
        let account = mk_review("system:serviceaccount:shop:web").judge(&ours()).unwrap();
        assert_eq!((account.namespace.as_str(), account.name.as_str()), ("shop", "web"));
        assert_eq!(account.pod.as_deref(), Some("web-1"));
    }

    #[test]
    fn other_audiences_and_servers_without_audiences_are_refused() {
        let mut review = mk_review("system:serviceaccount:shop:web");
        review.audiences = vec!["https://kubernetes.default.svc".to_owned()];
        assert!(matches!(review.clone().judge(&ours()), Err(ReviewError::Audience { .. })));
        review.audiences.clear();
        assert!(matches!(review.clone().judge(&ours()), Err(ReviewError::Audience { .. })));
        // Istio's first-party policy asks for no audience.
        assert!(review.judge(&[]).is_ok());
        let refused = Review { error: "token audiences [\"x\"] is invalid".into(), ..Review::default() };
        assert!(matches!(refused.judge(&ours()), Err(ReviewError::Audience { .. })));
    }

    #[test]
    fn tokens_are_told_apart_by_their_hashes() {
        assert_eq!(TokenHash::of("a"), TokenHash::of("a"));
        assert_ne!(TokenHash::of("a"), TokenHash::of("b"));
    }

    #[test]
    fn nobody_else_is_a_service_account() {
        for user in [
            "system:node:a",
            "admin",
            "",
            "system:serviceaccount:shop",
            "system:serviceaccount::web",
            "system:serviceaccount:shop:web/../admin",
            "system:serviceaccount:shop:web:x",
        ] {
            let refused = mk_review(user).judge(&ours());
            assert!(matches!(refused, Err(ReviewError::NotAServiceAccount { .. })), "{user}");
        }
    }

    #[test]
    fn an_unknown_token_is_refused_whatever_else_is_said() {
        let review = Review { authenticated: false, error: "x".repeat(1000), ..mk_review("system:serviceaccount:a:b") };
        let Err(ReviewError::Refused { reason }) = review.judge(&ours()) else { panic!("accepted") };
        assert_eq!(reason.len(), MAX_QUOTED);
    }
}
