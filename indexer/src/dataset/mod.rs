//! The description of a table of chain rows. From one description follow COPY, DELETE and SELECT, the statements that make the
//! table, its retention floor, its settings, and its reading by `verify`. Pure.

mod column;
mod contracts;
pub mod copy;
mod create;
mod factory;
mod floors;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod kind;
mod list;
mod own;
mod place;
mod plan;
pub mod rows;
mod sorted;
mod sql;
mod table;
pub mod untyped;
mod view;

pub use self::column::{Column, KEY, Type};
pub use self::contracts::{Contract, Contracts, Directory, Emitters, Known};
pub use self::create::{Groups, retained};
pub use self::factory::Factory;
pub use self::floors::Floors;
pub use self::kind::tables;
pub use self::list::Datasets;
pub use self::place::Place;
pub use self::sorted::Sorted;
pub use self::sql::Statements;
pub use self::table::{Dataset, Decode, Event, Form, Refusal, Takes};
pub use self::view::{VIEWS, View};

#[cfg(test)]
mod tests;
