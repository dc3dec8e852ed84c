//! Connections to PostgreSQL: TLS that checks the server's identity, and errors that name the next step.

use std::error::Error as _;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, warn};

use crate::config::{Database, DatabaseUrl, Secret, TlsMode, database_endpoint};

/// The TLS of every connection. The [`tokio_postgres::Config`] beside it decides whether it is used.
pub type MakeTls = MakeRustlsConnect;

/// Why there is no connection, named for the caller's next move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFault {
    /// The URL or a certificate file is wrong: change the configuration.
    Config,
    /// No server answers there: wait, or start the server.
    Unreachable,
    /// The server cannot prove its identity, or offers no TLS.
    Tls,
    /// The server refuses this user.
    Auth,
    /// The server has no such database.
    NoDatabase,
    /// All connections of the server are in use: wait.
    TooManyConnections,
    /// The server starts up or shuts down: wait.
    NotReady,
    /// The accepting program does not answer, or says that its own server does not: a pooler without its server.
    Silent,
    /// Another reason, in the message.
    Other,
}

impl ConnectFault {
    /// Whether the same attempt may succeed later without a change of the configuration.
    pub fn is_transient(self) -> bool {
        // A connection that broke during its start (`Other`) says nothing about the next one.
        !matches!(self, Self::Config | Self::Tls | Self::Auth | Self::NoDatabase)
    }
}

/// A failed connection. Its text says what happened, where, and the next step, and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConnectError {
    /// Why.
    pub fault: ConnectFault,
    /// `postgres://host:port`; empty if the URL is unreadable.
    pub endpoint: String,
    /// The failure, and the advice.
    pub message: String,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (endpoint, message) = (&self.endpoint, &self.message);
        if endpoint.is_empty() { write!(f, "database: {message}") } else { write!(f, "database {endpoint}: {message}") }
    }
}

/// Prepares connections to `url`, one of the URLs of `db`: the address, and its TLS.
///
/// # Errors
/// [`ConnectFault::Config`] if the URL or the file of authorities cannot be used.
pub fn connector(db: &Database, url: &Secret) -> Result<(tokio_postgres::Config, MakeTls), ConnectError> {
    let config_error = |endpoint, message| ConnectError { fault: ConnectFault::Config, endpoint, message };
    let url = DatabaseUrl::parse(url.expose()).map_err(|why| config_error(String::new(), why))?;
    let mut config = url.config.clone();
    if config.get_application_name().is_none() {
        config.application_name("dalp-indexer");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(db.connect_timeout);
    }
    // A silently vanished peer (failover, a NAT's memory) is detected within about two minutes, not hours.
    config.keepalives_idle(Duration::from_secs(60)).keepalives_interval(Duration::from_secs(15)).keepalives_retries(4);
    let mut roots = RootCertStore::empty();
    if uses_tls(db, &url) {
        config.ssl_mode(SslMode::Require);
        let ca_file = url.ca_file.as_deref().or(db.ca_file.as_deref());
        roots = ca_file.map_or_else(system_roots, file_roots).map_err(|why| config_error(url.endpoint(), why))?;
    } else {
        config.ssl_mode(SslMode::Disable);
    }
    let tls = client_config(roots).map_err(|error| config_error(url.endpoint(), format!("TLS: {error}")))?;
    Ok((config, MakeRustlsConnect::new(tls)))
}

/// The URL's option counts first, then the configuration's. Nobody can intercept a local connection, and few local servers have a
/// signed certificate: they use TLS only if their URL asks for it.
fn uses_tls(db: &Database, url: &DatabaseUrl) -> bool {
    let only_sockets = url.config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    match url.tls.unwrap_or(db.tls) {
        TlsMode::Disable => false,
        TlsMode::VerifyFull => !only_sockets && (url.tls.is_some() || !url.is_local()),
    }
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    // The provider is named: with two in one process (a dependency may add another), rustls's default panics.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join("; ")) };
    Err(format!(
        "the system has no certificate authorities to check the server{causes}: install them (the package \
         ca-certificates), or set database.ca_file"
    ))
}

fn file_roots(path: &Path) -> Result<RootCertStore, String> {
    let problem = |why: String| format!("the file of authorities {}: {why}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| problem(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| problem(error.to_string()))?;
        roots.add(certificate).map_err(|error| problem(error.to_string()))?;
    }
    if roots.is_empty() { Err(problem("it holds no PEM certificate".into())) } else { Ok(roots) }
}

/// Opens one connection to `url`, outside any pool; its own task drives it until the client is dropped.
///
/// # Errors
/// Why there is no connection, within about `db.connect_timeout` for each host.
pub async fn connect_direct(db: &Database, url: &Secret) -> Result<tokio_postgres::Client, ConnectError> {
    let (config, tls) = connector(db, url)?;
    match open(&config, tls).await {
        Err(error) => Err(explained(db, url, error).await),
        opened => opened,
    }
}

/// With the reason of the server itself, if a pooler hides it and `database.admin_url` leads to the server.
pub(super) async fn explained(db: &Database, url: &Secret, error: ConnectError) -> ConnectError {
    if error.fault != ConnectFault::Silent || db.admin_url == *url {
        return error;
    }
    let Ok((config, tls)) = connector(db, &db.admin_url) else { return error };
    let found = match open(&config, tls).await {
        Ok(_) => format!("the server itself ({}) answers: see the pooler's log", database_endpoint(&config)),
        Err(reason) if reason.endpoint == error.endpoint => return error,
        Err(reason) => format!("the server itself: {reason}"),
    };
    ConnectError { message: format!("{}; {found}", error.message), ..error }
}

/// Opens one connection as prepared by [`connector`], and waits for its first answer: a pooler accepts a login while its server
/// is gone.
///
/// # Errors
/// Why there is no connection.
pub async fn open(config: &tokio_postgres::Config, tls: MakeTls) -> Result<tokio_postgres::Client, ConnectError> {
    let (endpoint, limit) = (database_endpoint(config), limit(config));
    let attempt = async {
        let (client, connection) = config.connect(tls).await?;
        let of = endpoint.clone();
        tokio::spawn(async move {
            match connection.await {
                Ok(()) => debug!(endpoint = of, "database connection closed"),
                Err(error) => warn!(endpoint = of, "database connection lost: {}", explain(&error)),
            }
        });
        client.simple_query("").await?;
        Ok(client)
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(classify(config, endpoint, &error)),
        Err(_) => Err(silent(endpoint, limit)),
    }
}

/// No answer in time.
pub(super) fn silent(endpoint: String, limit: Duration) -> ConnectError {
    let message = format!(
        "no answer within {limit:?}. Check that this is PostgreSQL's port and that PostgreSQL runs; a pooler without its \
         server is silent too: its log says why"
    );
    ConnectError { fault: ConnectFault::Silent, endpoint, message }
}

/// The time limit of a connection attempt. tokio-postgres limits only the socket's connect; a silent host that accepts would
/// block us for ever.
pub(super) fn limit(config: &tokio_postgres::Config) -> Duration {
    let each = config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(5));
    each * (u32::try_from(config.get_hosts().len()).unwrap_or(1) + 1)
}

const REACH: &str = "Check that PostgreSQL runs there, and the host and port of the URL";

/// Classifies a connection error and words it. `error`'s own text never holds the URL.
pub fn classify(config: &tokio_postgres::Config, endpoint: String, error: &tokio_postgres::Error) -> ConnectError {
    let (fault, message) = if let Some(refusal) = error.as_db_error() {
        refused(config, refusal, error)
    } else if let Some(cause) = cause::<rustls::Error>(error) {
        (ConnectFault::Tls, tls_message(cause))
    } else if causes(error).contains("does not support TLS") {
        // The URL's option counts before the configuration's: this advice works wherever TLS was requested.
        let advice = "Turn TLS on at the server, or, if the network between is trusted, write sslmode=disable in the URL \
                      (postgres://…/database?sslmode=disable)";
        (ConnectFault::Tls, format!("the server offers no TLS ({}). {advice}", causes(error)))
    } else if error.to_string().contains("TLS") {
        (ConnectFault::Unreachable, format!("the connection ended while TLS began ({}). {REACH}", causes(error)))
    } else if let Some(cause) = cause::<std::io::Error>(error) {
        unreachable(cause, error)
    } else if error.is_closed() {
        (ConnectFault::Unreachable, format!("the server closed the connection at once. {REACH}"))
    } else if causes(error).contains("password missing") {
        (
            ConnectFault::Auth,
            "the server asks for a password, and the URL has none: write postgres://user:password@host:port/database"
                .into(),
        )
    } else if error.to_string().contains("authentication") {
        (ConnectFault::Auth, format!("{}. Check the user and password of the URL", causes(error)))
    } else {
        (ConnectFault::Other, causes(error))
    };
    ConnectError { fault, endpoint, message }
}

fn refused(
    config: &tokio_postgres::Config,
    refusal: &DbError,
    error: &tokio_postgres::Error,
) -> (ConnectFault, String) {
    let user = config.get_user().unwrap_or("(the system's user)");
    let database = config.get_dbname().unwrap_or(user);
    let (fault, advice) = match refusal.code() {
        code if *code == SqlState::INVALID_PASSWORD => {
            (ConnectFault::Auth, format!("Check the user ({user}) and the password of the URL"))
        }
        // The server accepts this user only over TLS.
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            && refusal.message().contains("no encryption") =>
        {
            let advice =
                "Write sslmode=verify-full in the URL, or allow connections without TLS in the server's pg_hba.conf";
            (ConnectFault::Auth, advice.to_owned())
        }
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            let advice =
                format!("Check that the role {user} exists, may log in, and is allowed by the server's pg_hba.conf");
            (ConnectFault::Auth, advice)
        }
        code if *code == SqlState::INVALID_CATALOG_NAME => {
            (ConnectFault::NoDatabase, format!("Create it (CREATE DATABASE \"{database}\"), or correct the URL"))
        }
        code if *code == SqlState::PROTOCOL_VIOLATION && is_of_a_pooler(refusal.message()) => {
            (ConnectFault::Silent, "A pooler says this if its own server refuses it or is unreachable".to_owned())
        }
        code if *code == SqlState::TOO_MANY_CONNECTIONS => (ConnectFault::TooManyConnections, String::new()),
        code if *code == SqlState::CANNOT_CONNECT_NOW || is_shutdown(code) => (ConnectFault::NotReady, String::new()),
        _ => (ConnectFault::Other, String::new()),
    };
    let message = explain(error);
    (fault, if advice.is_empty() { message } else { format!("{message}. {advice}") })
}

/// PgBouncer's messages about its server.
fn is_of_a_pooler(message: &str) -> bool {
    ["server login", "cannot connect to server", "server_login_retry", "query_wait_timeout"]
        .iter()
        .any(|words| message.contains(words))
}

fn unreachable(cause: &std::io::Error, error: &tokio_postgres::Error) -> (ConnectFault, String) {
    use std::io::ErrorKind;
    match cause.kind() {
        ErrorKind::ConnectionRefused => {
            (ConnectFault::Unreachable, format!("connection refused: no program listens there. {REACH}"))
        }
        ErrorKind::NotFound => {
            (ConnectFault::Unreachable, format!("there is no such socket. {REACH} (unix_socket_directories)"))
        }
        ErrorKind::TimedOut => (ConnectFault::Unreachable, format!("no answer in time. {REACH}, and any firewall")),
        // tokio-postgres's message for target_session_attrs that no host has; a failover may be under way.
        ErrorKind::PermissionDenied if cause.get_ref().is_some() => {
            (ConnectFault::NotReady, format!("{cause}: the URL's target_session_attrs asks for another kind of server"))
        }
        ErrorKind::PermissionDenied => (
            ConnectFault::Unreachable,
            "no permission to use the socket: run as a user with this permission, or use TCP".into(),
        ),
        _ => (ConnectFault::Unreachable, format!("{}. {REACH}", causes(error))),
    }
}

fn tls_message(cause: &rustls::Error) -> String {
    use CertificateError as C;
    match cause {
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => {
            "its certificate is signed by an untrusted authority: name the PEM file of the right authority by sslrootcert \
             in the URL, or, without sslrootcert, by database.ca_file"
                .into()
        }
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("{cause}: connect by a name in the certificate")
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            format!("{cause}: renew the server's certificate, or correct this machine's clock")
        }
        rustls::Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            format!("{cause}: correct this machine's clock or the server's certificate")
        }
        _ => format!("TLS failed: {cause}"),
    }
}

/// The first cause of this type in an error's chain, also inside `io::Error`s, which hide theirs.
fn cause<T: std::error::Error + 'static>(error: &tokio_postgres::Error) -> Option<&T> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// An error and its causes on one line.
fn causes(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

/// Words a database error: message, SQLSTATE, detail, hint, and advice for the usual ones.
pub fn explain(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else { return causes(error) };
    let text = said(db);
    if *db.code() == SqlState::INSUFFICIENT_PRIVILEGE {
        return format!("{text}. {}", regrant(db.message()));
    }
    match advice(db.code(), db.message()) {
        Some(advice) => format!("{text}. {advice}"),
        None => text,
    }
}

/// The server's message, SQLSTATE, detail and hint.
pub fn said(db: &DbError) -> String {
    let mut text = format!("{} (SQLSTATE {})", db.message(), db.code().code());
    for (name, part) in [("detail", db.detail()), ("hint", db.hint()), ("where", db.where_())] {
        if let Some(part) = part {
            text = format!("{text}; {name}: {}", part.trim_end_matches('.').replace('\n', " "));
        }
    }
    text
}

/// Advice for a missing right. The check of the login's group comes first (`rights`), so the missing right belongs to the group.
fn regrant(message: &str) -> String {
    let object = message.strip_prefix("permission denied for ").filter(|object| !object.is_empty());
    let on = object
        .map_or_else(|| "it".to_owned(), |object| format!("ON {}", object.strip_prefix("relation ").unwrap_or(object)));
    format!(
        "The user's group role lacks this right, or the user is not in the group: as the owner, GRANT the right {on} TO \
         the group role (roles.writer, roles.reader; `dalp-indexer migrate` grants both roles their rights when it makes \
         them), or GRANT the group role TO the user"
    )
}

fn is_shutdown(code: &SqlState) -> bool {
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(code)
}

fn advice(code: &SqlState, message: &str) -> Option<&'static str> {
    Some(match code {
        code if *code == SqlState::DISK_FULL => {
            "The server's disk is full: free or add space; this transaction was rolled back"
        }
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
            "The server is a standby or set read-only: point the URL to the primary (target_session_attrs=read-write \
             finds it among several hosts)"
        }
        code if is_shutdown(code) => "The server shut down, or an administrator ended the connection: try again",
        code if *code == SqlState::CANNOT_CONNECT_NOW => "The server is starting or stopping: try again in a moment",
        code if *code == SqlState::TOO_MANY_CONNECTIONS => {
            "All connections are in use: raise max_connections, lower database.pool_size, or use a pooler"
        }
        code if *code == SqlState::UNDEFINED_TABLE => "If it should exist, run `dalp-indexer migrate`",
        code if *code == SqlState::CHECK_VIOLATION && message.contains("no partition of relation") => {
            "No partition covers this time: `dalp-indexer run` makes it, or check the chain's block times"
        }
        code if *code == SqlState::OUT_OF_MEMORY && message.contains("shared memory") => {
            "Too many partitions in one statement: bound it by block_time, or raise max_locks_per_transaction"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(mode: TlsMode) -> Database {
        let url = Secret::new("postgres://h/x");
        Database {
            url: url.clone(),
            admin_url: url.clone(),
            reader_url: url,
            pool_size: 8,
            write_parallelism: 2,
            connect_timeout: Duration::from_secs(5),
            tls: mode,
            ca_file: None,
        }
    }

    #[test]
    fn plain_text_only_where_it_is_safe_or_said() {
        for (url, mode, tls) in [
            ("postgres://db.example/x", TlsMode::VerifyFull, true),
            ("postgres://db.example/x", TlsMode::Disable, false),
            ("postgres://db.example/x?sslmode=disable", TlsMode::VerifyFull, false),
            ("postgres://db.example/x?sslmode=verify-full", TlsMode::Disable, true),
            ("postgres://127.0.0.1/x", TlsMode::VerifyFull, false),
            ("postgres://127.0.0.1/x?sslmode=verify-full", TlsMode::VerifyFull, true),
            ("postgres://127.0.0.1,db.example/x", TlsMode::VerifyFull, true),
            ("postgres://127.0.0.1/x?hostaddr=10.0.0.1", TlsMode::VerifyFull, true),
            ("postgres:///x?host=/run&sslmode=verify-full", TlsMode::VerifyFull, false),
        ] {
            assert_eq!(uses_tls(&database(mode), &DatabaseUrl::parse(url).unwrap()), tls, "{url} {mode:?}");
        }
    }

    #[test]
    fn a_connector_keeps_what_the_url_says() {
        let db = database(TlsMode::VerifyFull);
        let (config, _) = connector(&db, &Secret::new("postgres://u@localhost/x?connect_timeout=9")).unwrap();
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(9)));
        assert_eq!(config.get_application_name(), Some("dalp-indexer"));
        assert_eq!(config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn a_bad_file_of_authorities_is_named() {
        let mut db = database(TlsMode::VerifyFull);
        for (path, why) in [("/nonexistent/ca.pem", "/nonexistent/ca.pem"), ("/dev/null", "holds no PEM certificate")] {
            db.ca_file = Some(path.into());
            let error = connector(&db, &Secret::new("postgres://u:HUNTER2@db.example/x")).err().unwrap();
            assert_eq!(error.fault, ConnectFault::Config);
            assert!(error.to_string().contains(why) && !error.to_string().contains("HUNTER2"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named_with_the_next_step() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = Secret::new(format!("postgres://u:HUNTER2@127.0.0.1:{port}/x"));
        let error = connect_direct(&database(TlsMode::VerifyFull), &url).await.err().unwrap();
        assert_eq!(error.fault, ConnectFault::Unreachable);
        assert!(error.fault.is_transient());
        let text = error.to_string();
        assert!(text.contains(&format!("postgres://127.0.0.1:{port}: connection refused")), "{text}");
        assert!(!text.contains("HUNTER2"), "{text}");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Secret::new(format!("postgres://u@127.0.0.1:{}/x", listener.local_addr().unwrap().port()));
        let mut db = database(TlsMode::VerifyFull);
        db.connect_timeout = Duration::from_millis(50);
        let error = connect_direct(&db, &url).await.err().unwrap();
        assert!(error.to_string().contains("no answer within 100ms"), "{error}");
    }

    #[test]
    fn advice_for_the_usual_troubles() {
        for (code, message, expected) in [
            (SqlState::DISK_FULL, "", "disk is full"),
            (SqlState::READ_ONLY_SQL_TRANSACTION, "", "standby"),
            (SqlState::ADMIN_SHUTDOWN, "", "shut down"),
            (SqlState::TOO_MANY_CONNECTIONS, "", "max_connections"),
            (SqlState::UNDEFINED_TABLE, "", "dalp-indexer migrate"),
            (SqlState::CHECK_VIOLATION, "no partition of relation \"logs\" found for row", "No partition covers"),
        ] {
            assert!(advice(&code, message).is_some_and(|advice| advice.contains(expected)), "{code:?}");
        }
        assert!(regrant("permission denied for table chain_state").contains("GRANT the right ON table chain_state TO"));
        assert_eq!(advice(&SqlState::CHECK_VIOLATION, "new row violates check constraint"), None);
    }
}
