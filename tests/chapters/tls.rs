//! TLS towards providers: an authority of one's own is trusted where it is named, and whoever is not is told why.

use std::io::Write;

use crate::support::{
    Ask, Authority, Errand, Identity, Peer, Response, Script, Server, Upstream, code, text,
};

/// A provider whose certificate is looked at under what `more` says.
fn server(upstream: &Upstream, more: &str) -> Server {
    Server::start(&config(&upstream.url(), more))
}

fn config(url: &str, more: &str) -> String {
    format!(
        "providers.mine.kind = \"openai\"\nproviders.mine.base_url = \"{url}\"\n\
         providers.mine.retry.attempts = 1\n{more}\n"
    )
}

/// A file of these authorities, and the line that names it.
fn trusted(authorities: &[&Authority]) -> (tempfile::NamedTempFile, String) {
    let pem = authorities.iter().map(|authority| &*authority.pem);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), pem.collect::<String>()).expect("a file");
    let line = format!("providers.mine.ca_file = {:?}", file.path());
    (file, line)
}

fn serving(identity: &Identity) -> Upstream {
    Upstream::start_tls(Script::text("hello from {id}"), identity)
}

/// A provider that can't be reached, told in these words.
fn assert_unreachable(what: &str, answer: &Response, words: &str) {
    assert_eq!(
        (answer.status, code(answer).as_str()),
        (502, "provider_unavailable"),
        "{what}"
    );
    let error = &answer.json()["error"];
    assert_eq!(error["type"], "provider_error", "{what}");
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains(words), "{what}: {message}");
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_named() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let upstream = serving(&ours.vouch());
    let (_file, line) = trusted(&[&other, &ours]);
    let server = server(&upstream, &line);
    for number in 1..=3 {
        let ask = Ask::of("mine/m");
        let ask = if number == 2 { ask.streamed() } else { ask };
        let answer = ask.answer(&server);
        assert_eq!(answer.status, 200, "{:?}", answer.head);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            number == 2 || body.contains(&format!("hello from up-{number}")),
            "{body}"
        );
    }
    assert_eq!(upstream.connections(), 1, "a handshake for each call");
    server.wait_until_idle();
}

#[test]
fn a_certificate_that_is_not_accepted_is_told_as_what_it_is_wrong_with() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (_ours, ours_line) = trusted(&[&ours]);
    let (_other, other_line) = trusted(&[&other]);
    let untrusted = "its certificate is not of an authority that is trusted here; one of your own belongs into \
                     providers.mine.ca_file";
    for (what, identity, line, words) in [
        ("nobody is named", ours.vouch(), "", untrusted),
        ("another is named", ours.vouch(), &*other_line, untrusted),
        (
            "expired",
            ours.vouch_for("127.0.0.1", 2020),
            &ours_line,
            "its certificate has expired",
        ),
        (
            "another host",
            ours.vouch_for("example.test", 2999),
            &ours_line,
            "its certificate is for another host than that of providers.mine.base_url",
        ),
    ] {
        let upstream = serving(&identity);
        let server = server(&upstream, line);
        assert_unreachable(what, &Ask::of("mine/m").answer(&server), words);
        server.wait_until_idle();
        assert_eq!(
            upstream.requests().len(),
            0,
            "{what}: it got to see the question"
        );
        let check = Errand::run(&config(&upstream.url(), line), &["check"]);
        assert_eq!(check.code, Some(1), "{what}: {}", check.out);
        assert!(check.out.contains(words), "{what}: {}", check.out);
    }
}

#[test]
fn the_wrong_scheme_is_told_as_such() {
    let plain = Peer::start(|mut stream| {
        // So answers whoever finds no request in a handshake.
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let url = plain.url().replace("http:", "https:");
    let server = Server::start(&config(&url, ""));
    let answer = Ask::of("mine/m").answer(&server);
    let words = "does not speak TLS; is providers.mine.base_url to begin with http://?";
    assert_unreachable("TLS to a plain port", &answer, words);
    server.wait_until_idle();
    let tls = serving(&Authority::new("ours").vouch());
    let url = tls.url().replace("https:", "http:");
    let server = Server::start(&config(&url, ""));
    let answer = Ask::of("mine/m").answer(&server);
    assert!(
        matches!(
            (answer.status, code(&answer).as_str()),
            (502, "provider_malformed" | "provider_incomplete")
        ),
        "{:#}",
        answer.json()
    );
    server.wait_until_idle();
}

#[test]
fn another_provider_is_not_touched_by_an_authority_that_is_not_its_own() {
    let ours = Authority::new("ours");
    let upstream = serving(&ours.vouch());
    let (_file, line) = trusted(&[&ours]);
    let url = upstream.url();
    let other = format!(
        "{line}\nproviders.other.kind = \"openai\"\nproviders.other.base_url = \"{url}\"\n\
         providers.other.retry.attempts = 1"
    );
    let server = server(&upstream, &other);
    assert_eq!(text(&Ask::of("mine/m").answer(&server)), "hello from up-1");
    let answer = Ask::of("other/m").answer(&server);
    assert_unreachable("not its own", &answer, "providers.other.ca_file");
}
