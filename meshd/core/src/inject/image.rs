//! Names of images. istio/istio: pkg/kube/inject/inject.go ProxyImage.

use mesh_api::inject::values::{InjectValues, PROXY_IMAGE};

use super::Refusal;

/// Variants that a tag may name at its end.
const VARIANTS: [&str; 2] = ["distroless", "debug"];
/// The variant without a suffix.
const PLAIN: &str = "default";

/// What the pod says about its proxy's image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// `sidecar.istio.io/proxyImage`.
    pub(super) image: Option<&'a str>,
    /// `sidecar.istio.io/proxyImageType`.
    pub(super) variant: Option<&'a str>,
    /// `image.imageType` of the proxy's configuration.
    pub(super) configured: Option<&'a str>,
}

/// The reference of an image: the pod's own when it is a whole one, else `name` of the values below their hub.
pub(super) fn reference(values: &InjectValues, name: &str, wish: Wish<'_>) -> Result<String, Refusal> {
    let named = wish.image.unwrap_or(name);
    if named.contains('/') {
        return Ok(named.to_owned());
    }
    let variant =
        wish.variant.or_else(|| wish.configured.filter(|variant| !variant.is_empty())).unwrap_or(&values.variant);
    if name == PROXY_IMAGE {
        // Our image comes in one variant, which is distroless: nothing but the binary is in it.
        if !matches!(variant, "" | PLAIN | "distroless") {
            return Err(Refusal::new(format!(
                "image type {variant:?} cannot be honoured: {PROXY_IMAGE} has no variants; name a whole image with \
                 annotation 'sidecar.istio.io/proxyImage'"
            )));
        }
        return Ok(format!("{}/{name}:{}", values.hub, values.tag));
    }
    Ok(format!("{}/{name}:{}", values.hub, with_variant(&values.tag, variant)))
}

fn with_variant(tag: &str, variant: &str) -> String {
    if variant.is_empty() {
        return tag.to_owned();
    }
    let stem = VARIANTS.iter().find_map(|known| tag.strip_suffix(known)?.strip_suffix('-')).unwrap_or(tag);
    if variant == PLAIN { stem.to_owned() } else { format!("{stem}-{variant}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_replaces_the_one_in_the_tag() {
        assert_eq!(with_variant("1.31", ""), "1.31");
        assert_eq!(with_variant("1.31-distroless", "debug"), "1.31-debug");
        assert_eq!(with_variant("1.31-debug", "default"), "1.31");
    }

    #[test]
    fn our_image_has_one_variant() {
        let values = InjectValues::default();
        let wish = |variant| Wish { image: None, variant: Some(variant), configured: None };
        let plain = format!("lateen/mesh-proxy:{}", values.tag);
        assert_eq!(reference(&values, PROXY_IMAGE, wish("distroless")), Ok(plain));
        assert!(reference(&values, PROXY_IMAGE, wish("debug")).unwrap_err().message.contains("debug"));
    }
}
