//! Builders of manifests.

#![allow(clippy::needless_pass_by_value, reason = "`json!` makes values, and rows read better without `&`")]

use serde_json::{Value, json};

/// A configuration object.
pub(crate) fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"kind": kind, "metadata": {"namespace": "metallb-system", "name": name}, "spec": spec})
}

/// A node without labels.
pub(crate) fn node(name: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name}})
}

/// The Service `default/web`, of type LoadBalancer unless `more` replaces it.
pub(crate) fn service(more: Value) -> Value {
    let spec = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]});
    json!({"kind": "Service", "metadata": {"namespace": "default", "name": "web"}, "spec": merged(spec, &more)})
}

/// Its only endpoint.
pub(crate) fn slice(node: &str, ready: bool) -> Value {
    json!({"kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": node, "conditions": {"ready": ready, "serving": ready}}]})
}

/// An object whose fields are replaced by those of another one.
pub(crate) fn merged(mut base: Value, patch: &Value) -> Value {
    match (&mut base, patch) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (key, change) in changes {
                let old = fields.remove(key).unwrap_or(Value::Null);
                fields.insert(key.clone(), merged(old, change));
            }
            base
        }
        _ => patch.clone(),
    }
}
