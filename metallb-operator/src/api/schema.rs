//! Adapts derived schemas to MetalLB's own definitions: adds what `schemars` cannot express about Kubernetes types and
//! removes what they do not have (`docs/upstream-behaviour.md#crds`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::json;

/// Finishes every version of a definition.
pub(super) fn finish(definition: &mut CustomResourceDefinition) {
    let annotations = definition.metadata.annotations.get_or_insert_default();
    annotations.insert("controller-gen.kubebuilder.io/version".to_owned(), "v0.19.0".to_owned());
    let names = &mut definition.spec.names;
    names.list_kind = Some(format!("{}List", names.kind));
    for version in &mut definition.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            tidy(root);
            describe_root(root);
        }
    }
}

/// Makes `spec` optional if none of its fields is required; the API server inserts an empty one.
pub(super) fn make_spec_optional(definition: &mut CustomResourceDefinition) {
    for root in roots(definition) {
        root.required = None;
        if let Some(spec) = property(root, &["spec"]) {
            spec.default = Some(JSON(json!({})));
        }
        // The types take objects without a status; the API server must not fill one in.
        if let Some(status) = property(root, &["status"]) {
            status.default = None;
        }
    }
}

/// Makes fields required that the type reads without, as objects written by hand leave them out.
pub(super) fn require(definition: &mut CustomResourceDefinition, path: &[&str], fields: &[&str]) {
    for object in roots(definition).filter_map(|root| property(root, path)) {
        object.required = Some(fields.iter().map(|&field| field.to_owned()).collect());
        for field in fields {
            if let Some(field) = property(object, &[field]) {
                field.default = None;
            }
        }
    }
}

/// The schemas of all versions.
pub(super) fn roots(definition: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let versions = definition.spec.versions.iter_mut();
    versions.filter_map(|version| version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()))
}

/// The schema at a path of properties; a path through a list continues in its items.
pub(super) fn property<'a>(schema: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    let Some((first, rest)) = path.split_first() else { return Some(schema) };
    let next = schema.properties.as_mut()?.get_mut(*first)?;
    if rest.is_empty() || next.items.is_none() {
        return property(next, rest);
    }
    match next.items.as_mut()? {
        JSONSchemaPropsOrArray::Schema(items) => property(items, rest),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn tidy(schema: &mut JSONSchemaProps) {
    // `null` is not a value of any field.
    schema.nullable = None;
    schema.title = None;
    if is_label_selector(schema) {
        finish_label_selector(schema);
    }
    if let Some(properties) = &mut schema.properties {
        properties.values_mut().for_each(tidy);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

fn is_label_selector(schema: &JSONSchemaProps) -> bool {
    let properties = schema.properties.as_ref();
    properties.is_some_and(|properties| properties.keys().eq(["matchExpressions", "matchLabels"]))
}

/// A merge replaces a selector as a whole. The older BGPPeer has its own selector type, which requires values and does
/// not define merging; its required values identify it.
fn finish_label_selector(schema: &mut JSONSchemaProps) {
    let own_type = property(schema, &["matchExpressions", "values"]).is_some_and(|values| values.min_items.is_some());
    if own_type {
        return;
    }
    schema.x_kubernetes_map_type = Some("atomic".to_owned());
    for path in [&["matchExpressions"][..], &["matchExpressions", "values"]] {
        if let Some(list) = property(schema, path) {
            list.x_kubernetes_list_type = Some("atomic".to_owned());
        }
    }
}

/// Sets the description that `kubectl explain` shows first, and the fields of every object.
fn describe_root(root: &mut JSONSchemaProps) {
    if let Some(description) = property(root, &["spec"]).and_then(|spec| spec.description.clone()) {
        root.description = Some(description);
    }
    let properties = root.properties.get_or_insert_default();
    for (name, type_, description) in COMMON_FIELDS {
        let field = JSONSchemaProps {
            type_: Some(type_.to_owned()),
            description: description.map(str::to_owned),
            ..JSONSchemaProps::default()
        };
        properties.insert(name.to_owned(), field);
    }
}

const COMMON_FIELDS: [(&str, &str, Option<&str>); 3] = [
    ("apiVersion", "string", Some("Version of the schema of this object, with its group.")),
    ("kind", "string", Some("Kind of this object, in CamelCase; it can not be changed.")),
    ("metadata", "object", None),
];
