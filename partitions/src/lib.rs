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

mod apply;
mod bounds;
mod catalog;
mod error;
mod index;
mod interval;
mod plan;
mod policy;

pub use apply::{BATCH, LANE_KEY, Report, ensure, extend};
pub use bounds::Bounds;
pub use catalog::{Table, read, read_leaf};
pub use error::Error;
pub use index::{INDEXER_KEY, Indexed, build};
pub use interval::Interval;
pub use plan::{Catalog, Index, Leaf, Need, Plan, PlanError, Step, plan};
pub use policy::Policy;
