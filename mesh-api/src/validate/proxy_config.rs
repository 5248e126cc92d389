//! Rules of ProxyConfig.

use super::check::Check;
use crate::{codes::Code, crd::networking::proxy_config::ProxyConfig};

/// Variants that our image stands for.
const VARIANTS: [&str; 3] = ["", "default", "distroless"];

pub(super) fn check(spec: &ProxyConfig, check: &mut Check) {
    check.some("selector", spec.selector.as_ref(), |check, selector| {
        check.field("matchLabels", |check| check.labels(&selector.match_labels.0));
        if selector.match_labels.is_empty() {
            let what = "an empty selector selects nothing";
            check.hinted("matchLabels", Code::Ineffective, what, "leave out the selector to mean the whole namespace");
        }
    });
    check.some("image", spec.image.as_ref(), |check, image| {
        if !VARIANTS.contains(&image.image_type.as_str()) {
            let what = "the image mesh-proxy has no variants: pods that it is meant for are refused";
            check.hinted("imageType", Code::Ineffective, what, "leave it out, or name another image in the values");
        }
    });
    for name in spec.environment_variables.keys().filter(|name| name.is_empty() || name.contains('=')) {
        let what = format!("{name:?} is no name of a variable");
        check.at("environmentVariables", Code::InvalidValue, what);
    }
}
