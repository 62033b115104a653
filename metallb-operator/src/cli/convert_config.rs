//! `metallb convert-config`: converts the ConfigMap of MetalLB before 0.13 to custom resources
//! (`docs/upstream-behaviour.md#configuration-legacy`).

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use k8s_openapi::api::core::v1::ConfigMap;
use metallb_core::config::legacy::{ConversionError, ConversionNote, LegacyConfig};
use metallb_core::spelling::quoted;
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::api;
use crate::source::translate;

/// Arguments of `metallb convert-config`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  kubectl get -n metallb-system configmap config -o yaml >config.yaml\n  \
        metallb convert-config config.yaml | kubectl apply -f -")]
pub struct ConvertConfigArgs {
    /// The ConfigMap as YAML or JSON; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    source: PathBuf,
    /// The input is the text under the key `config`, not a whole ConfigMap
    #[arg(long)]
    only_data: bool,
    /// Namespace of the objects [default: the namespace of the ConfigMap, or metallb-system]
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Why the conversion failed. Nothing is printed then, and the exit code is not 0.
#[derive(Debug, Error)]
pub enum ConvertConfigError {
    /// The input cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The input is not valid YAML of the expected shape.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// The part of the input.
        what: &'static str,
        /// Explanation, with the line.
        why: String,
    },
    /// The ConfigMap has no key `config`.
    #[error("the ConfigMap has no key \"config\"")]
    NoConfig,
    /// The input is another kind of object, or none.
    #[error("the input is {found}, not a ConfigMap (--only-data converts the bare text of the key \"config\")")]
    NotConfigMap {
        /// The kind of the input.
        found: String,
    },
    /// The configuration is invalid.
    #[error("the configuration is invalid:{}", lines(.0))]
    Invalid(Vec<ConversionError>),
    /// A number is out of range of its field in the API.
    #[error("cannot write an object: {0}")]
    Object(String),
    /// Standard output is not writable.
    #[error("cannot print the objects")]
    Write(#[source] std::io::Error),
}

impl ConvertConfigArgs {
    /// Prints the objects on standard output and notes for the operator on standard error.
    ///
    /// # Errors
    /// All problems of the configuration, see [`ConvertConfigError`].
    #[expect(clippy::print_stderr, reason = "notes must not mix with the objects")]
    pub fn run(self) -> Result<ExitCode, ConvertConfigError> {
        let text = self.read()?;
        let converted = convert(&text, self.only_data, self.namespace.as_deref())?;
        for note in &converted.notes {
            eprintln!("metallb: note: {note}");
        }
        std::io::stdout().write_all(converted.yaml.as_bytes()).map_err(ConvertConfigError::Write)?;
        Ok(ExitCode::SUCCESS)
    }

    fn read(&self) -> Result<String, ConvertConfigError> {
        let mut text = String::new();
        let read = if self.source.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text)
        } else {
            std::fs::File::open(&self.source).and_then(|mut file| file.read_to_string(&mut text))
        };
        read.map_err(|source| ConvertConfigError::Read { path: self.source.clone(), source })?;
        Ok(text)
    }
}

/// Objects as YAML, and notes for the operator.
struct Converted {
    yaml: String,
    notes: Vec<ConversionNote>,
}

/// The fields that distinguish a ConfigMap from other objects.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    kind: String,
    data: Option<IgnoredAny>,
}

fn convert(text: &str, only_data: bool, namespace: Option<&str>) -> Result<Converted, ConvertConfigError> {
    let malformed = |what, why: String| ConvertConfigError::Malformed { what, why };
    let mut found_in = None;
    let config = if only_data {
        text.to_owned()
    } else {
        let head: Head = serde_saphyr::from_str(text).map_err(|error| malformed("the input", error.to_string()))?;
        if head.kind != "ConfigMap" && !(head.kind.is_empty() && head.data.is_some()) {
            let found = match head.kind.as_str() {
                "" => "a document without kind".to_owned(),
                kind => format!("of kind {}", quoted(kind)),
            };
            return Err(ConvertConfigError::NotConfigMap { found });
        }
        let map: ConfigMap =
            serde_saphyr::from_str(text).map_err(|error| malformed("the ConfigMap", error.to_string()))?;
        found_in = map.metadata.namespace;
        map.data.unwrap_or_default().remove("config").ok_or(ConvertConfigError::NoConfig)?
    };
    let legacy: LegacyConfig =
        serde_saphyr::from_str(&config).map_err(|error| malformed("the configuration", error.to_string()))?;
    let namespace = namespace.or(found_in.as_deref()).unwrap_or(translate::CONFIG_NAMESPACE);
    let conversion = legacy.convert(namespace).map_err(ConvertConfigError::Invalid)?;

    let mut yaml = "# Written by `metallb convert-config` from the ConfigMap of an older version.\n".to_owned();
    let unwritable = |error: &dyn std::error::Error| ConvertConfigError::Object(error.to_string());
    for object in api::objects(&conversion.resources).map_err(|error| unwritable(&error))? {
        yaml.push_str("---\n");
        yaml.push_str(&serde_saphyr::to_string(&object).map_err(|error| unwritable(&error))?);
    }
    Ok(Converted { yaml, notes: conversion.notes })
}

fn lines(errors: &[ConversionError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifests::Manifests;

    const LEGACY: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: lb}
data:
  config: |
    peers:
    - {my-asn: 64500, peer-asn: 64501, peer-address: 10.0.0.1, peer-port: 1179, password: "12", bfd-profile: Fast}
    bgp-communities: {no-export: "65535:65281"}
    address-pools:
    - name: Gold_Pool
      protocol: bgp
      addresses: [192.168.10.0/24]
      avoid-buggy-ips: true
      bgp-advertisements:
      - {aggregation-length: 24, localpref: 100, communities: [no-export]}
      - {}
    - {name: lan, protocol: layer2, addresses: [192.168.9.1-192.168.9.5], auto-assign: false}
    bfd-profiles:
    - {name: Fast, receive-interval: 100}
"#;

    #[test]
    fn printed_objects_are_read_back_as_the_same_configuration_without_problems() {
        let converted = convert(LEGACY, false, Some(translate::CONFIG_NAMESPACE)).unwrap();
        let mut manifests = Manifests::default();
        manifests.parse(&converted.yaml, "converted");
        let (world, problems) = manifests.world();
        assert_eq!(problems, []);

        let map: ConfigMap = serde_saphyr::from_str(LEGACY).unwrap();
        let legacy: LegacyConfig = serde_saphyr::from_str(&map.data.unwrap()["config"]).unwrap();
        let expected = legacy.convert(translate::CONFIG_NAMESPACE).unwrap().resources;
        assert_eq!(world.resources, expected);
        assert_eq!(expected.pools[0].meta.name, "gold-pool");
        assert_eq!(expected.peers[0].password.expose(), "12");
    }

    /// A cluster for every row below: one Service per pool by name, and one without a preference.
    fn plan_with(configuration: &str) -> metallb_core::plan::Plan {
        let mut cluster = String::new();
        for node in ["node-a", "node-b", "node-c"] {
            cluster += &format!(
                "---\napiVersion: v1\nkind: Node\n\
                 metadata: {{name: {node}, labels: {{kubernetes.io/hostname: {node}, rack: r1}}}}\n"
            );
        }
        for (name, annotations) in [
            ("any", "{}"),
            ("gold", "{metallb.io/address-pool: gold-pool}"),
            ("lan", "{metallb.io/address-pool: lan}"),
            ("dual", "{}"),
        ] {
            let families =
                if name == "dual" { "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6], " } else { "" };
            cluster += &format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {annotations}}}\n\
                 spec: {{type: LoadBalancer, {families}ports: [{{port: 80}}]}}\n\
                 ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
                 endpoints: [{{addresses: [10.244.0.1], nodeName: node-a}}]\n"
            );
        }
        let mut manifests = Manifests::default();
        manifests.parse(&format!("{configuration}{cluster}"), "test");
        let (world, problems) = manifests.world();
        assert_eq!(problems, [], "{configuration}");
        let options = metallb_core::plan::PlanOptions::default();
        metallb_core::plan::plan(&world.resources, &world.cluster, &world.order, &options)
    }

    #[test]
    fn running_the_config_map_and_running_what_it_is_converted_to_gives_the_same_plan() {
        let pool = |name: &str, protocol: &str, addresses: &str, more: &str| {
            format!("- {{name: {name}, protocol: {protocol}, addresses: [{addresses}]{more}}}")
        };
        let peer = "peers:\n- {my-asn: 64500, peer-asn: 64501, peer-address: 10.0.0.1}";
        let rows: &[(&str, String)] = &[
            ("layer2", format!("address-pools:\n{}", pool("lan", "layer2", "192.168.9.0/28", ""))),
            ("bgp", format!("{peer}\naddress-pools:\n{}", pool("gold-pool", "bgp", "192.168.10.0/24", ""))),
            (
                "advertisements with attributes",
                format!(
                    "{peer}\nbgp-communities: {{vip: \"64500:7\", no-export: \"65535:65281\"}}\naddress-pools:\n{}",
                    pool(
                        "Gold_Pool",
                        "bgp",
                        "192.168.10.0/24",
                        ", bgp-advertisements: [{aggregation-length: 24, localpref: 200, communities: [vip]}, \
                         {communities: [no-export]}]"
                    )
                ),
            ),
            (
                "peers with selectors",
                "peers:\n- my-asn: 64500\n  peer-asn: 64501\n  peer-address: 10.0.0.1\n  node-selectors:\n  \
                 - match-labels: {kubernetes.io/hostname: node-a}\n\
                 - my-asn: 64500\n  peer-asn: 64502\n  peer-address: 10.0.0.2\n  node-selectors:\n  \
                 - match-expressions: [{key: rack, operator: In, values: [r1]}]\n    \
                 match-labels: {kubernetes.io/hostname: node-b}\n"
                    .to_owned()
                    + &format!("address-pools:\n{}", pool("gold-pool", "bgp", "192.168.10.0/28", "")),
            ),
            (
                "both protocols, families and flags",
                format!(
                    "peers:\n- {{my-asn: 64500, peer-asn: 64500, peer-address: 10.0.0.1, peer-port: 1179, \
                     hold-time: 30s, password: secret, bfd-profile: Fast_One}}\n\
                     bfd-profiles: [{{name: Fast_One, receive-interval: 100, echo-mode: true}}]\n\
                     address-pools:\n{}\n{}\n{}",
                    pool("lan", "layer2", "192.168.9.1-192.168.9.5, 'fd00:9::/124'", ", avoid-buggy-ips: true"),
                    pool("gold-pool", "bgp", "192.168.10.0/24", ", auto-assign: false"),
                    pool("unused", "l2", "192.168.11.0/30", "")
                ),
            ),
            (
                "IPv6 aggregates",
                format!(
                    "peers:\n- {{my-asn: 64500, peer-asn: 64501, peer-address: 'fd00::1'}}\naddress-pools:\n{}",
                    pool(
                        "gold-pool",
                        "bgp",
                        "192.168.10.0/24, 'fd00:10::/64'",
                        ", bgp-advertisements: [{aggregation-length-v6: 64}]"
                    )
                ),
            ),
        ];
        for (name, config) in rows {
            let indented = config.lines().map(|line| format!("    {line}\n")).collect::<String>();
            let map = format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config, namespace: metallb-system}}\n\
                 data:\n  config: |\n{indented}"
            );
            let converted =
                convert(&map, false, None).map(|done| done.yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
            let before = plan_with(&map);
            assert_eq!(before, plan_with(&converted), "{name}");
            assert!(before.services.iter().any(|service| !service.ips.is_empty()), "{name} shows nothing");
            let announced = |service: &metallb_core::plan::ServicePlan| {
                !service.bgp.is_empty() || service.l2.iter().any(|l2| l2.node.is_some())
            };
            assert!(before.services.iter().any(announced), "{name} announces nothing: {before:?}");
        }
    }

    #[test]
    fn objects_live_where_the_config_map_does_unless_told_otherwise() {
        for (only, expected) in [(None, "namespace: lb\n"), (Some("other"), "namespace: other\n")] {
            let yaml = convert(LEGACY, false, only).unwrap().yaml;
            assert_eq!(yaml.matches(expected).count(), 8, "{yaml}");
        }
        let data = "address-pools: [{name: lan, protocol: layer2, addresses: [10.0.0.0/24]}]";
        assert_eq!(convert(data, true, None).unwrap().yaml.matches("namespace: metallb-system\n").count(), 2);
    }

    #[test]
    fn invalid_configuration_is_an_error_that_names_everything_wrong_with_it() {
        let data = "peers: [{my-asn: 1, peer-asn: 2, peer-address: nowhere, hold-time: soon}]\n\
                    address-pools: [{name: a, protocol: bgp, addresses: [10.0.0.0/33]}]\n";
        let error = convert(data, true, None).map(|_| ()).unwrap_err().to_string();
        for part in ["soon", "nowhere", "10.0.0.0/33"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert!(matches!(convert("data: {}", false, None), Err(ConvertConfigError::NoConfig)));
        for (text, found) in [
            ("address-pools: []", "a document without kind"),
            ("configInline: {address-pools: []}", "a document without kind"),
            ("kind: Secret\nmetadata: {name: a}", "of kind \"Secret\""),
        ] {
            let error = convert(text, false, None).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("--only-data"), "{error}");
        }
        assert!(matches!(convert("peers: 1", true, None), Err(ConvertConfigError::Malformed { .. })));
    }
}
