//! The routes: one line each.

use tiny_http::Method;

use super::error::ApiError;
use super::{Api, Visit};

/// What answers a route.
type Answer = for<'a> fn(&Api, &Visit<'a>) -> Result<(), ApiError>;

/// One line of the table.
#[derive(Debug)]
pub(super) struct Route {
    method: Method,
    /// A path; one that ends in `/*` takes any rest, which is not empty.
    path: &'static str,
    /// Whether it stays served when connections are at their bound.
    pub(super) operation: bool,
    pub(super) answer: Answer,
}

impl Route {
    /// Whether it needs no key: it tells a supervisor or a load balancer how the gateway is, and nothing
    /// else, or is a file of the dashboard, which holds nothing.
    pub(super) fn is_open(&self) -> bool {
        OPEN.contains(&self.path)
    }

    /// Whether its answer goes on for as long as somebody looks.
    pub(super) fn is_live(&self) -> bool {
        self.path == LIVE
    }
}

const fn route(method: Method, path: &'static str, operation: bool, answer: Answer) -> Route {
    Route {
        method,
        path,
        operation,
        answer,
    }
}

/// The table.
pub(super) const ROUTES: &[Route] = &[
    route(
        Method::Post,
        "/v1/chat/completions",
        false,
        Api::completions,
    ),
    route(Method::Get, "/v1/models", false, Api::models),
    route(Method::Get, "/v1/models/*", false, Api::model),
    route(Method::Get, "/healthz", true, Api::health),
    route(Method::Get, "/health", true, Api::health),
    route(Method::Get, "/readyz", true, Api::ready),
    route(Method::Get, "/metrics", true, Api::metrics),
    route(Method::Get, "/api/status", true, Api::status),
    route(Method::Post, "/api/reload", true, Api::reload),
    route(Method::Get, "/api/requests", true, Api::requests),
    route(Method::Get, "/api/requests/*", true, Api::request),
    route(Method::Delete, "/api/requests/*", true, Api::cancel),
    route(Method::Get, "/api/alerts", true, Api::alerts),
    route(Method::Post, "/api/alerts/*", true, Api::acknowledge_alert),
    route(Method::Get, "/api/semaphores", true, Api::semaphores),
    route(
        Method::Post,
        "/api/semaphores/check",
        true,
        Api::check_semaphores,
    ),
    route(Method::Get, "/api/trace", true, Api::trace),
    route(
        Method::Get,
        "/api/connection-pool/status",
        true,
        Api::pool_status,
    ),
    route(
        Method::Get,
        "/api/connection-pool/health",
        true,
        Api::pool_health,
    ),
    route(
        Method::Post,
        "/api/connection-pool/test",
        true,
        Api::pool_test,
    ),
    route(
        Method::Post,
        "/api/connection-pool/reset-metrics",
        true,
        Api::pool_reset,
    ),
    route(
        Method::Get,
        "/api/throttling/status",
        true,
        Api::throttle_status,
    ),
    route(
        Method::Get,
        "/api/throttling/metrics",
        true,
        Api::throttle_metrics,
    ),
    route(
        Method::Get,
        "/api/throttling/concurrency",
        true,
        Api::throttle_concurrency,
    ),
    route(
        Method::Post,
        "/api/throttling/force-adjustment",
        true,
        Api::throttle_force,
    ),
    route(Method::Get, "/", true, Api::page),
    route(Method::Get, "/dashboard.css", true, Api::page_style),
    route(Method::Get, "/dashboard.js", true, Api::page_script),
    route(Method::Get, "/dashboard.svg", true, Api::page_signal),
    route(Method::Get, "/api/overview", true, Api::overview),
    route(Method::Get, LIVE, true, Api::live),
];

/// Paths of the routes that need no key.
const OPEN: &[&str] = &[
    "/healthz",
    "/health",
    "/readyz",
    "/",
    "/dashboard.css",
    "/dashboard.js",
    "/dashboard.svg",
];

/// The path of the stream for dashboards.
const LIVE: &str = "/api/live";

/// Routes of the OpenAI and Anthropic wires that we know and don't serve.
const UNSUPPORTED: &[&str] = &[
    "/v1/messages",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/images/generations",
    "/v1/audio/transcriptions",
];

/// The route for a method and a path, with what the `*` stands for.
///
/// HEAD asks for what GET would answer.
///
/// # Errors
/// 404 for a path that no route has, naming the nearest; 405 for a method that the path's routes don't have.
pub(super) fn find<'p>(
    method: &Method,
    path: &'p str,
) -> Result<(&'static Route, &'p str), ApiError> {
    let method = if *method == Method::Head {
        &Method::Get
    } else {
        method
    };
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(rest) = matches(route.path, path) else {
            continue;
        };
        if route.method == *method {
            return Ok((route, rest));
        }
        allowed.push(route.method.to_string());
    }
    if allowed.is_empty() {
        return Err(unknown(path));
    }
    let message = format!("{path} takes {}, not {method}", allowed.join(" or "));
    if allowed.iter().any(|method| method == "GET") {
        allowed.push("HEAD".into());
    }
    Err(ApiError::method_not_allowed(message, allowed.join(", ")))
}

fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    match pattern.strip_suffix('*') {
        None => (pattern == path).then_some(""),
        Some(prefix) => path.strip_prefix(prefix).filter(|rest| !rest.is_empty()),
    }
}

fn unknown(path: &str) -> ApiError {
    if UNSUPPORTED.contains(&path) {
        return ApiError::not_found(format!(
            "{path} is not supported; chat is at POST /v1/chat/completions"
        ));
    }
    let likeness = |route: &&Route| (strsim::jaro(path, route.path) * 1000.0) as u32;
    match ROUTES.iter().max_by_key(likeness) {
        Some(nearest) => ApiError::not_found(format!(
            "there is no {path}; the nearest is {} {}",
            nearest.method, nearest.path
        )),
        None => ApiError::not_found(format!("there is no {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_route_and_its_rest() {
        let (route, rest) = find(&Method::Get, "/v1/models/mine/a:b").expect("a route");
        assert_eq!((route.path, rest), ("/v1/models/*", "mine/a:b"));
        let (route, _) = find(&Method::Head, "/healthz").expect("a route");
        assert!(route.operation);
    }

    #[test]
    fn health_and_the_empty_dashboard_alone_are_told_without_a_key() {
        let open = ROUTES.iter().filter(|route| route.is_open());
        let open: Vec<String> = open
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        let expected = [
            "GET /healthz",
            "GET /health",
            "GET /readyz",
            "GET /",
            "GET /dashboard.css",
            "GET /dashboard.js",
            "GET /dashboard.svg",
        ];
        assert_eq!(open, expected);
    }

    #[test]
    fn what_is_not_there_is_said_with_the_nearest_route() {
        let error = find(&Method::Post, "/v1/chat/completion").expect_err("no route");
        assert_eq!(error.status, 404);
        assert!(
            error.message.ends_with("POST /v1/chat/completions"),
            "{}",
            error.message
        );
        let error = find(&Method::Get, "/v1/chat/completions").expect_err("another method");
        assert_eq!(
            (error.status, error.message.as_str()),
            (405, "/v1/chat/completions takes POST, not GET")
        );
        let error = find(&Method::Post, "/v1/embeddings").expect_err("unsupported");
        assert!(error.message.contains("not supported"));
        assert_eq!(
            find(&Method::Get, "/v1/models/")
                .expect_err("an empty rest")
                .status,
            404
        );
    }
}
