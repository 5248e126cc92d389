//! Certificates and roots. Private keys are never shown, not even when a dump has them.

use std::collections::BTreeSet;
use std::time::SystemTime;

use mesh_ca::cert::Cert;
use mesh_ca::{pem, time};
use serde_json::Value;

use crate::dump::{SECRETS, at, canonical, items, pem_of, text};
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Report;
use crate::table::Table;

pub(super) fn report(dump: &Value) -> Report {
    report_at(dump, SystemTime::now())
}

fn report_at(dump: &Value, now: SystemTime) -> Report {
    let headers =
        ["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE", "TRUST DOMAIN"];
    let mut table = Table::new(&headers);
    let (mut data, mut notes) = (Vec::new(), Vec::new());
    for (list, state) in SECRETS {
        for secret in items(dump, "SecretsConfigDump", &[list], "secret") {
            row(secret, state, now, &mut table);
            notes.extend(expired(secret, now));
            data.push(canonical(&redacted(secret)));
        }
    }
    Report { table, data: Value::Array(data), notes, ..Report::default() }
}

/// A certificate of a workload that ended: peers refuse it.
fn expired(secret: &Value, now: SystemTime) -> Option<String> {
    let certificate = first_certificate(at(secret, "tls_certificate.certificate_chain")?)?;
    let over = certificate.not_after < now;
    over.then(|| {
        let at = time::display(certificate.not_after);
        format!("WARNING: the certificate {} has expired at {at}: peers refuse it", text(secret, "name"))
    })
}

fn row(secret: &Value, state: &str, now: SystemTime, table: &mut Table) {
    let chain = at(secret, "tls_certificate.certificate_chain");
    let roots = at(secret, "validation_context.trusted_ca");
    let kind = if roots.is_some() { "CA" } else { "Cert Chain" };
    let certificate = chain.or(roots).and_then(first_certificate);
    let name = text(secret, "name");
    let Some(certificate) = certificate else {
        let unknown = || "-".to_owned();
        let state = if chain.or(roots).is_some() { state } else { "UNINITIALIZED" };
        let valid = "false".to_owned();
        table.row([name, kind.to_owned(), state.to_owned(), valid, unknown(), unknown(), unknown(), unknown()]);
        return;
    };
    let domain = certificate.uris.iter().find_map(|uri| uri.strip_prefix("spiffe://")?.split('/').next());
    table.row([
        name,
        kind.to_owned(),
        state.to_owned(),
        certificate.is_valid_at(now).to_string(),
        certificate.serial.clone(),
        time::display(certificate.not_after),
        time::display(certificate.not_before),
        domain.unwrap_or("-").to_owned(),
    ]);
}

/// Whether two proxies have a root in common.
pub(super) fn compare(one: &Value, other: &Value, names: [&str; 2]) -> Result<Report, CliError> {
    let [roots_of_one, roots_of_other] = [roots(one), roots(other)];
    for (roots, name) in [(&roots_of_one, names[0]), (&roots_of_other, names[1])] {
        if roots.is_empty() {
            return Err(CliError::user(format!("proxy {name} has no root certificate")));
        }
    }
    let common = roots_of_one.intersection(&roots_of_other).count();
    let data = serde_json::json!({ "common": common, "proxies": names });
    let text = if common > 0 {
        format!("Both {} and {} have {common} root certificates in common\n", names[0], names[1])
    } else {
        format!("{} and {} have no root certificate in common: they refuse each other\n", names[0], names[1])
    };
    let exit = if common > 0 { Exit::Ok } else { Exit::User };
    Ok(Report { text, data, exit, ..Report::default() })
}

/// The root certificates of a dump.
fn roots(dump: &Value) -> BTreeSet<Vec<u8>> {
    let secrets = items(dump, "SecretsConfigDump", &SECRETS.map(|(list, _)| list), "secret");
    let texts = secrets.into_iter().filter_map(|secret| pem_of(at(secret, "validation_context.trusted_ca")?));
    texts.filter_map(|text| pem::certificates(&text).ok()).flatten().map(|root| root.to_vec()).collect()
}

fn first_certificate(source: &Value) -> Option<Cert> {
    let text = pem_of(source)?;
    let first = pem::certificates(&text).ok()?.into_iter().next()?;
    Cert::parse(first).ok()
}

/// The secret without its key.
fn redacted(secret: &Value) -> Value {
    let mut secret = secret.clone();
    for certificate in ["tls_certificate", "tlsCertificate"] {
        if let Some(fields) = secret.get_mut(certificate).and_then(Value::as_object_mut) {
            fields.remove("private_key");
            fields.remove("privateKey");
        }
    }
    secret
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use mesh_ca::testing::TestCa;
    use serde_json::json;

    use super::*;

    #[test]
    fn certificates_are_istioctls_rows_without_keys() {
        let now = SystemTime::now();
        let ca = TestCa::new(now);
        let credential = ca.credential("shop", "web");
        let encode = |text: String| json!({ "inline_bytes": STANDARD.encode(text) });
        let dump = json!({ "configs": [{ "@type": "envoy.admin.v3.SecretsConfigDump", "dynamic_active_secrets": [
            { "name": "default", "secret": { "name": "default", "tls_certificate": {
                "certificate_chain": encode(credential.chain_pem()), "private_key": { "inline_string": "secret" } } } },
            { "name": "ROOTCA", "secret": { "name": "ROOTCA", "validation_context": {
                "trusted_ca": encode(credential.roots_pem()) } } },
            { "name": "later", "secret": { "name": "later" } },
        ] }] });
        assert_eq!(crate::dump::certificate_chain(&dump, "default"), Some(credential.chain_pem().into_bytes()));
        let report = report_at(&dump, now);
        let rows = &report.table.rows;
        assert_eq!(rows[0][..5], ["default", "Cert Chain", "ACTIVE", "true", &credential.leaf.serial]);
        assert_eq!(rows[0][7], "cluster.local");
        assert_eq!(rows[1][..4], ["ROOTCA", "CA", "ACTIVE", "true"]);
        assert_eq!(rows[2][..4], ["later", "Cert Chain", "UNINITIALIZED", "false"]);
        assert!(!report.data.to_string().contains("secret\""), "{}", report.data);
        assert!(report.notes.is_empty());
        let late = report_at(&dump, credential.leaf.not_after + std::time::Duration::from_secs(1));
        assert!(late.notes[0].starts_with("WARNING: the certificate default has expired at "), "{:?}", late.notes);
    }
}
