//! What is refused at the start: with file, line, key, what was found and what is accepted.

use super::{check, refusals};

#[test]
fn a_number_out_of_range_or_of_another_type_says_what_is_accepted() {
    let whole = "accepted is a whole number from 1 to 4096";
    check(
        "limits.global = 0",
        &format!("test.toml:1: limits.global: found 0, {whole}"),
    );
    check(
        "\n[limits]\n\nglobal = 5000",
        &format!("test.toml:4: limits.global: found 5000, {whole}"),
    );
    check(
        "limits.global = \"5\"",
        &format!("test.toml:1: limits.global: found \"5\", {whole}"),
    );
    check(
        "limits.global = 5.5",
        &format!("test.toml:1: limits.global: found 5.5, {whole}"),
    );
    check(
        "limits.global = [5]",
        &format!("test.toml:1: limits.global: found a list, {whole}"),
    );
    check(
        "limits.global = 99999999999999999999999999999999999999999",
        &format!("test.toml:1: limits.global: found {}, {whole}", i128::MAX),
    );
}

#[test]
fn any_value_that_is_not_accepted_says_what_is() {
    check(
        "queue.weights = { low = 0 }",
        "test.toml:1: queue.weights.low: found 0, accepted is a whole number from 1 to 1000",
    );
    check(
        "queue.provider_share = 1.5",
        "test.toml:1: queue.provider_share: found 1.5, accepted is a number from 0.01 to 1",
    );
    check(
        "queue.provider_share = nan",
        "test.toml:1: queue.provider_share: found NaN, accepted is a number from 0.01 to 1",
    );
    check(
        "queue.timeout = 60",
        "test.toml:1: queue.timeout: found 60, accepted is a duration from \"1ms\" to \"1day\"",
    );
    check(
        "queue.timeout = \"0s\"",
        "test.toml:1: queue.timeout: found \"0s\", accepted is a duration from \"1ms\" to \"1day\"",
    );
    check(
        "server.max_head = \"16 pages\"",
        "test.toml:1: server.max_head: found \"16 pages\", accepted is a size from \"1KiB\" to \"1MiB\"",
    );
    check(
        "providers.embedded.faults = \"yes\"",
        "test.toml:1: providers.embedded.faults: found \"yes\", accepted is true or false",
    );
    check(
        "profile = \"staging\"",
        "test.toml:1: profile: found \"staging\", accepted is dev | demo | prod | test",
    );
    check(
        "profile = 1979-05-27",
        "test.toml:1: profile: found \"a date\", accepted is dev | demo | prod | test",
    );
    check(
        "limits = 5",
        "test.toml:1: limits: found a number, accepted is a table",
    );
    check(
        "routing.auto = \"kimi\"",
        "test.toml:1: routing.auto: found \"kimi\", accepted is a list of strings",
    );
    check(
        "log.level = \"wran\"",
        "test.toml:1: log.level: found \"wran\", accepted is off, error, warn, info, debug or trace, or such levels by module: \"info,pointsman::engine=debug\"",
    );
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    check(
        "[limits]\nglobl = 5",
        "test.toml:2: limits.globl: unknown key, did you mean `global`?",
    );
    check(
        "[limit]\nglobal = 5",
        "test.toml:1: limit: unknown key, did you mean `limits`?",
    );
    check(
        "[timeouts]\nmax_inflight = 5",
        "test.toml:2: timeouts.max_inflight: unknown key, did you mean `providers.embedded.max_inflight`?",
    );
    check(
        "engine.zzz = 5",
        "test.toml:1: engine.zzz: unknown key, known here: workers",
    );
    check(
        "providers.embedded.base_url = \"http://localhost\"",
        "test.toml:1: providers.embedded.base_url: unknown key, did you mean `providers.glm.base_url`?",
    );
    check(
        "[[providers.glm.models]]\nname = \"a\"\nctx = 1",
        "test.toml:3: providers.glm.models[0].ctx: unknown key, known here: context, drop, efforts, max_output, name, thinking",
    );
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let problems = refusals(
        "queue.capacity = 0\nlimits.global = 0\nlog.levle = \"info\"\nqueue.timeout = \"soon\"",
    );
    let lines: Vec<&str> = problems
        .iter()
        .filter_map(|problem| problem.split(": ").next())
        .collect();
    assert_eq!(
        lines,
        ["test.toml:1", "test.toml:2", "test.toml:3", "test.toml:4"]
    );
}

#[test]
fn what_is_no_toml_names_every_line() {
    let problems = refusals("[limits]\nglobal = \nsession = 3\nsession = 4\n");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("test.toml:2: "), "{problems:?}");
    assert_eq!(problems[1], "test.toml:4: duplicate key");
    let twice = refusals("[providers.a]\n[providers.a]\n");
    assert_eq!(twice, ["test.toml:2: duplicate key"]);
}

#[test]
fn a_ladder_of_timeouts_that_cannot_work_names_both_keys() {
    check(
        "timeouts.normal = \"5s\"\ntimeouts.streaming = \"8s\"\ntimeouts.continuation = \"6s\"",
        "test.toml:2: timeouts.connect: 10s is not shorter than every deadline: the longest is timeouts.streaming (8s), \
         accepted is less than that",
    );
    check(
        "[timeouts]\nconnect = \"6m\"",
        "test.toml:2: timeouts.connect: 6m is not shorter than every deadline: the longest is timeouts.streaming (5m), \
         accepted is less than that",
    );
    assert_eq!(
        refusals("timeouts.connect = \"40s\""),
        [""; 0],
        "longer than some deadlines, not than all"
    );
}

#[test]
fn knobs_that_contradict_each_other_name_both() {
    check(
        "queue.pressure_on = 0.2",
        "test.toml:1: queue.pressure_off: 0.3 is not below queue.pressure_on (0.2), so that backpressure would flap or \
         never end",
    );
    check(
        "queue.per_session = 200",
        "test.toml:1: queue.per_session: one session would be promised 200 places of the 100 that queue.capacity has",
    );
    assert_eq!(
        refusals("queue.capacity = 10"),
        [""; 0],
        "the default share is bounded by the queue"
    );
    check(
        "[providers.kimi]\nmax_inflight = 6\npool = { max_connections = 5 }",
        "test.toml:3: providers.kimi.pool.max_connections: 5 is below providers.kimi.max_inflight (6), so that calls \
         would wait for connections while they hold slots",
    );
    check(
        "server.max_body_total = \"1MiB\"",
        "test.toml:1: server.max_body_total: is below server.max_body, so that the largest body could never be read",
    );
    check(
        "queue.max_bytes = \"1MiB\"",
        "test.toml:1: queue.max_bytes: is below server.max_body, so that the largest request could never wait",
    );
}

#[test]
fn without_keys_only_this_machine_may_reach_the_server() {
    let problems = refusals("server.listen = \"0.0.0.0:8787\"");
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("can be reached from other machines"),
        "{problems:?}"
    );
    check(
        "server.listen = 8787",
        "test.toml:1: server.listen: found \"8787\", accepted is HOST:PORT, [IPV6]:PORT or unix:PATH of at most 107 bytes",
    );
}
