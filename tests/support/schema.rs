//! Holds answers against the schemas of an OpenAPI description. It knows the keywords that this project's description has, and fails on others.
#![allow(dead_code, reason = "not every test file looks at descriptions")]

use serde_json::Value;

/// A description, which has its schemas in `components`.
pub struct Description(pub Value);

impl Description {
    /// The paths with their methods.
    pub fn operations(&self) -> Vec<(String, String)> {
        let paths = self.0["paths"].as_object().expect("there are paths");
        let methods = |(path, item): (&String, &Value)| -> Vec<(String, String)> {
            let methods = item.as_object().expect("a path has methods").keys();
            methods.filter(|name| *name != "parameters").map(|method| (path.clone(), method.to_uppercase())).collect()
        };
        paths.iter().flat_map(methods).collect()
    }

    /// Fails unless the answer of an operation is as described.
    pub fn assert_describes(&self, method: &str, path: &str, status: u16, content_type: &str, content: &str) {
        let operation = &self.0["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not described");
        let responses = &operation["responses"];
        let named = &responses[status.to_string()];
        let response = self.resolved(if named.is_null() { &responses["default"] } else { named });
        assert!(response.is_object(), "{method} {path}: {status} is not described");
        let schema = &response["content"][content_type]["schema"];
        assert!(schema.is_object(), "{method} {path}: {status} with {content_type} is not described");
        let value = serde_json::from_str(content).unwrap_or_else(|error| panic!("{method} {path}: {error}: {content}"));
        self.check(schema, &value, &format!("{method} {path} {status}"));
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("a reference within the description");
                self.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => value,
        }
    }

    fn check(&self, schema: &Value, value: &Value, place: &str) {
        let schema = self.resolved(schema);
        for (keyword, rule) in schema.as_object().unwrap_or_else(|| panic!("{place}: no schema")) {
            match keyword.as_str() {
                "description" | "format" | "examples" | "default" => {}
                "type" => self.check_type(rule, value, place),
                "enum" => {
                    let all = rule.as_array().expect("enum is a list");
                    assert!(all.contains(value), "{place}: {value} is none of {rule}");
                }
                // Bounds are for numbers, and say nothing of what else a value may be.
                "minimum" | "maximum" if !value.is_number() => {}
                "minimum" => assert!(value.as_f64() >= rule.as_f64(), "{place}: {value} is below {rule}"),
                "maximum" => assert!(value.as_f64() <= rule.as_f64(), "{place}: {value} is above {rule}"),
                "required" => {
                    let Some(fields) = value.as_object() else { continue };
                    for name in rule.as_array().expect("required is a list").iter().filter_map(Value::as_str) {
                        assert!(fields.contains_key(name), "{place}: {name} is missing in {value}");
                    }
                }
                "properties" => {
                    let Some(fields) = value.as_object() else { continue };
                    for (name, value) in fields {
                        if let Some(schema) = rule.get(name) {
                            self.check(schema, value, &format!("{place}.{name}"));
                        }
                    }
                }
                "additionalProperties" => {
                    let Some(fields) = value.as_object() else { continue };
                    let known = schema.get("properties");
                    for (name, value) in
                        fields.iter().filter(|(name, _)| known.is_none_or(|known| known.get(name).is_none()))
                    {
                        assert_ne!(*rule, Value::Bool(false), "{place}: {name} is not described");
                        if rule.is_object() {
                            self.check(rule, value, &format!("{place}.{name}"));
                        }
                    }
                }
                "items" => {
                    for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, value, &format!("{place}[{n}]"));
                    }
                }
                other => panic!("{place}: this check doesn't know {other:?}"),
            }
        }
    }

    fn check_type(&self, rule: &Value, value: &Value, place: &str) {
        let types: Vec<&str> = match rule {
            Value::String(one) => vec![one],
            several => several.as_array().expect("types").iter().filter_map(Value::as_str).collect(),
        };
        let is = |name: &str| match name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => value.is_u64() || value.is_i64(),
            "null" => value.is_null(),
            other => panic!("{place}: no such type {other:?}"),
        };
        assert!(types.iter().any(|name| is(name)), "{place}: {value} is no {rule}");
    }
}
