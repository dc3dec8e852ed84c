//! The commands of this program, in the messages of the partition manager.

use std::fmt;

use dalp_partitions::{Advice, advise};

/// Registers the names of the commands.
pub fn give() {
    advise(words);
}

fn words(advice: &Advice<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match advice {
        Advice::Plan => f.write_str("`dalp-indexer partitions plan`"),
        Advice::Apply => f.write_str("`dalp-indexer partitions apply`"),
        Advice::AllowMany => f.write_str("`dalp-indexer partitions apply --allow-many`"),
        Advice::Fill => f.write_str("`dalp-indexer partitions fill`"),
        Advice::Undo(None) => f.write_str("`dalp-indexer partitions undo`"),
        Advice::Undo(Some(leaf)) => write!(f, "`dalp-indexer partitions undo {leaf} --reason …`"),
        Advice::Restore(None) => f.write_str("`dalp-indexer partitions restore`"),
        Advice::Restore(Some(leaf)) => write!(f, "`dalp-indexer partitions restore {leaf} --reason …`"),
        Advice::ListArchives => f.write_str("`dalp-indexer partitions archive list`"),
        Advice::VerifyArchives => f.write_str("`dalp-indexer partitions archive verify`"),
        Advice::RepairArchives => f.write_str("`dalp-indexer partitions archive repair`"),
        Advice::AdoptArchives => f.write_str("`dalp-indexer partitions archive adopt`"),
        Advice::ListHolds => f.write_str("`dalp-indexer partitions hold list`"),
        Advice::Doctor => f.write_str("`dalp-indexer partitions doctor`"),
        Advice::MakeTable => f.write_str("run `dalp-indexer migrate`"),
        Advice::BecomeOwner => {
            f.write_str("SET ROLE to the partitioner role, or let `dalp-indexer migrate` grant it to this login")
        }
        Advice::MakeRecord(schema) => write!(
            f,
            "as the owner of {schema}, run make_activity('<partitioner role>', '<reader role>') of the registry's schema"
        ),
        Advice::ArchivePlace => f.write_str("partitions.archive_url"),
        Advice::Breaker => f.write_str("max_leaves_per_run or max_share_per_run"),
        Advice::Switch(name) => write!(f, "partitions.{name}"),
        Advice::AwaitIndexes => {
            f.write_str("the indexer makes them afterwards; if it does not, see its errors in the log")
        }
        _ => f.write_str("see `dalp-indexer partitions --help`"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use dalp_partitions::{ArchiveError, Error, Obstacle};

    use super::*;
    use crate::cli::Cli;

    const ALL: [Advice<'_>; 16] = [
        Advice::Plan,
        Advice::Apply,
        Advice::AllowMany,
        Advice::Fill,
        Advice::Undo(Some("logs_1")),
        Advice::Undo(None),
        Advice::Restore(Some("logs_1")),
        Advice::Restore(None),
        Advice::ListArchives,
        Advice::VerifyArchives,
        Advice::RepairArchives,
        Advice::AdoptArchives,
        Advice::ListHolds,
        Advice::Doctor,
        Advice::MakeTable,
        Advice::BecomeOwner,
    ];

    #[test]
    fn what_is_advised_is_a_command_of_ours() {
        give();
        for advice in ALL {
            let said = advice.to_string();
            let command = said.split('`').nth(1).unwrap_or_else(|| panic!("{advice:?} names no command: {said}"));
            let words = command.replace('…', "why");
            match Cli::try_parse_from(words.split_whitespace()) {
                Ok(_) => {}
                Err(error) => {
                    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingRequiredArgument};
                    let is_known = [MissingRequiredArgument, DisplayHelpOnMissingArgumentOrSubcommand];
                    assert!(is_known.contains(&error.kind()), "{command}: {error}");
                }
            }
        }
    }

    #[test]
    fn the_partition_managers_messages_name_our_commands() {
        give();
        let (leaf, why) = ("logs_1".to_owned(), "it is held".to_owned());
        for (said, expected) in [
            (
                Error::Refused { leaf: leaf.clone(), why: why.clone() }.to_string(),
                "logs_1 stays: it is held. Nothing was changed; `dalp-indexer partitions plan` shows the obstacle",
            ),
            (
                Error::TooLate { hold: 3, leaf, why }.to_string(),
                "hold 3 is valid, but it came too late for logs_1, because its detach had begun: it is held. \
                 `dalp-indexer partitions undo logs_1 --reason …` attaches it again; a held leaf is not dropped",
            ),
            (
                Error::NotManaged { table: "t".to_owned() }.to_string(),
                "t is not a partitioned table of the declared kind (LIST then RANGE, or only RANGE if flat) in this database: run \
                 `dalp-indexer migrate`, or correct the table's name",
            ),
            (
                Error::NotOwner { table: "t".to_owned(), message: "no".to_owned() }.to_string(),
                "t: no: partitions are made by the table's owner; SET ROLE to the partitioner role, or let `dalp-indexer migrate` grant it \
                 to this login",
            ),
            (
                Error::NoActivity { schema: "dalp_audit".to_owned() }.to_string(),
                "dalp_audit.activity does not exist, or does not belong to the partitioner, and no leaf is retired without a record: as \
                 the owner of dalp_audit, run make_activity('<partitioner role>', '<reader role>') of the registry's schema",
            ),
            (
                ArchiveError::Missing { object: "o".to_owned() }.to_string(),
                "o is missing from the archive: put a copy back, or archive its leaf again while the leaf exists; if only the manifest of \
                 an intact file is missing, `dalp-indexer partitions archive repair` writes it again",
            ),
            (
                Obstacle::Breaker { leaves: 9, share: 0.5 }.to_string(),
                "9 leaves with 50 % of the bytes would go at once, more than max_leaves_per_run or max_share_per_run allow: if this is \
                 intended, run `dalp-indexer partitions apply --allow-many`",
            ),
            (
                Obstacle::Taken.to_string(),
                "another user detached it from its table: it is left alone. Attach it again, by hand or with `dalp-indexer partitions \
                 undo`, and it follows the policy",
            ),
            (
                Obstacle::NoArchive.to_string(),
                "due for archiving, and no archive can be used: see partitions.archive_url, and `dalp-indexer partitions doctor`",
            ),
            (Obstacle::Off { switch: "drop" }.to_string(), "partitions.drop is false"),
        ] {
            assert_eq!(said, expected);
        }
    }
}
