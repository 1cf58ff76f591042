//! What the throttle promises, on a box that is as loaded as a test says.

use std::time::Duration;

use super::*;
use crate::clock::Time;
use crate::config::{Config, Profile, Throttle};

/// A throttle of a gateway with a global limit of 20, from 2 to 25, that believes what it reads.
struct Box {
    governor: Governor,
    global: usize,
    now: Time,
    logged: Vec<Change>,
}

fn settings() -> Throttle {
    Throttle {
        smoothing: Duration::ZERO,
        min: 2,
        max: 25,
        ..Config::builtin(Profile::Dev).throttle
    }
}

fn memory(used: f64) -> Readings {
    Readings {
        cpu: Some(0.1),
        memory: Some(used),
        files: None,
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Box {
    fn new(settings: Throttle) -> Box {
        Box {
            governor: Governor::new(settings, 20, Time::ZERO),
            global: 20,
            now: Time::ZERO,
            logged: Vec::new(),
        }
    }

    /// So many looks, a second apart, that all see this.
    fn sees(&mut self, readings: Readings, looks: usize) {
        for _ in 0..looks {
            self.now = self.now + secs(1);
            let change = self.governor.sample(readings, self.global, self.now);
            self.logged.extend(change);
        }
    }

    fn force(&mut self, force: Option<(Force, Duration)>) {
        let change = self.governor.force(force, self.global, self.now);
        self.logged.extend(change);
    }

    /// The level, and the global limit in force.
    fn is(&self) -> (Level, usize) {
        (
            self.governor.level(),
            self.governor.target().most.min(self.global),
        )
    }

    fn view(&self) -> ThrottleView {
        self.governor.view(self.global, self.now)
    }
}

#[test]
fn each_level_leaves_its_share_and_nothing_is_held_down_without_load() {
    let begins = Config::builtin(Profile::Dev).throttle.memory;
    for (used, level, limit) in [
        (0.0, Level::Low, 20),
        (begins.normal, Level::Normal, 20),
        (begins.high - 0.001, Level::Normal, 20),
        (begins.high, Level::High, 15),
        (begins.critical, Level::Critical, 10),
        (begins.emergency, Level::Emergency, 5),
        (1.0, Level::Emergency, 5),
    ] {
        let mut it = Box::new(settings());
        it.sees(memory(used), 3);
        assert_eq!(it.is(), (level, limit), "{used}");
        let refuses_low = it.governor.target().refuses_low;
        assert_eq!(refuses_low, level == Level::Emergency);
    }
}

#[test]
fn the_highest_of_the_resources_counts_and_one_that_is_not_read_does_not() {
    let begins = settings();
    let readings = |cpu, memory, files| Readings { cpu, memory, files };
    for (seen, level) in [
        (readings(None, None, None), Level::Low),
        (readings(Some(0.65), None, None), Level::Normal),
        (readings(Some(0.65), None, Some(0.9)), Level::Critical),
        (readings(Some(1.0), Some(0.1), Some(0.1)), Level::High),
        (
            readings(Some(f64::NAN), None, Some(f64::INFINITY)),
            Level::Low,
        ),
    ] {
        let mut it = Box::new(begins.clone());
        it.sees(seen, 60);
        assert_eq!(it.is().0, level, "{seen:?}");
    }
}

#[test]
fn a_box_whose_processors_are_busy_for_hours_keeps_three_quarters() {
    let mut it = Box::new(settings());
    let busy = Readings {
        cpu: Some(1.0),
        memory: Some(0.5),
        files: Some(0.1),
    };
    it.sees(busy, 10_000);
    assert_eq!(it.is(), (Level::High, 15));
    assert_eq!(it.view().why, "cpu 100 %, from 90 % on (throttle.cpu.high)");
}

#[test]
fn a_peak_that_is_over_at_once_changes_nothing() {
    let mut it = Box::new(settings());
    for _ in 0..50 {
        it.sees(memory(0.99), 2);
        assert_eq!(it.view().rising, Some((Level::Emergency, secs(1))));
        it.sees(memory(0.5), 1);
    }
    assert_eq!(it.is(), (Level::Low, 20));
    assert_eq!(it.logged, []);
}

#[test]
fn the_level_rises_to_where_the_readings_stood_all_the_while() {
    let mut it = Box::new(settings());
    it.sees(memory(0.92), 1);
    it.sees(memory(0.99), 1);
    it.sees(memory(0.96), 1);
    assert_eq!(it.is(), (Level::High, 15), "0.99 was seen only once");
}

#[test]
fn the_level_falls_one_by_one_and_only_clearly_below_where_it_begins() {
    let mut it = Box::new(settings());
    it.sees(memory(0.95), 3);
    assert_eq!(it.is().0, Level::Critical);
    // Critical begins at 0.95 and is held from 0.9025 on.
    it.sees(memory(0.91), 1_000);
    assert_eq!(it.is().0, Level::Critical, "it does not flap");
    it.sees(memory(0.1), 10);
    assert_eq!(it.is().0, Level::Critical);
    assert_eq!(it.view().falling, Some(secs(9)));
    it.sees(memory(0.1), 1);
    assert_eq!(it.is().0, Level::High);
    it.sees(memory(0.1), 9);
    assert_eq!(it.is().0, Level::High);
    it.sees(memory(0.1), 1);
    assert_eq!(it.is().0, Level::Normal);
    it.sees(memory(0.1), 10);
    assert_eq!(it.is().0, Level::Low);
    assert_eq!(it.view().falling, None);
}

#[test]
fn the_limit_falls_at_once_and_rises_by_one_every_so_often() {
    let mut it = Box::new(settings());
    it.sees(memory(1.0), 2);
    assert_eq!(it.is().1, 20);
    it.sees(memory(1.0), 1);
    assert_eq!(it.is().1, 5, "in one step");
    let mut limits = Vec::new();
    for _ in 0..45 {
        it.sees(memory(0.0), 1);
        limits.push(it.is().1);
    }
    assert!(
        limits
            .windows(2)
            .all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1)
    );
    assert_eq!(limits[9], 5, "the level still holds");
    assert_eq!((limits[14], limits[19]), (10, 10), "critical leaves ten");
    assert_eq!(limits[44], 20);
    let last = it.governor.target();
    assert_eq!(last.most, 25, "nothing is held down any more");
}

#[test]
fn a_late_look_makes_up_for_the_steps_that_were_due() {
    let mut it = Box::new(settings());
    it.force(Some((Force::Limit(2), secs(5))));
    it.sees(memory(0.0), 5);
    assert_eq!(it.is().1, 2, "it was forced until now");
    it.now = it.now + secs(6);
    it.sees(memory(0.0), 1);
    assert_eq!(it.is().1, 9);
}

#[test]
fn the_limit_stays_within_its_bounds_and_below_the_global_limit() {
    for (global, share, left) in [
        (20, 0.05, 2),
        (1, 0.25, 1),
        (400, 0.75, 25),
        (5, 0.75, 4),
        (8, 0.75, 6),
    ] {
        let mut settings = settings();
        settings.share.emergency = share;
        let mut it = Box::new(settings);
        it.global = global;
        it.sees(memory(1.0), 3);
        assert_eq!(it.is().1, left, "{share} of {global}");
        it.sees(memory(0.0), 500);
        assert_eq!(it.is().1, global.min(25), "{global} when the load is gone");
    }
}

#[test]
fn a_new_global_limit_counts_at_once_where_nothing_is_held_down() {
    let mut it = Box::new(settings());
    it.sees(memory(0.1), 1);
    it.global = 24;
    assert_eq!(it.is().1, 24, "without another look");
    it.sees(memory(1.0), 3);
    assert_eq!(it.is().1, 6);
    it.global = 8;
    it.sees(memory(1.0), 1);
    assert_eq!(it.is().1, 2);
}

#[test]
fn what_is_forced_counts_at_once_until_its_time_is_over() {
    let mut it = Box::new(settings());
    it.sees(memory(0.1), 1);
    it.force(Some((Force::Limit(3), secs(10))));
    assert_eq!(it.is(), (Level::Low, 3));
    assert_eq!(it.view().forced, Some((Force::Limit(3), secs(10))));
    assert_eq!(it.view().why, "somebody forces limit 3 for 10s");
    it.sees(memory(0.1), 9);
    assert_eq!(it.is().1, 3);
    it.sees(memory(0.1), 1);
    assert_eq!((it.is().1, it.view().forced), (3, None));
    it.sees(memory(0.1), 1);
    assert_eq!(it.is().1, 4, "it goes up slowly");
    it.sees(memory(0.1), 20);
    assert_eq!(it.is().1, 20);
}

#[test]
fn a_level_can_be_forced_against_the_readings_in_both_directions() {
    let mut it = Box::new(settings());
    it.force(Some((Force::Level(Level::Emergency), secs(60))));
    assert_eq!(it.is(), (Level::Emergency, 5));
    assert!(it.governor.target().refuses_low);
    it.force(None);
    assert_eq!(it.is().0, Level::Low);
    assert!(!it.governor.target().refuses_low);
    it.sees(memory(1.0), 60);
    assert_eq!(it.is(), (Level::Emergency, 5));
    it.force(Some((Force::Level(Level::Low), secs(60))));
    assert_eq!(it.is(), (Level::Low, 20), "all of it, at once");
    it.sees(memory(1.0), 60);
    assert_eq!(it.is(), (Level::Emergency, 5), "the readings decide again");
}

#[test]
fn nothing_is_forced_for_longer_than_is_allowed_nor_out_of_bounds() {
    let mut it = Box::new(settings());
    it.force(Some((Force::Limit(1_000), secs(1_000_000))));
    assert_eq!(it.view().forced, Some((Force::Limit(1_000), secs(3_600))));
    assert_eq!(it.governor.target().most, 25);
    it.force(Some((Force::Limit(0), secs(1))));
    assert_eq!(it.governor.target().most, 2);
}

#[test]
fn switched_off_it_heeds_nothing_but_force() {
    let mut it = Box::new(Throttle {
        enabled: false,
        ..settings()
    });
    it.sees(memory(1.0), 100);
    assert_eq!(it.is(), (Level::Low, 20));
    assert!(
        it.view().why.contains("throttle.enabled"),
        "{}",
        it.view().why
    );
    assert_eq!(it.view().smoothed.memory, Some(1.0), "it is still shown");
    it.force(Some((Force::Limit(7), secs(5))));
    assert_eq!(it.is().1, 7);
    it.sees(memory(1.0), 30);
    assert_eq!(it.is().1, 20);
}

#[test]
fn two_thirds_of_a_change_are_believed_after_the_time_of_smoothing_however_often_it_is_looked() {
    let idle = Readings {
        cpu: Some(0.0),
        ..Readings::default()
    };
    let busy = Readings {
        cpu: Some(1.0),
        ..Readings::default()
    };
    for (looks, apart) in [(2, 1_000), (4, 500), (20, 100)] {
        let mut believed = idle;
        for _ in 0..looks {
            believed = believed.follow(&busy, Duration::from_millis(apart), secs(2));
        }
        let cpu = believed.cpu.expect("it was read");
        assert!((cpu - 0.632).abs() < 0.001, "{cpu}");
    }
    assert_eq!(Readings::default().follow(&busy, secs(0), secs(2)), busy);
    assert_eq!(
        busy.follow(&Readings::default(), secs(1), secs(2)).cpu,
        None
    );
}

#[test]
fn with_the_shipped_times_a_burner_is_felt_within_ten_seconds_and_forgotten_within_thirty() {
    let mut it = Box::new(Config::builtin(Profile::Dev).throttle);
    it.global = 5;
    let cpu = |busy| Readings {
        cpu: Some(busy),
        memory: Some(0.4),
        files: Some(0.01),
    };
    it.sees(cpu(0.05), 60);
    it.sees(cpu(1.0), 9);
    assert_eq!(it.is(), (Level::High, 4));
    it.sees(cpu(0.05), 29);
    assert_eq!(it.is(), (Level::Low, 5));
}

#[test]
fn changes_are_told_once_and_the_latest_are_remembered() {
    let mut it = Box::new(Throttle {
        history: 3,
        ..settings()
    });
    it.sees(memory(1.0), 20);
    assert_eq!(it.logged.len(), 1);
    let change = &it.logged[0];
    assert_eq!(change.level, (Level::Low, Level::Emergency));
    assert_eq!(change.limit, (20, 5));
    assert_eq!(
        change.why,
        "memory 100 %, from 98 % on (throttle.memory.emergency)"
    );
    it.sees(memory(0.0), 60);
    assert_eq!(
        (it.view().changes.len(), it.governor.samples().len()),
        (3, 3)
    );
    let (last, ago) = it.view().changes[2].clone();
    assert_eq!((last.limit.1, last.at + ago), (20, it.now));
}

#[test]
fn other_settings_count_at_once() {
    let mut it = Box::new(settings());
    it.sees(memory(0.1), 1);
    let lower = Throttle {
        max: 10,
        ..settings()
    };
    let change = it.governor.configure(lower, 20, it.now);
    assert_eq!(change.map(|change| change.limit), Some((20, 10)));
    let change = it.governor.configure(settings(), 20, it.now);
    assert_eq!(
        change.map(|change| change.limit),
        Some((10, 20)),
        "no load held it"
    );
    it.sees(memory(1.0), 3);
    let harsher = Throttle {
        share: crate::config::Shares {
            emergency: 0.1,
            ..settings().share
        },
        ..settings()
    };
    let change = it.governor.configure(harsher, 20, it.now);
    assert_eq!(change.map(|change| change.limit), Some((5, 2)));
}

#[test]
fn an_edition_stands_for_one_target() {
    let mut it = Box::new(settings());
    let mut seen = vec![it.governor.target()];
    for used in [0.1, 1.0, 0.92, 0.1, 1.0] {
        for _ in 0..15 {
            it.sees(memory(used), 1);
            let target = it.governor.target();
            let last = *seen.last().expect("the first");
            let same = (target.most, target.refuses_low) == (last.most, last.refuses_low);
            assert_eq!(same, target.edition == last.edition);
            seen.push(target);
        }
    }
    assert!(seen.last().expect("many").edition > 5);
}
