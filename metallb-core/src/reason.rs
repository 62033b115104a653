//! Reason codes. Each variant is declared once; its doc comment is also the text of `meaning` and of `docs/reasons.md`.

/// Declares enums of reasons with `ALL`, `as_str` and `meaning`.
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

            /// The stable code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The meaning in one sentence.
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
