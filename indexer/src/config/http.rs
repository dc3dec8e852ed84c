//! `[http]`.

use std::net::SocketAddr;

use super::kind;
use super::section::settings;

settings! {
    /// The HTTP server.
    pub struct Http in "http", drafted as HttpDraft {
        /// Where /health, /ready, /status and /metrics answer; off for nowhere.
        ///
        /// It has no login: leave it on loopback, or behind what has one.
        pub listen: Option<SocketAddr> = "127.0.0.1:9464", kind::LISTEN;
    }
}
