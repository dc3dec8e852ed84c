//! Time-range partitions of any table: which leaves must exist, and how to make them without disturbing anybody.
//!
//! A managed table is partitioned twice: `LIST (key)`, one *sub-parent* per key, then `RANGE (time)`, the *leaves*.
//! [`ensure`] looks at the catalog, [`plan`]s and applies. The plan is pure and has no choices left in it; the time of
//! day is an argument. The catalog is the truth: bounds are read from it, names are labels.
//!
//! Secondary indexes may stand on the leaves alone ([`Table::leaf_indexes`]): a leaf for old times is made bare, loaded,
//! and indexed by [`build`], which costs about half of keeping the indexes while loading.
//!
//! What this crate never does: create a DEFAULT partition; take ACCESS EXCLUSIVE on a partitioned table; use
//! `CREATE TABLE ... PARTITION OF`; touch two parents in one transaction; wait for a lock longer than a fifth of a
//! second at a time. It knows no chain and no event.

mod activity;
mod analyze;
mod apply;
pub mod archive;
mod audit;
mod blockers;
mod bounds;
mod catalog;
mod claim;
mod doctor;
mod error;
mod exclusive;
mod forecast;
mod hindrance;
mod hold;
mod index;
mod interval;
mod moves;
mod newest;
mod plan;
mod policy;
mod refit;
mod registry;
mod restore;
mod retire;
mod rule;
mod run;
mod seal;
mod session;
mod shape;
mod sizes;
mod sizing;
mod survey;
mod template;
mod time;
mod transition;
mod undo;

pub use activity::{Deed, activity_table, ensure_activity};
pub use analyze::{ANALYZER_KEY, Analyzed, analyze, is_analyze_due};
pub use apply::{BATCH, LANE_KEY, Report, ensure, extend};
pub use archive::{Archive, ArchiveError, Identity, Listing, Manifest, Probed, ServerIdentity, Subject};
pub use audit::{Finding, Severity, audit};
pub use bounds::Bounds;
pub use catalog::{Table, read, read_leaf};
pub use claim::{adopt, look, set_aside};
pub use doctor::{Limits, doctor_server, doctor_table};
pub use error::Error;
pub use exclusive::RETIRE_KEY;
pub use forecast::{Size, forecast, growth};
pub use hindrance::{Hindrance, hindrances};
pub use hold::{Hold, Scope, add_hold, all_holds, holds, release_hold};
pub use index::{INDEXER_KEY, Indexed, build};
pub use interval::Interval;
pub use moves::statements;
pub use newest::newest_rows;
pub use plan::{Catalog, Index, Leaf, Need, Plan, PlanError, Step, plan};
pub use policy::Policy;
pub use registry::is_begun;
pub use registry::{Entry, Inventory, Presence, State, read_inventory};
pub use restore::{Request, Restored, restore, restore_into};
pub use retire::{Act, Fate, Move, Moves, Obstacle, Reference, Retention, Switches, Terms, is_due, plan_moves, way};
pub use run::{Done, Outcome, note_failure, retire};
pub use shape::{nested, unfit};
pub use sizes::sizes;
pub use sizing::{Choice, LeafSize, Target, rate};
pub use survey::{Archived, Survey, Verified, missing, note_verified, repair, survey, verified, verify};
pub use time::{Edge, Time};
pub use undo::{Undone, undo, unseal};
