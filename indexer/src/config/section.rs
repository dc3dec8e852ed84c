//! `settings!`: a section of settings, each in one place. A setting is a field. The name of the field is the key, its type is the type of the
//! value, and its documentation is the text of the example and the reference: first the meaning, then, after an empty line, the reason for
//! the default. Beside the field stand the default and the kind, which reads and so checks the value:
//!
//! ```text
//! pub pool_size: u32 = "8", kind::Int(1, 1_000);      "8" if it is not set
//! pub url: Secret = must "postgres://…", kind::…;     must be set; this is an example
//! pub admin_url: Secret = same "database.url", …;     the value of the other setting
//! pub ca_file: Option<PathBuf> = unset "/etc/…", …;   not set; this is an example
//! ```
//!
//! A section becomes a struct of values and a draft. A field of the draft is a value or a problem; the rules about several settings use the
//! draft. `draft` makes the draft alone, if the program has these values in another form. `for` uses a struct of another crate.

use super::given::Field;
use super::kind::Reads;
use super::setting::Shape;

/// A kind that is read as the element type of the field.
pub(super) const fn tied<F: Field<T>, T, K: Reads<T>>(kind: K) -> K {
    kind
}

/// The shape of a field.
pub(super) const fn shape<F: Field<T>, T, K: Reads<T>>(_: &K) -> Shape {
    F::SHAPE
}

macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident in $section:literal, drafted as $draft:ident
        $(, beside { $($(#[doc = $word:literal])+ pub $given:ident: $of:ty,)+ })?
        { $($fields:tt)+ }
    ) => {
        settings! { @struct $name [$(#[doc = $about])+] [$($($(#[doc = $word])+ pub $given: $of,)+)?] $($fields)+ }
        settings! { @draft $draft, $section, $($fields)+ }
        settings! { @finish $draft, $name, [$($($given: $of,)+)?] $($fields)+ }
    };
    (for $name:ident in $section:literal, drafted as $draft:ident { $($fields:tt)+ }) => {
        settings! { @draft $draft, $section, $($fields)+ }
        settings! { @finish $draft, $name, [] $($fields)+ }
    };
    (draft $draft:ident in $section:literal { $($fields:tt)+ }) => {
        settings! { @draft $draft, $section, $($fields)+ }
    };

    (
        @struct $name:ident [$($about:tt)+] [$($beside:tt)*]
        $($(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $($how:ident)? $text:literal, $kind:expr;)+
    ) => {
        $($about)+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($beside)*
            $($(#[doc = $doc])+ pub $field: $type,)+
        }
    };
    (
        @draft $draft:ident, $section:literal,
        $($(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $($how:ident)? $text:literal, $kind:expr;)+
    ) => {
        /// The section as far as it could be read.
        pub(super) struct $draft {
            $(pub $field: $crate::config::given::Drafted<$type>,)+
        }

        impl $draft {
            const ROWS: [$crate::config::setting::Setting; [$(stringify!($field)),+].len()] = [$(
                $crate::config::setting::Setting {
                    path: concat!($section, ".", stringify!($field)),
                    kind: &$crate::config::section::tied::<$type, _, _>($kind),
                    shape: $crate::config::section::shape::<$type, _, _>(&$kind),
                    default: settings!(@default $($how)? $text)
                        .fitting($crate::config::section::shape::<$type, _, _>(&$kind)),
                    docs: &[$($doc),+],
                }
            ),+];

            /// The settings of the section.
            pub const SETTINGS: &'static [$crate::config::setting::Setting] = &Self::ROWS;

            /// Reads the section, or that of its sections which has this name.
            pub fn read(given: &mut $crate::config::given::Given, name: &str) -> Self {
                let [$($field),+] = &Self::ROWS;
                Self { $($field: given.read($field, name, &$kind)),+ }
            }
        }
    };
    (
        @finish $draft:ident, $name:ident, [$($given:ident: $of:ty,)*]
        $($(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $($how:ident)? $text:literal, $kind:expr;)+
    ) => {
        impl $draft {
            /// The values, if all could be read.
            pub fn finish(self $(, $given: $of)*) -> $crate::config::given::Read<$name> {
                Ok($name { $($given,)* $($field: self.$field.value?),+ })
            }
        }
    };

    (@default $text:literal) => { $crate::config::setting::Default::Value($text) };
    (@default must $text:literal) => { $crate::config::setting::Default::Required($text) };
    (@default same $text:literal) => { $crate::config::setting::Default::Same($text) };
    (@default unset $text:literal) => { $crate::config::setting::Default::Unset($text) };
}

pub(super) use settings;
