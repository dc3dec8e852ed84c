//! Views for people: the values of the tables, readable; exact amounts; and plans that read only the leaves of a query's times.

use alloy::primitives::{Address, B256, U256, keccak256};
use dalp_fixtures::contracts::AssetToken;
use dalp_fixtures::faulty::{Fault, FaultyNode, Rule};
use dalp_fixtures::{Anvil, Deployed, deploy};
use dalp_indexer::service::Service;
use dalp_tests::indexer::Site;
use dalp_tests::stage::{READER, anvil, stage, until, until_shown};
use dalp_tests::traffic::{caught_up, send};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::contracts::{file, rows, section, text, word};
use crate::{emit, transfer};

/// Three months of transfers of one chain, ten an hour, by hundred tokens; and the leaves of another chain.
const TRANSFERS: &str = "
    INSERT INTO dalp_indexed.chain_state (chain_id, name, genesis_hash, start_block, tail_number, tail_time)
    SELECT n, 'it', decode(repeat('01', 32), 'hex'), 0, -1, '2024-02-05Z' FROM generate_series(1, 2) AS n;
    SET ROLE dalp_partitioner;
    CREATE TABLE dalp_indexed.t1 PARTITION OF dalp_indexed.erc20_transfer FOR VALUES IN (1) PARTITION BY RANGE (block_time);
    CREATE TABLE dalp_indexed.t2 PARTITION OF dalp_indexed.erc20_transfer FOR VALUES IN (2) PARTITION BY RANGE (block_time);
    CREATE TABLE dalp_indexed.t1_january PARTITION OF dalp_indexed.t1 FOR VALUES FROM ('2024-01-01Z') TO ('2024-02-01Z');
    CREATE TABLE dalp_indexed.t1_february PARTITION OF dalp_indexed.t1 FOR VALUES FROM ('2024-02-01Z') TO ('2024-03-01Z');
    CREATE TABLE dalp_indexed.t1_march PARTITION OF dalp_indexed.t1 FOR VALUES FROM ('2024-03-01Z') TO ('2024-04-01Z');
    CREATE TABLE dalp_indexed.t2_february PARTITION OF dalp_indexed.t2 FOR VALUES FROM ('2024-02-01Z') TO ('2024-03-01Z');
    RESET ROLE;
    INSERT INTO dalp_indexed.erc20_transfer
    SELECT 1, '2024-01-01Z'::timestamptz + n * interval '6 min', n, 0, a, a, a, n, decode(repeat('02', 32), 'hex')
    FROM generate_series(0, 21000) AS n, LATERAL (SELECT decode(lpad((n % 100)::text, 40, '0'), 'hex') AS a) AS address;
    INSERT INTO dalp_indexed.token (chain_id, address, decimals, read_at_block)
    SELECT 1, decode(lpad(n::text, 40, '0'), 'hex'), 18, 1 FROM generate_series(0, 99) AS n;
    ANALYZE";

/// The one value of a query, as text.
async fn one(client: &Client, sql: &str) -> String {
    let found = rows(client, sql).await;
    assert_eq!(found.len(), 1, "{sql}: {found:?}");
    found[0].trim_start_matches('(').trim_end_matches(')').to_owned()
}

async fn plan(client: &Client, sql: &str) -> String {
    let plan = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    plan.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_view_reads_the_leaves_of_its_times_and_keeps_their_order() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        database.superuser().await.batch_execute(TRANSFERS).await.unwrap();
        let client = database.client(READER).await;
        for view in ["dalp_views.erc20_transfer", "dalp_views.erc20_transfer_final"] {
            let literal = format!(
                "EXPLAIN SELECT * FROM {view} WHERE chain_id = 1 AND block_time >= '2024-02-05Z' AND block_time < '2024-02-06Z'"
            );
            let found = plan(&client, &literal).await;
            assert!(found.contains("t1_february") && !found.contains("t1_january"), "{found}");
            assert!(!found.contains("t1_march") && !found.contains("t2_"), "{found}");

            let prepare = format!(
                "SET plan_cache_mode = force_generic_plan; DEALLOCATE ALL; PREPARE of_day (timestamptz, timestamptz) AS \
                 SELECT sum(value_scaled) FROM {view} WHERE chain_id = 1 AND block_time >= $1 AND block_time < $2"
            );
            client.batch_execute(&prepare).await.unwrap();
            let found = plan(&client, "EXPLAIN EXECUTE of_day ('2024-02-05Z', '2024-02-06Z')").await;
            assert!(found.contains("Subplans Removed: 2") && found.contains("t1_february"), "{found}");

            let joined = format!(
                "EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT sum(v.value_scaled) FROM dalp_indexed.chain_state AS c \
                 JOIN {view} AS v ON v.block_time > c.tail_time - interval '1 hour' AND v.block_time <= c.tail_time \
                 WHERE c.chain_id = 1 AND v.chain_id = 1"
            );
            let found = plan(&client, &joined).await;
            let skipped = |leaf: &str| found.lines().any(|line| line.contains(leaf) && line.contains("never executed"));
            assert!(skipped("t1_january") && skipped("t1_march") && !skipped("t1_february"), "{found}");

            let ordered = format!(
                "EXPLAIN SELECT block_time, value_scaled FROM {view} WHERE chain_id = 1 ORDER BY block_time DESC LIMIT 10"
            );
            let found = plan(&client, &ordered).await;
            assert!(!found.contains("Sort") && found.contains("Backward"), "{found}");
            let without = format!("EXPLAIN SELECT value FROM {view} WHERE chain_id = 1");
            let found = plan(&client, &without).await;
            assert!(!found.contains("on token"), "no amount is scaled: {found}");
        }
    });
}

#[test]
fn a_final_view_ends_at_the_final_block_and_each_view_begins_at_the_floor() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let client = database.superuser().await;
        client.batch_execute(TRANSFERS).await.unwrap();
        let ends =
            async |view: &str| one(&client, &format!("SELECT min(value), max(value) FROM dalp_views.{view}")).await;
        assert_eq!(ends("erc20_transfer").await, "0,21000");
        assert_eq!(ends("erc20_transfer_final").await, ",", "nothing is final yet");
        client.batch_execute("UPDATE dalp_indexed.chain_state SET finalized = 777 WHERE chain_id = 1").await.unwrap();
        assert_eq!(ends("erc20_transfer_final").await, "0,777");
        let floor = "UPDATE dalp_indexed.retention_floor SET floor = '2024-01-01Z'::timestamptz + interval '300 min' \
                     WHERE table_name = 'erc20_transfer' AND key = 1";
        client.batch_execute(floor).await.unwrap();
        assert_eq!([ends("erc20_transfer").await, ends("erc20_transfer_final").await], ["50,21000", "50,777"]);
    });
}

/// What a client of any kind can hold is what a contract emitted.
const ABI: &str = "event Issued(address indexed to, uint256 amount, uint64 value, bool open, string note, (bytes4 tag, int64 delta)[] terms)
event Final(uint256 price)
event Silent(uint256 price)";

#[test]
fn a_view_shows_the_values_of_its_table_to_readers() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let issued = keccak256("Issued(address,uint256,uint64,bool,string,(bytes4,int64)[])");
        let to = Address::repeat_byte(0xAB);
        for amount in [U256::MAX, U256::ZERO] {
            let words = [word(7), word(1), word(160), word(192), word(0), word(0)].concat();
            let data = [&amount.to_be_bytes::<32>()[..], &words].concat();
            emit(anvil.rpc(), &deployed, &[issued, to.into_word()], &data).await;
        }
        let abi = file(ABI);
        let site = Site::new(&database, &anvil.http_url());
        let site = Site { more: section("bond", &abi, &[deployed.burst]), ..site };
        let service = Service::start(&site.config()).await.unwrap();
        caught_up(&database, &anvil).await;
        service.stop().await;

        values_are_readable(&database.client(READER).await, deployed.burst).await;

        // A view that is lost, and one of an earlier version, are made anew; the others are not touched.
        let changes = "DROP VIEW dalp_views.bond_issued_final; COMMENT ON VIEW dalp_views.bond_silent IS 'Earlier.'; \
                       COMMENT ON COLUMN dalp_views.bond_issued.note IS 'Untouched.'";
        let client = database.superuser().await;
        client.batch_execute(changes).await.unwrap();
        Service::start(&site.config()).await.unwrap().stop().await;
        let made = "SELECT string_agg(relname || ' ' || relowner::regrole, ' ' ORDER BY relname) FROM pg_class \
                    WHERE relnamespace = 'dalp_views'::regnamespace AND relname ~ 'bond' \
                      AND obj_description(oid, 'pg_class') ~ ' Definition [0-9a-f]{8}[.]$'";
        let hash = &alloy::hex::encode(keccak256("bond_final"))[..8];
        let expected = [
            &format!("bond_final_{hash}"),
            "bond_final_final",
            "bond_issued",
            "bond_issued_final",
            "bond_silent",
            "bond_silent_final",
        ];
        let mut expected = expected.map(|name| format!("{name} dalp_partitioner"));
        expected.sort();
        assert_eq!(one(&client, made).await, format!("\"{}\"", expected.join(" ")));
        let untouched = "SELECT count(*) FROM pg_description WHERE description = 'Untouched.'";
        assert_eq!(one(&client, untouched).await, "1");
    });
}

async fn values_are_readable(reader: &Client, emitter: Address) {
    let emitter = format!("{:?}", emitter).to_lowercase();
    let values = "SELECT address, to_address, amount, amount_text, amount_scaled, value, value_text, open, note, note_bytes, terms \
                  FROM dalp_views.bond_issued ORDER BY block_number";
    let to = "0x".to_owned() + &"ab".repeat(20);
    let most = U256::MAX;
    assert_eq!(
        rows(reader, values).await,
        [format!("({emitter},{to},{most},{most},,7,7,t,\"\",,[])"), format!("({emitter},{to},0,0,,7,7,t,\"\",,[])"),]
    );
    let same = "SELECT count(*) FROM dalp_views.bond_issued AS v JOIN dalp_indexed.bond_issued AS t \
                USING (chain_id, block_time, block_number, log_index) \
                WHERE dalp_indexed.hex(v.tx_hash) = t.tx_hash AND dalp_indexed.hex(v.address) = t.address AND v.amount = t.amount";
    assert_eq!(one(reader, same).await, "2");
    assert_eq!(
        one(reader, "SELECT pg_typeof(block_time) FROM dalp_views.bond_issued LIMIT 1").await,
        "\"timestamp with time zone\""
    );
    let refused = reader.batch_execute("CREATE VIEW dalp_views.mine AS SELECT 1").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}

/// Amounts with every number of decimals that matters.
#[test]
fn amounts_in_whole_tokens_are_exact() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let client = database.superuser().await;
        client.batch_execute(TRANSFERS).await.unwrap();
        let most = U256::MAX.to_string();
        let point = |places: usize| format!("{}.{}", &most[..78 - places], &most[78 - places..]);
        client.batch_execute("TRUNCATE dalp_indexed.token, dalp_indexed.erc20_transfer").await.unwrap();
        for (at, decimals) in ["18", "0", "77", "NULL"].into_iter().enumerate() {
            let sql = format!(
                "INSERT INTO dalp_indexed.erc20_transfer SELECT 1, '2024-02-01Z', {at}, 0, a, a, a, {most}, decode(repeat('02', 32), 'hex') \
                 FROM (SELECT decode(repeat('0{at}', 20), 'hex') AS a) AS address; \
                 INSERT INTO dalp_indexed.token (chain_id, address, decimals, read_at_block) SELECT 1, decode(repeat('0{at}', 20), 'hex'), {decimals}, 1"
            );
            client.batch_execute(&sql).await.unwrap();
        }
        let reader = database.client(READER).await;
        let sql =
            "SELECT value_scaled FROM dalp_views.erc20_transfer WHERE value_text = value::text ORDER BY block_number";
        let expected = [point(18), most.clone(), point(77), String::new()].map(|value| format!("({value})"));
        assert_eq!(rows(&reader, sql).await, expected);
        let back = "SELECT bool_and(value_scaled * 10::numeric ^ decimals = value) FROM dalp_views.erc20_transfer AS v \
                    JOIN dalp_indexed.token AS k ON dalp_indexed.hex(k.address) = v.token WHERE decimals IS NOT NULL";
        assert_eq!(one(&reader, back).await, "t");
        let pasted = "SELECT block_number FROM dalp_views.erc20_transfer WHERE token = '0x0101010101010101010101010101010101010101'";
        assert_eq!(one(&reader, pasted).await, "1");
    });
}

/// The code of a contract that answers each of these selectors with these bytes, and reverts otherwise.
fn answering(answers: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let branches = 6 + 11 * answers.len() + 4;
    let mut data = branches + 16 * answers.len();
    // The selector: CALLDATALOAD, shifted right.
    let mut code = vec![0x60, 0, 0x35, 0x60, 0xe0, 0x1c];
    for (at, (selector, _)) in answers.iter().enumerate() {
        code.extend([&[0x80, 0x63][..], &selector.to_be_bytes(), &[0x14, 0x61]].concat());
        code.extend(((branches + 16 * at) as u16).to_be_bytes());
        code.push(0x57);
    }
    code.extend([0x60, 0, 0x80, 0xfd]);
    for (_, answer) in answers {
        let length = (answer.len() as u16).to_be_bytes();
        code.extend([&[0x5b, 0x61][..], &length, &[0x61], &(data as u16).to_be_bytes(), &[0x60, 0, 0x39]].concat());
        code.extend([&[0x61][..], &length, &[0x60, 0, 0xf3]].concat());
        data += answer.len();
    }
    code.extend(answers.iter().flat_map(|(_, answer)| answer.clone()));
    code
}

const NAME: u32 = 0x06fd_de03;
const SYMBOL: u32 = 0x95d8_9b41;
const DECIMALS: u32 = 0x313c_e567;

/// A text as a contract returns a `string`.
fn string(of: &[u8]) -> Vec<u8> {
    [word(32).to_vec(), text(of)].concat()
}

async fn set_code(anvil: &Anvil, address: Address, code: &serde_json::Value) {
    let _: serde_json::Value = anvil.rpc().call("anvil_setCode", serde_json::json!([address, code])).await.unwrap();
}

/// A contract at `address` with this code, after a transfer of `amount` that it emitted.
async fn token(anvil: &Anvil, deployed: &Deployed, address: u8, amount: U256, code: &[u8]) -> Address {
    let address = Address::repeat_byte(address);
    let burst: serde_json::Value =
        anvil.rpc().call("eth_getCode", serde_json::json!([deployed.burst, "latest"])).await.unwrap();
    set_code(anvil, address, &burst).await;
    let emitter = Deployed { burst: address, ..deployed.clone() };
    let topics = transfer(Address::ZERO, Address::repeat_byte(9));
    emit(anvil.rpc(), &emitter, &topics, B256::from(amount).as_slice()).await;
    set_code(anvil, address, &serde_json::json!(alloy::hex::encode_prefixed(code))).await;
    address
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// Waits until this number of contracts has a row.
async fn read(client: &Client, contracts: i64) {
    until_shown("the metadata of tokens", || async {
        let found = count(client, "SELECT count(*) FROM dalp_indexed.token").await;
        (found == contracts).then_some(()).ok_or_else(|| format!("{found} of {contracts}"))
    })
    .await;
}

#[test]
fn each_token_is_asked_once_whatever_it_answers() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let mut short = b"MKR".to_vec();
        short.resize(32, 0);
        let most = U256::MAX;
        let early = [(NAME, short.clone()), (SYMBOL, short), (DECIMALS, word(18).to_vec())];
        token(&anvil, &deployed, 1, most, &answering(&early)).await;
        let whole = [(NAME, string(b"Whole")), (SYMBOL, string("\u{20bf}".as_bytes())), (DECIMALS, word(0).to_vec())];
        token(&anvil, &deployed, 2, most, &answering(&whole)).await;
        let nonsense = [(NAME, string(b"a\0b")), (SYMBOL, vec![1, 2, 3]), (DECIMALS, word(78).to_vec())];
        token(&anvil, &deployed, 3, most, &answering(&nonsense)).await;
        token(&anvil, &deployed, 4, most, &answering(&[])).await;
        // INVALID.
        token(&anvil, &deployed, 5, most, &[0xfe]).await;
        let sample = Deployed { burst: deployed.tokens[0], ..deployed.clone() };
        send(anvil.rpc(), &sample, AssetToken::mintCall { to: Address::repeat_byte(9), amount: U256::from(5) }).await;

        let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let asked = node.inject(Rule::new(Fault::Null).on("eth_call").times(0));
        // The second sample contract is configured, and has not transferred anything; there is nothing at the other address.
        let abi = file("event Transfer(address indexed from, address indexed to, uint256 value)");
        let site = Site::new(&database, &node.url());
        let nobody = Address::repeat_byte(0x77);
        let site = Site { more: section("fund", &abi, &[deployed.tokens[1], nobody]), ..site };
        let service = Service::start(&site.config()).await.unwrap();
        let client = database.superuser().await;
        read(&client, 7).await;
        until("the contract without code to be asked", || async { asked.matched() == 3 * 8 }).await;
        let stored = "SELECT name, symbol, decimals, read_at_block > 0 FROM dalp_indexed.token ORDER BY address";
        let mut expected =
            ["(MKR,MKR,18,t)", "(Whole,\u{20bf},0,t)", "(,,,t)", "(,,,t)", "(,,,t)"].map(str::to_owned).to_vec();
        let samples = ["(\"Sample Bond\",SBND,18,t)", "(\"Sample Fund\",SFND,18,t)"].map(str::to_owned);
        let order = usize::from(deployed.tokens[0] > deployed.tokens[1]);
        expected.extend([samples[order].clone(), samples[1 - order].clone()]);
        assert_eq!(rows(&client, stored).await, expected);
        let digits = most.to_string();
        let scaled = "SELECT value_scaled FROM dalp_views.erc20_transfer ORDER BY block_number";
        let expected = [format!("({}.{})", &digits[..60], &digits[60..]), format!("({digits})")];
        let expected = [&expected[..], &["()", "()", "()", "(0.000000000000000005)"].map(str::to_owned)].concat();
        assert_eq!(rows(&client, scaled).await, expected);
        service.stop().await;

        // Another start asks only the contract without code, and a contract that is new.
        let service = Service::start(&site.config()).await.unwrap();
        token(&anvil, &deployed, 6, most, &answering(&whole)).await;
        caught_up(&database, &anvil).await;
        read(&client, 8).await;
        until("the contract without code to be asked again", || async { asked.matched() == 3 * 10 }).await;
        service.stop().await;
    });
}

/// The node refuses in two ways; the indexing does not wait, and there is one warning.
#[test]
fn a_node_that_does_not_answer_for_a_token_is_asked_again_later() {
    dalp_tests::run(async {
        let (database, anvil) = (stage().await.database().await, anvil().await);
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let code = answering(&[(DECIMALS, word(6).to_vec())]);
        token(&anvil, &deployed, 1, U256::from(7), &code).await;
        let node = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        let words = Fault::Refused { code: -32_603, message: "internal error".into() };
        let refused = node.inject(Rule::new(words).on("eth_call"));
        let mut indexer = Site::new(&database, &node.url()).spawn();
        caught_up(&database, &anvil).await;
        until("it to be asked again", || async { refused.count() >= 6 }).await;
        let client = database.superuser().await;
        // The rule that comes later strikes when the first one is off.
        let words = Fault::Refused { code: -32_000, message: "header not found".into() };
        let other = node.inject(Rule::new(words).on("eth_call").times(3));
        token(&anvil, &deployed, 2, U256::from(7), &code).await;
        caught_up(&database, &anvil).await;
        refused.off();
        read(&client, 2).await;
        assert_eq!(other.count(), 3);
        assert_eq!(count(&client, "SELECT count(*) FROM dalp_indexed.token WHERE decimals = 6").await, 2);
        let log = indexer.log();
        assert_eq!(
            log.matches("the metadata of tokens").count(),
            log.matches("internal error").count() + log.matches("works again").count(),
            "{log}"
        );
        assert_eq!(log.matches("internal error").count(), 1, "{log}");
        indexer.stop().await;
    });
}
