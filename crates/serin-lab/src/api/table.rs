//! Tables for people: what `kubectl get` prints, made by the server.
//!
//! Here is the frame, and the columns of custom kinds; the columns of built-in kinds are in `columns`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::Call;
use super::kinds::Column;
use super::read::metadata_only;
use super::{Api, columns, jsonpath};
use crate::store::Object;

/// A `Table` of objects, in the version of the call.
pub(super) fn table(api: &Api, call: &Call, objects: &[Object], list_meta: &Value) -> Value {
    let now = (api.store().clock())();
    let built_in = columns::of(&call.kind);
    let custom = &call.kind_version().columns;
    let definitions: Vec<Value> = match built_in {
        Some(table) => table.definitions(),
        None => custom_definitions(custom),
    };
    let include = call.query.get("includeObject").unwrap_or("Metadata");
    let rows = objects.iter().map(|object| {
        let cells = match built_in {
            Some(table) => (table.cells)(object, now),
            None => custom_cells(custom, object, now),
        };
        let mut row = json!({"cells": cells});
        match include {
            "None" => {}
            "Object" => row["object"] = (**object).clone(),
            _ => row["object"] = metadata_only(object),
        }
        row
    });
    let rows: Vec<Value> = rows.collect();
    let mut meta = json!({});
    for field in ["resourceVersion", "continue", "remainingItemCount"] {
        if let Some(value) = list_meta.get(field) {
            meta[field] = value.clone();
        }
    }
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": definitions, "rows": rows})
}

/// One column definition.
pub(super) fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

fn custom_definitions(columns: &[Column]) -> Vec<Value> {
    let mut all = vec![definition("Name", "string", "name", "Name must be unique within a namespace.", 0)];
    all.extend(columns.iter().map(|c| definition(&c.name, &c.kind, &c.format, &c.description, c.priority)));
    if columns.is_empty() {
        all.push(definition(
            "Age",
            "date",
            "",
            "CreationTimestamp is a timestamp representing the server time when this object was created.",
            0,
        ));
    }
    all
}

fn custom_cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![object["metadata"]["name"].clone()];
    cells.extend(columns.iter().map(|column| custom_cell(column, object, now)));
    if columns.is_empty() {
        cells.push(age(&object["metadata"]["creationTimestamp"], now).into());
    }
    cells
}

fn custom_cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = jsonpath::find(object, &column.path);
    let Some(first) = found.first().filter(|v| !v.is_null()) else { return Value::Null };
    match column.kind.as_str() {
        "integer" => first.as_i64().or_else(|| first.as_str().and_then(|s| s.parse().ok())).map_or(Value::Null, Into::into),
        "number" => first.as_f64().map_or(Value::Null, Into::into),
        "boolean" => first.as_bool().map_or(Value::Null, Into::into),
        "date" => age(first, now).into(),
        _ => {
            let text = |value: &&Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            found.iter().map(text).collect::<Vec<_>>().join(" ").into()
        }
    }
}

/// How long ago a time was, as `kubectl get` prints it; `<unknown>` where there is none.
pub(super) fn age(time: &Value, now: Timestamp) -> String {
    match time.as_str().map(str::parse::<Timestamp>) {
        None => "<unknown>".into(),
        Some(Err(_)) => "<invalid>".into(),
        Some(Ok(then)) => duration(now.as_second() - then.as_second()),
    }
}

/// Seconds in the two largest units that matter, as Kubernetes' `HumanDuration`.
pub(super) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let pair = |a: i64, unit_a: &str, b: i64, unit_b: &str| if b == 0 { format!("{a}{unit_a}") } else { format!("{a}{unit_a}{b}{unit_b}") };
    match seconds {
        i64::MIN..=-2 => "<invalid>".into(),
        -1..=-1 => "0s".into(),
        0..=119 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
