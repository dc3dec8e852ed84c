//! `[http]`.

use std::net::SocketAddr;

use super::kind;
use super::section::settings;

settings! {
    /// The HTTP server.
    pub struct Http in "http", drafted as HttpDraft {
        /// The address of /health, /ready, /status and /metrics; `off` for no server.
        ///
        /// The server has no login: keep it on loopback, or behind a proxy with a login.
        pub listen: Option<SocketAddr> = "127.0.0.1:9464", kind::LISTEN;
    }
}
