use mesh_api_rt::drain::{self, Drained, Trigger};
use mesh_api_rt::metrics::Metrics;
use tokio::task::JoinHandle;

use super::*;
use crate::kube::fake::Objects;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/lateen-leader";

struct Replica {
    leads: Leads,
    drain: Trigger,
    task: JoinHandle<()>,
}

fn mk_replica(objects: &Objects, me: &str) -> Replica {
    let (drain, watcher) = drain::channel();
    let metrics = Metrics::new().register().unwrap();
    let owner = Owner::new("istio-system", "default");
    let (campaign, leads) = Campaign::new(objects.client(), owner, me.to_owned(), "leader", Timing::default(), metrics);
    Replica { leads, drain, task: tokio::spawn(campaign.run(watcher)) }
}

impl Replica {
    async fn stop(self) {
        assert_eq!(self.drain.drain(Duration::from_secs(30), Duration::from_secs(1)).await, Drained::Gracefully);
        self.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_takes_over_when_it_stops() {
    let objects = Objects::default();
    let mut a = mk_replica(&objects, "a");
    a.leads.wait_for(|leads| *leads).await.unwrap();
    let mut b = mk_replica(&objects, "b");
    sleep(Duration::from_secs(120)).await;
    assert!(*a.leads.borrow() && !*b.leads.borrow());
    let lease = objects.get(LEASE).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "a");
    assert_eq!(lease["metadata"]["labels"]["app.kubernetes.io/managed-by"], "lateen");
    let begun = now();
    a.stop().await;
    b.leads.wait_for(|leads| *leads).await.unwrap();
    assert!(now() - begun < Duration::from_secs(4), "released, not expired: {:?}", now() - begun);
    assert_eq!(objects.get(LEASE).unwrap()["spec"]["leaseTransitions"], 1);
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_dies_is_followed_after_the_lease_ran_out() {
    let objects = Objects::default();
    let mut a = mk_replica(&objects, "a");
    a.leads.wait_for(|leads| *leads).await.unwrap();
    let mut b = mk_replica(&objects, "b");
    sleep(Duration::from_secs(30)).await;
    a.task.abort();
    let begun = now();
    b.leads.wait_for(|leads| *leads).await.unwrap();
    let took = now() - begun;
    assert!(took > Duration::from_secs(10) && took < Duration::from_secs(20), "{took:?}");
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_in_time_and_leads_again_when_it_can() {
    let objects = Objects::default();
    let client = objects.client();
    let gate = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let open = std::sync::Arc::clone(&gate);
    // A server that stops answering.
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, open) = (client.clone(), std::sync::Arc::clone(&open));
        async move {
            if !open.load(std::sync::atomic::Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            client.send(request).await
        }
    });
    let (drain, watcher) = drain::channel();
    let owner = Owner::new("istio-system", "canary");
    let metrics = Metrics::new().register().unwrap();
    let client = Client::new(service, "default");
    let (campaign, mut leads) = Campaign::new(client, owner, "a".into(), "leader", Timing::default(), metrics);
    let task = tokio::spawn(campaign.run(watcher));
    leads.wait_for(|leads| *leads).await.unwrap();
    assert!(objects.get(&format!("{LEASE}-canary")).is_some(), "each revision has its own");
    gate.store(false, std::sync::atomic::Ordering::Relaxed);
    let begun = now();
    leads.wait_for(|leads| !*leads).await.unwrap();
    assert!(now() - begun <= Duration::from_secs(10), "{:?}", now() - begun);
    // It answers again: nobody else has the Lease, so this replica leads again.
    sleep(Duration::from_secs(60)).await;
    gate.store(true, std::sync::atomic::Ordering::Relaxed);
    let led_again = timeout(Duration::from_secs(30), leads.wait_for(|leads| *leads)).await;
    assert!(led_again.is_ok());
    drop(led_again);
    drop(drain);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn work_runs_only_while_leading() {
    let (tell, leads) = watch::channel(false);
    let (drain, watcher) = drain::channel();
    let (began, mut begun) = tokio::sync::mpsc::channel::<()>(8);
    let task = tokio::spawn(while_leading(leads, watcher, move || {
        let began = began.clone();
        async move {
            began.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }
    }));
    assert!(timeout(Duration::from_secs(60), begun.recv()).await.is_err());
    for _ in 0..2 {
        tell.send_replace(true);
        begun.recv().await.unwrap();
        tell.send_replace(false);
        tokio::task::yield_now().await;
    }
    drain.advance(drain::Phase::Graceful);
    task.await.unwrap();
}
