//! Label selectors: matching, validation and display.

use metallb_core::model::{LabelSelector, Labels, Requirement, Selector, SelectorError};

/// Labels as `a=b,c=d`.
fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> Requirement {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Requirement { key: key.to_owned(), operator: operator.to_owned(), values }
}

fn parse(equal: &str, expressions: &[Requirement]) -> Result<Selector, SelectorError> {
    Selector::parse(&LabelSelector { match_labels: labels(equal), match_expressions: expressions.to_vec() })
}

#[test]
fn selector_matches_like_kubernetes() {
    let one = |operator: &str, values: &[&str]| vec![requirement("app", operator, values)];
    type Row<'a> = (&'a str, Vec<Requirement>, &'a str, [bool; 4]);
    let objects = ["", "app=web", "app=db,tier=back", "tier=back"];
    let rows: [Row<'_>; 9] = [
        ("", vec![], "", [true; 4]),
        ("app=web", vec![], "app=web", [false, true, false, false]),
        ("app=db,tier=back", vec![], "app=db,tier=back", [false, false, true, false]),
        ("", one("In", &["web", "db"]), "app in (db,web)", [false, true, true, false]),
        ("", one("NotIn", &["web"]), "app notin (web)", [true, false, true, true]),
        ("", one("Exists", &[]), "app", [false, true, true, false]),
        ("", one("DoesNotExist", &[]), "!app", [true, false, false, true]),
        ("tier=back", one("NotIn", &["db"]), "app notin (db),tier=back", [false, false, false, true]),
        ("tier=back", one("DoesNotExist", &[]), "!app,tier=back", [false, false, false, true]),
    ];
    for (equal, expressions, text, expected) in rows {
        let selector = parse(equal, &expressions).unwrap();
        assert_eq!(selector.to_string(), text);
        assert_eq!(objects.map(|object| selector.matches(&labels(object))), expected, "{text}");
    }
}

#[test]
fn equivalent_selectors_are_equal() {
    let (first, second) = (requirement("a", "In", &["x", "y"]), requirement("b", "Exists", &[]));
    let forward = parse("c=d", &[first, second.clone()]).unwrap();
    let backward = parse("c=d", &[second, requirement("a", "In", &["y", "x"])]).unwrap();
    assert_eq!(forward, backward);
}

#[test]
fn invalid_selector_yields_the_specific_error() {
    let rows: [(Requirement, SelectorError); 7] = [
        (requirement("a", "In", &[]), SelectorError::MissingValues { key: "a".into(), operator: "In".into() }),
        (requirement("a", "NotIn", &[]), SelectorError::MissingValues { key: "a".into(), operator: "NotIn".into() }),
        (
            requirement("a", "Exists", &["x"]),
            SelectorError::UnexpectedValues { key: "a".into(), operator: "Exists".into() },
        ),
        (
            requirement("a", "DoesNotExist", &["x"]),
            SelectorError::UnexpectedValues { key: "a".into(), operator: "DoesNotExist".into() },
        ),
        (requirement("a", "in", &["x"]), SelectorError::UnknownOperator { key: "a".into(), operator: "in".into() }),
        (requirement("", "Exists", &[]), SelectorError::InvalidKey(String::new())),
        (requirement("a", "In", &["-"]), SelectorError::InvalidValue("-".into())),
    ];
    for (requirement, error) in rows {
        assert_eq!(parse("", &[requirement]), Err(error));
    }
}

#[test]
fn repeated_parts_do_not_change_the_meaning_and_are_found_by_check_unique() {
    let written = |expressions: &[Requirement]| LabelSelector {
        match_labels: Labels::new(),
        match_expressions: expressions.to_vec(),
    };
    let twice = SelectorError::DuplicateValue { key: "a".into(), value: "x".into() };
    let rows: [(&[Requirement], &[Requirement], Result<(), SelectorError>); 5] = [
        (&[requirement("a", "In", &["y", "x"])], &[requirement("a", "In", &["x", "y"])], Ok(())),
        (&[requirement("a", "In", &["x", "x"])], &[requirement("a", "In", &["x"])], Err(twice.clone())),
        (&[requirement("a", "NotIn", &["x", "x"])], &[requirement("a", "NotIn", &["x"])], Err(twice)),
        (
            &[requirement("a", "In", &["x", "y"]), requirement("a", "In", &["y", "x"])],
            &[requirement("a", "In", &["x", "y"])],
            Err(SelectorError::DuplicateExpression("a in (x,y)".into())),
        ),
        (
            &[requirement("a", "Exists", &[]), requirement("a", "Exists", &[])],
            &[requirement("a", "Exists", &[])],
            Err(SelectorError::DuplicateExpression("a".into())),
        ),
    ];
    for (long, short, unique) in rows {
        assert_eq!(parse("", long), parse("", short));
        assert_eq!(written(long).check_unique(), unique);
    }
}

#[test]
fn keys_and_values_are_limited_like_in_kubernetes() {
    let long = |length: usize| "x".repeat(length);
    let keys = [
        ("a".to_owned(), true),
        ("A-b_c.9".to_owned(), true),
        (long(63), true),
        (long(64), false),
        ("-a".to_owned(), false),
        ("a-".to_owned(), false),
        (".a".to_owned(), false),
        ("a b".to_owned(), false),
        ("ä".to_owned(), false),
        ("example.com/a".to_owned(), true),
        ("9e.c-d/a".to_owned(), true),
        ("example.com/".to_owned(), false),
        ("/a".to_owned(), false),
        ("a/b/c".to_owned(), false),
        ("Example.com/a".to_owned(), false),
        ("example..com/a".to_owned(), false),
        ("-example.com/a".to_owned(), false),
        ("example-.com/a".to_owned(), false),
        ("exam_ple.com/a".to_owned(), false),
        (format!("{}/a", long(253)), true),
        (format!("{}/a", long(254)), false),
        (format!("example.com/{}", long(63)), true),
        (format!("example.com/{}", long(64)), false),
    ];
    for (key, valid) in keys {
        assert_eq!(parse("", &[requirement(&key, "Exists", &[])]).is_ok(), valid, "key {key}");
        assert_eq!(parse(&format!("{key}=x"), &[]).is_ok(), valid, "key {key}");
    }
    let values = [
        (String::new(), true),
        ("9".to_owned(), true),
        ("a.b_c-D".to_owned(), true),
        (long(63), true),
        (long(64), false),
        ("_a".to_owned(), false),
        ("a.".to_owned(), false),
        ("a/b".to_owned(), false),
    ];
    for (value, valid) in values {
        assert_eq!(parse("", &[requirement("k", "In", &[&value])]).is_ok(), valid, "value {value}");
        assert_eq!(parse(&format!("k={value}"), &[]).is_ok(), valid, "value {value}");
    }
}
