//! The door over real sockets, a file per line of its duties. All wait on sockets, channels or counters; none
//! sleeps.

mod capacity;
mod framing;
mod keep_alive;
mod leaving;
mod listening;
mod parking;
mod stopping;
mod streaming;
mod support;
mod time;
