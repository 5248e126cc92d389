//! The reference page of annotations and labels, made from the table in mesh-api: `cargo xtask docs` writes it.

use std::fmt::Write as _;
use std::path::PathBuf;

use mesh_api::inject::surface::{self, Carrier, Effect, Row};

const HEAD: &str = "<!-- Generated from mesh-api; do not edit: `cargo xtask docs` writes it anew. -->";

fn table(page: &mut String, title: &str, carriers: &[Carrier]) {
    let _ = write!(page, "\n## {title}\n\n| Name | | Effect | Meaning | Note |\n|---|---|---|---|---|\n");
    let mut rows: Vec<&Row> = surface::rows().filter(|row| carriers.contains(&row.carrier)).collect();
    rows.sort_by_key(|row| (row.name.trim_end_matches('*'), row.carrier as u8));
    for row in rows {
        let carrier = match row.carrier {
            Carrier::PodAnnotation | Carrier::OtherAnnotation => "annotation",
            Carrier::PodLabel | Carrier::OtherLabel => "label",
            Carrier::NamespaceLabel => "label of the namespace",
        };
        let note = match row.effect {
            Effect::Acts | Effect::Written => "",
            Effect::Named(why) | Effect::Refused(why) | Effect::NotYet(why) => why,
            Effect::Elsewhere(who) => who,
        };
        let _ = writeln!(page, "| `{}` | {carrier} | {} | {} | {note} |", row.name, row.effect, row.meaning);
    }
}

#[test]
fn golden_page_of_annotations() {
    let mut page = format!("# Annotations and labels\n\n{HEAD}\n\n");
    page += "What becomes of each annotation and label that Istio knows. **acts**: injection honours it. **written**: \
             injection writes it. **named**: the pod is injected, and a warning names the annotation. **refused**: the pod \
             is not admitted, and the message names the annotation. **elsewhere**: another part reads it. **not yet**: \
             nothing reads it. A `*` at the end stands for anything. Values are checked: what cannot be understood refuses \
             the pod.\n";
    table(&mut page, "Of pods and namespaces", &[Carrier::PodAnnotation, Carrier::PodLabel, Carrier::NamespaceLabel]);
    table(&mut page, "Of other objects", &[Carrier::OtherAnnotation, Carrier::OtherLabel]);
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../docs/reference/annotations.md"].iter().collect();
    super::check(&path, &page);
}
