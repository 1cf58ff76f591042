//! The picture of a running server as text: the same that the dashboard shows.

use std::fmt::Write as _;

use serde_json::Value;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Characters in a line.
    pub(super) columns: usize,
    /// Lines.
    pub(super) rows: usize,
}

impl Extent {
    /// For files and pipes, where nothing is cut off.
    pub(super) const WHOLE: Extent = Extent {
        columns: usize::MAX,
        rows: usize::MAX,
    };

    /// That of the terminal, or of one as they used to be.
    pub(super) fn of_terminal() -> Extent {
        match terminal_size::terminal_size() {
            Some((columns, rows)) => Extent {
                columns: columns.0.max(20).into(),
                rows: rows.0.max(10).into(),
            },
            None => Extent {
                columns: 80,
                rows: 24,
            },
        }
    }
}

/// The picture; each line ends. Requests that have no room are counted.
pub(super) fn picture(shot: &Value, url: &str, extent: Extent) -> String {
    let status = &shot["status"];
    let mut lines = vec![
        format!(
            "pointsman {}  profile {}  {}, up {}  {url}",
            text(&status["version"]),
            text(&status["profile"]),
            text(&status["state"]),
            length(&status["uptime_s"]),
        ),
        String::new(),
        named("slots", &slots(status)),
        named("lines", &waiting(status)),
        named("sessions", &sessions(&status["sessions"])),
        named("last hour", &hour(&shot["hour"])),
    ];
    let optional = [
        ("latency", latency(shot)),
        ("load", load(&status["throttle"])),
        ("workers", Some(workers(status))),
        ("alerts", alerts(&shot["alerts"])),
    ];
    for (name, words) in optional {
        lines.extend(words.map(|words| named(name, &words)));
    }
    lines.push(String::new());
    lines.extend(table(
        &["PROVIDER", "IN USE", "LIMIT", "WAITING", "SIGNAL"],
        &providers(status),
    ));
    let room = extent.rows.saturating_sub(lines.len() + 3);
    lines.extend(requests(shot, room));
    let mut picture = String::new();
    for line in lines {
        let _ = writeln!(picture, "{}", cut(&line, extent.columns));
    }
    picture
}

fn named(name: &str, words: &str) -> String {
    format!("{name:<11}{words}")
}

/// At most so many characters, and none that would command a terminal: clients choose names.
fn cut(line: &str, columns: usize) -> String {
    let harmless = |c: char| if c.is_control() { '?' } else { c };
    let line = line.trim_end();
    match line.chars().nth(columns) {
        None => line.chars().map(harmless).collect(),
        Some(_) => {
            let kept = line.chars().take(columns.saturating_sub(1)).map(harmless);
            kept.chain(['…']).collect()
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A length of time as people say it.
fn length(seconds: &Value) -> String {
    match seconds.as_f64() {
        None => "-".into(),
        Some(s) if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        Some(s) if s < 9.95 => format!("{s:.1} s"),
        Some(s) if s < 60.0 => format!("{s:.0} s"),
        Some(s) if s < 3600.0 => {
            format!("{:.0} min {:.0} s", (s / 60.0).floor(), (s % 60.0).floor())
        }
        Some(s) => format!(
            "{:.0} h {:.0} min",
            (s / 3600.0).floor(),
            (s % 3600.0 / 60.0).floor()
        ),
    }
}

fn slots(status: &Value) -> String {
    let global = &status["slots"]["global"];
    let (limit, now) = (number(&global["limit"]), global["limit_now"].as_u64());
    let throttled = now.filter(|now| *now < limit);
    let throttled = throttled.map_or_else(String::new, |now| format!(", throttled to {now}"));
    let quarantined = number(&status["slots"]["quarantined"]);
    let given_up = match quarantined {
        0 => String::new(),
        count => format!(", {count} given up on"),
    };
    format!(
        "{} of {limit} taken{throttled}{given_up}, at most {} so far",
        number(&global["in_use"]),
        number(&global["peak"])
    )
}

fn waiting(status: &Value) -> String {
    let queue = &status["queue"];
    let classes = queue["classes"].as_object().into_iter().flatten();
    let mut words: Vec<String> = classes
        .map(|(name, line)| match number(&line["waiting"]) {
            0 => format!("{name} 0"),
            count => format!("{name} {count} (oldest {})", length(&line["oldest_s"])),
        })
        .collect();
    match number(&queue["backing_off"]) {
        0 => {}
        count => words.push(format!("{count} back off before another try")),
    }
    if queue["pressure"] == true {
        words.push("under pressure".into());
    }
    words.join(", ")
}

fn sessions(sessions: &Value) -> String {
    format!(
        "{} of {} at work, {} remembered",
        number(&sessions["active"]),
        number(&sessions["limit"]),
        number(&sessions["known"])
    )
}

fn hour(hour: &Value) -> String {
    let minutes = || hour.as_array().into_iter().flatten();
    let ends = [
        "answered",
        "out of time",
        "gone wrong",
        "cancelled",
        "refused",
    ];
    let words = ends.iter().enumerate().map(|(index, name)| {
        let count: u64 = minutes().map(|minute| number(&minute[index])).sum();
        format!("{count} {name}")
    });
    words.collect::<Vec<_>>().join(", ")
}

fn latency(shot: &Value) -> Option<String> {
    let total = &shot["latency"]["phases"]["total"];
    if number(&total["count"]) == 0 {
        return None;
    }
    let figure = |name: &str| format!("{name} {}", length(&total[format!("{name}_s").as_str()]));
    let figures = ["p50", "p95", "p99"].map(figure).join(", ");
    let is_slow = total["p95_s"].as_f64() > shot["target_s"].as_f64();
    let verdict = if is_slow { "above" } else { "within" };
    Some(format!(
        "{figures}; {verdict} the line at {}",
        length(&shot["target_s"])
    ))
}

fn load(throttle: &Value) -> Option<String> {
    let level = throttle["level"].as_str()?;
    Some(format!("{level}: {}", text(&throttle["why"])))
}

fn workers(status: &Value) -> String {
    let threads = &status["threads"];
    let of = |name: &str| number(&threads[name]);
    format!(
        "{}, {} idle, {} lost, {} replaced",
        of("workers"),
        of("idle"),
        of("lost"),
        of("replaced")
    )
}

fn alerts(alerts: &Value) -> Option<String> {
    let alerts = alerts.as_array()?;
    let summaries: Vec<&str> = alerts.iter().map(|alert| text(&alert["summary"])).collect();
    match summaries.as_slice() {
        [] => Some("none".into()),
        all => Some(all.join("; ")),
    }
}

fn providers(status: &Value) -> Vec<Vec<String>> {
    let all = status["slots"]["providers"]
        .as_object()
        .into_iter()
        .flatten();
    let row = |(name, provider): (&String, &Value)| {
        let (limit, now) = (number(&provider["limit"]), number(&provider["limit_now"]));
        let limit = match now < limit {
            true => format!("{now} of {limit}"),
            false => limit.to_string(),
        };
        vec![
            name.clone(),
            number(&provider["in_use"]).to_string(),
            limit,
            number(&provider["waiting"]).to_string(),
            signal(provider),
        ]
    };
    all.map(row).collect()
}

/// Whether calls may pass, and if not why and until when.
fn signal(provider: &Value) -> String {
    if provider["available"] == false {
        return format!("not set up: {}", text(&provider["advice"]));
    }
    let word = match (text(&provider["breaker"]), provider["takes_calls"] == true) {
        ("open", _) => "breaker open",
        ("half-open", _) => "breaker half-open",
        (_, false) => "gate shut",
        (_, true) => return "clear".into(),
    };
    let why = provider["reason"].as_str().map(str::to_owned);
    let opens = provider["shut_s"]
        .as_f64()
        .map(|_| format!("opens in {}", length(&provider["shut_s"])));
    let more: Vec<String> = why.into_iter().chain(opens).collect();
    match more.is_empty() {
        true => word.into(),
        false => format!("{word}: {}", more.join(", ")),
    }
}

const REQUEST: [&str; 7] = [
    "REQUEST", "SESSION", "MODEL", "CLASS", "PHASE", "AGE", "LEFT",
];

fn requests(shot: &Value, room: usize) -> Vec<String> {
    let listed = |list: &str| shot[list].as_array().into_iter().flatten();
    let all: Vec<Vec<String>> = listed("running")
        .chain(listed("waiting"))
        .map(request)
        .collect();
    let unlisted = number(&shot["running_more"]) + number(&shot["waiting_more"]);
    let left_out = all.len().saturating_sub(room) as u64 + unlisted;
    let mut lines = vec![String::new()];
    if all.is_empty() {
        lines.push("no request is under way".into());
        return lines;
    }
    lines.extend(table(&REQUEST, &all[..all.len().min(room)]));
    if left_out > 0 {
        lines.push(format!("and {left_out} more"));
    }
    lines
}

fn request(request: &Value) -> Vec<String> {
    let phase = match text(&request["phase"]) {
        "queue" => "in line",
        phase => phase,
    };
    let model = match (request["provider"].as_str(), request["model"].as_str()) {
        (Some(provider), Some(model)) => format!("{provider}/{model}"),
        (one, other) => one.or(other).unwrap_or("-").to_owned(),
    };
    vec![
        text(&request["request_id"]).to_owned(),
        text(&request["session_id"]).to_owned(),
        model,
        text(&request["priority"]).to_owned(),
        phase.to_owned(),
        length(&request["age_s"]),
        length(&request["deadline_in_s"]),
    ]
}

/// Columns as wide as what is in them.
fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widths = cells.map(|cell| cell.chars().count());
        widths.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths);
        let padded = cells.map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ")
    };
    let head = line(head.to_vec());
    let rows = rows
        .iter()
        .map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shot() -> Value {
        let request = |id: &str, phase: &str| {
            json!({
                "request_id": id, "session_id": "agent-1", "provider": "kimi", "model": "k", "priority": "high",
                "phase": phase, "age_s": 1.25, "deadline_in_s": 61.0,
            })
        };
        json!({
            "target_s": 0.5,
            "status": {
                "version": "1", "profile": "demo", "state": "serving", "uptime_s": 3_700.0,
                "slots": {
                    "global": { "in_use": 1, "limit": 4, "limit_now": 2, "peak": 3 }, "quarantined": 1,
                    "providers": {
                        "kimi": {
                            "in_use": 1, "limit": 8, "limit_now": 4, "waiting": 2, "available": true, "takes_calls": false,
                            "breaker": "open", "reason": "it fails", "shut_s": 4.0,
                        },
                        "glm": { "in_use": 0, "limit": 4, "limit_now": 4, "waiting": 0, "available": false, "advice": "set GLM" },
                    },
                },
                "queue": {
                    "pressure": true, "backing_off": 1,
                    "classes": { "high": { "waiting": 0 }, "low": { "waiting": 2, "oldest_s": 0.5 } },
                },
                "sessions": { "active": 1, "limit": 25, "known": 2 },
                "threads": { "workers": 4, "idle": 3, "lost": 0, "replaced": 0 },
                "throttle": { "level": "high", "why": "cpu" },
            },
            "hour": [[1, 0, 0, 0, 0], [2, 1, 0, 0, 7]],
            "latency": { "phases": { "total": { "count": 3, "p50_s": 0.1, "p95_s": 0.6, "p99_s": 0.7 } } },
            "alerts": [],
            "running": [request("a", "body")],
            "waiting": [request("b\u{1b}[2J", "queue")],
            "waiting_more": 5,
        })
    }

    const EXPECTED: &str = "\
pointsman 1  profile demo  serving, up 1 h 1 min  http://here

slots      1 of 4 taken, throttled to 2, 1 given up on, at most 3 so far
lines      high 0, low 2 (oldest 500 ms), 1 back off before another try, under pressure
sessions   1 of 25 at work, 2 remembered
last hour  3 answered, 1 out of time, 0 gone wrong, 0 cancelled, 7 refused
latency    p50 100 ms, p95 600 ms, p99 700 ms; above the line at 500 ms
load       high: cpu
workers    4, 3 idle, 0 lost, 0 replaced
alerts     none

PROVIDER  IN USE  LIMIT   WAITING  SIGNAL
kimi      1       4 of 8  2        breaker open: it fails, opens in 4.0 s
glm       0       4       0        not set up: set GLM

REQUEST  SESSION  MODEL   CLASS  PHASE    AGE    LEFT
a        agent-1  kimi/k  high   body     1.2 s  1 min 1 s
b?[2J    agent-1  kimi/k  high   in line  1.2 s  1 min 1 s
and 5 more
";

    #[test]
    fn a_picture_says_what_the_dashboard_shows() {
        assert_eq!(picture(&shot(), "http://here", Extent::WHOLE), EXPECTED);
    }

    #[test]
    fn a_small_terminal_is_not_overrun_and_what_has_no_room_is_counted() {
        let extent = Extent {
            columns: 40,
            rows: 18,
        };
        let text = picture(&shot(), "http://here", extent);
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        assert!(text.lines().count() <= extent.rows, "{text}");
        assert!(text.ends_with("and 6 more\n"), "{text}");
    }

    #[test]
    fn a_picture_of_nothing_has_no_holes() {
        let text = picture(&json!({}), "http://here", Extent::WHOLE);
        assert!(text.contains("slots      0 of 0 taken"), "{text}");
        assert!(text.ends_with("\nno request is under way\n"), "{text}");
    }
}
