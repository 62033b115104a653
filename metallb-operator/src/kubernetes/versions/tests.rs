//! Answers in any order.
