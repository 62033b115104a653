use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::cli::Command as Subcommand;
use crate::controller::{self, Duty};
use crate::speaker;

fn parse(argv: &[&str], variables: &[(&str, &str)]) -> Result<Cli, clap::Error> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Cli::parse_from_environment(argv.iter().map(OsString::from), |name| variables.get(name).map(OsString::from))
}

fn controller(argv: &[&str], variables: &[(&str, &str)]) -> controller::Settings {
    match parse(argv, variables).unwrap().command {
        Subcommand::Controller(args) => args.settings(),
        other => panic!("{argv:?} is {other:?}"),
    }
}

fn speaker(argv: &[&str], variables: &[(&str, &str)]) -> Result<speaker::Settings, String> {
    match parse(argv, variables).unwrap().command {
        Subcommand::Speaker(args) => args.settings().map_err(|error| error.to_string()),
        other => panic!("{argv:?} is {other:?}"),
    }
}

const SPEAKER: [(&str, &str); 6] = [
    ("METALLB_NODE_NAME", "node-1"),
    ("METALLB_POD_NAME", "speaker-x"),
    ("METALLB_HOST", "192.0.2.1"),
    ("METALLB_ML_BIND_ADDR", "192.0.2.1"),
    ("METALLB_ML_LABELS", "app=metallb,component=speaker"),
    ("METALLB_ML_SECRET_KEY_PATH", "/etc/ml_secret_key"),
];

#[test]
fn name_of_the_program_chooses_the_subcommand() {
    let rows = [
        (&["/controller", "--port=9120"][..], "Controller("),
        (&["controller"], "Controller("),
        (&["/usr/bin/speaker", "--port=9120"], "Speaker("),
        (&["/metallb", "speaker"], "Speaker("),
        (&["/usr/local/bin/kubectl-metallb", "plan"], "Plan("),
        (&["/cp-tool", "/frr-metrics", "/etc/frr_metrics/frr-metrics"], "CpTool("),
        (&["/etc/frr_metrics/frr-metrics", "--metrics-port=9121", "--metrics-bind-address=0.0.0.0"], "FrrMetrics("),
    ];
    for (argv, expected) in rows {
        let parsed = format!("{:?}", parse(argv, &[]).unwrap().command);
        assert!(parsed.starts_with(expected), "{argv:?}: {parsed}");
    }
    assert!(parse(&["/metallb", "--port=9120"], &[]).is_err());
}

/// Arguments and variables of the containers in upstream's native, FRR and FRR-K8s manifests and in its chart.
#[test]
fn installs_of_upstream_start_with_their_arguments_and_variables() {
    let chart =
        ["/controller", "--port=9120", "--health-probe-port=17472", "--log-level=info", "--webhook-mode=enabled"];
    for (argv, bgp_type, secret) in [
        (&["/controller", "--port=9120", "--log-level=info"][..], "", "memberlist"),
        (&["/controller", "--port=9120", "--log-level=info"], "frr", "memberlist"),
        (&["/controller", "--port=9120", "--log-level=info"], "frr-k8s", "memberlist"),
        (&chart, "frr-k8s", "metallb-memberlist"),
    ] {
        let variables = [
            ("METALLB_BGP_TYPE", bgp_type),
            ("METALLB_POD_NAME", "controller-x"),
            ("METALLB_ML_SECRET_NAME", secret),
            ("METALLB_DEPLOYMENT", "controller"),
        ];
        let settings = controller(argv, &variables);
        assert_eq!((settings.pod.as_str(), settings.duty), ("controller-x", Duty::Assign));
        assert_eq!(settings.membership_secret.as_deref(), Some(secret));
        let listen: Vec<String> = settings.listen.iter().map(|listen| listen.address.to_string()).collect();
        assert_eq!(listen, ["[::]:9120", "[::]:17472"]);
    }
    for more in [
        &[][..],
        &[("FRR_CONFIG_FILE", "/a"), ("FRR_RELOADER_PID_FILE", "/b"), ("METALLB_BGP_TYPE", "frr")],
        &[("METALLB_ML_BIND_PORT", "7946"), ("METALLB_BGP_TYPE", "frr-k8s"), ("METALLB_BGP_DEBOUNCE_TIMEOUT", "")],
    ] {
        let variables = [&SPEAKER[..], more].concat();
        let settings = speaker(&["/speaker", "--port=9120", "--log-level=info"], &variables).unwrap();
        assert_eq!((settings.announce.node.as_str(), settings.pod.as_str()), ("node-1", "speaker-x"));
        let membership = settings.announce.membership.unwrap();
        assert_eq!(membership.bind.to_string(), "192.0.2.1:7946");
        let listen: Vec<String> = settings.listen.iter().map(|listen| listen.address.to_string()).collect();
        assert_eq!(listen, ["[::]:9120", "127.0.0.1:17472"]);
    }
}

#[test]
fn flags_are_taken_as_go_spells_them() {
    let rows: [(&[&str], &str); 13] = [
        (&["-port=1234"], "[::]:1234"),
        (&["-port", "1234"], "[::]:1234"),
        (&["--port", "1234"], "[::]:1234"),
        (&["--port=9120", "--port=1234"], "[::]:1234"),
        (&["-port=9120", "--port", "1234"], "[::]:1234"),
        (&["-webhook-http2=1", "--port=1234"], "[::]:1234"),
        (&["-webhook-http2=t", "--port=1234"], "[::]:1234"),
        (&["-webhook-http2=T", "--port=1234"], "[::]:1234"),
        (&["-webhook-http2=True", "--port=1234"], "[::]:1234"),
        (&["-webhook-http2=FALSE", "--port=1234"], "[::]:1234"),
        (&["-webhook-http2", "--port=1234"], "[::]:1234"),
        (&["--disable-cert-rotation=0", "--port=1234"], "[::]:1234"),
        (&["--lb-class", "-odd", "--port=1234"], "[::]:1234"),
    ];
    for (flags, metrics) in rows {
        let settings = controller(&[&["/controller"][..], flags].concat(), &[]);
        assert_eq!(settings.listen[0].address.to_string(), metrics, "{flags:?}");
    }
    for flag in ["-ml-wan-config=1", "--ml-wan-config=t", "--ml-wan-config", "-ignore-exclude-lb=T"] {
        let settings = speaker(&["/speaker", flag], &SPEAKER).unwrap();
        let is_wan = settings.announce.membership.unwrap().wan;
        assert_eq!(is_wan, flag.contains("wan"), "{flag}");
    }
    for wrong in ["--webhook-http2=yes", "-port=many", "--nonsense=1", "-nonsense", "--webhook-mode=perhaps"] {
        let error = parse(&["/controller", wrong], &[]).unwrap_err().to_string();
        assert!(error.contains(wrong.trim_start_matches('-').split('=').next().unwrap()), "{wrong}: {error}");
    }
}

#[test]
fn variable_counts_unless_it_is_empty_or_its_flag_is_given() {
    let pod = |argv: &[&str], value| controller(argv, &[("METALLB_POD_NAME", value)]).pod;
    assert_eq!(pod(&["/controller"], "from-variable"), "from-variable");
    assert_eq!(pod(&["/controller", "-pod-name=from-flag"], "from-variable"), "from-flag");
    assert_eq!(pod(&["/controller"], ""), "");
    let empty = ["METALLB_BGP_TYPE", "METALLB_ML_BIND_PORT", "METALLB_ML_BGP_DRAIN_TIME", "METALLB_ML_BGP_LISTEN"];
    for name in empty {
        let variables = [&SPEAKER[..], &[(name, "")]].concat();
        assert!(speaker(&["/speaker"], &variables).is_ok(), "{name}");
    }
    let variables = [&SPEAKER[..], &[("METALLB_ML_BIND_PORT", "many")]].concat();
    let error = parse(&["/speaker"], &variables).unwrap_err().to_string();
    assert!(error.contains("--ml-bindport") && error.contains("METALLB_ML_BIND_PORT"), "{error}");
}

#[test]
fn speaker_without_a_node_name_ends_with_an_error() {
    for (argv, variables) in [
        (&["/speaker"][..], &[][..]),
        (&["/speaker"], &[("METALLB_NODE_NAME", "")]),
        (&["/speaker", "--node-name="], &[("METALLB_NODE_NAME", "node-1")]),
    ] {
        let error = speaker(argv, variables).unwrap_err();
        assert!(error.contains("METALLB_NODE_NAME") && error.contains("--node-name"), "{argv:?}: {error}");
    }
}

#[test]
fn controller_assigns_nothing_where_only_webhooks_are_asked_for() {
    for (mode, duty) in [("enabled", Duty::Assign), ("disabled", Duty::Assign), ("onlywebhook", Duty::OnlyWebhooks)] {
        assert_eq!(controller(&["/controller", &format!("--webhook-mode={mode}")], &[]).duty, duty, "{mode}");
    }
}

#[test]
fn help_of_a_subcommand_names_its_variables() {
    let help = parse(&["/speaker", "--help"], &SPEAKER).unwrap_err().to_string();
    assert!(help.contains("METALLB_NODE_NAME") && help.contains("--ml-bindaddr"), "{help}");
}

/// Each container of upstream's images in the manifests `install-*.json` of a directory. Values from the downward API
/// are made up.
#[test]
#[ignore = "needs METALLB_UPSTREAM_DATA, a directory with upstream's manifests as JSON"]
fn containers_of_upstreams_manifests_start() {
    let directory = std::env::var("METALLB_UPSTREAM_DATA").unwrap();
    let mut started = 0;
    for install in ["native", "frr", "frr-k8s", "chart"] {
        let path = Path::new(&directory).join(format!("install-{install}.json"));
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let objects = manifest.as_array().or_else(|| manifest["items"].as_array()).unwrap();
        let lists = ["initContainers", "containers"];
        let containers = objects.iter().flat_map(|object| {
            lists.iter().filter_map(move |list| object["spec"]["template"]["spec"][list].as_array()).flatten()
        });
        for container in containers {
            let image = container["image"].as_str().unwrap();
            let entry = ["controller", "speaker"].into_iter().find(|name| image.contains(&format!("/{name}:")));
            let words = |key: &str| -> Vec<String> {
                let words = container[key].as_array().into_iter().flatten();
                words.map(|word| word.as_str().unwrap().to_owned()).collect()
            };
            let mut argv = words("command");
            if argv.is_empty() {
                argv.extend(entry.map(|name| format!("/{name}")));
            }
            argv.extend(words("args"));
            let is_ours = entry.is_some() || argv.first().is_some_and(|word| word.ends_with("/frr-metrics"));
            if !is_ours || image.contains("frr-k8s") || install != "frr" && entry.is_none() {
                continue;
            }
            let variables: BTreeMap<String, String> = container["env"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|variable| {
                    let value = variable["value"].as_str().unwrap_or("192.0.2.1");
                    (variable["name"].as_str().unwrap().to_owned(), value.to_owned())
                })
                .collect();
            let parsed = Cli::parse_from_environment(argv.iter().map(OsString::from), |name| {
                variables.get(name).map(OsString::from)
            });
            assert!(parsed.is_ok(), "{install} {}: {}", container["name"], parsed.unwrap_err());
            started += 1;
        }
    }
    assert_eq!(started, 11);
}
