//! Flags of the Lease that elects the writing controller.

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, FromArgMatches};

use crate::sink::lease::LeaseTiming;

/// Settings of the controller's Lease. Inconsistent durations are rejected like any other wrong flag.
#[derive(Clone, Debug)]
pub struct LeaseArgs {
    pod_uid: Option<String>,
    timing: LeaseTiming,
}

impl LeaseArgs {
    /// Uid of the Pod, if the downward API provides it.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        self.pod_uid.as_deref().filter(|uid| !uid.is_empty())
    }

    /// Duration of the Lease and interval of renewals.
    #[must_use]
    pub const fn timing(&self) -> LeaseTiming {
        self.timing
    }
}

impl FromArgMatches for LeaseArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = Flags::from_arg_matches(matches)?;
        let timing = LeaseTiming::new(flags.lease_duration, flags.lease_renew_deadline, flags.lease_renew_period)
            .map_err(|error| {
                let [duration, deadline, period] =
                    [flags.lease_duration, flags.lease_renew_deadline, flags.lease_renew_period];
                clap::Error::raw(
                    ErrorKind::ValueValidation,
                    format!(
                        "{error} (--lease-duration {duration:?}, --lease-renew-deadline {deadline:?}, \
                         --lease-renew-period {period:?})\n"
                    ),
                )
            })?;
        Ok(Self { pod_uid: flags.pod_uid, timing })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for LeaseArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Flags::augment_args_for_update(command)
    }
}

/// The flags as written.
#[derive(Clone, Debug, Args)]
struct Flags {
    /// Uid of this pod; with it, a controller that restarts in its pod reclaims its Lease at once [default: read from
    /// the API server]
    #[arg(long, env = "METALLB_POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// Time after which other controllers may take a Lease that is not renewed: seconds, or a number with ms, s or m;
    /// at most 60 s
    #[arg(long, value_parser = duration, default_value = "5s", value_name = "TIME")]
    lease_duration: Duration,
    /// Time after the last renewal during which the leader may write; shorter than the duration
    #[arg(long, value_parser = duration, default_value = "3s", value_name = "TIME")]
    lease_renew_deadline: Duration,
    /// Interval of renewals; shorter than the deadline
    #[arg(long, value_parser = duration, default_value = "1s", value_name = "TIME")]
    lease_renew_period: Duration,
}

/// Parses a whole number with a unit; a number without a unit counts seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        _ => return Err("expected a whole number with the unit ms, s or m".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a whole number with the unit ms, s or m".to_owned())?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        lease: LeaseArgs,
    }

    #[test]
    fn lease_times_are_read_in_seconds_and_with_units() {
        for (text, milliseconds) in [("5", 5000), ("5s", 5000), ("1500ms", 1500), ("1m", 60_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1h", "5 s", "1.5s", "99999999999999999999", "18446744073709551615m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lease_times_default_to_five_three_and_one_second() {
        let line = Line::try_parse_from(["line"]).unwrap();
        assert_eq!(line.lease.timing(), LeaseTiming::default());
    }

    #[test]
    fn lease_times_that_do_not_fit_together_are_refused_with_the_reason() {
        for (flags, reason) in [
            (["--lease-duration=61s", "--lease-renew-deadline=3s"], "from 1 s to 60 s"),
            (["--lease-duration=0", "--lease-renew-deadline=3s"], "from 1 s to 60 s"),
            (["--lease-duration=3s", "--lease-renew-deadline=3s"], "shorter than the duration"),
            (["--lease-renew-deadline=1s", "--lease-renew-period=1s"], "shorter than the renew deadline"),
            (["--lease-renew-period=99ms", "--lease-renew-deadline=3s"], "at least 100 ms"),
        ] {
            let line = ["metallb", "controller"].into_iter().chain(flags);
            let error = Cli::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("--lease-duration"), "{flags:?}: {error}");
        }
    }
}
