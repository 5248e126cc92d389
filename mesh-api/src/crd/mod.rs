//! The objects that users write, field by field, with Istio's and Kubernetes' names.
//!
//! Conventions of proto JSON hold: lowerCamelCase names, durations as text, enumerations by name, an absent field is its
//! default. What a field means is for the reader of the object; what it may hold is for [`crate::validate`].

pub mod common;
pub mod core;
pub mod networking;
pub mod security;

/// Declares API structs: camelCase on the wire, absent means default, and defaults are not written.
macro_rules! api {
    ($(
        $(#[$attr:meta])*
        pub struct $name:ident {
            $( $(#[$field_attr:meta])* pub $field:ident: $ty:ty, )*
        }
    )*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase", default)]
        $(#[$attr])*
        pub struct $name {
            $(
                $(#[$field_attr])*
                #[serde(skip_serializing_if = "crate::crd::is_default")]
                pub $field: $ty,
            )*
        }
    )*};
}

/// Declares API enumerations, written in SCREAMING_SNAKE_CASE; the first variant is the default.
macro_rules! api_enum {
    ($(
        $(#[$attr:meta])*
        pub enum $name:ident {
            $(#[$first_attr:meta])* $first:ident,
            $( $(#[$variant_attr:meta])* $variant:ident, )*
        }
    )*) => {$(
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        $(#[$attr])*
        pub enum $name {
            #[default]
            $(#[$first_attr])* $first,
            $( $(#[$variant_attr])* $variant, )*
        }
    )*};
}

pub(crate) use {api, api_enum};

/// Whether a field holds what it would hold if it were absent.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
