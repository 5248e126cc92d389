use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_api_rt::metrics::Metrics;
use serde_json::json;

use super::*;
use crate::kube::fake;

/// A reviewer whose API server knows one token, and the count of questions.
fn mk_reviewer(status: u16) -> (Reviewer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let client = fake::answering(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        let review: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        let known = review["spec"]["token"] == "known";
        let user = json!({"username": "system:serviceaccount:shop:web"});
        let answer = json!({"authenticated": known, "audiences": ["istio-ca"], "user": user});
        (status, json!({"metadata": {}, "spec": {}, "status": answer, "message": "is overloaded"}))
    });
    (Reviewer::new(client, vec!["istio-ca".to_owned()], Metrics::new().register().unwrap()), asked)
}

#[tokio::test(start_paused = true)]
async fn an_accepted_token_is_remembered_for_a_minute_and_a_refused_one_for_seconds() {
    let (reviewer, asked) = mk_reviewer(201);
    let count = || asked.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(reviewer.review("known").await.unwrap().name, "web");
        assert!(reviewer.review("unknown").await.is_err());
    }
    assert_eq!(count(), 2);
    tokio::time::advance(REMEMBER_REFUSED).await;
    assert!(reviewer.review("known").await.is_ok() && reviewer.review("unknown").await.is_err());
    assert_eq!(count(), 3, "the refused one was asked about again");
    tokio::time::advance(REMEMBER).await;
    assert!(reviewer.review("known").await.is_ok());
    assert_eq!(count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_refuses_nobody_for_good() {
    let (reviewer, asked) = mk_reviewer(500);
    for _ in 0..2 {
        let error = reviewer.review("known").await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("overloaded"), "{error}");
    }
    assert!(asked.load(Ordering::Relaxed) >= 2, "a failure is not remembered");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_given_up() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, kube::Error>>()
    });
    let reviewer = Reviewer::new(kube::Client::new(service, "default"), Vec::new(), Metrics::new().register().unwrap());
    let begun = now();
    assert!(reviewer.review("known").await.unwrap_err().is_transient());
    assert_eq!(now() - begun, DEADLINE);
}

#[tokio::test]
async fn what_is_too_large_is_not_sent() {
    let (reviewer, asked) = mk_reviewer(201);
    let refused = reviewer.review(&"x".repeat(MAX_TOKEN_BYTES + 1)).await;
    assert!(matches!(refused, Err(ReviewError::TooLarge { .. })));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
