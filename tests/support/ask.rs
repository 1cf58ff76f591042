//! Questions to a server, as clients of OpenAI's API ask them.

use serde_json::{Value, json};

use super::{Client, Response, Server, Stream};

/// A chat request: what is asked, of whom, and with which headers.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    body: Value,
    headers: Vec<(&'static str, String)>,
}

impl Ask {
    /// Says hello to `model`.
    pub(crate) fn of(model: &str) -> Ask {
        let messages = json!([{"role": "user", "content": "hello"}]);
        Ask {
            body: json!({"model": model, "messages": messages}),
            headers: Vec::new(),
        }
    }

    /// Says something else.
    pub(crate) fn saying(mut self, prompt: &str) -> Ask {
        self.body["messages"][0]["content"] = prompt.into();
        self
    }

    /// Wants a stream.
    pub(crate) fn streamed(mut self) -> Ask {
        self.body["stream"] = true.into();
        self
    }

    /// Sets a field of the body.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Ask {
        self.body[field] = value;
        self
    }

    /// Sets a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Ask {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Asks for a session.
    pub(crate) fn session(self, name: &str) -> Ask {
        self.header("X-Session-Id", name)
    }

    /// Asks with a priority.
    pub(crate) fn priority(self, class: &str) -> Ask {
        self.header("X-Priority", class)
    }

    /// Asks under a request id.
    pub(crate) fn id(self, id: &str) -> Ask {
        self.header("X-Request-Id", id)
    }

    /// Asks with a deadline.
    pub(crate) fn within(self, timeout: &str) -> Ask {
        self.header("X-Request-Timeout", timeout)
    }

    /// Asks on a connection that is there.
    pub(crate) fn on(&self, client: &mut Client) {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (*n, &**v)).collect();
        client.request("POST", "/v1/chat/completions", &headers, Some(&self.body));
    }

    /// Asks on a connection of its own; the answer is still to be read.
    pub(crate) fn send(&self, server: &Server) -> Client {
        let mut client = server.client();
        self.on(&mut client);
        client
    }

    /// Asks, and reads the whole answer.
    pub(crate) fn answer(&self, server: &Server) -> Response {
        self.send(server).response().expect("an answer")
    }

    /// Asks, and gives the answer as it comes.
    pub(crate) fn stream(&self, server: &Server) -> Stream {
        self.send(server).into_stream().expect("an answer")
    }
}

/// The text of a whole answer.
pub(crate) fn text(response: &Response) -> String {
    let json = response.json();
    let content = &json["choices"][0]["message"]["content"];
    let text = content.as_str().map(str::to_owned);
    text.unwrap_or_else(|| panic!("no answer but {}: {json:#}", response.status))
}

/// The code of an error.
pub(crate) fn code(response: &Response) -> String {
    let json = response.json();
    let code = json["error"]["code"].as_str().map(str::to_owned);
    code.unwrap_or_else(|| panic!("no error but {}: {json:#}", response.status))
}
