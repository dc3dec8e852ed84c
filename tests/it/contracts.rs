//! Contracts of a user's own: their events get tables by their ABI.

use std::io::Write as _;

use alloy::primitives::{Address, B256, U256, keccak256};
use dalp_fixtures::contracts::{ASSET_TOKEN, AssetToken};
use dalp_fixtures::{Deployed, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::{Site, said};
use dalp_tests::stage::{READER, anvil, stage, until};
use dalp_tests::traffic::{caught_up, send};
use tempfile::NamedTempFile;
use tokio_postgres::Client;

use crate::{emit, plant};

/// One parameter of each way into a column.
const BOND: &str = "event Issued(address indexed to, uint256 amount, int16 step, uint64 at, bool open, bytes3 code, string note, bytes proof, (bytes4 tag, int64 delta)[] terms)
event Issued(address to)
event Named(string indexed name, uint8[2] pair)
event Named(string name, uint8[2] pair)
event Paid(uint32 order, uint256 chain_id, address address_, bool)
event Silent(uint8 x) anonymous";

pub fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A section of contracts of the kind `name`.
pub fn section(name: &str, abi: &NamedTempFile, addresses: &[Address]) -> String {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[contracts.{name}]\nabi = [{:?}]\naddresses = [{}]\n", abi.path(), addresses.join(", "))
}

pub fn word(number: u64) -> [u8; 32] {
    U256::from(number).to_be_bytes()
}

/// A short text behind its length, as one value of the data.
pub fn text(of: &[u8]) -> Vec<u8> {
    let mut bytes = word(of.len() as u64).to_vec();
    bytes.extend(of);
    bytes.resize(bytes.len().div_ceil(32) * 32, 0);
    bytes
}

/// The data of `Issued` without its indexed parameter, with this note.
fn issued(amount: U256, note: &[u8]) -> Vec<u8> {
    let (note, proof) = (text(note), text(b"\x01\x02"));
    let mut code = [0; 32];
    code[..3].copy_from_slice(b"abc");
    let head = 8 * 32;
    let mut data = amount.to_be_bytes::<32>().to_vec();
    data.extend([0xff; 31].into_iter().chain([0xfe]));
    data.extend(U256::from(u64::MAX).to_be_bytes::<32>());
    data.extend(word(1));
    data.extend(code);
    data.extend(word(head));
    data.extend(word(head + note.len() as u64));
    data.extend(word(head + (note.len() + proof.len()) as u64));
    data.extend([note, proof].concat());
    // A list of one struct.
    data.extend(word(1));
    data.extend([0xde, 0xad, 0xbe, 0xef].into_iter().chain([0; 28]));
    data.extend([0xff; 32]);
    data
}

/// The rows of a query, each as one text.
pub async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let sql = format!("SELECT t::text FROM ({sql}) AS t");
    let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

const ISSUED: &str = "Issued(address,uint256,int16,uint64,bool,bytes3,string,bytes,(bytes4,int64)[])";

#[test]
fn events_of_a_configured_contract_have_tables_and_those_of_others_have_not() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let other = Deployed { burst: Address::repeat_byte(0xbb), ..deployed.clone() };
        plant(anvil.rpc(), deployed.burst, other.burst).await;
        let (abi, to) = (file(BOND), Address::repeat_byte(9));
        let topics = [keccak256(ISSUED), to.into_word()];
        for from in [&deployed, &other] {
            emit(anvil.rpc(), from, &topics, &issued(U256::MAX, b"fine")).await;
            emit(anvil.rpc(), from, &topics, &issued(U256::ZERO, b"\xff")).await;
            emit(anvil.rpc(), from, &topics[..1], &issued(U256::ZERO, b"")).await;
            emit(anvil.rpc(), from, &topics, &[1; 64]).await;
            let pair = [word(1), word(2)].concat();
            emit(anvil.rpc(), from, &[keccak256("Named(string,uint8[2])"), B256::repeat_byte(7)], &pair).await;
            let named = [word(96).to_vec(), pair.clone(), text(b"x")].concat();
            emit(anvil.rpc(), from, &[keccak256("Named(string,uint8[2])")], &named).await;
            let paid = [word(3), word(4), word(5), word(1)].concat();
            emit(anvil.rpc(), from, &[keccak256("Paid(uint32,uint256,address,bool)")], &paid).await;
        }
        let site = Site::new(&database, &anvil.http_url());
        let site = Site { more: section("bond", &abi, &[deployed.burst]), ..site };
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        let client = database.superuser().await;
        rows_are_right(&client, deployed.burst).await;
        let quarantined =
            rows(&client, "SELECT decoder, reason FROM dalp_indexed.quarantine ORDER BY block_number").await;
        assert_eq!(quarantined.len(), 1, "{quarantined:?}");
        assert_eq!(quarantined[0], "(bond_issued,\"the data ends before a value of its parameters\")");
        for (arguments, shown) in [(&["quarantine"][..], true), (&["quarantine", "--table", "bond_paid"], false)] {
            let told = said(&site, arguments, 0);
            let lines = [&deployed.burst.to_string().to_lowercase(), "the data ends before a value of its parameters"];
            assert!(lines.iter().all(|line| told.contains(*line) == shown), "{told}");
        }
        let told: serde_json::Value = serde_json::from_str(&said(&site, &["quarantine", "--json"], 0)).unwrap();
        assert_eq!((&told["refused"][0]["logs"], &told["newest"][0]["table"]), (&1.into(), &"bond_issued".into()));

        // As any table: they follow the chain's reorgs, the reader reads them, and `verify` compares them.
        anvil.rpc().reorg(3).await.unwrap();
        emit(anvil.rpc(), &deployed, &topics, &issued(U256::from(5), b"after")).await;
        caught_up(&database, &anvil).await;
        let amounts = "SELECT amount FROM dalp_indexed.bond_issued ORDER BY block_number";
        until("the new branch", || async { rows(&client, amounts).await.last().is_some_and(|last| last == "(5)") })
            .await;
        service.stop().await;
        said(&site, &["verify"], 0);
        let reader = database.client(READER).await;
        assert_eq!(rows(&reader, "SELECT count(*) FROM dalp_indexed.retained_bond_issued").await, ["(3)"]);
        client.batch_execute("UPDATE dalp_indexed.bond_issued SET note = 'x' WHERE amount = 5").await.unwrap();
        assert!(said(&site, &["verify"], 1).contains("bond_issued"));
        said(&site, &["repair"], 0);
        said(&site, &["verify"], 0);
        said(&site, &["partitions", "audit"], 0);
    });
}

async fn rows_are_right(client: &Client, emitter: Address) {
    let issued = "SELECT '0x' || encode(address, 'hex'), encode(to_address, 'hex'), amount, step, at, open, encode(code, 'escape'), note, note_bytes, \
                  proof, terms FROM dalp_indexed.bond_issued ORDER BY block_number";
    let to = "09".repeat(20);
    let most = U256::MAX;
    let terms = r#""[{""tag"": ""0xdeadbeef"", ""delta"": ""-1""}]""#;
    let start = format!("({},{to}", emitter.to_string().to_lowercase());
    assert_eq!(
        rows(client, issued).await,
        [
            format!("{start},{most},-2,18446744073709551615,t,abc,fine,,\"\\\\x0102\",{terms})"),
            format!("{start},0,-2,18446744073709551615,t,abc,,\"\\\\xff\",\"\\\\x0102\",{terms})"),
        ]
    );
    let named = "SELECT encode(name_hash, 'hex'), pair FROM dalp_indexed.bond_named";
    assert_eq!(rows(client, named).await, [format!("({},\"[1, 2]\")", "07".repeat(32))]);
    let tables =
        "SELECT relname FROM pg_class WHERE relkind = 'p' AND relname ~ '^bond_[a-z]+(_[0-9a-f]{8})?$' ORDER BY 1";
    let tables = rows(client, tables).await;
    assert_eq!(tables.len(), 5, "an anonymous event has none: {tables:?}");
    let overloaded = tables.iter().find(|name| name.starts_with("(bond_named_")).unwrap();
    let named = format!("SELECT name, pair FROM dalp_indexed.{}", overloaded.trim_matches(['(', ')']));
    assert_eq!(rows(client, &named).await, ["(x,\"[1, 2]\")"]);
    let paid = "SELECT order_arg, chain_id_arg, address_address, arg3 FROM dalp_indexed.bond_paid";
    assert_eq!(rows(client, paid).await, [format!("(3,4,\"\\\\x{:040x}\",t)", 5)]);
    let leaves = "SELECT count(*) <= 2 FROM pg_partition_tree('dalp_indexed.bond_paid') WHERE isleaf";
    assert_eq!(rows(client, leaves).await, ["(t)"]);
    let about = "SELECT obj_description('dalp_indexed.bond_named'::regclass), col_description('dalp_indexed.bond_named'::regclass, 7)";
    let about = rows(client, about).await;
    assert!(
        about[0].contains("Named(string indexed name, uint8[2] pair), emitted by contracts of the kind bond."),
        "{about:?}"
    );
    assert!(about[0].contains("keccak256"), "{about:?}");
}

async fn count(client: &Client, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM dalp_indexed.{table}");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

/// Waits until no contract has undecoded logs.
async fn decoded(client: &Client) {
    let left = "contract WHERE undecoded_to IS NOT NULL";
    until("all stored logs to be decoded", || async { count(client, left).await == 0 }).await;
}

/// A contract that is named later has the rows of its past, from the stored raw logs. A compiler's artefact tells its events.
#[test]
fn a_contract_that_is_added_later_gets_its_past() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let token = Deployed { burst: deployed.tokens[0], ..deployed.clone() };
        let (to, amount) = (Address::repeat_byte(1), U256::from(7));
        for _ in 0..3 {
            send(anvil.rpc(), &token, AssetToken::mintCall { to, amount }).await;
            anvil.rpc().mine(400, 3_600).await.unwrap();
        }
        let plain = Site::new(&database, &anvil.http_url());
        let service = Service::start(&plain.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;

        let first = file("event MintCompleted(address indexed sender, address indexed to, uint256 indexed amount)");
        let site = |abi: &NamedTempFile| Site { more: section("asset", abi, &deployed.tokens), ..plain.clone() };
        let service = Service::start(&site(&first).config()).await.unwrap();
        let status = service.status();
        until("ready", || async { status.borrow()[0].ready }).await;
        assert_eq!(status.borrow()[0].undecoded_contracts, 0);
        let client = database.superuser().await;
        assert_eq!(count(&client, "asset_mint_completed").await, 3);
        send(anvil.rpc(), &token, AssetToken::mintCall { to, amount }).await;
        caught_up(&database, &anvil).await;
        assert_eq!(count(&client, "asset_mint_completed").await, 4);
        service.stop().await;
        said(&site(&first), &["verify"], 0);

        // With more events, the stored logs are decoded again.
        let abi = file(ASSET_TOKEN);
        let whole = site(&abi);
        let service = Service::start(&whole.config()).await.unwrap();
        let status = service.status();
        until("ready", || async { status.borrow()[0].ready }).await;
        assert_eq!((count(&client, "asset_mint_completed").await, count(&client, "asset_transfer").await), (4, 4));
        while_blocks_come_and_go(&client, &whole, &anvil, &token).await;
        caught_up(&database, &anvil).await;
        service.stop().await;
        said(&whole, &["verify"], 0);
        said(&whole, &["redecode", "--kind", "fund"], 1);

        // Rows whose raw logs retention has taken stay as they are.
        let retired = "UPDATE dalp_indexed.retention_floor SET floor = (SELECT max(block_time) FROM dalp_indexed.logs), moves = moves + 1 \
                       WHERE table_name = 'logs'; \
                       DELETE FROM dalp_indexed.logs USING dalp_indexed.retention_floor WHERE table_name = 'logs' AND block_time < floor";
        client.batch_execute(retired).await.unwrap();
        let before = count(&client, "asset_transfer").await;
        said(&whole, &["redecode", "--kind", "asset"], 0);
        let service = Service::start(&whole.config()).await.unwrap();
        decoded(&client).await;
        service.stop().await;
        assert!(before > 1 && count(&client, "asset_transfer").await == before);
    });
}

/// Whatever is lost, doubled or orphaned meanwhile.
async fn while_blocks_come_and_go(client: &Client, site: &Site, anvil: &dalp_fixtures::Anvil, token: &Deployed) {
    client.batch_execute("DELETE FROM dalp_indexed.asset_transfer").await.unwrap();
    for amount in 0..6 {
        assert!(said(site, &["redecode", "--kind", "asset"], 0).contains("2 contracts"));
        let (to, amount) = (Address::repeat_byte(2), U256::from(amount));
        send(anvil.rpc(), token, AssetToken::mintCall { to, amount }).await;
        anvil.rpc().reorg(1).await.unwrap();
        send(anvil.rpc(), token, AssetToken::mintCall { to, amount }).await;
    }
    decoded(client).await;
}

/// What is configured in vain is said before anything is written.
#[test]
fn contracts_that_cannot_be_indexed_are_explained() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let site = Site::new(&database, &anvil.http_url());
        let one = [Address::repeat_byte(1)];
        let with = |more: String| Site { more, ..site.clone() };
        for (abi, why) in [
            ("[]", "it holds no event"),
            ("event A(uint8 indexed a, uint8 b)\nevent A(uint8 a, uint8 indexed b)", "cannot be told apart"),
            ("{\"abi\": 7}", "it is neither an array of items nor an artefact"),
        ] {
            let abi = file(abi);
            let told = said(&with(section("x", &abi, &one)), &["config", "check"], 2);
            assert!(told.contains("contracts.x.abi") && told.contains(why), "{told}");
        }
        let abi = file("event A(uint8 a)");
        let chain = format!("{}chain = \"mainnet\"\n", section("x", &abi, &one));
        let told = said(&with(chain), &["config", "check"], 2);
        assert!(told.contains("there is no chain of the name mainnet"), "{told}");
        let twin = section("erc20", &file("event Transfer(uint8 a)"), &one);
        let told = said(&with(twin), &["config", "check"], 2);
        assert!(told.contains("contracts.erc20"), "{told}");
        let indexes = format!("{}[indexes]\nx_a = [\"nothing\"]\n", section("x", &abi, &one));
        let told = said(&with(indexes), &["config", "check"], 2);
        assert!(told.contains("indexes.x_a") && told.contains("the columns are block_time"), "{told}");

        // A table of that name, made from another ABI.
        let service = Service::start(&with(section("x", &abi, &one)).config()).await.unwrap();
        service.stop().await;
        let other = file("event A(string a)");
        let Err(error) = Service::start(&with(section("x", &other, &one)).config()).await else {
            panic!("rows of other columns would be refused one by one")
        };
        let told = error.to_string();
        assert!(told.contains("\"dalp_indexed\".\"x_a\" has the column a smallint NOT NULL"), "{told}");
        assert!(told.contains("Put the earlier ABI first"), "{told}");
        // Both together are two tables.
        let both =
            format!("[contracts.x]\nabi = [{:?}, {:?}]\naddresses = [\"{:?}\"]\n", abi.path(), other.path(), one[0]);
        Service::start(&with(both).config()).await.unwrap().stop().await;
        let client = database.superuser().await;
        let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'p' AND relname ~ '^x_a'";
        assert_eq!(rows(&client, tables).await, ["(2)"]);
    });
}
