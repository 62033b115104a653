//! Reason codes: each is declared once, with the sentence that documents it, and everything that is said of it comes from there.

/// Declares enums of reasons. The sentences are their documentation, what people are told, and the lines of `docs/reasons.md`.
macro_rules! reasons {
    ($($(#[$head:meta])* $vis:vis enum $enum:ident { $($(#[doc = $doc:literal])+ $name:ident,)+ })+) => {$(
        $(#[$head])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Serialize)]
        #[non_exhaustive]
        $vis enum $enum {
            $($(#[doc = $doc])+ $name,)+
        }

        impl $enum {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code, as machines read it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii_start(),)+
                }
            }
        }
    )+};
}

pub(crate) use reasons;
