//! An object of any kind of the table.

use std::sync::{Arc, OnceLock};

use serde::{Serialize, Serializer};

use super::{Layout, Object, Spec};
use crate::{
    ids::ObjectKey,
    kinds::{self, Kind},
    meta::Meta,
    typed::{self, Shape, TypedError},
};

macro_rules! objects {
    ($(
        #[doc = $doc:literal]
        $kind:ident {
            group: $group:literal, versions: [$($version:literal),+], plural: $plural:literal, short: [$($short:literal),*],
            scope: $scope:ident, spec: $spec:ty, status: $status:ty, layout: $layout:ident,
        }
    )*) => {
        $(impl Spec for $spec {
            const KIND: Kind = Kind::$kind;
            const LAYOUT: Layout = Layout::$layout;
            type Status = $status;
        })*

        /// An object of any kind of the table, shared and cheap to clone.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyObject {
            $(#[doc = $doc] $kind(Arc<Object<$spec>>),)*
        }

        impl AnyObject {
            /// What it is.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// Its metadata.
            #[must_use]
            pub fn meta(&self) -> &Meta {
                match self {
                    $(Self::$kind(object) => &object.meta,)*
                }
            }

            /// Its metadata, to be changed; copies the object if it is shared.
            pub fn meta_mut(&mut self) -> &mut Meta {
                match self {
                    $(Self::$kind(object) => &mut Arc::make_mut(object).meta,)*
                }
            }

            /// Reads an object of `kind` from an untyped value.
            ///
            /// # Errors
            /// Names the first field of a wrong type.
            pub fn from_value(kind: Kind, value: &serde_json::Value) -> Result<Self, TypedError> {
                match kind {
                    $(Kind::$kind => typed::from_value(value).map(|o| Self::$kind(Arc::new(o))),)*
                }
            }
        }

        impl AnyObject {
            /// Reads an object of `kind` from JSON without an untyped value in between.
            ///
            /// # Errors
            /// When it is not JSON, or a field is of the wrong type. The message may quote the content.
            pub fn from_json(kind: Kind, json: &str) -> serde_json::Result<Self> {
                match kind {
                    $(Kind::$kind => serde_json::from_str(json).map(|o: Object<$spec>| Self::$kind(Arc::new(o))),)*
                }
            }
        }

        impl Serialize for AnyObject {
            fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                match self {
                    $(Self::$kind(object) => object.serialize(serializer),)*
                }
            }
        }

        $(impl From<Object<$spec>> for AnyObject {
            fn from(object: Object<$spec>) -> Self {
                Self::$kind(Arc::new(object))
            }
        })*

        impl Kind {
            /// The fields that objects of this kind have.
            #[must_use]
            pub fn shape(self) -> &'static Shape {
                match self {
                    $(Self::$kind => {
                        static SHAPE: OnceLock<Shape> = OnceLock::new();
                        typed::object_shape::<$spec>(&SHAPE)
                    })*
                }
            }
        }

        #[cfg(test)]
        impl Kind {
            /// The JSON schema of the kind's spec.
            pub(crate) fn spec_schema(self) -> serde_json::Value {
                match self {
                    $(Self::$kind => typed::schema_of::<$spec>(),)*
                }
            }
        }
    };
}

kinds::table!(objects);

impl AnyObject {
    /// What identifies it, without its cluster.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        self.meta().key(self.kind())
    }
}
