//! Obstacles for the manager, against a real PostgreSQL.

use dalp_partitions::{Finding, Limits, Severity, doctor_server, doctor_table};

use super::*;

async fn found(client: &Client, tables: &[&Table], limits: Limits) -> Vec<(String, Severity, String)> {
    let mut findings: Vec<Finding> = doctor_server(client, &limits).await.unwrap();
    for table in tables {
        findings.extend(doctor_table(client, table, &limits).await.unwrap());
    }
    // Sessions have numbers.
    let object = |object: &str| object.split(' ').next().unwrap_or_default().to_owned();
    findings.into_iter().map(|finding| (object(&finding.object), finding.severity, finding.what)).collect()
}

fn expect(found: &[(String, Severity, String)], expected: &[(&str, Severity, &str)]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((object, severity, what), (of, grave, words)) in found.iter().zip(expected) {
        assert!(object == of && severity == grave && what.contains(words), "{object} {severity}: {what}, not {words}");
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_told_and_nothing_else() {
    use Severity::{Error, Info, Warning};
    let (database, admin) = database().await;
    let mut client = as_role(&database, "dalp_partitioner").await;
    make(&mut client, &logs(), &days(4)).await.unwrap();
    let (logs, transfers) = (logs(), transfers());
    let both = [&logs, &transfers];
    let hidden = ("server", Info, "does not see the sessions of other roles");
    expect(&found(&client, &both, Limits::default()).await, &[hidden]);
    admin.batch_execute("GRANT pg_read_all_stats TO dalp_partitioner").await.unwrap();
    expect(&found(&client, &both, Limits::default()).await, &[]);

    let other = database.connect().await;
    other.batch_execute("BEGIN; SELECT count(*) FROM dalp_indexed.logs").await.unwrap();
    let strict = Limits { transaction: Duration::ZERO, leaves: 3 };
    let idle = ("session", Warning, "(idle in transaction)");
    expect(&found(&client, &both, strict).await, &[idle, ("dalp_indexed.logs", Warning, "a parent has 4 leaves")]);
    expect(&found(&client, &both, Limits::default()).await, &[]);
    other.batch_execute("ROLLBACK").await.unwrap();

    let bad = "CREATE PUBLICATION feed FOR TABLE dalp_indexed.logs; CREATE PUBLICATION rooted FOR TABLE dalp_indexed.logs \
                   WITH (publish_via_partition_root = true); \
               ALTER TABLE dalp_indexed.erc20_transfer OWNER TO CURRENT_USER; \
               REVOKE CREATE ON SCHEMA dalp_indexed FROM dalp_partitioner";
    for sql in bad.split("; ") {
        admin.batch_execute(sql).await.unwrap();
    }
    let nothing = Table::new("dalp_indexed", "nothing", "at");
    let expected = [
        ("dalp_indexed.logs", Error, "no table may be created"),
        ("dalp_indexed.logs", Warning, "publication feed names its leaves"),
        ("dalp_indexed.erc20_transfer", Error, "another role owns it"),
        ("dalp_indexed.erc20_transfer", Error, "no table may be created"),
        ("dalp_indexed.nothing", Error, "no such partitioned table"),
    ];
    expect(&found(&client, &[&logs, &transfers, &nothing], Limits::default()).await, &expected);
}
