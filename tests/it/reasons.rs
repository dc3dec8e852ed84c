//! A database that does not let us in, on a server with passwords, over TCP: each command gives the server's own reason and the next step.

use std::process::Output;

use dalp_fixtures::Settings;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{ADMIN, OwnServer, READER, WRITER, stage};

/// The pool's message without a better one.
const NO_REASON: &str = "came free";
fn each(site: &Site, change: impl Fn(&str) -> String) -> Site {
    let mut site = site.clone();
    (site.url, site.admin_url, site.reader_url) =
        (change(&site.url), change(&site.admin_url), change(&site.reader_url));
    site
}

fn refused(site: &Site, output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(!said.contains(NO_REASON), "{said}");
    for url in [&site.url, &site.admin_url, &site.reader_url] {
        assert!(password(url).is_empty() || !said.contains(password(url)), "{said}");
    }
}

/// From a URL; empty if it has none.
fn password(url: &str) -> &str {
    let login = url.trim_start_matches("postgres://").split('@').next().unwrap();
    login.split_once(':').map_or("", |(_, password)| password)
}

const COMMANDS: [&str; 3] = ["run", "migrate", "status"];

#[test]
fn who_is_not_let_in_hears_the_servers_own_reason_and_the_next_step() {
    dalp_tests::run(async {
        let server = OwnServer::start(Settings::devnet()).await;
        let database = stage().await.database().await;
        let mut site = Site::new(&database, "http://127.0.0.1:9");
        (site.url, site.admin_url, site.reader_url) = (server.url(WRITER), server.url(ADMIN), server.url(READER));
        let wrong = each(&site, |url| url.replace(password(url), "not-the-password"));
        let none = each(&site, |url| url.replace(&format!(":{}@", password(url)), "@"));
        let nowhere = each(&site, |url| format!("{}/no_such", url.rsplit_once('/').unwrap().0));
        let over_tls = each(&site, |url| format!("{url}?sslmode=verify-full"));
        for command in COMMANDS {
            refused(
                &wrong,
                &wrong.call(&[command]),
                &["password authentication failed for user \"it_", "the password of the URL"],
            );
            refused(
                &none,
                &none.call(&[command]),
                &["asks for a password", "postgres://user:password@host:port/database"],
            );
            let words = ["database \"no_such\" does not exist", "CREATE DATABASE \"no_such\""];
            refused(&nowhere, &nowhere.call(&[command]), &words);
            refused(&over_tls, &over_tls.call(&[command]), &["the server offers no TLS", "sslmode=disable"]);
        }
        // The advice works for any database.tls.
        let mut advised = each(&site, |url| format!("{url}?sslmode=disable"));
        advised.database_lines.push("tls = \"verify-full\"".into());
        let output = advised.call(&["status"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}
