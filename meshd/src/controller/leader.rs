//! Leader election by Lease: runs the [`Election`] against the API server and tells the rest whether this replica acts.

use std::time::Instant;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use kube::{Client, Error as ClientError};
use mesh_api_rt::drain::Watcher;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::{Duration, sleep, sleep_until, timeout};

use super::election::{Election, Record, Step, Timing};
use crate::kube::said;
use crate::metrics::{ByType, ControllerMetrics};
use crate::owner::Owner;

/// The lock of everything that one replica does.
pub(crate) const LOCK: &str = "leader";

/// Time for one request; shorter than a leader may go without renewal.
const DEADLINE: Duration = Duration::from_secs(4);

/// An election that runs.
pub(crate) struct Campaign {
    leases: Api<Lease>,
    name: String,
    lock: &'static str,
    owner: Owner,
    election: Election,
    leads: watch::Sender<bool>,
    metrics: ControllerMetrics,
    /// The last failure was said.
    failing: bool,
}

/// Whether this replica acts.
pub(crate) type Leads = watch::Receiver<bool>;

impl Campaign {
    /// An election for `lock` among the replicas of this revision; each has a name of its own.
    pub(crate) fn new(
        client: Client,
        owner: Owner,
        me: String,
        lock: &'static str,
        timing: Timing,
        metrics: ControllerMetrics,
    ) -> (Self, Leads) {
        let (leads, is_leading) = watch::channel(false);
        let leases = Api::namespaced(client, &owner.namespace);
        let name = owner.name(&format!("lateen-{lock}"));
        let election = Election::new(me, timing);
        (Self { leases, name, lock, owner, election, leads, metrics, failing: false }, is_leading)
    }

    /// Campaigns, leads and follows until the drain begins; then the Lease is released, so that the next replica need not
    /// wait for it to expire.
    pub(crate) async fn run(mut self, mut drain: Watcher) {
        loop {
            tokio::select! {
                () = drain.graceful() => break,
                () = self.round() => {}
            }
            let share: f64 = rand::rng().random_range(0.8..=1.2);
            let pause = self.election.timing().retry.mul_f64(share);
            let until = self.lead_ends().map(tokio::time::Instant::from_std);
            tokio::select! {
                () = drain.graceful() => break,
                () = sleep(pause) => {}
                () = async {
                    match until {
                        Some(until) => sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
            self.tell();
        }
        let held = self.election.resign();
        self.tell();
        if held && let Err(error) = timeout(DEADLINE, self.release()).await.unwrap_or(Ok(())) {
            tracing::debug!(error = said(&error), lease = self.name, "Lease not released; it expires by itself");
        }
    }

    /// When it stops leading, if nothing else happens; none once it has. A time that is past would end every wait at once,
    /// and it would never lead again.
    fn lead_ends(&self) -> Option<Instant> {
        self.election.leads_until().filter(|until| *until > now())
    }

    /// One look at the Lease, and the write that follows from it.
    async fn round(&mut self) {
        let begun = now();
        // While the API server does not answer, time goes on.
        let until = self.lead_ends();
        let attempt = timeout(DEADLINE, self.attempt(begun));
        let lost = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let failure = tokio::select! {
            attempt = attempt => match attempt {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(said(&error)),
                Err(_) => Some("no answer in time".to_owned()),
            },
            () = lost => Some("no answer before the Lease ran out".to_owned()),
        };
        match failure {
            Some(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(error, lease = self.name, "Lease not looked at, trying again");
            }
            Some(_) => {}
            None => self.failing = false,
        }
        self.tell();
    }

    async fn attempt(&mut self, begun: Instant) -> Result<(), ClientError> {
        let found = self.leases.get_opt(&self.name).await?;
        let step = self.election.step(found.as_ref().map(to_record), now());
        let params = PostParams::default();
        let written = match (step, found) {
            (Step::Wait, _) => return Ok(()),
            (Step::Create, _) => self.leases.create(&params, &self.lease(None, 0)).await,
            (Step::Take { transitions }, found) => {
                let lease = self.lease(found, transitions);
                self.leases.replace(&self.name, &params, &lease).await
            }
        };
        match written {
            Ok(_) => {
                self.election.written(begun);
                Ok(())
            }
            // Another replica was faster; the next round sees who.
            Err(ClientError::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The Lease held by us, over what was found.
    fn lease(&self, found: Option<Lease>, transitions: i32) -> Lease {
        let me = self.election.me().to_owned();
        let (metadata, before) = match found {
            Some(lease) => (lease.metadata, lease.spec.unwrap_or_default()),
            None => {
                let (name, labels) = (Some(self.name.clone()), Some(self.owner.labels()));
                (ObjectMeta { name, labels, ..ObjectMeta::default() }, LeaseSpec::default())
            }
        };
        let now = MicroTime(Timestamp::now());
        let acquired = before.acquire_time.filter(|_| before.holder_identity.as_ref() == Some(&me));
        let spec = LeaseSpec {
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            holder_identity: Some(me),
            lease_duration_seconds: i32::try_from(self.election.timing().lease.as_secs()).ok(),
            lease_transitions: Some(transitions),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    /// Gives the Lease back, if it is still ours.
    async fn release(&self) -> Result<(), ClientError> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
        if to_record(&lease).holder != self.election.me() {
            return Ok(());
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
    }

    fn tell(&self) {
        let leads = self.election.leads(now());
        let changed = self.leads.send_if_modified(|now| std::mem::replace(now, leads) != leads);
        if changed {
            self.metrics.leads.get_or_create(&ByType { r#type: self.lock }).set(i64::from(leads));
            match leads {
                true => tracing::info!(lease = self.name, "This replica leads"),
                false => tracing::info!(lease = self.name, "This replica leads no more"),
            }
        }
    }
}

/// Runs `work` anew each time this replica begins to lead, drops it when it leads no more, and ends with the drain. Work that
/// ends by itself is not run again before the next time.
pub(crate) async fn while_leading<F: Future<Output = ()>>(mut leads: Leads, mut drain: Watcher, work: impl Fn() -> F) {
    loop {
        tokio::select! {
            () = drain.graceful() => return,
            began = leads.wait_for(|leads| *leads) => if began.is_err() { return },
        }
        tokio::select! {
            () = drain.graceful() => return,
            ended = leads.wait_for(|leads| !*leads) => if ended.is_err() { return },
            () = async {
                work().await;
                std::future::pending::<()>().await;
            } => {}
        }
    }
}

fn to_record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(15);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lease: Duration::from_secs(seconds),
        transitions: spec.lease_transitions.unwrap_or_default(),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
