//! The subject of log lines: a chain, a node, a table. Each line within one of these spans names it by the same field.
//!
//! The spans have the highest level, so that no filter removes the names from the lines that it passes.

use tracing::{Span, error_span};

/// Of a chain, by its name in the configuration.
pub fn chain(name: &str) -> Span {
    error_span!("chain", chain = name)
}

/// Of a node, by scheme, host and port.
pub fn node(name: &str) -> Span {
    error_span!("node", node = name)
}

/// Of a table, by its name.
pub fn table(name: &str) -> Span {
    error_span!("table", table = name)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::filter::EnvFilter;
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn names_stay_in_the_lines_that_a_filter_lets_through() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(EnvFilter::new("error")));
        tracing::subscriber::with_default(subscriber, || {
            let node = super::chain("main").in_scope(|| super::node("http://a:1"));
            // Like a call to it, from any place.
            node.in_scope(|| super::table("logs").in_scope(|| tracing::error!("broken")));
        });
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(lines.contains(r#"chain{chain="main"}:node{node="http://a:1"}:table{table="logs"}"#), "{lines}");
    }
}
