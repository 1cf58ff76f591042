//! `GET /`: the dashboard. One page with its style, its script and its picture, all from this binary.
//!
//! The files hold nothing but themselves, so they need no key; what the page shows it asks for as any client would, with
//! the key that whoever looks has typed in. The policy lets it load from its own origin only, run no script but its own,
//! and be framed by nobody.

use super::error::ApiError;
use super::{Api, Visit, send};
use crate::door::Response;

const PAGE: &str = include_str!("dashboard/page.html");
const STYLE: &str = include_str!("dashboard/page.css");
const SCRIPT: &str = include_str!("dashboard/page.js");
const SIGNAL: &str = include_str!("dashboard/signal.svg");

/// Only what comes from here, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Api {
    /// `GET /`
    pub(super) fn page(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        file(visit, "text/html; charset=utf-8", PAGE)
    }

    /// `GET /dashboard.css`
    pub(super) fn page_style(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        file(visit, "text/css; charset=utf-8", STYLE)
    }

    /// `GET /dashboard.js`
    pub(super) fn page_script(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        file(visit, "text/javascript; charset=utf-8", SCRIPT)
    }

    /// `GET /dashboard.svg`
    pub(super) fn page_signal(&self, visit: &Visit<'_>) -> Result<(), ApiError> {
        file(visit, "image/svg+xml", SIGNAL)
    }
}

fn file(visit: &Visit<'_>, kind: &str, text: &str) -> Result<(), ApiError> {
    let response = Response::new(200)
        .with_body(kind, text)
        .with_header("Content-Security-Policy", POLICY)
        .with_header("X-Content-Type-Options", "nosniff")
        .with_header("X-Frame-Options", "DENY")
        .with_header("Referrer-Policy", "no-referrer")
        .with_header("Cross-Origin-Opener-Policy", "same-origin")
        .with_header("Cross-Origin-Resource-Policy", "same-origin")
        .with_header("Cache-Control", "no-store")
        .with_header("X-Request-Id", visit.request_id);
    send(visit.exchange, visit.request_id, response);
    Ok(())
}
