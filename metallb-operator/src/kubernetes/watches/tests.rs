//! The loop against a server that follows a script.
