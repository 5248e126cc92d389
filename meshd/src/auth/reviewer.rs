//! Asks the API server whose a service account's token is, and remembers the answer for a short time.
//!
//! Every answer is kept under the token's hash, never the token. A deleted pod's token is therefore accepted for [`REMEMBER`]
//! longer than the API server would; a refused one is asked about again after [`REMEMBER_REFUSED`], so that a proxy with a wrong
//! token costs little.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use kube::{Client, core::ObjectMeta};
use mesh_ca::review::{Review, ReviewError, ServiceAccount, TokenHash};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::kube::said;
use crate::metrics::ReviewMetrics;

/// How long an accepted token is believed without asking again.
pub(crate) const REMEMBER: Duration = Duration::from_secs(60);
/// How long a refused one stays refused.
pub(crate) const REMEMBER_REFUSED: Duration = Duration::from_secs(5);
/// Time for one question.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time that a question may wait for its turn: with the deadline well below the time that proxies wait for a certificate.
const TURN: Duration = Duration::from_secs(5);
/// Questions under way at one time.
const MAX_QUESTIONS: usize = 32;
/// Tokens remembered; a mesh of 20 000 proxies that all come back within a minute fits.
const MAX_REMEMBERED: usize = 20_000;
/// Largest token, in bytes: those of API servers have about a thousand.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Where the API server says which pod a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// And on which node that runs.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

type Answer = Result<Arc<ServiceAccount>, ReviewError>;

/// Whose tokens are.
pub(crate) struct Reviewer {
    client: Client,
    audiences: Vec<String>,
    remembered: Mutex<HashMap<TokenHash, Remembered>>,
    turns: Semaphore,
    metrics: ReviewMetrics,
}

#[derive(Clone)]
struct Remembered {
    answer: Answer,
    until: Instant,
}

impl Reviewer {
    /// A reviewer of tokens for one of `audiences`; without any, tokens for the API server itself are accepted.
    pub(crate) fn new(client: Client, audiences: Vec<String>, metrics: ReviewMetrics) -> Self {
        let turns = Semaphore::new(MAX_QUESTIONS);
        Self { client, audiences, remembered: Mutex::default(), turns, metrics }
    }

    /// Whose the token is.
    ///
    /// # Errors
    /// When it is not accepted, or the API server does not answer in time.
    pub(crate) async fn review(&self, token: &str) -> Answer {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ReviewError::TooLarge { max_bytes: MAX_TOKEN_BYTES });
        }
        let hash = TokenHash::of(token);
        if let Some(answer) = self.remembered(&hash) {
            self.metrics.remembered.inc();
            return answer;
        }
        let turn = timeout(TURN, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(unavailable("too many tokens are waiting"));
        };
        // Another connection of the same proxy may have asked meanwhile.
        if let Some(answer) = self.remembered(&hash) {
            self.metrics.remembered.inc();
            return answer;
        }
        self.metrics.asked.inc();
        let answer = match timeout(DEADLINE, self.ask(token)).await {
            Ok(Ok(status)) => to_review(status).judge(&self.audiences).map(Arc::new),
            Ok(Err(error)) => Err(unavailable(&said(&error))),
            Err(_) => Err(unavailable("no answer in time")),
        };
        match &answer {
            Err(error) if error.is_transient() => {
                self.metrics.failed.inc();
                tracing::warn!(%error, "Service account token not reviewed");
            }
            _ => self.remember(hash, answer.clone()),
        }
        answer
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, kube::Error> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let audiences = (!self.audiences.is_empty()).then(|| self.audiences.clone());
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec { audiences, token: Some(token.to_owned()) },
            status: None,
        };
        let answered = reviews.create(&PostParams::default(), &review).await?;
        Ok(answered.status.unwrap_or_default())
    }

    fn remembered(&self, hash: &TokenHash) -> Option<Answer> {
        let table = self.table();
        let found = table.get(hash)?;
        (now() < found.until).then(|| found.answer.clone())
    }

    fn remember(&self, hash: TokenHash, answer: Answer) {
        let now = now();
        let until = now + if answer.is_ok() { REMEMBER } else { REMEMBER_REFUSED };
        let mut table = self.table();
        if table.len() >= MAX_REMEMBERED {
            table.retain(|_, remembered| now < remembered.until);
        }
        // A flood of different tokens is not remembered; it still waits for its turns.
        if table.len() < MAX_REMEMBERED {
            table.insert(hash, Remembered { answer, until });
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<TokenHash, Remembered>> {
        // Nothing that could panic runs while it is held.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewer").field("audiences", &self.audiences).finish_non_exhaustive()
    }
}

fn to_review(status: TokenReviewStatus) -> Review {
    let user = status.user.unwrap_or_default();
    let extra = user.extra.unwrap_or_default();
    let first = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
    Review {
        authenticated: status.authenticated.unwrap_or_default(),
        error: status.error.unwrap_or_default(),
        audiences: status.audiences.unwrap_or_default(),
        username: user.username.unwrap_or_default(),
        pod: first(POD_NAME),
        node: first(NODE_NAME),
    }
}

fn unavailable(reason: &str) -> ReviewError {
    ReviewError::Unavailable { reason: reason.to_owned() }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
