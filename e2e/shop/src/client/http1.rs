//! HTTP/1.1 load.

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use std::sync::{Arc, Mutex, PoisonError};

use crate::call::{self, Answer, Failure, Upstream};
use crate::cli::HttpClient;
use crate::client::drive::{Work, drive};
use crate::client::stats::{Outcome, Report};
use crate::identity::INSTANCE;
use crate::stop::Stop;

struct Getter {
    upstream: Arc<Upstream>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    group_by: HeaderName,
    last: Option<Arc<Mutex<Option<Answer>>>>,
}

pub(crate) async fn run(args: HttpClient, stop: Stop) -> Result<Report> {
    let headers = call::headers(&args.header)?;
    let body = Bytes::from(vec![b'x'; args.body_bytes as usize]);
    let last = args.show.then(Arc::default);
    let upstream = Arc::new(Upstream::new(args.url, args.http_proxy, !args.no_keepalive, args.load.timeout));
    let worker = |_| Getter {
        upstream: Arc::clone(&upstream),
        method: args.method.clone(),
        headers: headers.clone(),
        body: body.clone(),
        group_by: args.group_by.clone(),
        last: last.clone(),
    };
    let mut report = drive(&args.load, &stop, worker).await?;
    if let Some(last) = last {
        report.last = last.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(shown);
    }
    Ok(report)
}

impl Work for Getter {
    async fn once(&mut self, _number: u64) -> Result<Outcome, Failure> {
        let answer = self.upstream.call(self.method.clone(), None, &self.headers, self.body.clone()).await?;
        let text = |name: &HeaderName| Some(answer.headers.get(name)?.to_str().ok()?.to_owned());
        let outcome = Outcome {
            status: answer.status.as_u16().to_string(),
            fine: !answer.status.is_client_error() && !answer.status.is_server_error(),
            group: text(&self.group_by),
            instance: text(&INSTANCE),
        };
        if let Some(last) = &self.last {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        }
        Ok(outcome)
    }
}

fn shown(answer: &Answer) -> serde_json::Value {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in &answer.headers {
        headers.push((name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    }
    let text = || String::from_utf8_lossy(&answer.body).into_owned().into();
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| text());
    serde_json::json!({ "status": answer.status.as_u16(), "headers": headers, "body": body })
}
