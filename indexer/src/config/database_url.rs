//! One database URL, parsed and checked: `postgres://user:password@host:port/database?parameters`.

use std::path::PathBuf;

use tokio_postgres::config::Host;

use super::value::TlsMode;

/// A database URL taken apart. `sslmode` and `sslrootcert` are ours: tokio-postgres knows no `verify-full`.
pub struct DatabaseUrl {
    /// Everything tokio-postgres understands of the URL; its TLS mode is not decided yet.
    pub config: tokio_postgres::Config,
    /// `sslmode`, where the URL states it.
    pub tls: Option<TlsMode>,
    /// `sslrootcert`, where the URL states it: a PEM file of the authorities to trust.
    pub ca_file: Option<PathBuf>,
}

/// Parameters a URL may hold, beside `sslmode` and `sslrootcert`.
const PARAMETERS: &[&str] = &[
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "application_name",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// libpq's other parameters: only a name from a list is repeated in an error, since an unescaped `?` or `&` in a
/// password makes a piece of the password look like a parameter.
const REFUSED: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "passfile",
    "replication",
    "requirepeer",
    "requiressl",
    "service",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslkey",
    "sslnegotiation",
    "sslpassword",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
];

impl DatabaseUrl {
    /// Parses and checks the URL.
    ///
    /// # Errors
    /// The problem and the allowed values; never a piece of the URL that could be part of a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("a database URL starts with postgres:// or postgresql://".into());
        }
        let (base, query) = split_query(url);
        let mut parsed = Self { config: tokio_postgres::Config::new(), tls: None, ca_file: None };
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            parsed.take_parameter(pair, &mut kept)?;
        }
        let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        // The parser's own message may quote the URL; ours names the usual cause instead.
        parsed.config = rest.parse().ok().ok_or(
            "not a valid database URL: write postgres://user:password@host:port/database, with special characters in \
             the password percent-encoded (@ as %40, / as %2F, ? as %3F)",
        )?;
        parsed.check()?;
        Ok(parsed)
    }

    fn take_parameter<'a>(&mut self, pair: &'a str, kept: &mut Vec<&'a str>) -> Result<(), String> {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "sslmode" => {
                self.tls = Some(value.parse().map_err(|()| {
                    "sslmode must be verify-full or disable: the modes between them (require, prefer, verify-ca) accept \
                     a server whose identity nobody has checked"
                        .to_owned()
                })?);
            }
            "sslrootcert" => self.ca_file = Some(PathBuf::from(percent_decoded(value))),
            "options" => {
                return Err("the parameter `options` is refused: it can override the session settings the indexer \
                            depends on; set them with ALTER ROLE … SET instead"
                    .into());
            }
            key if PARAMETERS.contains(&key) => kept.push(pair),
            key if REFUSED.contains(&key) => return Err(format!("the parameter `{key}` is not supported")),
            _ => {
                return Err(
                    "it has a parameter that is not known (if that is a piece of the password, percent-encode \
                            its ? as %3F and its & as %26)"
                        .into(),
                );
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let (hosts, ports) = (self.config.get_hosts(), self.config.get_ports());
        if hosts.is_empty() {
            return Err(
                "it names no host; for a Unix socket write postgres:///database?host=/var/run/postgresql".into()
            );
        }
        if ports.len() > 1 && ports.len() != hosts.len() {
            return Err("it names several ports, but not one for each host".into());
        }
        let addresses = self.config.get_hostaddrs();
        if !addresses.is_empty() && addresses.len() != hosts.len() {
            return Err("it names a `hostaddr`, but not one for each host".into());
        }
        Ok(())
    }

    /// Whether every host is a Unix socket or a loopback address, where nobody can listen in.
    pub fn is_local(&self) -> bool {
        let local = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
            }
        };
        self.config.get_hosts().iter().all(local) && self.config.get_hostaddrs().iter().all(|ip| ip.is_loopback())
    }

    /// `postgres://host:port`, one for each host: all of the URL that may be shown.
    pub fn endpoint(&self) -> String {
        database_endpoint(&self.config)
    }
}

/// `postgres://host:port`, one for each host of a connection's configuration.
pub fn database_endpoint(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let shown = config.get_hosts().iter().enumerate().map(|(index, host)| match host {
        Host::Unix(path) => format!("{}:{}", path.display(), port(index)),
        Host::Tcp(name) if name.contains(':') => format!("[{name}]:{}", port(index)),
        Host::Tcp(name) => format!("{name}:{}", port(index)),
    });
    format!("postgres://{}", shown.collect::<Vec<_>>().join(","))
}

/// Splits at the `?` that tokio-postgres would split at: the first one after the credentials.
fn split_query(url: &str) -> (&str, &str) {
    let host = url.find('@').unwrap_or(0);
    match url[host..].find('?') {
        Some(mark) => (&url[..host + mark], &url[host + mark + 1..]),
        None => (url, ""),
    }
}

fn percent_decoded(text: &str) -> String {
    // A form's decoder turns `+` into a space; a path keeps it.
    let query = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str) -> String {
        DatabaseUrl::parse(url).err().unwrap_or_else(|| panic!("{url} was accepted"))
    }

    #[test]
    fn takes_out_what_is_ours() {
        let url =
            DatabaseUrl::parse("postgres://u:p%40@db.example:6432/x?sslmode=verify-full&user=v&sslrootcert=/a%20b+c")
                .unwrap();
        assert_eq!(url.tls, Some(TlsMode::VerifyFull));
        assert_eq!(url.ca_file, Some(PathBuf::from("/a b+c")));
        assert_eq!(url.config.get_user(), Some("v"));
        assert_eq!(url.config.get_password(), Some(b"p@".as_slice()));
        assert_eq!(url.endpoint(), "postgres://db.example:6432");
        assert!(!url.is_local());
    }

    #[test]
    fn knows_what_is_local() {
        for (url, local) in [
            ("postgres://localhost/x", true),
            ("postgres://127.8.0.1/x", true),
            ("postgres://[::1]:5433/x", true),
            ("postgres:///x?host=/run/postgresql", true),
            ("postgres://%2Frun%2Fpostgresql/x", true),
            ("postgres://10.0.0.1/x", false),
            ("postgres://localhost,db.example/x", false),
            ("postgres://localhost/x?hostaddr=10.0.0.1", false),
            ("postgres://localhost.example/x", false),
        ] {
            assert_eq!(DatabaseUrl::parse(url).map(|url| url.is_local()), Ok(local), "{url}");
        }
        let shown = DatabaseUrl::parse("postgres://a@[::1],b:6/x").unwrap().endpoint();
        assert_eq!(shown, "postgres://[::1]:5432,b:6");
    }

    #[test]
    fn refuses_and_says_why() {
        for (url, why) in [
            ("mysql://h/x", "starts with postgres://"),
            ("host=h user=u", "starts with postgres://"),
            ("postgres://h/x?sslmode=require", "verify-full or disable"),
            ("postgres://h/x?options=-cfsync%3Doff", "override the session settings"),
            ("postgres://h/x?%6fptions=-cfsync", "not known"),
            ("postgres://h/x?sslkey=/k", "`sslkey` is not supported"),
            ("postgres://h:port/x", "percent-encoded"),
            ("postgres:///x", "names no host"),
            ("postgres://a,b/x?hostaddr=10.0.0.1", "hostaddr"),
        ] {
            assert!(problem(url).contains(why), "{url}: {}", problem(url));
        }
    }

    #[test]
    fn never_repeats_a_password() {
        for url in [
            "postgres://u:HUNTER@2?HUNTER@h/x",
            "postgres://u:HUNTER@h:HUNTER/x",
            "postgres://u:a@b?HUNTER=1",
            "HUNTER",
        ] {
            assert!(!problem(url).contains("HUNTER"), "{}", problem(url));
        }
    }
}
