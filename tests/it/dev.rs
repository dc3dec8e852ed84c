//! `dev` with a given node and database: nothing is removed before both have answered, and its advice works.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use alloy::primitives::{Address, U256};
use dalp_fixtures::contracts::{
    ASSET_TOKEN, AssetToken, BURST, IDENTITY_REGISTRY, IdentityRegistry, Proxy, deploy_proxy,
};
use dalp_fixtures::tools;
use dalp_fixtures::{Anvil, AnvilOptions, Deployed, deploy};
use dalp_tests::indexer::{Site, command};
use dalp_tests::stage::{ADMIN, Database, anvil, anvil_with, end_of, stage, until_shown};
use dalp_tests::traffic::{burst, send};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::caught_up;
use crate::contracts::rows;

fn dev(home: &Path, arguments: &[&str]) -> Command {
    let mut command = command(&[&["dev"], arguments].concat());
    // Of two devnets that start at the same moment, both would take the usual port.
    command.env("DALP_HOME", home).env("DALP_HTTP__LISTEN", "127.0.0.1:0");
    // As the other servers of this run.
    command.envs(std::env::var_os("DALP_TOOLS").map(|tools| ("DALP_TOOLS", tools)));
    command
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn nothing_is_removed_before_what_is_given_has_answered_and_no_url_is_shown() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let home = tempfile::tempdir().unwrap();
        let kept = home.path().join("dev/kept");
        std::fs::create_dir_all(&kept).unwrap();
        let secret = "4f7c0ffee9d24b1e";
        let right = database.direct_url(ADMIN);
        let nobody = format!("http://u:{secret}@127.0.0.1:9/v2/{secret}?key={secret}");
        let (socket, no_such) = (format!("ws://127.0.0.1:9/{secret}"), right.replace(&database.name, "no_such"));
        let (other, closed) =
            (format!("postgres://u:{secret}@h/d?sslmode=require"), format!("postgres://u:{secret}@127.0.0.1:9/d"));
        for (arguments, code, words) in [
            (vec!["--rpc-url", &nobody], 1, vec!["--rpc-url: http://127.0.0.1:9:", "that a node runs there"]),
            (vec!["--rpc-url", &socket], 2, vec!["--rpc-url", "http:// or https://"]),
            (vec!["--database-url", &other], 2, vec!["--database-url", "verify-full or disable"]),
            (vec!["--database-url", &closed], 1, vec!["--database-url", "connection refused"]),
            (vec!["--database-url", &no_such], 1, vec!["--database-url", "CREATE DATABASE \"no_such\""]),
            (vec!["--database-url", &right, "--rpc-url", &nobody], 1, vec!["--rpc-url: http://127.0.0.1:9:"]),
        ] {
            let output = dev(home.path(), &[&["--fresh"], &arguments[..]].concat()).output().unwrap();
            refused(&output, code, &words);
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(!said.contains(secret), "{said}");
            assert!(kept.exists(), "it went for {arguments:?}");
        }
        // A run that uses nothing of it removes nothing of it, either.
        let all = ["--fresh", "--rpc-url", &anvil.http_url(), "--database-url", &right];
        works(&database, &anvil, home.path(), &all).await;
        assert!(kept.exists());
    });
}

/// It indexes until the stop signal.
async fn works(database: &Database, anvil: &Anvil, home: &Path, arguments: &[&str]) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let out = log.reopen().unwrap();
    let mut command = dev(home, arguments);
    let mut child = command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
    caught_up(database, anvil).await;
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let waited = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let ended = end_of("dev to stop", waited).await.unwrap();
    assert!(ended.success(), "{ended}: {}", std::fs::read_to_string(log.path()).unwrap());
}

#[test]
fn another_chain_in_the_database_is_told_with_what_helps() {
    dalp_tests::run(async {
        let (database, first) = (stage().await.database().await, anvil().await);
        let (home, url) = (tempfile::tempdir().unwrap(), database.direct_url(ADMIN));
        let of =
            |anvil: &Anvil| vec!["--database-url".to_owned(), url.clone(), "--rpc-url".to_owned(), anvil.http_url()];
        let with = |anvil: &Anvil, more: &[&str]| -> Vec<String> {
            more.iter().map(|&word| word.to_owned()).chain(of(anvil)).collect()
        };
        let call = |arguments: &[String]| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            dev(home.path(), &arguments).output().unwrap()
        };
        first.rpc().mine(5, 1).await.unwrap();
        let arguments = of(&first);
        works(&database, &first, home.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        // Restarted: another genesis under the same id.
        let options = AnvilOptions { genesis_timestamp: Some(1_700_000_000), ..AnvilOptions::default() };
        let anew = anvil_with(options).await;
        anew.rpc().mine(3, 1).await.unwrap();
        let told = call(&of(&anew));
        refused(&told, 1, &["was restarted", "Nothing was changed", "`dalp-indexer dev --fresh`"]);
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!said.contains("chains.devnet") && !said.contains("it restarts"), "not what helps here: {said}");
        let advised = with(&anew, &["--fresh"]);
        works(&database, &anew, home.path(), &advised.iter().map(String::as_str).collect::<Vec<_>>()).await;
        // Another id: no row of it is removed, with --fresh or without.
        let other = anvil_with(AnvilOptions { chain_id: 31_338, ..AnvilOptions::default() }).await;
        for more in [&[][..], &["--fresh"]] {
            refused(
                &call(&with(&other, more)),
                1,
                &["holds chain 31337", "serves chain 31338", "CREATE DATABASE", "--rpc-url"],
            );
        }
        let client = database.superuser().await;
        let sql = "SELECT tail_number FROM dalp_indexed.chain_state WHERE chain_id = 31337";
        assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 3);
    });
}

/// A restarted chain whose blocks become final: advice to remove final blocks would end only with all blocks removed, or not even
/// then.
#[test]
fn a_node_that_was_started_anew_is_told_so_by_run_whatever_is_final() {
    dalp_tests::run(async {
        let (database, first) = (stage().await.database().await, anvil().await);
        first.rpc().mine(100, 1).await.unwrap();
        let site = Site::new(&database, &first.http_url()).with("finality = \"tag\"");
        let mut running = site.spawn();
        caught_up(&database, &first).await;
        assert!(running.stop().await.success());
        let options = AnvilOptions { genesis_timestamp: Some(1_700_000_000), ..AnvilOptions::default() };
        let anew = anvil_with(options).await;
        anew.rpc().mine(100, 1).await.unwrap();
        let other = Site { rpc_urls: vec![anew.http_url()], ..site };
        let output = other.call(&["run"]);
        refused(&output, 1, &["was restarted", "`dalp-indexer run --reset-on-chain-change`"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("reindex") && !said.contains("it restarts"), "{said}");
        let mut running = other.start(&["run", "--reset-on-chain-change"], std::process::Stdio::null());
        caught_up(&database, &anew).await;
        assert!(running.stop().await.success(), "{}", running.log());
    });
}

/// The command lines of the processes that name `home`.
fn processes_of(home: &Path) -> Vec<String> {
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|process| {
        let line = std::fs::read(process.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(&home.display().to_string())).collect()
}

/// A new devnet, as for a reader of the README: it names its real parts, and its node's data does not grow for ever.
#[test]
fn a_devnet_says_what_it_uses_and_keeps_a_bounded_number_of_blocks() {
    dalp_tests::run(async {
        let _what_is_installed_for_all = (stage().await, anvil().await);
        let home = tempfile::tempdir().unwrap();
        // As root, PostgreSQL runs as another user, who must get in.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let installed = tools::home().unwrap().join("tools");
        if installed.is_dir() {
            std::os::unix::fs::symlink(installed, home.path().join("tools")).unwrap();
        }
        let log = tempfile::NamedTempFile::new().unwrap();
        let out = log.reopen().unwrap();
        let mut command = dev(home.path(), &[]);
        let mut child = command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        let said = || std::fs::read_to_string(log.path()).unwrap();
        until_shown("the devnet to be announced", || async {
            said().contains("--fresh` starts with").then_some(()).ok_or(said())
        })
        .await;
        let running = processes_of(home.path());
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ended = end_of("dev to stop", tokio::task::spawn_blocking(move || child.wait().unwrap())).await.unwrap();
        let said = said();
        assert!(ended.success(), "{said}");
        let postgres = tools::postgres(|_| {}).await.unwrap();
        let used = format!("starting PostgreSQL {} (", postgres.major);
        for words in [&used, "starting Anvil (", "contracts  bond 0x", "accounts   0x", "of the mnemonic \"test test"] {
            assert!(said.contains(words), "no {words:?} in: {said}");
        }
        assert!(!said.contains("installing PostgreSQL"), "it is there: {said}");
        let anvils: Vec<_> = running.iter().filter(|line| line.contains("chain.json")).collect();
        assert_eq!(anvils.len(), 1, "{running:#?}");
        assert!(anvils[0].contains("--transaction-block-keeper 3600"), "{anvils:?}");
        assert_eq!(processes_of(home.path()), [""; 0], "nothing is left");
    });
}

/// The artefact of a sample contract, as Foundry writes it.
async fn artefact(anvil: &Anvil, folder: &Path, name: &str, artefact: &str, of: Address) {
    let mut artefact: Value = serde_json::from_str(artefact).unwrap();
    let code: String = anvil.rpc().call("eth_getCode", json!([of, "latest"])).await.unwrap();
    artefact["deployedBytecode"] = json!({ "object": code, "linkReferences": {}, "immutableReferences": {} });
    std::fs::create_dir_all(folder.join(format!("{name}.sol"))).unwrap();
    std::fs::write(folder.join(format!("{name}.sol/{name}.json")), artefact.to_string()).unwrap();
}

/// The code of ERC-1167.
fn minimal_proxy(to: Address) -> String {
    format!("0x363d3d373d3d3d363d73{to:x}5af43d82803e903d91602b57fd5bf3")
}

/// `dev` beside a running Anvil, with a user's own project.
struct Beside {
    database: Database,
    anvil: Anvil,
    deployed: Deployed,
    home: tempfile::TempDir,
    out: tempfile::TempDir,
    log: tempfile::NamedTempFile,
    client: tokio_postgres::Client,
}

impl Beside {
    async fn new() -> Self {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let (home, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        artefact(&anvil, out.path(), "AssetToken", ASSET_TOKEN, deployed.tokens[0]).await;
        artefact(&anvil, out.path(), "Burst", BURST, deployed.burst).await;
        let client = database.superuser().await;
        Self { database, anvil, deployed, home, out, log: tempfile::NamedTempFile::new().unwrap(), client }
    }

    fn start(&self) -> std::process::Child {
        let (url, project) = (self.database.direct_url(ADMIN), self.out.path().display().to_string());
        let arguments = ["--database-url", &url, "--rpc-url", &self.anvil.http_url(), "--artifacts", &project];
        let mut command = dev(self.home.path(), &arguments);
        let log = std::fs::OpenOptions::new().append(true).open(self.log.path()).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    async fn stop(&self, mut dev: std::process::Child) {
        kill_process(Pid::from_child(&dev), Signal::TERM).unwrap();
        let ended = end_of("dev to stop", tokio::task::spawn_blocking(move || dev.wait().unwrap())).await.unwrap();
        assert!(ended.success(), "{}", self.said());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    async fn send(&self, to: Address, call: impl alloy::sol_types::SolCall) {
        send(self.anvil.rpc(), &Deployed { burst: to, ..self.deployed.clone() }, call).await;
    }

    /// A proxy with the code of another one, whose constructor emits nothing.
    async fn silent_proxy(&self, as_of: Address, to: Address) -> Address {
        let (rpc, silent) = (self.anvil.rpc(), Address::repeat_byte(0xdd));
        let code: String = rpc.call("eth_getCode", json!([as_of, "latest"])).await.unwrap();
        let _: Value = rpc.call("anvil_setCode", json!([silent, code])).await.unwrap();
        let slot = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc";
        let _: Value = rpc.call("anvil_setStorageAt", json!([silent, slot, to.into_word()])).await.unwrap();
        rpc.mine(1, 1).await.unwrap();
        silent
    }

    /// Transfers by a contract of the kind `burst`, or a proxy for one.
    async fn burst(&self, by: Address, n: u64) {
        burst(self.anvil.rpc(), &Deployed { burst: by, ..self.deployed.clone() }, n, n).await;
    }

    /// The number of rows; -1 without the table.
    async fn count(&self, of: &str) -> i64 {
        let exists = format!("SELECT to_regclass('dalp_indexed.{of}') IS NOT NULL");
        if !self.client.query_one(&exists, &[]).await.unwrap().get::<_, bool>(0) {
            return -1;
        }
        self.client.query_one(&format!("SELECT count(*) FROM dalp_indexed.{of}"), &[]).await.unwrap().get(0)
    }

    /// The kinds of a contract as the indexer knows them, with their blocks.
    async fn kinds(&self, of: Address, expected: &[String]) {
        let sql = format!(
            "SELECT kind || ':' || start_block || ':' || coalesce(end_block::text, '-') FROM dalp_indexed.contract \
             WHERE address = dalp_indexed.hex('{of:#x}') ORDER BY kind"
        );
        until_shown("the kinds of a contract", || async {
            let kinds = rows(&self.client, &sql).await;
            (kinds == expected).then_some(()).ok_or_else(|| format!("{kinds:?}: {}", self.said()))
        })
        .await;
    }

    async fn rows(&self, of: &str, expected: i64) {
        until_shown("the rows of a contract", || async {
            let rows = self.count(of).await;
            (rows == expected).then_some(()).ok_or_else(|| format!("{rows} in {of}: {}", self.said()))
        })
        .await;
    }
}

/// Contracts of a project get tables by their code, proxies by the code behind them, and so do those that are deployed later. A version that
/// is deployed beside an older one has its tables, too, and the older one keeps its own.
#[test]
fn contracts_of_a_project_get_tables_by_their_code() {
    dalp_tests::run(async {
        let beside = Beside::new().await;
        let (anvil, deployed) = (&beside.anvil, &beside.deployed);
        let mint = AssetToken::mintCall { to: Address::repeat_byte(1), amount: U256::from(7) };
        beside.send(deployed.tokens[0], mint).await;
        let dev = beside.start();
        beside.rows("asset_token_mint_completed", 1).await;
        assert_eq!(beside.count("burst_transfer").await, -1, "nothing of its kind has emitted");

        // A proxy, whose code is in none of the files, and a contract with the code of one.
        let later = Address::repeat_byte(0xbb);
        let _: Value = anvil.rpc().call("anvil_setCode", json!([later, minimal_proxy(deployed.burst)])).await.unwrap();
        beside.burst(later, 3).await;
        beside.rows("burst_transfer", 3).await;
        beside.burst(deployed.burst, 2).await;
        beside.rows("burst_transfer", 5).await;
        // A proxy of no standard: the address of its implementation is in slot 0.
        let odd = Address::repeat_byte(0xcc);
        let _: Value = anvil.rpc().call("anvil_setCode", json!([odd, "0x363d3d373d3d363d3d545af45000"])).await.unwrap();
        let slot = json!([odd, "0x0", deployed.burst.into_word()]);
        let _: Value = anvil.rpc().call("anvil_setStorageAt", slot).await.unwrap();
        beside.burst(odd, 4).await;
        beside.rows("burst_transfer", 9).await;

        // The same file after a change, and a contract with the new code.
        artefact(anvil, beside.out.path(), "Burst", IDENTITY_REGISTRY, deployed.identities).await;
        let (investor, identity) = (Address::repeat_byte(5), Address::repeat_byte(6));
        let register = IdentityRegistry::registerIdentityCall { investor, identity, country: 56 };
        beside.send(deployed.identities, register).await;
        beside.rows("burst_identity_registered", 1).await;
        beside.burst(deployed.burst, 1).await;
        beside.rows("burst_transfer", 10).await;
        beside.stop(dev).await;
        let dev = beside.start();
        beside.burst(deployed.burst, 2).await;
        beside.rows("burst_transfer", 12).await;
        assert_eq!(beside.count("burst_identity_registered").await, 1);
        beside.stop(dev).await;
    });
}

/// A proxy is of the kind of its implementation, block by block: both kinds have the same event.
#[test]
fn a_proxy_has_the_kind_of_its_implementation_until_it_is_upgraded() {
    dalp_tests::run(async {
        let beside = Beside::new().await;
        let rpc = beside.anvil.rpc();
        let proxy = deploy_proxy(rpc, beside.deployed.tokens[0]).await.unwrap();
        let transfer = AssetToken::transferCall { to: Address::repeat_byte(1), amount: U256::ZERO };
        beside.send(proxy, transfer.clone()).await;
        let dev = beside.start();
        beside.rows("asset_token_transfer", 1).await;
        let before: Value = rpc.call("evm_snapshot", json!([])).await.unwrap();
        beside.send(proxy, Proxy::upgradeToCall { implementation: beside.deployed.burst }).await;
        beside.burst(proxy, 3).await;
        beside.rows("burst_transfer", 3).await;
        beside.rows("asset_token_transfer", 1).await;
        let upgraded = rpc.block_number().await.unwrap() - 1;
        beside.kinds(proxy, &[format!("(asset_token:0:{})", upgraded - 1), format!("(burst:{upgraded}:-)")]).await;
        // A proxy that was upgraded before anybody looked.
        let other = deploy_proxy(rpc, beside.deployed.burst).await.unwrap();
        beside.burst(other, 2).await;
        beside.send(other, Proxy::upgradeToCall { implementation: beside.deployed.tokens[1] }).await;
        beside.send(other, transfer.clone()).await;
        beside.rows("burst_transfer", 5).await;
        beside.rows("asset_token_transfer", 2).await;

        // One whose first implementation no event tells.
        let silent = beside.silent_proxy(proxy, beside.deployed.tokens[0]).await;
        beside.send(silent, transfer.clone()).await;
        beside.rows("asset_token_transfer", 3).await;
        beside.send(silent, Proxy::upgradeToCall { implementation: beside.deployed.burst }).await;
        let upgraded = rpc.block_number().await.unwrap();
        beside.burst(silent, 4).await;
        beside.rows("burst_transfer", 9).await;
        beside.kinds(silent, &[format!("(asset_token:0:{})", upgraded - 1), format!("(burst:{upgraded}:-)")]).await;
        beside.rows("asset_token_transfer", 3).await;

        // The devnet goes back before all upgrades.
        let _: Value = rpc.call("evm_revert", json!([before])).await.unwrap();
        rpc.mine(20, 1).await.unwrap();
        beside.kinds(proxy, &["(asset_token:0:-)".into(), "(burst:0:0)".into()]).await;
        for gone in [other, silent] {
            beside.kinds(gone, &["(asset_token:0:0)".into(), "(burst:0:0)".into()]).await;
        }
        beside.rows("asset_token_transfer", 1).await;
        beside.rows("burst_transfer", 0).await;
        // Another contract at an address that was taken before.
        let _: Value =
            rpc.call("anvil_setCode", json!([other, minimal_proxy(beside.deployed.tokens[1])])).await.unwrap();
        beside.send(other, transfer.clone()).await;
        beside.send(proxy, transfer).await;
        beside.rows("asset_token_transfer", 3).await;
        beside.kinds(other, &["(asset_token:0:-)".into(), "(burst:0:0)".into()]).await;
        beside.rows("burst_transfer", 0).await;
        beside.stop(dev).await;
    });
}
