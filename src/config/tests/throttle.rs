//! `[throttle]`: bounds by profile, and what cannot be.

use std::time::Duration;

use super::check;
use crate::config::{Config, Profile};

#[test]
fn the_bounds_are_those_of_the_profile_and_never_below_the_global_limit() {
    for (profile, bounds, enabled) in [
        (Profile::Dev, (2, 10), true),
        (Profile::Demo, (2, 25), true),
        (Profile::Prod, (4, 50), true),
        (Profile::Test, (2, 10), false),
    ] {
        let throttle = Config::builtin(profile).throttle;
        assert_eq!((throttle.min, throttle.max), bounds, "{profile}");
        assert_eq!(throttle.enabled, enabled, "{profile}");
    }
    let throttle = |text: &str| {
        let config = Config::from_toml(text, "test.toml").expect("accepted");
        config.throttle
    };
    assert_eq!(throttle("limits.global = 64").max, 64);
    let lower = throttle("limits.global = 64\nthrottle.max = 40");
    assert_eq!(lower.max, 40, "what is said counts");
}

/// What the requirements of a shared development box come to, as figures.
#[test]
fn busy_processors_alone_never_leave_less_than_high_does() {
    let throttle = Config::builtin(Profile::Dev).throttle;
    let [_, high, critical, emergency] = throttle.cpu.ascending();
    assert!(high <= 0.95 && critical > 1.0 && emergency > 1.0);
    for resource in [throttle.memory, throttle.files] {
        assert!(resource.emergency < 1.0);
    }
    assert!(throttle.share.high >= 0.75);
    assert!(throttle.smoothing + throttle.rise_after < Duration::from_secs(5));
}

#[test]
fn levels_and_shares_stand_in_their_order() {
    check(
        "throttle.memory.high = 0.99",
        "test.toml:1: throttle.memory.high: is above throttle.memory.critical",
    );
    check(
        "throttle.cpu = { normal = 0.5, high = 0.4 }",
        "test.toml:1: throttle.cpu.normal: is above throttle.cpu.high",
    );
    check(
        "throttle.share.critical = 0.2",
        "test.toml:1: throttle.share.critical: is below throttle.share.emergency",
    );
    check(
        "throttle.min = 11",
        "test.toml:1: throttle.min: is 11, above throttle.max, which is 10",
    );
}

#[test]
fn the_place_of_proc_is_an_absolute_path() {
    check(
        "throttle.proc = \"proc\"",
        "test.toml:1: throttle.proc: found \"proc\", accepted is an absolute path",
    );
}
