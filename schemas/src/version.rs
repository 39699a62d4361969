//! Which version a contract says it is of, and whether a new version's number fits what changed. What changed is `diff`'s.

use std::{fmt, str::FromStr};

use serde_json::Value;

use crate::contract::ContractError;

/// The root keyword that carries it.
pub(crate) const KEY: &str = "x-weir-version";

/// Three numbers, as semantic versioning has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Raised when rows that were valid are not any more.
    pub major: u64,
    /// Raised when something was added.
    pub minor: u64,
    /// Raised when nothing that concerns rows changed.
    pub patch: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
            if plain { part.parse().map_err(|_| ()) } else { Err(()) }
        };
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(()).and_then(number);
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_some() { Err(()) } else { Ok(version) }
    }
}

/// How much changed between two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// Nothing that concerns rows or columns.
    Nothing,
    /// Every row that was valid is, and columns keep their types.
    Addition,
    /// Anything else.
    Break,
}

impl Version {
    /// The least version that may follow this one after a change of this size. Before 1.0.0 the minor number stands for the major one.
    pub fn least_after(self, size: Size) -> Self {
        match size {
            Size::Nothing => self,
            Size::Addition if self.major == 0 => Self { patch: self.patch.saturating_add(1), ..self },
            Size::Addition => Self { minor: self.minor.saturating_add(1), patch: 0, ..self },
            Size::Break if self.major == 0 => Self { minor: self.minor.saturating_add(1), patch: 0, ..self },
            Size::Break => Self { major: self.major.saturating_add(1), minor: 0, patch: 0 },
        }
    }
}

/// Reads the version of a contract, where it has one. The error has no offset yet.
pub(crate) fn read(schema: &Value) -> Result<Option<Version>, ContractError> {
    let Some(value) = schema.get(KEY) else { return Ok(None) };
    let read = value.as_str().and_then(|text| text.parse().ok());
    read.map(Some).ok_or_else(|| ContractError {
        message: format!("{value} is no version"),
        offset: None,
        help: Some(format!("give \"{KEY}\" three numbers, such as \"2.1.0\"")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap_or_else(|()| panic!("{text} is a version"))
    }

    #[test]
    fn three_numbers_are_a_version_and_nothing_else_is() {
        assert_eq!(version("2.10.0"), Version { major: 2, minor: 10, patch: 0 });
        assert!(version("2.10.0") > version("2.9.7"));
        for wrong in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "1.02.3", "1.2.-3", "1.2.3-beta", "1.2.18446744073709551616", " 1.2.3"]
        {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_break_needs_a_new_major_and_an_addition_a_new_minor() {
        for (from, size, least) in [
            ("1.2.3", Size::Nothing, "1.2.3"),
            ("1.2.3", Size::Addition, "1.3.0"),
            ("1.2.3", Size::Break, "2.0.0"),
            ("0.2.3", Size::Addition, "0.2.4"),
            ("0.2.3", Size::Break, "0.3.0"),
        ] {
            assert_eq!(version(from).least_after(size).to_string(), least, "{from} {size:?}");
        }
    }
}
