//! The program seen from outside, over real sockets: a chapter per feature, and what the chapters share.

mod support;

#[path = "chapters/keys.rs"]
mod keys;
