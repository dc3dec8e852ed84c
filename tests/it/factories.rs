//! Contracts that other contracts announce, and contracts that operators add while the indexer runs.

use std::io::Write as _;

use alloy::primitives::{Address, B256, keccak256};
use alloy::sol_types::SolCall as _;
use dalp_fixtures::contracts::Burst;
use dalp_fixtures::{Anvil, Deployed, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::{Site, said};
use dalp_tests::stage::{Database, anvil, stage, until};
use dalp_tests::traffic::caught_up;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio_postgres::Client;

use crate::{contracts, plant};

/// A factory of factories.
struct Wood {
    anvil: Anvil,
    root: Address,
    agent: Address,
    abis: [NamedTempFile; 3],
}

/// A log: its contract, its topics and its data.
type Emitted = (Address, Vec<B256>, Vec<u8>);

const ABIS: [&str; 3] = [
    "event Opened(address indexed branch, uint256 number)",
    "event Grew(uint8 note, address leaf)\nevent Grew(address leaf)",
    "event Ping(uint256 number)",
];

fn word(number: u64) -> Vec<u8> {
    contracts::word(number).to_vec()
}

fn branch(number: u8) -> Address {
    Address::repeat_byte(0xb0 + number)
}

fn leaf(number: u8) -> Address {
    Address::repeat_byte(0x10 + number)
}

fn grew(by: Address, leaf: Address) -> Emitted {
    (by, vec![keccak256("Grew(uint8,address)")], [word(7), leaf.into_word().to_vec()].concat())
}

fn ping(by: Address, number: u64) -> Emitted {
    (by, vec![keccak256("Ping(uint256)")], word(number))
}

impl Wood {
    async fn new() -> Self {
        let anvil = anvil().await;
        let Deployed { burst: root, agents, .. } = deploy(anvil.rpc()).await.unwrap();
        let abis = ABIS.map(|abi| {
            let mut file = NamedTempFile::new().unwrap();
            file.write_all(abi.as_bytes()).unwrap();
            file
        });
        let wood = Self { anvil, root, agent: agents[0], abis };
        for number in 0..8 {
            for address in [branch(number), leaf(number)] {
                plant(wood.anvil.rpc(), root, address).await;
            }
        }
        wood
    }

    fn opened(&self, branch: Address) -> Emitted {
        (self.root, vec![keccak256("Opened(address,uint256)"), branch.into_word()], word(1))
    }

    /// Emits these logs in one block, in this order.
    async fn emit(&self, logs: impl IntoIterator<Item = Emitted>) {
        let rpc = self.anvil.rpc();
        rpc.set_automine(false).await.unwrap();
        for (to, topics, data) in logs {
            let call = Burst::emitRawCall { topics, data: data.into() }.abi_encode();
            let transaction =
                json!([{ "from": self.agent, "to": to, "data": alloy::hex::encode_prefixed(call), "gas": "0x30000" }]);
            let _: B256 = rpc.call("eth_sendTransaction", transaction).await.unwrap();
        }
        rpc.mine(1, 1).await.unwrap();
        rpc.set_automine(true).await.unwrap();
    }

    /// The factory, the factories that it announces, and what these announce.
    fn sections(&self) -> String {
        let [root, branch, leaf] = self.abis.each_ref().map(|file| file.path().to_owned());
        format!(
            "[contracts.root]\nabi = [{root:?}]\naddresses = [\"{}\"]\n\
             [contracts.branch]\nabi = [{branch:?}]\nfactory = {{ contract = \"root\", event = \"Opened\", parameter = \"branch\" }}\n\
             [contracts.leaf]\nabi = [{leaf:?}]\nfactory = {{ contract = \"branch\", event = \"Grew(uint8,address)\", parameter = \"leaf\" }}\n",
            self.root
        )
    }

    fn site(&self, database: &Database) -> Site {
        Site { more: self.sections(), ..Site::new(database, &self.anvil.http_url()) }
    }
}

async fn rows(client: &Client, sql: &str) -> Vec<String> {
    contracts::rows(client, sql).await.iter().map(|row| row.trim_matches(['(', ')']).to_owned()).collect()
}

const PINGS: &str = "SELECT number FROM dalp_indexed.leaf_ping ORDER BY block_number, log_index";
const FOUND: &str =
    "SELECT kind, encode(address, 'hex') FROM dalp_indexed.contract WHERE found_from IS NOT NULL ORDER BY 1, 2";

fn named(kind: &str, address: Address) -> String {
    format!("{kind},{}", alloy::hex::encode(address))
}

/// Logs before the announcement, in the same block, count; those of strangers never do.
#[test]
fn contracts_that_a_factory_announces_are_indexed_until_a_reorg_takes_them_back() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        let site = wood.site(&database);
        let service = Service::start(&site.config()).await.unwrap();
        wood.emit([ping(leaf(1), 1), grew(branch(1), leaf(1)), wood.opened(branch(1)), ping(leaf(1), 2)]).await;
        // A stranger announces a stranger; the announced leaf is no factory; nobody announces by another event.
        let other = (branch(1), vec![keccak256("Grew(address)")], leaf(4).into_word().to_vec());
        wood.emit([grew(branch(3), leaf(3)), ping(leaf(3), 90), grew(leaf(1), leaf(2)), ping(leaf(2), 91), other])
            .await;
        wood.emit([ping(leaf(1), 3), ping(leaf(4), 92)]).await;
        caught_up(&database, &wood.anvil).await;
        let client = database.superuser().await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3"]);
        assert_eq!(rows(&client, FOUND).await, [named("branch", branch(1)), named("leaf", leaf(1))]);

        // Orphans announce nothing; on the new branch, the same contracts are strangers again.
        wood.emit([wood.opened(branch(2)), grew(branch(2), leaf(5)), ping(leaf(5), 4)]).await;
        wood.emit([grew(branch(1), leaf(6)), ping(leaf(6), 5)]).await;
        caught_up(&database, &wood.anvil).await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3", "4", "5"]);
        wood.anvil.rpc().reorg(2).await.unwrap();
        wood.emit([ping(leaf(5), 93), grew(branch(2), leaf(5)), ping(leaf(6), 94), ping(leaf(1), 6)]).await;
        caught_up(&database, &wood.anvil).await;
        until("the new branch", || async { rows(&client, PINGS).await == ["1", "2", "3", "6"] }).await;
        assert_eq!(rows(&client, FOUND).await, [named("branch", branch(1)), named("leaf", leaf(1))]);
        wood.emit([grew(branch(1), leaf(6)), ping(leaf(6), 7)]).await;
        caught_up(&database, &wood.anvil).await;
        service.stop().await;

        // After a restart, they are known from the start: also after an update of the schema, whose version is the first one.
        client.batch_execute("UPDATE dalp_indexed.chain_state SET contracts = 1").await.unwrap();
        let service = Service::start(&site.config()).await.unwrap();
        wood.emit([ping(leaf(6), 8), ping(leaf(5), 95)]).await;
        caught_up(&database, &wood.anvil).await;
        service.stop().await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3", "6", "7", "8"]);
        said(&site, &["verify"], 0);
        client.batch_execute("DELETE FROM dalp_indexed.leaf_ping WHERE number = 7").await.unwrap();
        assert!(said(&site, &["verify"], 1).contains("leaf_ping"));
        said(&site, &["repair"], 0);
        said(&site, &["verify"], 0);
        let listed = said(&site, &["contracts", "list", "--kind", "leaf"], 0);
        assert!(listed.contains(&leaf(6).to_string()) && listed.contains("found"), "{listed}");
    });
}

/// History comes newest first: a contract is found after most of its logs are stored.
#[test]
fn contracts_that_are_found_late_get_the_logs_that_are_stored() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        wood.emit([wood.opened(branch(1)), ping(leaf(1), 90)]).await;
        wood.emit([grew(branch(1), leaf(1)), ping(leaf(1), 1)]).await;
        for number in 2..8 {
            wood.anvil.rpc().mine(300, 1).await.unwrap();
            wood.emit([ping(leaf(1), number), ping(leaf(2), 91)]).await;
        }
        let site =
            wood.site(&database).with("finality = \"depth:3\"").with("range_blocks = 10").with("max_range_blocks = 50");
        let service = Service::start(&site.config()).await.unwrap();
        let status = service.status();
        until("ready", || async { status.borrow()[0].ready }).await;
        service.stop().await;
        let client = database.superuser().await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3", "4", "5", "6", "7"]);
        said(&site, &["verify"], 0);
    });
}

/// A factory that is configured late: its children, and theirs, are found in the stored logs.
#[test]
fn a_factory_that_is_added_later_finds_its_contracts_in_stored_logs() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        let plain = Site { more: String::new(), ..wood.site(&database) };
        let service = Service::start(&plain.config()).await.unwrap();
        wood.emit([ping(leaf(1), 1), grew(branch(1), leaf(1)), wood.opened(branch(1))]).await;
        wood.emit([ping(leaf(1), 2), grew(branch(1), leaf(2)), ping(leaf(3), 90)]).await;
        wood.emit([ping(leaf(2), 3)]).await;
        caught_up(&database, &wood.anvil).await;
        service.stop().await;

        let site = wood.site(&database);
        let service = Service::start(&site.config()).await.unwrap();
        let status = service.status();
        let client = database.superuser().await;
        until("all is decoded", || async { status.borrow()[0].ready && rows(&client, PINGS).await.len() == 3 }).await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3"]);
        wood.emit([ping(leaf(2), 4)]).await;
        caught_up(&database, &wood.anvil).await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3", "4"]);
        service.stop().await;
        said(&site, &["verify"], 0);

        // Without the factory, nothing more is announced; what was found stays.
        let [_, branch_abi, leaf_abi] = wood.abis.each_ref().map(|file| file.path().to_owned());
        let more = format!("[contracts.branch]\nabi = [{branch_abi:?}]\n[contracts.leaf]\nabi = [{leaf_abi:?}]\n");
        let fewer = Site { more, ..site.clone() };
        let service = Service::start(&fewer.config()).await.unwrap();
        wood.emit([grew(branch(1), leaf(3)), ping(leaf(3), 91), ping(leaf(1), 5)]).await;
        caught_up(&database, &wood.anvil).await;
        service.stop().await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3", "4", "5"]);
    });
}

/// By the command or in SQL: both are taken up by a running indexer, with their past.
#[test]
fn contracts_are_added_and_removed_while_the_indexer_runs() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        let abi = wood.abis[2].path().to_owned();
        let site = Site { more: format!("[contracts.leaf]\nabi = [{abi:?}]\n"), ..wood.site(&database) };
        wood.emit([ping(leaf(1), 1), ping(leaf(2), 2)]).await;
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &wood.anvil).await;
        let client = database.superuser().await;
        assert_eq!(rows(&client, PINGS).await, [""; 0]);
        let one = leaf(1).to_string();
        assert!(said(&site, &["contracts", "add", "--kind", "leaf", &one], 0).contains("1 of 1 is new"));
        assert!(said(&site, &["contracts", "add", "--kind", "leaf", &one], 0).contains("0 of 1 are new"));
        until("its past", || async { rows(&client, PINGS).await == ["1"] }).await;
        wood.emit([ping(leaf(1), 3), ping(leaf(2), 4)]).await;
        caught_up(&database, &wood.anvil).await;
        assert_eq!(rows(&client, PINGS).await, ["1", "3"]);
        let sql = format!(
            "INSERT INTO dalp_indexed.indexed_contracts (chain_id, address, kind) VALUES (31337, '\\x{}', 'leaf')",
            alloy::hex::encode(leaf(2))
        );
        client.batch_execute(&sql).await.unwrap();
        until("its past", || async { rows(&client, PINGS).await == ["1", "2", "3", "4"] }).await;
        let listed = said(&site, &["contracts", "list", "--json"], 0);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(
            listed["contracts"][1],
            json!({
                "chain": "it", "kind": "leaf", "address": leaf(2).to_checksum(None), "start_block": 0, "end_block": null, "origin": "given", "undecoded_to": null,
            })
        );

        said(&site, &["contracts", "remove", "--kind", "leaf", &one], 0);
        said(&site, &["contracts", "remove", "--kind", "leaf", &one], 1);
        let left = "SELECT encode(address, 'hex') FROM dalp_indexed.contract";
        until("its removal", || async { rows(&client, left).await == [alloy::hex::encode(leaf(2))] }).await;
        wood.emit([ping(leaf(1), 90), ping(leaf(2), 5)]).await;
        caught_up(&database, &wood.anvil).await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3", "4", "5"]);
        assert!(said(&site, &["contracts", "add", "--kind", "tree", &one], 2).contains("[contracts.tree]"));
        let narrow = site.clone().with(&format!("addresses = [\"{}\"]", leaf(2)));
        assert!(said(&narrow, &["contracts", "add", "--kind", "leaf", &one], 2).contains("chains.it.addresses"));
        service.stop().await;
    });
}

/// A proxy is of its kind until it is upgraded, and of the next one from then on: rows outside its blocks go, and come with other blocks.
#[test]
fn a_contract_may_be_of_a_kind_up_to_a_block() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        let abi = wood.abis[2].path().to_owned();
        let (more, address) = (format!("[contracts.leaf]\nabi = [{abi:?}]\n"), leaf(1).to_string());
        let site = Site { more, ..wood.site(&database) };
        wood.emit([ping(leaf(1), 1)]).await;
        let last = wood.anvil.rpc().block_number().await.unwrap();
        wood.emit([ping(leaf(1), 2)]).await;
        let service = Service::start(&site.config()).await.unwrap();
        let client = database.superuser().await;
        let add = async |from: u64, to: Option<u64>, expected: &[&str]| {
            let (from, to) = (from.to_string(), to.map(|to| to.to_string()));
            let to = to.as_ref().map_or(vec![], |to| vec!["--to", to]);
            said(&site, &[&["contracts", "add", "--kind", "leaf", "--from", &from, &address], &to[..]].concat(), 0);
            until("its rows", || async { rows(&client, PINGS).await == expected }).await;
        };
        add(0, None, &["1", "2"]).await;
        add(0, Some(last), &["1"]).await;
        wood.emit([ping(leaf(1), 3)]).await;
        caught_up(&database, &wood.anvil).await;
        assert_eq!(rows(&client, PINGS).await, ["1"]);
        said(&site, &["verify"], 0);
        add(0, Some(last + 1), &["1", "2"]).await;
        add(last + 1, None, &["2", "3"]).await;
        said(&site, &["verify"], 0);
        add(last + 100, None, &[]).await;
        add(0, None, &["1", "2", "3"]).await;
        service.stop().await;

        let early = ["contracts", "add", "--kind", "leaf", "--from", "5", "--to", "4", &address];
        assert!(said(&site, &early, 2).contains("--to 4 is before --from 5"));
        let ended = format!("addresses = [{address:?}]\nstart_block = 0\nend_block = {last}\n");
        let ended = Site { more: format!("{}{ended}", site.more), ..site.clone() };
        client.batch_execute("DELETE FROM dalp_indexed.indexed_contracts").await.unwrap();
        let service = Service::start(&ended.config()).await.unwrap();
        until("its rows", || async { rows(&client, PINGS).await == ["1"] }).await;
        service.stop().await;
        let wrong = Site { more: ended.more.replace("start_block = 0", "start_block = 900"), ..ended };
        assert!(said(&wrong, &["config", "check"], 2).contains("it is before start_block, which is 900"));
        let nobody = Site { more: wrong.more.replace(&format!("addresses = [{address:?}]\n"), ""), ..wrong };
        assert!(said(&nobody, &["config", "check"], 2).contains("the section's addresses, and there are none"));
    });
}

/// An announcement counts although the contract is known by then, and is left when nobody gives the contract any more.
#[test]
fn a_contract_that_is_given_and_announced_stays_when_it_is_given_no_more() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        let service = Service::start(&wood.site(&database).config()).await.unwrap();
        let client = database.superuser().await;
        let given = format!("31337, '\\x{}', 'leaf'", alloy::hex::encode(leaf(1)));
        let give = format!("INSERT INTO dalp_indexed.indexed_contracts (chain_id, address, kind) VALUES ({given})");
        client.batch_execute(&give).await.unwrap();
        let is = async |given: &str, found: &str| {
            let sql = format!(
                "SELECT FROM dalp_indexed.contract WHERE kind = 'leaf' AND given_from IS {given} NULL AND found_from IS {found} NULL"
            );
            until("the contract to be recorded", || async { client.query(&sql, &[]).await.unwrap().len() == 1 }).await;
        };
        is("NOT", "").await;
        wood.emit([ping(leaf(1), 1), wood.opened(branch(1)), grew(branch(1), leaf(1))]).await;
        is("NOT", "NOT").await;
        client.batch_execute("DELETE FROM dalp_indexed.indexed_contracts").await.unwrap();
        is("", "NOT").await;
        wood.emit([ping(leaf(1), 2)]).await;
        caught_up(&database, &wood.anvil).await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2"]);
        service.stop().await;
    });
}

/// A last block that is given ends an announced contract, and goes with the giving: what was left out comes, and earlier rows stay.
#[test]
fn a_given_end_holds_for_an_announced_contract_until_it_is_given_no_more() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        let service = Service::start(&wood.site(&database).config()).await.unwrap();
        let client = database.superuser().await;
        let last = wood.anvil.rpc().block_number().await.unwrap() + 1;
        let give = format!(
            "INSERT INTO dalp_indexed.indexed_contracts (chain_id, address, kind, end_block) VALUES (31337, '\\x{}', 'leaf', {last})",
            alloy::hex::encode(leaf(1))
        );
        client.batch_execute(&give).await.unwrap();
        let is_given = "SELECT FROM dalp_indexed.contract WHERE kind = 'leaf' AND given_from IS NOT NULL";
        let given = async |rows| {
            until("the contract to be recorded", || async { client.query(is_given, &[]).await.unwrap().len() == rows })
                .await;
        };
        given(1).await;
        wood.emit([ping(leaf(1), 1)]).await;
        assert_eq!(wood.anvil.rpc().block_number().await.unwrap(), last);
        wood.emit([ping(leaf(1), 2), wood.opened(branch(1)), grew(branch(1), leaf(1))]).await;
        wood.emit([ping(leaf(1), 3)]).await;
        caught_up(&database, &wood.anvil).await;
        assert_eq!(rows(&client, PINGS).await, ["1"]);
        client.batch_execute("DELETE FROM dalp_indexed.indexed_contracts").await.unwrap();
        given(0).await;
        until("the rows after the end", || async { rows(&client, PINGS).await == ["1", "2", "3"] }).await;
        wood.emit([ping(leaf(1), 4)]).await;
        caught_up(&database, &wood.anvil).await;
        assert_eq!(rows(&client, PINGS).await, ["1", "2", "3", "4"]);
        service.stop().await;
    });
}

#[test]
fn factories_that_cannot_work_are_explained() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        let site = wood.site(&database);
        let sections = wood.sections();
        for (old, new, key, why) in [
            ("\"root\"", "\"rot\"", "contracts.branch.factory.contract", "no section [contracts.rot]"),
            ("\"Opened\"", "\"Closed\"", "contracts.branch.factory", "its events are Opened"),
            (
                "parameter = \"branch\"",
                "parameter = \"number\"",
                "contracts.branch.factory",
                "number is no address of the event Opened",
            ),
            ("event = \"Opened\", ", "", "contracts.branch.factory", "it needs contract, event and parameter"),
            (
                "contract = \"root\", event = \"Opened\"",
                "contract = \"leaf\", event = \"Ping\"",
                "contracts.branch.factory",
                "branch by leaf by branch",
            ),
        ] {
            let more = sections.replacen(old, new, 1);
            assert_ne!(more, sections);
            let told = said(&Site { more, ..site.clone() }, &["config", "check"], 2);
            assert!(told.contains(key) && told.contains(why), "{told}");
        }
        for (line, why) in [
            (format!("addresses = [\"{}\"]", wood.root), "remove chains.it.addresses"),
            ("raw = false".to_owned(), "chains.it.raw = true"),
        ] {
            let told = said(&site.clone().with(&line), &["config", "check"], 2);
            assert!(told.contains("contracts.root") && told.contains(why), "{told}");
        }
        // By the command, too.
        let bare = sections.replace(&format!("addresses = [\"{}\"]", wood.root), "");
        let bare = Site { more: bare, ..site.clone() }.with("raw = false");
        said(&bare, &["config", "check"], 0);
        let told = said(&bare, &["contracts", "add", "--kind", "root", &wood.root.to_string()], 2);
        assert!(told.contains("chains.it.raw = false") && told.contains("discover = false"), "{told}");
        let wrong = sections.replace(&wood.root.to_string(), &wrong_digit(wood.root));
        let told = said(&Site { more: wrong, ..site }, &["config", "check"], 2);
        assert!(told.contains("contracts.root.addresses") && told.contains("checksum"), "{told}");
    });
}

/// The address with its checksum, and another last digit.
fn wrong_digit(address: Address) -> String {
    let mut text = address.to_checksum(None);
    let last = text.pop().unwrap();
    text.push(if last == '1' { '2' } else { '1' });
    text
}

/// A system of DALP is indexed by naming the factory of systems alone.
#[test]
fn a_system_is_found_from_its_factory() {
    dalp_tests::run(async {
        let (database, wood) = (stage().await.database().await, Wood::new().await);
        let more = format!("[contracts.systems]\nkind = \"system_factory\"\naddresses = [\"{}\"]\n", wood.root);
        let site = Site { more, ..Site::new(&database, &wood.anvil.http_url()) };
        let service = Service::start(&site.config()).await.unwrap();
        let [system, registry, factory, token] = [branch(1), branch(2), branch(3), leaf(1)];
        let (by, person) = (leaf(7).into_word(), leaf(6).into_word());
        let created = [keccak256("ATKSystemCreated(address,address,address)"), by, system.into_word(), by];
        let signature = format!("Bootstrapped({})", ["address"; 12].join(","));
        let proxies: Vec<u8> = (0..9).flat_map(|at| if at == 5 { registry.into_word().0 } else { person.0 }).collect();
        let bootstrapped = vec![keccak256(signature), by, person, person];
        let registered = "TokenFactoryRegistered(address,string,bytes32,address,address,address,bytes4[],uint256)";
        let none = [word(0), word(0)].concat();
        let heads = [word(7 * 32), word(1), factory.into_word().to_vec(), word(2), word(3), word(8 * 32), word(4)];
        let registered = (registry, vec![keccak256(registered), by], [heads.concat(), none].concat());
        let asset = "TokenAssetCreated(address,address,address,bytes4[],address)";
        let asset = vec![keccak256(asset), by, token.into_word(), leaf(2).into_word()];
        let asset = (factory, asset, [word(64), by.to_vec(), word(0)].concat());
        let transfer = |amount| (token, crate::transfer(Address::ZERO, leaf(6)), word(amount));
        wood.emit([(wood.root, created.to_vec(), vec![]), transfer(1)]).await;
        wood.emit([transfer(2), asset, registered, (system, bootstrapped, proxies)]).await;
        wood.emit([transfer(3), (leaf(3), crate::transfer(Address::ZERO, leaf(6)), word(90))]).await;
        caught_up(&database, &wood.anvil).await;
        let client = database.superuser().await;
        let amounts = "SELECT value FROM dalp_indexed.smart_token_transfer ORDER BY block_number, log_index";
        assert_eq!(rows(&client, amounts).await, ["2", "3"], "from the block of its announcement on");
        assert_eq!(rows(&client, "SELECT count(*) FROM dalp_indexed.erc20_transfer").await, ["4"]);
        let quarantined = "SELECT decoder, reason FROM dalp_indexed.quarantine";
        assert_eq!(rows(&client, quarantined).await, [""; 0]);
        service.stop().await;
    });
}
