//! The program seen from outside, over real sockets: a chapter per feature, and what the chapters share.

mod support;

#[path = "chapters/embedding.rs"]
mod embedding;
#[path = "chapters/execute.rs"]
mod execute;
