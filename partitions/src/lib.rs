//! Time-range partitions of any table: decides which leaves must exist, and makes them without blocking other sessions.
//!
//! A managed table is partitioned twice: `LIST (key)`, one *sub-parent* per key, then `RANGE (time)`, the *leaves*. [`ensure`]
//! reads the catalog, [`plan`]s and applies the plan. The plan is pure and leaves no choice open; the time of day is an argument.
//! The catalog is the truth: bounds are read from it, names are labels.
//!
//! Secondary indexes may stand on the leaves alone ([`Table::leaf_indexes`]): a leaf for old times is made bare and loaded, then
//! [`build`] indexes it. This costs about half of keeping the indexes while loading. [`strip`] prepares a leaf with indexes for a load.
//!
//! This crate never does the following: create a DEFAULT partition; take ACCESS EXCLUSIVE on a partitioned table; use `CREATE
//! TABLE ... PARTITION OF`; touch two parents in one transaction; wait for a lock longer than 0.2 s at a time.
//!
//! A [`Manager`] is the short interface for one table; [`install`] makes its registry. The modules stand on floors, and each
//! floor uses only earlier ones: `pure`, `pg`, [`archive`], `leaves`, `registry`, `moves`, `manager`.

pub mod archive;
mod error;
mod leaves;
mod manager;
mod moves;
mod pg;
mod pure;
mod registry;

pub use archive::{Archive, ArchiveError, Identity, Listing, Manifest, Probed, ServerIdentity, Subject};
pub use error::Error;
pub use leaves::analyze::{ANALYZER_KEY, Analyzed, analyze, is_analyze_due};
pub use leaves::audit::audit;
pub use leaves::catalog::{read, read_leaf};
pub use leaves::create::{BATCH, LANE_KEY, Report, ensure, extend};
pub use leaves::doctor::{Limits, doctor_server, doctor_table};
pub use leaves::index::{INDEXER_KEYS, Indexed, build, strip};
pub use leaves::shape::{nested, unfit};
pub use leaves::sizes::sizes;
pub use manager::Manager;
pub use moves::exclusive::RETIRE_KEY;
pub use moves::hold::{add_hold, release_hold};
pub use moves::restore::{Request, Restored, restore, restore_into};
pub use moves::retire::{Outcome, note_failure, retire};
pub use moves::undo::{Undone, undo};
pub use moves::unseal::unseal;
pub use moves::worker::{Done, statements};
pub use pure::advice::{Advice, advise};
pub use pure::bounds::Bounds;
pub use pure::finding::{Finding, Severity};
pub use pure::forecast::{Size, forecast, growth};
pub use pure::hindrance::Hindrance;
pub use pure::hindrances::hindrances;
pub use pure::hold::{Hold, Scope};
pub use pure::interval::Interval;
pub use pure::leaf::{Entry, Inventory, Presence, State};
pub use pure::lifecycle::{Act, Move, Moves, Obstacle, Switches, Terms, is_due, plan_moves, way};
pub use pure::plan::{Catalog, Index, Leaf, Need, Plan, PlanError, Step, plan};
pub use pure::policy::Policy;
pub use pure::registry::Registry;
pub use pure::retention::{Action, Reference, Retention};
pub use pure::sizing::{Choice, LeafSize, Target, rate};
pub use pure::table::Table;
pub use pure::time::{Edge, Time};
pub use registry::activity::{Deed, activity_table, ensure_activity};
pub use registry::claim::{adopt, look, set_aside};
pub use registry::holds::{all_holds, holds};
pub use registry::install::install;
pub use registry::inventory::{is_begun, read_inventory};
pub use registry::newest::newest_rows;
pub use registry::survey::{Archived, Survey, Verified, missing, note_verified, repair, survey, verified, verify};
