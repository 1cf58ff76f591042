//! `[server]`: the HTTP front.

use std::path::PathBuf;
use std::time::Duration;

/// `[server]`
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Where to listen.
    pub listen: Listen,
    /// Connections open at once.
    pub max_connections: usize,
    /// Further connections that are only served operation routes.
    pub operation_connections: usize,
    /// Bytes of a request's head.
    pub max_head: usize,
    /// Headers of a request.
    pub max_headers: usize,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// Bytes of bodies being read or held, in all.
    pub max_body_total: usize,
    /// Nesting of a request's JSON.
    pub json_depth: usize,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Silence between two reads of a body.
    pub body_timeout: Duration,
    /// A connection without a request is closed after so long.
    pub idle_timeout: Duration,
    /// A connection without a request gives its thread back after so long.
    pub park_after: Duration,
    /// One write to a client that does not read.
    pub write_timeout: Duration,
    /// A stream that has nothing to say says a comment this often.
    pub stream_keepalive: Duration,
    /// From the word to stop until the end.
    pub drain: Duration,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`; port 0 takes a free one.
    Tcp(String),
    /// `unix:PATH`
    Unix(PathBuf),
}
