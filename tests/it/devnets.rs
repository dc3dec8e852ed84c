//! Devnets: detected, and reported once, with the remedy.

use std::collections::BTreeSet;

use dalp_fixtures::faulty::{Fault, Rule};
use dalp_fixtures::{AnvilOptions, FaultyNode, deploy};
use dalp_tests::indexer::{Running, Site};
use dalp_tests::stage::{anvil, anvil_with, stage, until};

use crate::{burst, caught_up};

/// Lines of the log above information, without their times.
fn warnings(running: &Running) -> Vec<String> {
    let log = running.log();
    let lines = log.lines().filter_map(|line| line.split_once(" WARN ").or_else(|| line.split_once("ERROR ")));
    lines.map(|(_, message)| message.trim().to_owned()).collect()
}

fn count(running: &Running, words: &str) -> usize {
    warnings(running).iter().filter(|line| line.contains(words)).count()
}

#[test]
fn a_devnet_is_told_once_with_the_setting_that_fits_it() {
    dalp_tests::run(async {
        let anvil = anvil().await;
        let deployed = deploy(anvil.rpc()).await.unwrap();
        let unnamed = FaultyNode::start(&[anvil.http_url()]).await.unwrap();
        unnamed.inject(Rule::new(Fault::NoMethod).on("web3_clientVersion"));
        let made_final = unnamed.inject(Rule::new(Fault::FinalAtOnce));
        let (named, at_once) = ("the node is a devnet (anvil", "the node calls each new block final at once");
        // By its name; by its final blocks.
        for (url, words, other) in [(anvil.http_url(), named, at_once), (unnamed.url(), at_once, named)] {
            let database = stage().await.database().await;
            let running = Site::new(&database, &url).with("finality = \"tag\"").spawn();
            let mut seed = 0;
            until("it to be told", || {
                seed += 1;
                let (rpc, deployed, seed) = (anvil.rpc(), &deployed, seed);
                let told = count(&running, words) > 0;
                async move {
                    burst(rpc, deployed, 1, seed).await;
                    told
                }
            })
            .await;
            for seed in 0..5 {
                burst(anvil.rpc(), &deployed, 1, seed).await;
                caught_up(&database, &anvil).await;
            }
            assert_eq!((count(&running, words), count(&running, other)), (1, 0), "{}", running.log());
            assert!(warnings(&running).iter().any(|line| line.contains("chains.it.finality = \"never\"")));
        }
        assert!(made_final.count() > 0);
    });
}

#[test]
fn a_devnet_that_is_started_anew_under_a_running_indexer_is_one_line_with_the_command_that_helps() {
    dalp_tests::run(async {
        let database = stage().await.database().await;
        let first =
            anvil_with(AnvilOptions { genesis_timestamp: Some(1_700_000_000), ..AnvilOptions::default() }).await;
        let front = FaultyNode::start(&[first.http_url()]).await.unwrap();
        let deployed = deploy(first.rpc()).await.unwrap();
        burst(first.rpc(), &deployed, 3, 1).await;
        let running = Site::new(&database, &front.url()).spawn();
        caught_up(&database, &first).await;

        let options = AnvilOptions { port: Some(first.port()), ..AnvilOptions::default() };
        drop(first);
        let second = anvil_with(options).await;
        let deployed = deploy(second.rpc()).await.unwrap();
        let asked = front.inject(Rule::new(Fault::Delay { ms: 0 }).on("eth_chainId"));
        let help = "run --reset-on-chain-change";
        until("the command to be told", || async { count(&running, help) > 0 }).await;
        let before = asked.matched();
        until("the node to be asked for its chain again and again", || async {
            burst(second.rpc(), &deployed, 1, 2).await;
            asked.matched() >= before + 5
        })
        .await;
        let told = warnings(&running);
        assert_eq!(count(&running, help), 1, "{told:#?}");
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "something is repeated: {told:#?}");
        assert!(count(&running, "dalp-indexer dev --fresh") == 1 && told.len() <= 3, "{told:#?}");
    });
}
