//! anvil-compose.yml, checked by the Compose schema and by the indexer's own rules. No container is started.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::{Command, Output};

use dalp_indexer::config::{Config, Finality};
use dalp_tests::stage::end_of;
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::watch;

const FILE: &str = "anvil-compose.yml";

fn parse(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{FILE}: {error}"))
}

fn compose() -> Value {
    parse(&crate::text(FILE))
}

fn services(file: &Value) -> &Map<String, Value> {
    file["services"].as_object().expect("services is a map")
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().map(|items| items.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn schema() -> Validator {
    let mut schema: Value = serde_json::from_str(&crate::text("tests/schemas/compose-spec.json")).expect("JSON");
    // The schema names its draft by an address of no draft; it uses only draft 7.
    schema.as_object_mut().expect("a map").remove("$schema");
    jsonschema::options().with_draft(Draft::Draft7).build(&schema).expect("a schema")
}

#[test]
fn it_follows_the_compose_specification() {
    let (schema, file) = (schema(), compose());
    let errors: Vec<String> = schema.iter_errors(&file).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{FILE}: {errors:#?}");
    for (from, to) in [("healthcheck:", "healthchek:"), ("[migrate]", "{migrate: 1}"), ("service_healthy", "healthy")] {
        let wrong = parse(&crate::text(FILE).replace(from, to));
        assert!(!schema.is_valid(&wrong), "the schema lets {to} pass");
    }
}

/// Services that others wait for until they have ended.
fn one_shot(file: &Value) -> BTreeSet<&str> {
    let dependencies = services(file).values().filter_map(|service| service["depends_on"].as_object()).flatten();
    let ended = dependencies.filter(|(_, on)| on["condition"] == "service_completed_successfully");
    ended.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn every_service_says_when_it_is_healthy_or_ends() {
    let file = compose();
    let one_shot = one_shot(&file);
    for (name, service) in services(&file) {
        let checked = !list(&service["healthcheck"]["test"]).is_empty();
        assert!(checked != one_shot.contains(name.as_str()), "{name}: a health check, or one-shot, and not both");
        for (dependency, on) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services(&file).contains_key(dependency), "{name} depends on {dependency}, which there is not");
            assert_ne!(on["condition"], "service_started", "{name}: started is not ready");
        }
    }
}

#[test]
fn every_port_is_published_on_loopback_only() {
    let file = compose();
    let ports = services(&file).values().flat_map(|service| list(&service["ports"])).collect::<Vec<_>>();
    assert_eq!(ports.len(), 3, "Anvil, PostgreSQL and the indexer: {ports:?}");
    for port in ports {
        assert!(port.starts_with("127.0.0.1:") && port.split(':').count() == 3, "{port} is open to the network");
    }
}

#[test]
fn every_image_is_pinned() {
    for (name, service) in services(&compose()) {
        let image = service["image"].as_str().expect("an image");
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image} has no tag of its own");
    }
}

/// `text` with `${NAME:-default}` replaced as Compose does where NAME is not set.
fn with_defaults(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (inside, after) = rest.split_once('}').expect("a closed ${…}");
    let (_, default) = inside.split_once(":-").unwrap_or_else(|| panic!("${{{inside}}} has no default"));
    format!("{before}{default}{}", with_defaults(after))
}

#[test]
fn the_indexer_accepts_its_environment() {
    let file = compose();
    let built = services(&file).iter().filter(|(_, service)| service.get("build").is_some());
    let mut commands = BTreeSet::new();
    for (name, service) in built {
        commands.extend(list(&service["command"]));
        let environment = service["environment"].as_object().expect("a map");
        let value =
            |value: &Value| with_defaults(value.as_str().unwrap_or_else(|| panic!("{name}: {value} is not text")));
        let settings = environment.iter().map(|(name, text)| (name.clone(), value(text)));
        let config = Config::load(None, settings).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        assert_eq!((config.chains.len(), config.chains[0].finality), (1, Finality::Never));
        assert_eq!(config.http.listen.map(|at| (at.ip().is_unspecified(), at.port())), Some((true, 9464)));
        for url in [&config.database.url, &config.chains[0].rpc_urls[0], &config.chains[0].ws_urls[0]] {
            let host = url.expose().split("//").nth(1).and_then(|rest| rest.rsplit('@').next());
            let host = host.and_then(|rest| rest.split([':', '/']).next()).unwrap_or_default();
            assert!(services(&file).contains_key(host), "{name}: {host} is not a service");
        }
    }
    assert_eq!(commands, BTreeSet::from(["migrate", "run"]));
}

#[test]
fn the_image_is_built_with_the_workspaces_compiler() {
    let dockerfile = crate::text(compose()["services"]["indexer"]["build"]["dockerfile"].as_str().expect("a path"));
    let manifest = crate::text("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a rust-version");
    assert!(dockerfile.contains(&format!("FROM rust:{}-", version.trim_matches('"'))), "the compiler is {version}");
}

/// Runs the image's health check against `port` of this machine.
async fn health(port: u16) -> Output {
    let mut script = Command::new("bash");
    script.arg(crate::root().join("deploy/health.sh")).arg(port.to_string());
    tokio::task::spawn_blocking(move || script.output()).await.expect("a thread").expect("bash")
}

#[tokio::test]
async fn the_health_check_tells_a_living_indexer_from_a_dead_one() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_status, status) = watch::channel(Vec::new());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (tables, tasks) = (tokio::sync::watch::channel(Vec::new()).1, tokio::sync::watch::channel(Vec::new()).1);
    let published = dalp_indexer::api::Published {
        chains: status,
        tables,
        tasks,
        commits: watch::channel(Vec::new()).1,
        timings: dalp_indexer::timings::Timings::default(),
    };
    let server = tokio::spawn(dalp_indexer::api::serve(listener, published, async move { drop(stopped.await) }));
    let living = health(port).await;
    assert!(living.status.success(), "{living:?}");
    drop(stop);
    end_of("the server to end", server).await.unwrap().unwrap();
    assert!(!health(port).await.status.success());
}

#[test]
fn defaults_are_put_in_as_compose_does() {
    assert_eq!(with_defaults("a${B:-c}d${E:-}f"), "acdf");
    assert_eq!(with_defaults("plain"), "plain");
}
