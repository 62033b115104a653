//! `metallb crds`: the custom resource definitions of all nine kinds.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;
use thiserror::Error;

use crate::api;

/// Arguments of `metallb crds`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  metallb crds | kubectl apply --server-side -f -")]
pub struct CrdsArgs {
    /// Write one file per kind into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

/// Why the definitions were not written.
#[derive(Debug, Error)]
pub enum CrdsError {
    /// Writing failed.
    #[error("cannot write the definitions")]
    Write(#[from] std::io::Error),
    /// A definition cannot be serialised.
    #[error("cannot serialise a definition: {0}")]
    Serialise(String),
}

impl CrdsArgs {
    /// Prints or writes the definitions.
    ///
    /// # Errors
    /// Writing failed.
    pub fn run(self) -> Result<ExitCode, CrdsError> {
        for definition in api::definitions() {
            let text = yaml(&definition)?;
            match &self.output_dir {
                Some(directory) => {
                    let name = format!("metallb.io_{}.yaml", definition.spec.names.plural);
                    std::fs::write(directory.join(name), text)?;
                }
                None => std::io::stdout().write_all(format!("---\n{text}").as_bytes())?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A definition as YAML, with whole numbers written as such.
///
/// # Errors
/// It cannot be serialised.
pub fn yaml(definition: &CustomResourceDefinition) -> Result<String, CrdsError> {
    let mut value = serde_json::to_value(definition).map_err(|error| CrdsError::Serialise(error.to_string()))?;
    whole_numbers(&mut value);
    serde_saphyr::to_string(&value).map_err(|error| CrdsError::Serialise(error.to_string()))
}

/// The schema type stores limits as floating-point numbers; YAML must show them as whole numbers.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Number(number) => {
            let whole =
                number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < MAX_EXACT);
            #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Up to here, every whole number has an exact floating-point form.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
