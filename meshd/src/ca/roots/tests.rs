use std::time::Duration;

use mesh_ca::caller::Trust;
use mesh_ca::cert::Cert;

use super::*;

fn mk_options(plugged: Option<PathBuf>) -> CaOptions {
    let domain = Trust::default().domain;
    CaOptions {
        identity: SpiffeId::new(domain.clone(), "istio-system", "istiod"),
        domain,
        lifetimes: Lifetimes::default(),
        root_ttl: Duration::from_secs(3650 * 86_400),
        plugged,
        dns_names: vec!["istiod.istio-system.svc".to_owned()],
        expiries: Expiries::default(),
    }
}

async fn open(state: &Path, options: CaOptions, now: SystemTime) -> (Result<Roots, RootsError>, Serving) {
    let store = Arc::new(FileStore::open(state).unwrap());
    let serving = Serving::default();
    let metrics = mesh_api_rt::metrics::Metrics::new().register().unwrap();
    (Roots::open(options, Keep::Files(store), serving.clone(), metrics, now).await, serving)
}

fn root_of(roots: &Roots) -> Cert {
    roots.authority.load().bundle().roots()[0].clone()
}

#[tokio::test]
async fn the_root_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let now = SystemTime::now();
    let first = root_of(&open(&state, mk_options(None), now).await.0.unwrap());
    let second = root_of(&open(&state, mk_options(None), now).await.0.unwrap());
    assert_eq!(first, second);
}

#[tokio::test]
async fn the_serving_certificate_is_renewed_in_time_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (roots, serving) = open(&folder.path().join("state"), mk_options(None), now).await;
    let mut roots = roots.unwrap();
    let config = || serving.proxies.load().as_ref().clone().unwrap();
    let first = config();
    roots.look(now + Duration::from_secs(3600)).await;
    assert!(Arc::ptr_eq(&first, &config()), "nothing was due");
    assert!(roots.renew_at < now + SERVING_TTL);
    roots.look(now + SERVING_TTL / 2 + Duration::from_secs(3600)).await;
    assert!(!Arc::ptr_eq(&first, &config()));
    assert!(roots.renew_at > now + SERVING_TTL);
}

#[tokio::test]
async fn a_plugged_authority_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("cacerts");
    let (roots, _) = open(&folder.path().join("state"), mk_options(Some(missing.clone())), SystemTime::now()).await;
    let error = roots.err().unwrap();
    let said = mesh_api_rt::report::Report::new(&error).to_string();
    assert!(said.contains(&missing.display().to_string()), "{said}");
}

/// A `cacerts` folder with the key and root of a self-signed authority.
fn plug(state: &Path, folder: &Path) {
    let text = std::fs::read_to_string(state.join("ca.pem")).unwrap();
    let section = |label: &str| {
        let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
        let from = text.find(&begin).unwrap();
        let to = text[from..].find(&end).unwrap() + end.len();
        format!("{}\n", &text[from..from + to])
    };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("ca-key.pem"), section("PRIVATE KEY")).unwrap();
    std::fs::write(folder.join("ca-cert.pem"), section("CERTIFICATE")).unwrap();
    std::fs::write(folder.join("root-cert.pem"), section("CERTIFICATE")).unwrap();
}

#[tokio::test]
async fn a_plugged_authority_issues_and_its_replacement_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let now = SystemTime::now();
    let first = root_of(&open(&at("a"), mk_options(None), now).await.0.unwrap());
    let second = root_of(&open(&at("b"), mk_options(None), now).await.0.unwrap());
    plug(&at("a"), &at("cacerts"));
    let (roots, serving) = open(&at("state"), mk_options(Some(at("cacerts"))), now).await;
    let mut roots = roots.unwrap();
    assert_eq!(root_of(&roots), first);
    assert!(!at("state").join("ca.pem").exists(), "no root of our own is made");
    let config = serving.proxies.load_full();

    // Half a replacement: what issues stays, and says why.
    std::fs::remove_file(at("cacerts").join("ca-key.pem")).unwrap();
    roots.look(now).await;
    assert_eq!((root_of(&roots), roots.metrics.renewal_failures.get()), (first, 1));
    plug(&at("b"), &at("cacerts"));
    roots.look(now).await;
    assert_eq!(root_of(&roots), second);
    assert!(!Arc::ptr_eq(&config, &serving.proxies.load_full()), "the secure port serves with the new authority");
}

#[tokio::test]
async fn a_root_near_its_end_is_replaced_step_by_step() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (roots, _) = open(&folder.path().join("state"), mk_options(None), now).await;
    let mut roots = roots.unwrap();
    let first = root_of(&roots);
    let later = now + Duration::from_secs(3000 * 86_400);
    roots.look(later).await;
    let bundle = roots.authority.load().bundle().clone();
    assert_eq!(
        (bundle.roots().len(), bundle.contains(&first)),
        (2, true),
        "the new root is trusted beside the old one"
    );
}
