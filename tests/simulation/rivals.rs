//! Rules of others for how many calls a provider takes, each in its own defaults, to compare with ours.

use std::collections::VecDeque;

/// What bounds the calls in flight by what becomes of them. Times are in seconds.
pub(super) trait Rule {
    /// Calls that may be in flight.
    fn limit(&self) -> usize;
    /// A call came to its end; `in_flight` with itself, as it was when the call started.
    fn succeed(&mut self, took: f64, in_flight: usize, now: f64);
    /// A call was refused.
    fn refuse(&mut self, started: f64, now: f64);
}

/// `AIMDLimit` without its timeout: one more for each success while half of it is in use, a tenth less at each 429.
pub(super) struct Aimd {
    limit: f64,
}

impl Default for Aimd {
    fn default() -> Self {
        Aimd { limit: 4.0 }
    }
}

impl Rule for Aimd {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn succeed(&mut self, _: f64, in_flight: usize, _: f64) {
        if in_flight as f64 * 2.0 >= self.limit {
            self.limit += 1.0;
        }
    }

    fn refuse(&mut self, _: f64, _: f64) {
        self.limit = (self.limit * 0.9).max(1.0);
    }
}

/// Netflix' `AIMDLimit`: starts at 20, backs off to nine tenths on a drop or on a call of more than five seconds.
pub(super) struct NetflixAimd {
    limit: f64,
}

impl Default for NetflixAimd {
    fn default() -> Self {
        NetflixAimd { limit: 20.0 }
    }
}

impl Rule for NetflixAimd {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn succeed(&mut self, took: f64, in_flight: usize, now: f64) {
        if took > 5.0 {
            self.refuse(now, now);
        } else if in_flight as f64 * 2.0 >= self.limit {
            self.limit = (self.limit + 1.0).min(200.0);
        }
    }

    fn refuse(&mut self, _: f64, _: f64) {
        self.limit = (self.limit * 0.9).floor().clamp(20.0, 200.0);
    }
}

/// Netflix' `VegasLimit`: starts at 20, estimates a queue from the shortest call that it remembers.
pub(super) struct Vegas {
    limit: f64,
    shortest: f64,
    probed: f64,
}

impl Default for Vegas {
    fn default() -> Self {
        Vegas {
            limit: 20.0,
            shortest: f64::INFINITY,
            probed: 0.0,
        }
    }
}

impl Vegas {
    fn step(&self) -> f64 {
        self.limit.log10().floor().max(1.0)
    }
}

impl Rule for Vegas {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn succeed(&mut self, took: f64, in_flight: usize, _: f64) {
        self.probed += 1.0;
        if self.probed >= 30.0 * self.limit {
            (self.probed, self.shortest) = (0.0, took);
            return;
        }
        if took < self.shortest {
            self.shortest = took;
            return;
        }
        if (in_flight as f64) * 2.0 < self.limit {
            return;
        }
        let queued = (self.limit * (1.0 - self.shortest / took)).ceil();
        let (alpha, beta, step) = (3.0 * self.step(), 6.0 * self.step(), self.step());
        self.limit = match queued {
            queued if queued <= step => self.limit + beta,
            queued if queued < alpha => self.limit + step,
            queued if queued > beta => self.limit - step,
            _ => self.limit,
        }
        .clamp(1.0, 1_000.0);
    }

    fn refuse(&mut self, _: f64, _: f64) {
        self.limit = (self.limit - self.step()).max(1.0);
    }
}

/// Netflix' `Gradient2Limit`: the long-time mean over the present, per sample or over windows of a second and more.
pub(super) struct Gradient {
    limit: f64,
    long: f64,
    seen: f64,
    window: Option<VecDeque<f64>>,
    window_ends: f64,
    in_flight: usize,
}

impl Gradient {
    pub(super) fn new(windowed: bool) -> Self {
        Gradient {
            limit: 20.0,
            long: 0.0,
            seen: 0.0,
            window: windowed.then(VecDeque::new),
            window_ends: 0.0,
            in_flight: 0,
        }
    }

    fn update(&mut self, short: f64, in_flight: usize) {
        // A mean of the first ten, then an exponential one over 600.
        self.seen += 1.0;
        let weight = if self.seen <= 10.0 {
            1.0 / self.seen
        } else {
            2.0 / 601.0
        };
        self.long += (short - self.long) * weight;
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        if (in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * self.long / short).clamp(0.5, 1.0);
        let next = self.limit * gradient + 4.0;
        self.limit = (self.limit * 0.8 + next * 0.2).clamp(20.0, 200.0);
    }
}

impl Rule for Gradient {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn succeed(&mut self, took: f64, in_flight: usize, now: f64) {
        let Some(window) = &mut self.window else {
            return self.update(took, in_flight);
        };
        window.push_back(took);
        self.in_flight = self.in_flight.max(in_flight);
        if now >= self.window_ends && window.len() >= 10 {
            let mean = window.iter().sum::<f64>() / window.len() as f64;
            window.clear();
            let most = std::mem::take(&mut self.in_flight);
            self.window_ends = now + 1.0;
            self.update(mean, most);
        }
    }

    /// It knows no drops.
    fn refuse(&mut self, _: f64, _: f64) {}
}
