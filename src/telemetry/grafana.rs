//! A dashboard for Grafana over our metrics: `pointsman print grafana`.

use serde_json::{Value, json};

/// Grid units of a panel; 24 are a row.
const WIDTH: usize = 8;
const HEIGHT: usize = 8;

/// A panel: its title, the unit of its values as Grafana names it, and its queries, each with a legend.
type Panel = (&'static str, &'static str, &'static [Query]);
type Query = (&'static str, &'static str);

const PANELS: &[Panel] = &[
    (
        "Requests by outcome",
        "reqps",
        &[(
            "sum by (outcome) (rate(pointsman_requests_total[5m]))",
            "{{outcome}}",
        )],
    ),
    (
        "Duration of requests",
        "s",
        &[
            (
                "histogram_quantile(0.5, sum by (le) (rate(pointsman_request_duration_seconds_bucket[5m])))",
                "p50",
            ),
            (
                "histogram_quantile(0.95, sum by (le) (rate(pointsman_request_duration_seconds_bucket[5m])))",
                "p95",
            ),
        ],
    ),
    (
        "Where the time goes, per request",
        "s",
        &[(
            "sum by (phase) (rate(pointsman_phase_seconds_sum[5m])) / sum by (phase) (rate(pointsman_phase_seconds_count[5m]))",
            "{{phase}}",
        )],
    ),
    (
        "Slots in use and limits",
        "short",
        &[
            (
                "pointsman_slots_in_use",
                "{{semaphore_type}} {{provider}} in use",
            ),
            (
                "pointsman_slots_limit",
                "{{semaphore_type}} {{provider}} limit",
            ),
        ],
    ),
    (
        "In line",
        "short",
        &[
            ("pointsman_queue_length", "{{class}}"),
            ("pointsman_queue_capacity", "places"),
            ("pointsman_backing_off", "wait to be tried again"),
        ],
    ),
    (
        "Oldest in line",
        "s",
        &[("pointsman_queue_oldest_seconds", "{{class}}")],
    ),
    (
        "Wait for slots, p95",
        "s",
        &[(
            "histogram_quantile(0.95, sum by (le, semaphore_type) (rate(pointsman_semaphore_wait_seconds_bucket[5m])))",
            "{{semaphore_type}}",
        )],
    ),
    (
        "Turned away",
        "reqps",
        &[(
            "sum by (reason) (rate(pointsman_rejected_total[5m]))",
            "{{reason}}",
        )],
    ),
    (
        "Out of time",
        "reqps",
        &[(
            "sum by (phase) (rate(pointsman_deadline_exceeded_total[5m]))",
            "{{phase}}",
        )],
    ),
    (
        "What providers answer",
        "reqps",
        &[(
            "sum by (provider, code) (rate(pointsman_upstream_responses_total[5m]))",
            "{{provider}} {{code}}",
        )],
    ),
    (
        "Time to the first byte, p95",
        "s",
        &[(
            "histogram_quantile(0.95, sum by (le, provider) (rate(pointsman_first_byte_seconds_bucket[5m])))",
            "{{provider}}",
        )],
    ),
    (
        "Calls made again",
        "reqps",
        &[(
            "sum by (provider, reason) (rate(pointsman_retries_total[5m]))",
            "{{provider}} {{reason}}",
        )],
    ),
    (
        "Breakers (2 open) and gates (1 open)",
        "short",
        &[
            ("pointsman_breaker_state", "breaker {{provider}}"),
            ("pointsman_gate_open", "gate {{provider}}"),
        ],
    ),
    (
        "Connections",
        "short",
        &[("pointsman_pool_connections", "{{provider}} {{state}}")],
    ),
    (
        "Tokens per minute",
        "short",
        &[(
            "60 * sum by (provider, model, kind) (rate(pointsman_tokens_total[5m]))",
            "{{provider}} {{model}} {{kind}}",
        )],
    ),
    (
        "Slots with a living owner, and how many there should be",
        "short",
        &[
            (
                "pointsman_semaphore_current_value",
                "{{semaphore_type}} {{provider}} current",
            ),
            (
                "pointsman_semaphore_expected_value",
                "{{semaphore_type}} {{provider}} expected",
            ),
        ],
    ),
    (
        "Leaks, repairs, lost workers",
        "short",
        &[
            (
                "sum(increase(pointsman_semaphore_leaks_detected_total{semaphore_type=\"global\"}[1h]))",
                "leaks in an hour",
            ),
            (
                "sum by (status) (increase(pointsman_semaphore_recoveries_total{semaphore_type=\"global\"}[1h]))",
                "repairs: {{status}}",
            ),
            ("pointsman_workers_lost", "lost workers"),
            ("pointsman_abandoned_calls", "abandoned functions"),
        ],
    ),
    (
        "Alerts",
        "short",
        &[("pointsman_alerts_active > 0", "{{rule}}")],
    ),
];

/// The dashboard, as JSON that Grafana imports; it asks which Prometheus to use.
pub fn grafana_dashboard() -> String {
    let panels = PANELS.iter().enumerate();
    let panels: Vec<Value> = panels
        .map(|(index, panel)| panel_json(index, panel))
        .collect();
    let dashboard = json!({
        "title": "pointsman",
        "uid": "pointsman",
        "schemaVersion": 39,
        "editable": true,
        "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": {
            "list": [{ "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus" }],
        },
        "panels": panels,
    });
    format!("{dashboard:#}\n")
}

fn panel_json(index: usize, (title, unit, queries): &Panel) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let target = |(number, (query, legend)): (usize, &Query)| {
        let name = ["A", "B", "C", "D"].get(number).unwrap_or(&"E");
        json!({
            "refId": name,
            "datasource": source,
            "expr": query,
            "legendFormat": legend,
        })
    };
    let targets: Vec<Value> = queries.iter().enumerate().map(target).collect();
    let in_row = 24 / WIDTH;
    json!({
        "id": index + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": { "x": index % in_row * WIDTH, "y": index / in_row * HEIGHT, "w": WIDTH, "h": HEIGHT },
        "fieldConfig": { "defaults": { "unit": unit, "min": 0 }, "overrides": [] },
        "targets": targets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_fill_the_grid_without_a_gap_and_each_query_has_a_name_of_its_own() {
        let dashboard: Value = serde_json::from_str(&grafana_dashboard()).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let mut places: Vec<(u64, u64)> = Vec::new();
        for panel in panels {
            let place = |axis: &str| panel["gridPos"][axis].as_u64().expect("a place");
            places.push((place("y"), place("x")));
            let targets = panel["targets"].as_array().expect("queries");
            let mut names: Vec<&Value> = targets.iter().map(|target| &target["refId"]).collect();
            names.dedup();
            assert_eq!(names.len(), targets.len(), "{}", panel["title"]);
        }
        let expected = (0..panels.len() as u64).map(|index| (index / 3 * 8, index % 3 * 8));
        assert_eq!(places, expected.collect::<Vec<_>>());
    }
}
