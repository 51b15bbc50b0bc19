//! Numbers of the wire that have a closed set of names.

/// An enum of all the numbers that are understood, with their RFC names.
macro_rules! numbered {
    ($(#[$doc:meta])* $type:ident, $($(#[$variant_doc:meta])* $number:literal $variant:ident $name:literal;)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $(#[doc = concat!($number, ": ", $name, ".")] $(#[$variant_doc])* $variant,)+
        }

        impl $type {
            /// Every value, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The value of a number from the wire, where it is known here.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// The RFC's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(super) use numbered;
