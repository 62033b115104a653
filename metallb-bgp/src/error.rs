//! I/O errors as values.

use std::fmt;
use std::io;

/// An I/O error as a value that can be cloned, compared and matched on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct IoError {
    kind: io::ErrorKind,
    os_error: Option<i32>,
}

impl IoError {
    /// The kind of error.
    #[must_use]
    pub const fn kind(&self) -> io::ErrorKind {
        self.kind
    }

    /// The error number of the operating system, if the error came from there.
    #[must_use]
    pub const fn raw_os_error(&self) -> Option<i32> {
        self.os_error
    }
}

impl From<&io::Error> for IoError {
    fn from(error: &io::Error) -> Self {
        Self { kind: error.kind(), os_error: error.raw_os_error() }
    }
}

impl From<io::Error> for IoError {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

impl From<io::ErrorKind> for IoError {
    fn from(kind: io::ErrorKind) -> Self {
        Self { kind, os_error: None }
    }
}

impl std::error::Error for IoError {}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(number) = self.os_error else { return fmt::Display::fmt(&self.kind, f) };
        // The standard library appends the number, which means nothing to a reader.
        let text = io::Error::from_raw_os_error(number).to_string();
        f.write_str(text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_error_is_shown_without_its_number() {
        let refused = IoError::from(io::Error::from_raw_os_error(111));
        assert_eq!(
            (refused.kind(), refused.to_string().as_str()),
            (io::ErrorKind::ConnectionRefused, "Connection refused")
        );
        assert_eq!(IoError::from(io::ErrorKind::TimedOut).to_string(), "timed out");
    }
}
