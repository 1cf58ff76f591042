//! The program seen from outside, over real sockets: a chapter per feature, and what the chapters share.

mod support;

#[path = "chapters/limits.rs"]
mod limits;
#[path = "chapters/lines.rs"]
mod lines;
#[path = "chapters/live.rs"]
mod live;
#[path = "chapters/stopping.rs"]
mod stopping;
